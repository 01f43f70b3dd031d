import ai.paraedge.Bundle;
import ai.paraedge.Prediction;
import ai.paraedge.Session;
import ai.paraedge.SessionOptions;
import java.nio.ByteBuffer;
import java.util.Arrays;

/**
 * What a call from Java takes beyond the request inside the core: java -cp dist/paraedge.jar benchmarks/JavaCalls.java BUNDLE.
 *
 * <p>Normalising the image, which C++ does too, is part of it. Medians and the 10th percentile, in microseconds.
 */
final class JavaCalls {
    private static final int CALLS = 2000;

    private JavaCalls() {}

    public static void main(String[] arguments) {
        try (Bundle bundle = Bundle.open(arguments[0])) {
            for (int branches : new int[] {1, bundle.branches().size()}) {
                SessionOptions options = SessionOptions.DEFAULT.firstBranches(branches).threads(Math.min(branches, 2));
                try (Session session = Session.open(bundle, options)) {
                    ByteBuffer direct = ByteBuffer.allocateDirect(bundle.inputSize());
                    byte[] array = new byte[bundle.inputSize()];
                    measure(branches + " branches, direct buffer", () -> session.run(direct));
                    measure(branches + " branches, byte[]", () -> session.run(array));
                }
            }
        }
    }

    private static void measure(String what, java.util.function.Supplier<Prediction> call) {
        double[] requestUs = new double[CALLS];
        double[] beyondUs = new double[CALLS];
        for (int at = -CALLS; at < CALLS; at++) { // the first half warms the compiler up
            long begin = System.nanoTime();
            Prediction prediction = call.get();
            double callUs = (System.nanoTime() - begin) / 1e3;
            if (at >= 0) {
                requestUs[at] = prediction.elapsedMs() * 1e3;
                beyondUs[at] = callUs - requestUs[at];
            }
        }
        Arrays.sort(requestUs);
        Arrays.sort(beyondUs);
        System.out.printf("%s: request %.1f, beyond it %.2f (p10 %.2f)%n", what, requestUs[CALLS / 2],
                beyondUs[CALLS / 2], beyondUs[CALLS / 10]);
    }
}
