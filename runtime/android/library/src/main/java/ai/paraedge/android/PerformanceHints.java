package ai.paraedge.android;

import ai.paraedge.WorkerThreads;
import android.content.Context;
import android.os.Build;
import android.os.PerformanceHintManager;
import android.os.Process;
import java.util.Arrays;

/**
 * Tells the system which threads work on a request, how long they may and how long they did: the budget is the target
 * that it chooses cores and frequencies for. Does nothing before Android 12, or where a device has no such thing.
 */
public final class PerformanceHints implements AutoCloseable {
    private final PerformanceHintManager.Session session; // null: there is none
    private double budgetMs;

    private PerformanceHints(PerformanceHintManager.Session session, double budgetMs) {
        this.session = session;
        this.budgetMs = budgetMs;
    }

    /** For requests of the thread that calls this, and for the workers of the sessions that are open now. */
    public static PerformanceHints ofThisThread(Context context, double budgetMs) {
        PerformanceHintManager manager = Build.VERSION.SDK_INT >= Build.VERSION_CODES.S
                ? context.getSystemService(PerformanceHintManager.class)
                : null;
        if (manager == null) {
            return new PerformanceHints(null, budgetMs);
        }
        int[] workers = WorkerThreads.ids();
        int[] threads = Arrays.copyOf(workers, workers.length + 1);
        threads[workers.length] = Process.myTid();
        return new PerformanceHints(manager.createHintSession(threads, nanos(budgetMs)), budgetMs);
    }

    /** The target of the requests that follow. */
    public void setBudgetMs(double milliseconds) {
        if (session != null && milliseconds != budgetMs) {
            session.updateTargetWorkDuration(nanos(milliseconds));
        }
        budgetMs = milliseconds;
    }

    /** A request took so long. */
    public void ran(double elapsedMs) {
        if (session != null) {
            session.reportActualWorkDuration(nanos(elapsedMs));
        }
    }

    @Override
    public void close() {
        if (session != null) {
            session.close();
        }
    }

    private static long nanos(double milliseconds) {
        return Math.max(1, Math.round(milliseconds * 1e6)); // 0 is refused
    }
}
