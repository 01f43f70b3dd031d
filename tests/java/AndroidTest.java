import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import ai.paraedge.Bundle;
import ai.paraedge.Prediction;
import ai.paraedge.Session;
import ai.paraedge.WorkerThreads;
import ai.paraedge.android.Assets;
import ai.paraedge.android.FrameAnalyzer;
import ai.paraedge.android.Images;
import android.content.Context;
import android.content.res.AssetManager;
import android.graphics.Bitmap;
import android.graphics.PixelFormat;
import android.graphics.Rect;
import android.os.PerformanceHintManager;
import androidx.camera.core.ImageInfo;
import androidx.camera.core.ImageProxy;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.List;
import org.junit.Test;

/** The classes that know Android, on a JVM, with stand-ins for Android's (tests/java/stubs). */
public class AndroidTest {
    private final List<String> hints = new ArrayList<>();

    @Test
    public void frameByFrameThePredictionsAreThoseOfTheImages() throws IOException {
        byte[] images = Prepared.bytes("images.u8"); // (1024, 28, 28, 1)
        float[] outputs = Prepared.floats("outputs.f32");
        List<Prediction> predictions = new ArrayList<>();
        File files = Files.createTempDirectory("files-").toFile();
        try (Bundle bundle = Assets.open(new Phone(files), "images.zip");
                Session session = Session.open(bundle);
                FrameAnalyzer analyzer = new FrameAnalyzer(new Phone(files), session, 60_000, predictions::add)) {
            for (int at = 0; at < 8; at++) {
                Frame frame = new Frame(images, at * 784, PixelFormat.RGBA_8888);
                analyzer.analyze(frame);
                assertTrue(frame.isClosed);
                assertTrue(predictions.get(at).deadlineMet());
                org.junit.Assert.assertArrayEquals(
                        Prepared.rows(outputs, at, 10), predictions.get(at).output(), 0);
            }
            analyzer.setBudgetMs(50_000);
            analyzer.analyze(new Frame(images, 0, PixelFormat.RGBA_8888));
            assertThrows(IllegalArgumentException.class, () -> analyzer.setBudgetMs(0));
            Frame yuv = new Frame(images, 0, 35);
            assertThrows(IllegalArgumentException.class, () -> analyzer.analyze(yuv));
            assertTrue(yuv.isClosed);
            assertEquals("threads " + (WorkerThreads.ids().length + 1) + " target 60000000000", hints.get(0));
        }
        assertEquals(session8(), hints.subList(1, hints.size()));
        for (File copy : new File(files, "paraedge").listFiles()) {
            assertTrue(copy.delete());
        }
        assertTrue(new File(files, "paraedge").delete() && files.delete());
    }

    /** Eight requests, another budget, one more, the end. */
    private static List<String> session8() {
        List<String> expected = new ArrayList<>();
        for (int at = 0; at < 8; at++) {
            expected.add("ran");
        }
        expected.add("target 50000000000");
        expected.add("ran");
        expected.add("closed");
        return expected;
    }

    @Test
    public void workersAreThoseOfOpenSessions() {
        assertEquals(0, WorkerThreads.ids().length);
        try (Session session = Prepared.session("images.paraedge", 3)) {
            // One for each thread: one stands in for the caller, who may leave at a deadline.
            assertEquals(session.threads(), WorkerThreads.ids().length);
        }
        assertEquals(0, WorkerThreads.ids().length);
    }

    @Test
    public void aBitmapIsReadAsItIs() {
        ByteBuffer image;
        try (Bundle bundle = Prepared.bundle("images.paraedge")) {
            image = Images.of(new White(Bitmap.Config.HARDWARE)).fitted(bundle);
        }
        assertEquals(784, image.remaining());
        for (int at = 0; at < 784; at++) {
            assertEquals(-1, image.get(at)); // 255
        }
    }

    private final class Phone extends Context {
        private final File files;

        Phone(File files) {
            this.files = files;
        }

        @Override
        public AssetManager getAssets() {
            return new AssetManager() {
                @Override
                public InputStream open(String name) throws IOException {
                    return new FileInputStream(Prepared.path(name));
                }
            };
        }

        @Override
        public File getNoBackupFilesDir() {
            return files;
        }

        @Override
        public <T> T getSystemService(Class<T> service) {
            return service.cast(new Hints());
        }
    }

    private final class Hints extends PerformanceHintManager {
        @Override
        public Session createHintSession(int[] tids, long targetNanos) {
            hints.add("threads " + tids.length + " target " + targetNanos);
            return new Session() {
                @Override
                public void updateTargetWorkDuration(long nanos) {
                    hints.add("target " + nanos);
                }

                @Override
                public void reportActualWorkDuration(long nanos) {
                    assertTrue(nanos > 0);
                    hints.add("ran");
                }

                @Override
                public void close() {
                    hints.add("closed");
                }
            };
        }
    }

    /** A grey image of 28 x 28, lying on its side in rows of 128 bytes, in a frame of 30 x 31. */
    private static final class Frame implements ImageProxy, ImageProxy.PlaneProxy {
        private final ByteBuffer plane = ByteBuffer.allocateDirect(31 * 128);
        private final int format;
        private boolean isClosed;

        Frame(byte[] images, int from, int format) {
            this.format = format;
            for (int row = 0; row < 28; row++) {
                for (int column = 0; column < 28; column++) {
                    // Turned clockwise by 90 degrees, (r, c) goes to (c, 27 - r): so this is what it came from.
                    int place = (2 + 27 - column) * 128 + (1 + row) * 4;
                    for (int channel = 0; channel < 3; channel++) {
                        plane.put(place + channel, images[from + row * 28 + column]);
                    }
                }
            }
        }

        @Override
        public void close() {
            isClosed = true;
        }

        @Override
        public Rect getCropRect() {
            return new Rect(1, 2, 29, 30);
        }

        @Override
        public int getFormat() {
            return format;
        }

        @Override
        public PlaneProxy[] getPlanes() {
            return new PlaneProxy[] {this};
        }

        @Override
        public ImageInfo getImageInfo() {
            return () -> 90;
        }

        @Override
        public int getRowStride() {
            return 128;
        }

        @Override
        public int getPixelStride() {
            return 4;
        }

        @Override
        public ByteBuffer getBuffer() {
            return plane;
        }
    }

    private static final class White extends Bitmap {
        private final Config config;

        White(Config config) {
            this.config = config;
        }

        @Override
        public Config getConfig() {
            return config;
        }

        @Override
        public Bitmap copy(Config wanted, boolean isMutable) {
            return new White(wanted);
        }

        @Override
        public int getWidth() {
            return 40;
        }

        @Override
        public int getHeight() {
            return 30;
        }

        @Override
        public void getPixels(int[] pixels, int offset, int stride, int x, int y, int width, int height) {
            if (config == Config.HARDWARE) {
                throw new IllegalStateException("a hardware bitmap");
            }
            // transparent: white shows
        }
    }
}
