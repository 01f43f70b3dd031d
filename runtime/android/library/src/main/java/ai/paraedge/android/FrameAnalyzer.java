package ai.paraedge.android;

import ai.paraedge.Pixels;
import ai.paraedge.Prediction;
import ai.paraedge.Request;
import ai.paraedge.Session;
import android.content.Context;
import androidx.camera.core.ImageAnalysis;
import androidx.camera.core.ImageProxy;

/**
 * Runs every frame that CameraX gives, on the thread of the executor that it was set with. With CameraX's strategy
 * {@code STRATEGY_KEEP_ONLY_LATEST}, its default, frames that come meanwhile are dropped and the newest is next.
 *
 * <p>Close it on that thread, after {@code clearAnalyzer}, before the session.
 */
public final class FrameAnalyzer implements ImageAnalysis.Analyzer, AutoCloseable {
    /** What comes of a frame. */
    public interface Listener {
        /** On the analyzer's thread. */
        void onPrediction(Prediction prediction);
    }

    private final Context context;
    private final Session session;
    private final Listener listener;
    private volatile double budgetMs;
    private PerformanceHints hints; // of the thread that the first frame comes on

    /** For {@code session}, which stays the caller's. */
    public FrameAnalyzer(Context context, Session session, double budgetMs, Listener listener) {
        this.context = context;
        this.session = session;
        this.listener = listener;
        setBudgetMs(budgetMs);
    }

    /** Of the frames from now on, without their scaling; any thread may call it. */
    public void setBudgetMs(double milliseconds) {
        Request.budgetMs(milliseconds); // refuses what is no budget
        budgetMs = milliseconds;
    }

    @Override
    public void analyze(ImageProxy frame) {
        Pixels pixels;
        try (ImageProxy open = frame) { // the camera has few: it gets this one back before branches run
            pixels = Images.of(open);
        }
        if (hints == null) {
            hints = PerformanceHints.ofThisThread(context, budgetMs);
        }
        double budget = budgetMs;
        hints.setBudgetMs(budget);
        Prediction prediction = session.run(pixels.fitted(session.bundle()), Request.budgetMs(budget));
        hints.ran(prediction.elapsedMs());
        listener.onPrediction(prediction);
    }

    @Override
    public void close() {
        if (hints != null) {
            hints.close();
        }
    }
}
