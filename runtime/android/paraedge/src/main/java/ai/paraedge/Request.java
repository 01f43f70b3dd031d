package ai.paraedge;

import java.util.Objects;

/**
 * What is asked of a session beside the input. Immutable: each method gives a changed copy.
 *
 * <pre>{@code session.run(image, Request.budgetMs(12).earlyStop());}</pre>
 */
public final class Request {
    /** Called whenever the prediction has improved. */
    public interface Listener {
        /**
         * On the thread that called {@code run}. It is not called when all branches finish before the caller looks.
         *
         * @return false: that is enough, the request ends with this prediction
         */
        boolean onPrediction(Prediction soFar);
    }

    /** Polled while a request waits. */
    public interface Cancelled {
        /** On the thread that called {@code run}; true: the request ends with {@code ParaEdgeException}, CANCELLED. */
        boolean isCancelled();
    }

    /** Everything, however long it takes. */
    public static final Request DEFAULT = new Request();

    static final long NEVER = Long.MAX_VALUE;
    long budgetNanos = NEVER;
    long deadlineNanos = NEVER;
    long leaveNanos = NEVER;
    int firstBranches;
    int[] branches;
    boolean startAll;
    boolean earlyStop;
    boolean dropOnOverload;
    Listener listener;
    Cancelled cancelled;

    private Request() {}

    private Request(Request from) {
        budgetNanos = from.budgetNanos;
        deadlineNanos = from.deadlineNanos;
        leaveNanos = from.leaveNanos;
        firstBranches = from.firstBranches;
        branches = from.branches;
        startAll = from.startAll;
        earlyStop = from.earlyStop;
        dropOnOverload = from.dropOnOverload;
        listener = from.listener;
        cancelled = from.cancelled;
    }

    /**
     * Returns with the best finished sum when so many milliseconds have gone by since {@code run} was called.
     *
     * @throws IllegalArgumentException it is not above 0
     */
    public static Request budgetMs(double milliseconds) {
        if (!(milliseconds > 0) || Double.isInfinite(milliseconds)) {
            throw new IllegalArgumentException(
                    "the budget is " + milliseconds + " ms; give a number above 0, or use Request.DEFAULT");
        }
        Request request = new Request();
        request.budgetNanos = (long) (milliseconds * 1e6);
        return request;
    }

    /** Returns with the best finished sum at this time of {@link System#nanoTime}. */
    public static Request deadlineNanos(long nanoTime) {
        Request request = new Request();
        request.deadlineNanos = nanoTime;
        return request;
    }

    /** Returns at this time of {@link System#nanoTime}, if earlier; whether the deadline was met is about the deadline. */
    public Request leaveNanos(long nanoTime) {
        Request copy = new Request(this);
        copy.leaveNanos = nanoTime;
        return copy;
    }

    /** Runs the first so many of the loaded branches; 0: all. */
    public Request firstBranches(int count) {
        Request copy = new Request(this);
        copy.firstBranches = count;
        return copy;
    }

    /** Runs the branches with these indexes, ascending. */
    public Request branches(int... indexes) {
        Request copy = new Request(this);
        copy.branches = indexes.clone();
        return copy;
    }

    /** Starts every branch under a deadline, not only those that will probably finish before it. */
    public Request startAll() {
        Request copy = new Request(this);
        copy.startAll = true;
        return copy;
    }

    /** Returns the first prefix of branches whose confidence reaches its threshold. */
    public Request earlyStop() {
        Request copy = new Request(this);
        copy.earlyStop = true;
        return copy;
    }

    /**
     * Refuses the request at once, with {@code ParaEdgeException}, DROPPED, if it will probably have no prediction before
     * its deadline: it waits behind others, or the first branch takes too long. Otherwise its prediction comes late.
     */
    public Request dropOnOverload() {
        Request copy = new Request(this);
        copy.dropOnOverload = true;
        return copy;
    }

    /** Tells {@code listener} whenever the prediction has improved. What it throws comes out of {@code run}. */
    public Request onPrediction(Listener listener) {
        Request copy = new Request(this);
        copy.listener = Objects.requireNonNull(listener, "listener");
        return copy;
    }

    /** Asks {@code cancelled} while the request waits. What it throws comes out of {@code run}. */
    public Request cancelled(Cancelled cancelled) {
        Request copy = new Request(this);
        copy.cancelled = Objects.requireNonNull(cancelled, "cancelled");
        return copy;
    }

    /** The deadline of a request that begins now, in the core's clock, which is that of {@link System#nanoTime}. */
    long deadline() {
        if (budgetNanos == NEVER) {
            return deadlineNanos;
        }
        long now = System.nanoTime();
        return budgetNanos < NEVER - now ? now + budgetNanos : NEVER;
    }
}
