package ai.paraedge;

import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;
import java.util.Locale;
import java.util.Objects;
import java.util.Scanner;

/** The native library: its functions, and how it gets into the process. */
final class Native {
    private static final String JNI = "libparaedge_jni.so";
    private static final String EXECUTORCH = "libparaedge_executorch.so";

    static {
        load();
    }

    private Native() {}

    /**
     * An application has it where {@link System#loadLibrary} looks, as on Android; the desktop's jar carries it, with
     * the ExecuTorch engine.
     */
    private static void load() {
        String folder = "native/" + system() + "/";
        try (InputStream names = Native.class.getResourceAsStream(folder + "files")) {
            if (names == null) {
                loadOfApplication();
                return;
            }
            unpackAndLoad(folder, new Scanner(names, "UTF-8"));
        } catch (IOException problem) {
            throw new UnsatisfiedLinkError("the native libraries of paraedge cannot be unpacked: " + problem
                    + "; name another folder with -Djava.io.tmpdir");
        }
    }

    private static void loadOfApplication() {
        try {
            System.loadLibrary("paraedge_jni");
        } catch (UnsatisfiedLinkError problem) {
            throw new UnsatisfiedLinkError("paraedge has no native library for '" + system() + "': its jar has those of Linux "
                    + "on x86-64 and 64-bit Arm, for a 64-bit JVM; for another system build libparaedge_jni and name its "
                    + "folder with -Djava.library.path (" + problem.getMessage() + ")");
        }
    }

    /** Files that are loaded need no name any more, so nothing is left behind. */
    private static void unpackAndLoad(String folder, Scanner names) throws IOException {
        File place = Files.createTempDirectory("paraedge-").toFile();
        Deque<File> made = new ArrayDeque<>();
        made.push(place);
        try {
            while (names.hasNext()) {
                File file = new File(place, names.next());
                made.push(file);
                try (InputStream in = Native.class.getResourceAsStream(folder + file.getName())) {
                    Files.copy(in, file.toPath());
                }
            }
            loadUnpacked(new File(place, JNI));
            File engine = new File(place, EXECUTORCH);
            if (engine.exists()) {
                loadEngine(utf8(engine.getPath(), "path"));
            }
        } finally {
            for (File file : made) {
                file.delete();
            }
        }
    }

    private static void loadUnpacked(File library) {
        try {
            System.load(library.getPath());
        } catch (UnsatisfiedLinkError problem) { // the folder allows no programs, or the system's C library is another one
            throw new UnsatisfiedLinkError("the native library of paraedge cannot be loaded: " + problem.getMessage()
                    + "; it needs glibc, and a folder where programs may run: name another one with -Djava.io.tmpdir");
        }
    }

    private static String system() {
        String machine = System.getProperty("os.arch", "").toLowerCase(Locale.ROOT);
        machine = machine.equals("amd64") ? "x86_64" : machine.equals("arm64") ? "aarch64" : machine;
        return System.getProperty("os.name", "").toLowerCase(Locale.ROOT) + "-" + machine;
    }

    // Texts cross as UTF-8 of our own making: what JNI calls UTF-8 is something else beyond the basic plane.
    static byte[] utf8(String text, String what) {
        if (Objects.requireNonNull(text, what).indexOf('\0') >= 0) {
            throw new IllegalArgumentException(what + " has a character 0: " + text.replace('\0', '?'));
        }
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static String string(byte[] utf8) {
        return new String(utf8, StandardCharsets.UTF_8);
    }

    static native void loadEngine(byte[] library);

    static native void loadOnnxRuntime(byte[] library);

    static native long openBundle(byte[] path);

    static native long openSignedBundle(byte[] path, byte[][] trustedKeys);

    static native void freeBundle(long bundle);

    static native byte[][] bundleStrings(long bundle);

    static native long[] bundleNumbers(long bundle);

    static native long openSession(long bundle, int threads, int firstBranches, int spinUs, int placement,
            double[] partMs, double[] contention);

    static native void freeSession(long session);

    static native int threads(long session);

    static native int numBranches(long session);

    static native double mandatoryMs(long session);

    /** {@code source} is a direct buffer, a byte[] or a float[]; offset and count are in bytes or in floats. */
    static native Prediction run(long session, List<String> labels, Object source, boolean isDirect, boolean isImage,
            int offset, int count, long deadline, long leave, int firstBranches, int[] branches, boolean startAll,
            boolean earlyStop, boolean dropOnOverload, Request.Listener listener, Request.Cancelled cancelled);
}
