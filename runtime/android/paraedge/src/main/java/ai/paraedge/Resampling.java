package ai.paraedge;

/** Scaling by Pillow's bilinear filter in whole numbers, as Python does it: Android's scaling has rules of its own. */
final class Resampling {
    private static final int PRECISION_BITS = 32 - 8 - 2; // of a weight, as in Pillow's Resample.c
    private static final int HALF = 1 << PRECISION_BITS - 1;

    /** What each new place is made of: old places from {@code first}, with these weights. */
    private final int[] first;
    private final int[][] weights;

    private Resampling(int inSize, int outSize) {
        first = new int[outSize];
        weights = new int[outSize][];
        double scale = (double) inSize / outSize;
        double reach = Math.max(scale, 1); // a smaller image covers several old pixels with each new one
        for (int place = 0; place < outSize; place++) {
            double centre = (place + 0.5) * scale;
            first[place] = Math.max((int) (centre - reach + 0.5), 0);
            int end = Math.min((int) (centre + reach + 0.5), inSize);
            weights[place] = weights(first[place], end, centre, 1 / reach);
        }
    }

    private static int[] weights(int first, int end, double centre, double step) {
        double[] exact = new double[end - first];
        double total = 0;
        for (int tap = 0; tap < exact.length; tap++) {
            exact[tap] = Math.max(1 - Math.abs((tap + first - centre + 0.5) * step), 0);
            total += exact[tap];
        }
        int[] whole = new int[exact.length];
        for (int tap = 0; tap < whole.length; tap++) {
            whole[tap] = (int) (exact[tap] / total * (1 << PRECISION_BITS) + 0.5);
        }
        return whole;
    }

    /** uint8 (height, width, channels) -> (toHeight, toWidth, channels); the same array where the size is the same. */
    static byte[] bilinear(byte[] pixels, int height, int width, int channels, int toHeight, int toWidth) {
        byte[] rows = toWidth == width
                ? pixels
                : new Resampling(width, toWidth).acrossRows(pixels, height, width, channels);
        return toHeight == height ? rows : new Resampling(height, toHeight).downColumns(rows, toWidth * channels);
    }

    /** Each row by itself. */
    private byte[] acrossRows(byte[] pixels, int height, int width, int channels) {
        byte[] result = new byte[height * first.length * channels];
        int at = 0;
        for (int row = 0; row < height; row++) {
            for (int place = 0; place < first.length; place++) {
                int from = (row * width + first[place]) * channels;
                for (int channel = 0; channel < channels; channel++) {
                    int sum = HALF;
                    int old = from + channel;
                    for (int weight : weights[place]) {
                        sum += (pixels[old] & 0xff) * weight;
                        old += channels;
                    }
                    result[at++] = clipped(sum);
                }
            }
        }
        return result;
    }

    /** Whole rows of {@code length} values are mixed. */
    private byte[] downColumns(byte[] rows, int length) {
        byte[] result = new byte[first.length * length];
        int[] sums = new int[length];
        for (int line = 0; line < first.length; line++) {
            java.util.Arrays.fill(sums, HALF);
            for (int tap = 0; tap < weights[line].length; tap++) {
                int weight = weights[line][tap];
                int from = (first[line] + tap) * length;
                for (int at = 0; at < length; at++) {
                    sums[at] += (rows[from + at] & 0xff) * weight;
                }
            }
            for (int at = 0; at < length; at++) {
                result[line * length + at] = clipped(sums[at]);
            }
        }
        return result;
    }

    private static byte clipped(int sum) {
        return (byte) Math.min(Math.max(sum >> PRECISION_BITS, 0), 255);
    }
}
