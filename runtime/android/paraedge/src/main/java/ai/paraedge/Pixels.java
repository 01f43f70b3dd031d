package ai.paraedge;

import java.nio.ByteBuffer;
import java.util.Arrays;

/**
 * An image of any size, and the one rule that makes of it what a bundle reads: on white, scaled by Pillow's bilinear
 * filter, within one grey level of Python. Immutable.
 *
 * <p>Pixels have to be upright: the turn that a photograph's EXIF entry asks for is the caller's, with {@link #turned}.
 */
public final class Pixels {
    static final int MAX_PIXELS = 50_000_000; // as in Python
    private static final int GREY = 1;
    private static final int RGB = 3;

    private final byte[] values; // uint8 (H, W, C)
    private final int height;
    private final int width;
    private final int channels;

    private Pixels(byte[] values, int height, int width, int channels) {
        this.values = values;
        this.height = height;
        this.width = width;
        this.channels = channels;
    }

    /**
     * From rows of {@code 0xAARRGGBB}, not premultiplied, as {@code Bitmap.getPixels} and {@code BufferedImage.getRGB}
     * give them. Transparent pixels show white.
     *
     * @throws IllegalArgumentException there are not width x height of them, or more than 50 million
     */
    public static Pixels ofArgb(int[] argb, int width, int height) {
        if (argb.length != area(width, height)) {
            throw new IllegalArgumentException(argb.length + " values for " + width + " x " + height + " pixels");
        }
        byte[] values = new byte[argb.length * RGB];
        int at = 0;
        for (int pixel : argb) {
            int alpha = pixel >>> 24;
            values[at++] = (byte) onWhite(pixel >> 16 & 0xff, alpha);
            values[at++] = (byte) onWhite(pixel >> 8 & 0xff, alpha);
            values[at++] = (byte) onWhite(pixel & 0xff, alpha);
        }
        return new Pixels(values, height, width, RGB);
    }

    /**
     * From a camera's plane of R, G, B, A bytes, whose alpha is not looked at. The buffer is left as it is.
     *
     * @param rowStride bytes from a row to the next
     * @param left the part of the plane that counts begins there
     * @throws IllegalArgumentException the buffer ends before that part does, or it has more than 50 million pixels
     */
    public static Pixels ofRgba(ByteBuffer rgba, int rowStride, int left, int top, int width, int height) {
        int area = area(width, height);
        ByteBuffer source = rgba.duplicate();
        long rowEnd = 4L * left + 4L * width;
        long end = ((long) top + height - 1) * rowStride + rowEnd;
        if (left < 0 || top < 0 || rowStride < rowEnd || end > source.limit()) {
            throw new IllegalArgumentException("a plane of " + source.limit() + " bytes in rows of " + rowStride
                    + " holds no " + width + " x " + height + " pixels at " + left + ", " + top);
        }
        byte[] values = new byte[area * RGB];
        byte[] row = new byte[4 * width];
        int at = 0;
        for (int line = 0; line < height; line++) {
            source.position((top + line) * rowStride + 4 * left);
            source.get(row);
            for (int from = 0; from < row.length; from += 4) {
                values[at++] = row[from];
                values[at++] = row[from + 1];
                values[at++] = row[from + 2];
            }
        }
        return new Pixels(values, height, width, RGB);
    }

    /** How many rows there are. */
    public int height() {
        return height;
    }

    /** How many pixels a row has. */
    public int width() {
        return width;
    }

    /**
     * Turned clockwise, as a camera says that its frames have to be.
     *
     * @throws IllegalArgumentException by something else than 0, 90, 180 or 270 degrees
     */
    public Pixels turned(int degrees) {
        if (degrees == 0) {
            return this;
        }
        if (degrees != 90 && degrees != 180 && degrees != 270) {
            throw new IllegalArgumentException("degrees must be 0, 90, 180 or 270, got " + degrees);
        }
        byte[] turned = new byte[values.length];
        int at = 0;
        for (int row = 0; row < height; row++) {
            for (int column = 0; column < width; column++) {
                int to = degrees == 180
                        ? (height - 1 - row) * width + width - 1 - column
                        : degrees == 90 ? column * height + height - 1 - row : (width - 1 - column) * height + row;
                for (int channel = 0; channel < channels; channel++) {
                    turned[to * channels + channel] = values[at++];
                }
            }
        }
        return degrees == 180
                ? new Pixels(turned, height, width, channels)
                : new Pixels(turned, width, height, channels);
    }

    /**
     * What {@code bundle} reads: uint8 (H, W, C) in a direct buffer, for {@link Session#run(ByteBuffer, Request)}.
     *
     * @throws IllegalArgumentException it reads no image, or one of other channels than 1 or 3
     */
    public ByteBuffer fitted(Bundle bundle) {
        long[] shape = bundle.inputShape(); // (1, C, H, W)
        if (bundle.inputKind() != Bundle.InputKind.IMAGE || (shape[1] != GREY && shape[1] != RGB)) {
            throw new IllegalArgumentException(
                    bundle.name() + " reads " + Arrays.toString(shape) + ", not an image of 1 or 3 channels");
        }
        byte[] fitted = fitted((int) shape[2], (int) shape[3], (int) shape[1], bundle.resize());
        ByteBuffer direct = ByteBuffer.allocateDirect(fitted.length);
        direct.put(fitted);
        direct.flip();
        return direct;
    }

    /** Grey or coloured, then cut, then scaled: (toHeight, toWidth, toChannels). */
    byte[] fitted(int toHeight, int toWidth, int toChannels, Bundle.Resize resize) {
        Pixels whole = toChannels == GREY ? grey() : this;
        Pixels kept = resize == Bundle.Resize.CROP ? whole.middle(toHeight, toWidth) : whole;
        return Resampling.bilinear(kept.values, kept.height, kept.width, toChannels, toHeight, toWidth);
    }

    /** The largest part of these proportions, from the middle: rule 8 of docs/bundle-format.md. */
    private Pixels middle(int toHeight, int toWidth) {
        double scale = Math.min((double) width / toWidth, (double) height / toHeight);
        int across = Math.max(1, (int) Math.rint(toWidth * scale)); // half to even, as Python rounds
        int down = Math.max(1, (int) Math.rint(toHeight * scale));
        int left = (width - across) / 2;
        int top = (height - down) / 2;
        byte[] middle = new byte[down * across * channels];
        for (int row = 0; row < down; row++) {
            int from = ((top + row) * width + left) * channels;
            System.arraycopy(values, from, middle, row * across * channels, across * channels);
        }
        return new Pixels(middle, down, across, channels);
    }

    /** As Pillow's mode L. */
    private Pixels grey() {
        byte[] grey = new byte[height * width];
        for (int at = 0; at < grey.length; at++) {
            int red = values[RGB * at] & 0xff;
            int green = values[RGB * at + 1] & 0xff;
            int blue = values[RGB * at + 2] & 0xff;
            grey[at] = (byte) (red * 19595 + green * 38470 + blue * 7471 + 0x8000 >> 16);
        }
        return new Pixels(grey, height, width, GREY);
    }

    /** As Pillow's paste with a mask. */
    private static int onWhite(int value, int alpha) {
        int sum = value * alpha + 255 * (255 - alpha) + 128;
        return (sum >> 8) + sum >> 8;
    }

    private static int area(int width, int height) {
        long area = (long) width * height;
        if (width < 1 || height < 1 || area > MAX_PIXELS) {
            throw new IllegalArgumentException(
                    width + " x " + height + " pixels; give at least 1 and at most " + MAX_PIXELS);
        }
        return (int) area;
    }
}
