package ai.paraedge;

/** One branch in one request. Times are milliseconds since the request began. */
public final class BranchRun {
    /** What became of a branch, in the order of {@code PE_BRANCH_...} in paraedge.h. */
    public enum State {
        /** It is in the sum. */
        USED,
        /** The engine refused. */
        FAILED,
        /** Its output has NaN or infinity. */
        NOT_FINITE,
        /** It was not started: predicted to miss the deadline. */
        WOULD_NOT_FIT,
        /** It was running or waiting at the deadline. */
        LATE,
        /** The prediction was good enough without it. */
        NOT_NEEDED
    }

    static final int FIELDS = 7;
    private static final State[] STATES = State.values();

    private final int index;
    private final State state;
    private final int thread;
    private final float startMs;
    private final float endMs;
    private final float predictedMs;
    private final float leftMs;
    private final String problem;

    BranchRun(float[] packed, int at, String problem) {
        index = (int) packed[at];
        state = STATES[(int) packed[at + 1]];
        thread = (int) packed[at + 2];
        startMs = packed[at + 3];
        endMs = packed[at + 4];
        predictedMs = packed[at + 5];
        leftMs = packed[at + 6];
        this.problem = problem;
    }

    /** Its position in the model that the bundle was made from. */
    public int index() {
        return index;
    }

    /** What became of it. */
    public State state() {
        return state;
    }

    /** The thread that ran it: 0 is the caller's, -1 that it never started. */
    public int thread() {
        return thread;
    }

    /** When it started. */
    public float startMs() {
        return startMs;
    }

    /** When it finished; 0 if it had not. */
    public float endMs() {
        return endMs;
    }

    /** The time that it would probably (0.9) not exceed, when it was last decided on; NaN if it never was. */
    public float predictedMs() {
        return predictedMs;
    }

    /** What was left of the budget then; NaN if it was never decided on. */
    public float leftMs() {
        return leftMs;
    }

    /** Why it ran, or why it is not in the sum. */
    public String reason() {
        boolean decided = !Float.isNaN(leftMs);
        switch (state) {
            case USED:
                return decided ? decision() : "no decision was needed";
            case FAILED:
                return problem;
            case NOT_FINITE:
                return "its output is not finite";
            case WOULD_NOT_FIT:
                return Float.isNaN(predictedMs)
                        ? "its time on this device is not known yet"
                        : "predicted to miss the deadline: " + decision();
            case LATE:
                return thread >= 0
                        ? "it had not finished at the deadline"
                        : "no thread was free before the deadline";
            default:
                return "the prediction was confident enough without it";
        }
    }

    private String decision() {
        return String.format(java.util.Locale.ROOT, "%.2f ms predicted, %.2f ms left", predictedMs, leftMs);
    }

    @Override
    public String toString() {
        return "branch " + index + ": " + state + ", " + reason();
    }
}
