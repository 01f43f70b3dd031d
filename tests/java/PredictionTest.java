import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertNotEquals;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import ai.paraedge.BranchRun;
import ai.paraedge.ParaEdgeException.Code;
import ai.paraedge.Prediction;
import ai.paraedge.Request;
import ai.paraedge.Session;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import org.junit.Test;

/** Real images through ExecuTorch: the same bits as in Python, whichever way they come in. */
public class PredictionTest {
    private static final int PIXELS = 784;
    private static final int OUTPUTS = 10;

    @Test
    public void predictionsAreThoseOfPythonToTheBit() throws IOException {
        byte[] images = Prepared.bytes("images.u8");
        float[] outputs = Prepared.floats("outputs.f32");
        float[] confidences = Prepared.floats("confidences.f32");
        assertEquals(1024, confidences.length);
        try (Session session = Prepared.session("images.paraedge", 2)) {
            for (int image = 0; image < confidences.length; image++) {
                Prediction found = session.run(Prepared.direct(images, image * PIXELS, PIXELS));
                assertArrayEquals(Prepared.rows(outputs, image, OUTPUTS), found.output(), 0);
                assertEquals(confidences[image], found.confidence(), 1e-6);
                assertTrue(found.isCalibrated());
            }
        }
    }

    @Test
    public void tensorsAreThoseOfPythonToTheBit() throws IOException {
        float[] tensors = Prepared.floats("tensors.f32");
        float[] outputs = Prepared.floats("vectors.f32");
        try (Session session = Prepared.session("tensors.paraedge", 2)) {
            for (int tensor = 0; tensor < tensors.length / PIXELS; tensor++) {
                Prediction found = session.run(Prepared.rows(tensors, tensor, PIXELS));
                assertArrayEquals(Prepared.rows(outputs, tensor, OUTPUTS), found.output(), 0);
                assertNull(found.label());
                assertTrue(Float.isNaN(found.confidence()));
                assertFalse(found.isCalibrated());
            }
        }
    }

    @Test
    public void everyWayInGivesTheSame() throws IOException {
        byte[] images = Prepared.bytes("images.u8");
        byte[] image = java.util.Arrays.copyOfRange(images, PIXELS, 2 * PIXELS);
        try (Session session = Prepared.session("images.paraedge", 2)) {
            float[] wanted = session.run(image).output();
            assertArrayEquals(wanted, session.run(ByteBuffer.wrap(images, PIXELS, PIXELS)).output(), 0);
            ByteBuffer direct = Prepared.direct(images, 0, 3 * PIXELS);
            direct.position(PIXELS).limit(2 * PIXELS);
            assertArrayEquals(wanted, session.run(direct).output(), 0);
            assertEquals("a request moves nothing", PIXELS, direct.position());
            assertArrayEquals(wanted, session.run(direct.slice().asReadOnlyBuffer()).output(), 0);
            assertThrows(IllegalArgumentException.class, () -> session.run(ByteBuffer.wrap(image).asReadOnlyBuffer()));
        }
    }

    @Test
    public void tensorsOfEveryKindOfBuffer() throws IOException {
        float[] tensor = Prepared.rows(Prepared.floats("tensors.f32"), 0, PIXELS);
        try (Session session = Prepared.session("tensors.paraedge", 2)) {
            float[] wanted = session.run(tensor).output();
            for (int shift = 0; shift < 4; shift++) { // a slice may begin anywhere
                ByteBuffer bytes = ByteBuffer.allocateDirect(shift + 4 * (PIXELS + 1));
                bytes.position(shift);
                FloatBuffer values = bytes.slice().order(ByteOrder.nativeOrder()).asFloatBuffer();
                values.put(1f);
                values.put(tensor);
                values.position(1);
                assertArrayEquals(wanted, session.run(values).output(), 0);
            }
            assertThrows(IllegalArgumentException.class, () -> session.run(FloatBuffer.wrap(tensor)));
            FloatBuffer swapped = ByteBuffer.allocateDirect(4 * PIXELS).order(ByteOrder.BIG_ENDIAN).asFloatBuffer();
            assertThrows(IllegalArgumentException.class, () -> session.run(swapped));
            Prepared.refused(Code.INPUT, "image", () -> session.run(new byte[PIXELS]));
        }
    }

    @Test
    public void whatDoesNotFitIsRefusedAndTheSessionGoesOn() throws IOException {
        byte[] image = java.util.Arrays.copyOf(Prepared.bytes("images.u8"), PIXELS);
        try (Session session = Prepared.session("images.paraedge", 2)) {
            int branches = session.numBranches();
            Prepared.refused(Code.INPUT, "has 0 bytes", () -> session.run(new byte[0]));
            Prepared.refused(Code.INPUT, "has 0 values", () -> session.run(new float[0]));
            Prepared.refused(Code.INPUT, "3", () -> session.run(new byte[3]));
            Prepared.refused(Code.INPUT, "3", () -> session.run(new float[3]));
            Prepared.refused(Code.INPUT, "99", () -> session.run(image, Request.DEFAULT.firstBranches(99)));
            Prepared.refused(Code.INPUT, "99", () -> session.run(image, Request.DEFAULT.branches(0, 99)));
            Prepared.refused(Code.INPUT, "branches", () -> session.run(image, Request.DEFAULT.branches()));
            assertThrows(NullPointerException.class, () -> session.run(image, null));
            assertEquals("image",
                    assertThrows(NullPointerException.class, () -> session.run((byte[]) null)).getMessage());
            assertEquals(branches, session.run(image).branchesUsed());
        }
    }

