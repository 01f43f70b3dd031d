package ai.paraedge;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.util.Objects;
import java.util.concurrent.locks.Lock;
import java.util.concurrent.locks.ReentrantReadWriteLock;

/**
 * A bundle loaded into its engine, and the threads that run it. Any thread may call it; requests run one after another, the
 * one with the earliest deadline first.
 *
 * <p>Opening reads and prepares every branch, so do that away from the thread that draws. {@link #close} waits for
 * requests in progress, and frees what the garbage collector does not know of.
 */
public final class Session implements AutoCloseable {
    private final Bundle bundle;
    private final ReentrantReadWriteLock inUse = new ReentrantReadWriteLock(true); // shared by requests, not by close
    private final int threads;
    private final int numBranches;
    private long handle;

    private Session(Bundle bundle, long handle) {
        this.bundle = bundle;
        this.handle = handle;
        threads = Native.threads(handle);
        numBranches = Native.numBranches(handle);
    }

    /** Opens a session with {@link SessionOptions#DEFAULT}. */
    public static Session open(Bundle bundle) {
        return open(bundle, SessionOptions.DEFAULT);
    }

    /**
     * Opens a session. The bundle may be closed before it.
     *
     * @throws ParaEdgeException UNAVAILABLE: there is no such engine; ENGINE or MANIFEST: it refused a part; INPUT: an
     *     option is invalid
     */
    public static Session open(Bundle bundle, SessionOptions options) {
        Objects.requireNonNull(bundle, "bundle");
        return new Session(bundle, bundle.openSession(Objects.requireNonNull(options, "options")));
    }

    /** The bundle that it runs. */
    public Bundle bundle() {
        return bundle;
    }

    /** Threads that run branches, the caller's included. */
    public int threads() {
        return threads;
    }

    /** Branches that are loaded. */
    public int numBranches() {
        return numBranches;
    }

    /** Time of the stem and the first branch that is probably (0.9) not exceeded; NaN: not known yet. */
    public double mandatoryMs() {
        inUse.readLock().lock();
        try {
            return Native.mandatoryMs(open());
        } finally {
            inUse.readLock().unlock();
        }
    }

    /** {@link #run(ByteBuffer, Request)} without a deadline. */
    public Prediction run(ByteBuffer image) {
        return run(image, Request.DEFAULT);
    }

    /**
     * Runs an image, uint8 (H, W, C), from the buffer's position to its limit. A direct buffer is read where it is; it
     * must not change meanwhile.
     *
     * @throws ParaEdgeException INPUT: of another size, or not what the bundle reads; ENGINE; CANCELLED; DROPPED
     * @throws IllegalStateException the session is closed, or the call comes out of a callback of its own
     */
    public Prediction run(ByteBuffer image, Request request) {
        if (Objects.requireNonNull(image, "image").isDirect()) {
            return run(image, true, true, image.position(), image.remaining(), request);
        }
        if (!image.hasArray()) {
            throw new IllegalArgumentException("the image is a read-only buffer on the heap; give a direct one");
        }
        return run(image.array(), false, true, image.arrayOffset() + image.position(), image.remaining(), request);
    }

    /** {@link #run(byte[], Request)} without a deadline. */
    public Prediction run(byte[] image) {
        return run(image, Request.DEFAULT);
    }

    /** Runs an image, uint8 (H, W, C). */
    public Prediction run(byte[] image, Request request) {
        return run(image, false, true, 0, Objects.requireNonNull(image, "image").length, request);
    }

    /** {@link #run(float[], Request)} without a deadline. */
    public Prediction run(float[] values) {
        return run(values, Request.DEFAULT);
    }

    /** Runs a tensor: raw sensor values, or (1, C, H, W), normalised, for a bundle that reads images. */
    public Prediction run(float[] values, Request request) {
        return run(values, false, false, 0, Objects.requireNonNull(values, "values").length, request);
    }

    /** {@link #run(FloatBuffer, Request)} without a deadline. */
    public Prediction run(FloatBuffer values) {
        return run(values, Request.DEFAULT);
    }

    /** Runs a tensor from a direct buffer in this machine's byte order, read where it is. */
    public Prediction run(FloatBuffer values, Request request) {
        if (!Objects.requireNonNull(values, "values").isDirect() || values.order() != ByteOrder.nativeOrder()) {
            throw new IllegalArgumentException("values are not in a direct buffer of this machine's byte order; "
                    + "use ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder()).asFloatBuffer(), or a float[]");
        }
        return run(values, true, false, values.position(), values.remaining(), request);
    }

    /** Waits for requests in progress, then frees the session. */
    @Override
    public void close() {
        enter(inUse.writeLock());
        try {
            if (handle != 0) {
                Native.freeSession(handle);
            }
            handle = 0;
        } finally {
            inUse.writeLock().unlock();
        }
    }

    private Prediction run(Object source, boolean isDirect, boolean isImage, int offset, int count, Request request) {
        Objects.requireNonNull(request, "request");
        long deadline = request.deadline(); // before waiting for others: it is the caller's time
        enter(inUse.readLock());
        try {
            return Native.run(open(), bundle.labels(), source, isDirect, isImage, offset, count, deadline,
                    request.leaveNanos, request.firstBranches, request.branches, request.startAll, request.earlyStop,
                    request.dropOnOverload, request.listener, request.cancelled);
        } finally {
            inUse.readLock().unlock();
        }
    }

    private void enter(Lock lock) {
        if (inUse.getReadHoldCount() > 0) {
            throw new IllegalStateException("called from a callback of this session's own request; wait until the request ends");
        }
        lock.lock();
    }

    private long open() {
        if (handle == 0) {
            throw new IllegalStateException("the session is closed");
        }
        return handle;
    }
}
