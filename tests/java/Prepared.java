import ai.paraedge.Bundle;
import ai.paraedge.ParaEdgeException;
import ai.paraedge.Session;
import ai.paraedge.SessionOptions;
import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.util.function.Supplier;
import org.junit.Assert;

/** What tests/java/test_java.py has prepared in the folder of the property paraedge.test, and what several tests do. */
final class Prepared {
    private static final File FOLDER = new File(System.getProperty("paraedge.test"));
    private static final File GATE = new File(System.getenv("PARAEDGE_TEST_GATE"));

    private Prepared() {}

    static String path(String name) {
        return new File(FOLDER, name).getPath();
    }

    static Bundle bundle(String name) {
        return Bundle.open(path(name));
    }

    /** A session of a bundle that needs no bundle any more. */
    static Session session(String name, int threads) {
        try (Bundle bundle = bundle(name)) {
            return Session.open(bundle, SessionOptions.DEFAULT.threads(threads));
        }
    }

    static byte[] bytes(String name) throws IOException {
        return Files.readAllBytes(new File(FOLDER, name).toPath());
    }

    static String text(String name) {
        try {
            return new String(bytes(name), java.nio.charset.StandardCharsets.UTF_8);
        } catch (IOException problem) {
            throw new java.io.UncheckedIOException(problem);
        }
    }

    static float[] floats(String name) throws IOException {
        ByteBuffer bytes = ByteBuffer.wrap(bytes(name)).order(ByteOrder.LITTLE_ENDIAN);
        float[] values = new float[bytes.remaining() / 4];
        bytes.asFloatBuffer().get(values);
        return values;
    }

    static ByteBuffer direct(byte[] bytes, int from, int count) {
        ByteBuffer buffer = ByteBuffer.allocateDirect(count);
        buffer.put(bytes, from, count);
        buffer.flip();
        return buffer;
    }

    static float[] rows(float[] all, int row, int columns) {
        return java.util.Arrays.copyOfRange(all, row * columns, (row + 1) * columns);
    }

    /** Lets branches that hold go on. */
    static void openGate() throws IOException {
        GATE.createNewFile();
    }

    static void closeGate() {
        GATE.delete();
    }

    /** The call is refused with this code, and a message that has this in it. */
    static void refused(ParaEdgeException.Code code, String says, Supplier<?> call) {
        ParaEdgeException thrown = Assert.assertThrows(ParaEdgeException.class, call::get);
        Assert.assertEquals(thrown.getMessage(), code, thrown.code());
        Assert.assertTrue(thrown.getMessage(), thrown.getMessage().contains(says));
    }
}