    @Test
    public void aPredictionAddsUpItsBranches() throws IOException {
        byte[] image = java.util.Arrays.copyOf(Prepared.bytes("images.u8"), PIXELS);
        try (Session session = Prepared.session("images.paraedge", 2)) {
            Prediction all = session.run(image);
            float[] sum = new float[OUTPUTS];
            for (float[] row : all.branchOutputs()) {
                for (int at = 0; at < OUTPUTS; at++) {
                    sum[at] += row[at];
                }
            }
            assertArrayEquals(sum, all.output(), 1e-4f);
            assertEquals(session.bundle().labels().get(all.labelIndex()), all.label());
            int[] top = all.top(OUTPUTS);
            assertEquals(all.labelIndex(), top[0]);
            for (int place = 1; place < OUTPUTS; place++) {
                assertTrue(all.output()[top[place - 1]] >= all.output()[top[place]]);
            }
            assertThrows(IllegalArgumentException.class, () -> all.top(0));
            assertThrows(IllegalArgumentException.class, () -> all.top(OUTPUTS + 1));
            assertTrue(all.deadlineMet());
            assertTrue(all.elapsedMs() > 0 && all.stemMs() > 0 && all.stemMs() < all.elapsedMs());
            for (BranchRun run : all.branches()) {
                assertEquals(BranchRun.State.USED, run.state());
                assertTrue(run.endMs() > run.startMs());
                assertTrue(run.thread() >= 0);
            }

            Prediction two = session.run(image, Request.DEFAULT.branches(0, 2));
            assertEquals(2, two.branchesUsed());
            assertArrayEquals(all.branchOutputs()[0], two.branchOutputs()[0], 0);
            assertArrayEquals(all.branchOutputs()[2], two.branchOutputs()[1], 0);
            assertEquals(2, two.branches().get(1).index());
        }
    }

    @Test
    public void budgets() throws IOException {
        byte[] image = java.util.Arrays.copyOf(Prepared.bytes("images.u8"), PIXELS);
        try (Session session = Prepared.session("images.paraedge", 2)) {
            int branches = session.numBranches();
            assertTrue(Double.isNaN(session.mandatoryMs()));
            Prediction unknown = session.run(image, Request.budgetMs(60_000));
            assertTrue(unknown.requestsToLearn() > 0);
            for (int request = 0; request < 40; request++) {
                session.run(image);
            }
            assertTrue(session.mandatoryMs() > 0);
            Prediction ample = session.run(image, Request.budgetMs(60_000));
            assertEquals(branches, ample.branchesUsed());
            assertTrue(ample.deadlineMet());
            assertEquals(0, ample.requestsToLearn());
            // System.nanoTime() is the core's clock: the same as a time, ahead and over.
            assertEquals(branches,
                    session.run(image, Request.deadlineNanos(System.nanoTime() + 60_000_000_000L)).branchesUsed());
            Prediction over = session.run(image, Request.deadlineNanos(System.nanoTime()));
            assertEquals(1, over.branchesUsed());
            assertFalse(over.deadlineMet());
            assertEquals(BranchRun.State.WOULD_NOT_FIT, over.branches().get(1).state());
            assertTrue(over.branches().get(1).reason(), over.branches().get(1).reason().contains("ms left"));
            assertEquals(-1, over.branches().get(1).thread());
            Prediction left = session.run(image, Request.budgetMs(60_000).leaveNanos(System.nanoTime()));
            assertTrue(left.deadlineMet());
            assertNotEquals(branches, left.branchesUsed());
            assertEquals(branches, session.run(image, Request.budgetMs(1e300)).branchesUsed());
            assertEquals(1, session.run(image, Request.deadlineNanos(Long.MIN_VALUE)).branchesUsed());
            Thread.currentThread().interrupt(); // nothing waits by what an interrupt ends
            assertEquals(branches, session.run(image).branchesUsed());
            assertTrue(Thread.interrupted());
        }
        assertThrows(IllegalArgumentException.class, () -> Request.budgetMs(-1));
        assertThrows(IllegalArgumentException.class, () -> Request.budgetMs(0));
        assertThrows(IllegalArgumentException.class, () -> Request.budgetMs(Double.NaN));
        assertThrows(IllegalArgumentException.class, () -> Request.budgetMs(Double.POSITIVE_INFINITY));
    }

    @Test
    public void sessionsComeAndGo() throws IOException {
        byte[] image = java.util.Arrays.copyOf(Prepared.bytes("images.u8"), PIXELS);
        long afterHalf = 0;
        for (int round = 0; round < 60; round++) {
            try (Session session = Prepared.session("images.paraedge", 2)) {
                assertEquals(session.numBranches(), session.run(image).branchesUsed());
            }
            afterHalf = round == 29 ? residentBytes() : afterHalf;
        }
        assertTrue("memory grows", residentBytes() - afterHalf < 32 << 20); // a session has 15 MB of weights
    }

    private static long residentBytes() throws IOException {
        for (String line : java.nio.file.Files.readAllLines(java.nio.file.Paths.get("/proc/self/status"))) {
            if (line.startsWith("VmRSS:")) {
                return Long.parseLong(line.replaceAll("\\D", "")) << 10;
            }
        }
        throw new AssertionError("no VmRSS");
    }
}
