package ai.paraedge;

/** How a session runs its branches. Immutable: each method gives a changed copy. */
public final class SessionOptions {
    /** Where worker threads may run, in the order of {@code PE_PLACEMENT_...} in paraedge.h. */
    public enum Placement {
        /** Wherever the system puts them. */
        NONE,
        /** Anywhere but on the core that the caller runs on. */
        AVOID_CALLER,
        /** One core each, the fastest first. */
        PINNED
    }

    /** One thread per branch, up to the cores allowed; speed is learned from the first requests. */
    public static final SessionOptions DEFAULT = new SessionOptions();

    int threads;
    int firstBranches;
    int spinUs = 50;
    Placement placement = Placement.AVOID_CALLER;
    double[] partMs;
    double[] contention;

    private SessionOptions() {}

    private SessionOptions(SessionOptions from) {
        threads = from.threads;
        firstBranches = from.firstBranches;
        spinUs = from.spinUs;
        placement = from.placement;
        partMs = from.partMs;
        contention = from.contention;
    }

    /** Threads that run branches, the caller's included; 0: one per branch, up to the cores allowed. */
    public SessionOptions threads(int count) {
        SessionOptions copy = new SessionOptions(this);
        copy.threads = count;
        return copy;
    }

    /** Loads the first so many branches; 0: all. */
    public SessionOptions firstBranches(int count) {
        SessionOptions copy = new SessionOptions(this);
        copy.firstBranches = count;
        return copy;
    }

    /** An idle worker spins so long before it sleeps. */
    public SessionOptions spinUs(int microseconds) {
        SessionOptions copy = new SessionOptions(this);
        copy.spinUs = microseconds;
        return copy;
    }

    /** Where worker threads may run. */
    public SessionOptions placement(Placement wanted) {
        SessionOptions copy = new SessionOptions(this);
        copy.placement = java.util.Objects.requireNonNull(wanted, "wanted");
        return copy;
    }

    /** Median time of the stem and of each loaded branch on this device, as {@code paraedge profile} finds it. */
    public SessionOptions partMs(double... milliseconds) {
        SessionOptions copy = new SessionOptions(this);
        copy.partMs = milliseconds.clone();
        return copy;
    }

    /** Factor of a branch's time while 1, 2, ... branches run, as {@code paraedge profile} finds it. */
    public SessionOptions contention(double... factors) {
        SessionOptions copy = new SessionOptions(this);
        copy.contention = factors.clone();
        return copy;
    }
}
