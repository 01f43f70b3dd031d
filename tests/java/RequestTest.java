import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertSame;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import ai.paraedge.BranchRun;
import ai.paraedge.BranchRun.State;
import ai.paraedge.Engines;
import ai.paraedge.ParaEdgeException.Code;
import ai.paraedge.Prediction;
import ai.paraedge.Request;
import ai.paraedge.Session;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.junit.After;
import org.junit.Before;
import org.junit.BeforeClass;
import org.junit.Test;

/** Deadlines, streams, early stop, cancelling and closing, with an engine whose branches wait until they may go on. */
public class RequestTest {
    private static final byte[] IMAGE = new byte[64];
    /** Under a deadline the caller runs the first branch only, and then waits for workers. */
    private static final Request WAITING = Request.budgetMs(600_000).startAll();

    private final ExecutorService others = Executors.newCachedThreadPool();

    @BeforeClass
    public static void loadEngine() {
        Engines.load(Prepared.path("libfake_engine.so"));
    }

    @Before
    public void closeGate() {
        Prepared.closeGate();
    }

    @After
    public void openGate() throws IOException {
        Prepared.openGate();
        others.shutdown();
    }

    @Test
    public void aBranchThatIsNotThereAtTheDeadlineIsLate() {
        try (Session session = Prepared.session("held.paraedge", 3)) { // add 1, add 2, hold
            Prediction found = session.run(IMAGE, Request.budgetMs(200).startAll());
            assertEquals(Arrays.asList(State.USED, State.USED, State.LATE), states(found));
            assertArrayEquals(new float[] {3, 6, 9}, found.output(), 0);
            assertEquals("it had not finished at the deadline", found.branches().get(2).reason());
            open(); // closing waits for it
        }
    }

    @Test
    public void branchesThatFailAreDroppedAndSayWhy() {
        try (Session session = Prepared.session("failing.paraedge", 3)) { // add 1, fail, nan
            Prediction found = session.run(IMAGE);
            assertEquals(Arrays.asList(State.USED, State.FAILED, State.NOT_FINITE), states(found));
            assertEquals("out of luck \ud83d\ude00", found.branches().get(1).reason());
            assertEquals("its output is not finite", found.branches().get(2).reason());
            assertArrayEquals(new float[] {1, 2, 3}, found.output(), 0);
        }
    }

    @Test
    public void aPartThatIsRefusedIsNamed() {
        Prepared.refused(Code.ENGINE, "branch_01.fake is too small f\u00fcr this engine",
                () -> Prepared.session("refused.paraedge", 1));
    }

    @Test
    public void everyBetterPredictionIsSeen() throws Exception {
        try (Session session = Prepared.session("held.paraedge", 3)) {
            List<Prediction> seen = Collections.synchronizedList(new ArrayList<>());
            List<Thread> threads = new ArrayList<>();
            Prediction last = session.run(IMAGE, WAITING.onPrediction(soFar -> {
                seen.add(soFar);
                threads.add(Thread.currentThread());
                if (soFar.branchesUsed() == 2) {
                    open();
                }
                return true;
            }));
            assertEquals(3, last.branchesUsed());
            assertArrayEquals(new float[] {7, 14, 21}, last.output(), 0);
            assertTrue(seen.size() >= 1);
            for (int at = 1; at < seen.size(); at++) {
                assertTrue(seen.get(at).branchesUsed() > seen.get(at - 1).branchesUsed());
            }
            assertArrayEquals("it is as it was", new float[] {3, 6, 9}, used(seen, 2).output(), 0);
            threads.forEach(thread -> assertSame(Thread.currentThread(), thread));
        }
    }

    @Test
    public void theListenerEndsARequest() {
        try (Session session = Prepared.session("held.paraedge", 3)) {
            Prediction found = session.run(IMAGE, WAITING.onPrediction(soFar -> soFar.branchesUsed() < 2));
            assertEquals(2, found.branchesUsed());
            assertEquals(State.NOT_NEEDED, found.branches().get(2).state());
            open();
        }
    }

    @Test
    public void whatACallbackThrowsComesOutOfRun() throws IOException {
        try (Session session = Prepared.session("held.paraedge", 3)) {
            IllegalStateException mine = new IllegalStateException("mine");
            Request throwing = WAITING.onPrediction(soFar -> { throw mine; });
            assertSame(mine, assertThrows(IllegalStateException.class, () -> session.run(IMAGE, throwing)));
            Request asked = WAITING.cancelled(() -> { throw mine; });
            assertSame(mine, assertThrows(IllegalStateException.class, () -> session.run(IMAGE, asked)));
            Prepared.openGate();
            assertEquals("the session goes on", 3, session.run(IMAGE).branchesUsed());
        }
    }

