package ai.paraedge;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import java.io.ByteArrayInputStream;
import java.io.DataInputStream;
import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import org.junit.Test;

/** Images of any size become what Python makes of them. */
public class PixelsTest {
    @Test
    public void imagesAreScaledWithinOneGreyLevelOfPython() throws IOException {
        int cases = 0;
        int values = 0;
        int other = 0;
        try (DataInputStream in = new DataInputStream(new ByteArrayInputStream(read("scaled-images")))) {
            for (; in.available() > 0; cases++) {
                int height = in.readInt();
                int width = in.readInt();
                int[] size = {in.readInt(), in.readInt(), in.readInt()};
                Bundle.Resize resize = in.readInt() == 1 ? Bundle.Resize.CROP : Bundle.Resize.STRETCH;
                int[] argb = new int[height * width];
                for (int at = 0; at < argb.length; at++) {
                    argb[at] = in.readInt();
                }
                byte[] found = Pixels.ofArgb(argb, width, height).fitted(size[0], size[1], size[2], resize);
                assertEquals(size[0] * size[1] * size[2], found.length);
                for (byte value : found) {
                    int difference = Math.abs((value & 0xff) - in.readUnsignedByte());
                    assertTrue(height + " x " + width + " " + resize + ": " + difference, difference <= 1);
                    values++;
                    other += difference;
                }
            }
        }
        assertEquals(96, cases);
        assertTrue(other + " of " + values, other < 0.05 * values);
    }

    @Test
    public void aPhotographOfAPhoneIsWhatItIsInPython() throws IOException {
        ByteBuffer lying = ByteBuffer.wrap(read("photograph.rgba"));
        byte[] expected = read("photograph.u8");
        byte[] found = Pixels.ofRgba(lying, 4 * 4000, 0, 0, 4000, 3000)
                .turned(90) // as its EXIF entry says
                .fitted(224, 224, 3, Bundle.Resize.CROP);
        assertEquals(expected.length, found.length);
        for (int at = 0; at < found.length; at++) {
            assertEquals(expected[at] & 0xff, found[at] & 0xff, 1.0);
        }
    }

    @Test
    public void aPlaneIsReadInItsRowsAndTurned() {
        ByteBuffer plane = ByteBuffer.allocateDirect(3 * 16); // 3 rows of 3 pixels, and 4 bytes that nobody reads
        for (int at = 0; at < plane.capacity(); at++) {
            plane.put(at, (byte) at);
        }
        Pixels right = Pixels.ofRgba(plane, 16, 1, 1, 2, 2); // its pixels begin at 20, 24, 36 and 40
        assertArrayEquals(new byte[] {20, 21, 22, 24, 25, 26, 36, 37, 38, 40, 41, 42}, whole(right));
        Pixels column = Pixels.ofRgba(plane, 16, 0, 0, 1, 2); // 0 above 16
        assertArrayEquals(new byte[] {16, 17, 18, 0, 1, 2}, whole(column.turned(90)));
        assertArrayEquals(new byte[] {16, 17, 18, 0, 1, 2}, whole(column.turned(180)));
        assertArrayEquals(new byte[] {0, 1, 2, 16, 17, 18}, whole(column.turned(270)));
        assertEquals(2, column.turned(270).width());
        assertEquals(0, plane.position());
    }

    @Test
    public void whatIsNoImageIsRefused() {
        ByteBuffer plane = ByteBuffer.allocateDirect(15);
        assertThrows(IllegalArgumentException.class, () -> Pixels.ofRgba(plane, 8, 0, 0, 2, 2));
        assertThrows(IllegalArgumentException.class, () -> Pixels.ofRgba(plane, 8, 1, 0, 2, 1 << 30));
        assertThrows(IllegalArgumentException.class, () -> Pixels.ofRgba(plane, 8, -1, 0, 1, 1));
        assertThrows(IllegalArgumentException.class, () -> Pixels.ofRgba(plane, 8, Integer.MAX_VALUE, 0, 1, 1));
        for (int rowStride : new int[] {-8, 0, 7}) {
            assertThrows(IllegalArgumentException.class, () -> Pixels.ofRgba(plane, rowStride, 0, 0, 2, 1));
        }
        assertThrows(IllegalArgumentException.class, () -> Pixels.ofArgb(new int[3], 2, 2));
        assertThrows(IllegalArgumentException.class, () -> Pixels.ofArgb(new int[0], 0, 0));
        assertThrows(IllegalArgumentException.class, () -> Pixels.ofArgb(new int[1], 1, 1).turned(45));
    }

    private static byte[] read(String name) throws IOException {
        return Files.readAllBytes(new File(System.getProperty("paraedge.test"), name).toPath());
    }

    private static byte[] whole(Pixels pixels) {
        return pixels.fitted(pixels.height(), pixels.width(), 3, Bundle.Resize.STRETCH);
    }
}