    @Test
    public void aCancelledRequestHasNoPrediction() throws Exception {
        try (Session session = Prepared.session("held.paraedge", 3)) {
            CountDownLatch asked = new CountDownLatch(3);
            Prepared.refused(Code.CANCELLED, "", () -> session.run(IMAGE, WAITING.cancelled(() -> {
                asked.countDown();
                return asked.getCount() == 0;
            })));
            Prepared.openGate();
            assertEquals(3, session.run(IMAGE).branchesUsed());
        }
    }

    @Test
    public void aRequestThatWouldBeLateIsDroppedIfItMayBe() throws Exception {
        Prepared.openGate();
        try (Session session = Prepared.session("held.paraedge", 3)) {
            Request over = Request.deadlineNanos(System.nanoTime() - 1);
            Prepared.refused(Code.DROPPED, "its deadline passed", () -> session.run(IMAGE, over.dropOnOverload()));
            assertFalse(session.run(IMAGE, over).deadlineMet());
        }
    }

    @Test
    public void aCallbackCannotCallItsOwnSession() {
        try (Session session = Prepared.session("held.paraedge", 3)) {
            for (Runnable call : new Runnable[] {() -> session.run(IMAGE), session::close}) {
                IllegalStateException thrown = assertThrows(IllegalStateException.class,
                        () -> session.run(IMAGE, WAITING.onPrediction(soFar -> {
                            call.run();
                            return true;
                        })));
                assertTrue(thrown.getMessage(), thrown.getMessage().contains("callback"));
            }
            open();
        }
    }

    @Test
    public void earlyStopTakesTheFirstPrefixThatIsSure() {
        try (Session session = Prepared.session("sure.paraedge", 3)) { // add 10: softmax is above the threshold
            Prediction found = session.run(IMAGE, Request.DEFAULT.earlyStop());
            assertEquals(Arrays.asList(State.USED, State.NOT_NEEDED, State.NOT_NEEDED), states(found));
            assertEquals("cat", found.label());
            assertTrue(found.confidence() > 0.9);
            open();
        }
    }

    @Test
    public void closingWaitsForTheRequestThatRuns() throws Exception {
        Session session = Prepared.session("held.paraedge", 3);
        CountDownLatch running = new CountDownLatch(1);
        Future<Prediction> request = others.submit(() -> session.run(IMAGE, WAITING.cancelled(() -> {
            running.countDown();
            return false;
        })));
        running.await();
        Future<?> closing = others.submit(session::close);
        assertFalse(request.isDone());
        assertFalse(closing.isDone());
        Prepared.openGate();
        assertEquals(3, request.get().branchesUsed());
        closing.get();
        assertThrows(IllegalStateException.class, () -> session.run(IMAGE));
        assertThrows(IllegalStateException.class, session::mandatoryMs);
        session.close();
    }

    @Test
    public void threadsTakeTurns() throws Exception {
        Prepared.openGate();
        try (Session session = Prepared.session("held.paraedge", 3)) {
            List<Callable<Boolean>> calls = Collections.nCopies(4, () -> {
                for (int request = 0; request < 100; request++) {
                    assertArrayEquals(new float[] {7, 14, 21}, session.run(IMAGE).output(), 0);
                }
                return true;
            });
            for (Future<Boolean> call : others.invokeAll(calls)) {
                assertTrue(call.get());
            }
        }
    }

    @Test
    public void closeRacesWithRequests() throws Exception {
        Prepared.openGate();
        for (int round = 0; round < 30; round++) {
            Session session = Prepared.session("held.paraedge", 3);
            CountDownLatch ran = new CountDownLatch(1);
            Future<?> racing = others.submit(() -> {
                while (true) {
                    session.run(IMAGE);
                    ran.countDown();
                }
            });
            ran.await();
            session.close();
            ExecutionException ended = assertThrows(ExecutionException.class, racing::get);
            assertEquals(IllegalStateException.class, ended.getCause().getClass());
        }
    }

    private static List<State> states(Prediction prediction) {
        List<State> states = new ArrayList<>();
        for (BranchRun run : prediction.branches()) {
            states.add(run.state());
        }
        return states;
    }

    private static Prediction used(List<Prediction> seen, int branches) {
        for (Prediction prediction : seen) {
            if (prediction.branchesUsed() == branches) {
                return prediction;
            }
        }
        throw new AssertionError("no prediction of " + branches + " branches in " + seen);
    }

    private static void open() {
        try {
            Prepared.openGate();
        } catch (IOException problem) {
            throw new AssertionError(problem);
        }
    }
}
