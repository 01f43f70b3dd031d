package ai.paraedge;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/** An exported model, a folder or one stored zip: immutable, and shared by any number of sessions. */
public final class Bundle implements AutoCloseable {
    /** What the model reads. */
    public enum InputKind {
        /** uint8 (H, W, C). */
        IMAGE,
        /** float32, of the shape that {@link Bundle#inputShape} says. */
        TENSOR
    }

    /** What the model was trained to see of an image of another size, in the order of {@code PE_RESIZE_...} in paraedge.h. */
    public enum Resize {
        /** The whole of it, whatever its proportions. */
        STRETCH,
        /** The largest part that has the proportions of the model's input, from the middle. */
        CROP
    }

    private final String name;
    private final String engine;
    private final long version;
    private final List<String> labels;
    private final List<Integer> branches;
    private final long[] inputShape;
    private final InputKind inputKind;
    private final Resize resize;
    private final int numOutputs;
    private final boolean hasEarlyStop;
    private long handle;

    private Bundle(long handle) {
        this.handle = handle;
        // Strings: name, engine, labels. Numbers: version, kind of input, outputs, early stop, resize, rank, shape,
        // branches.
        byte[][] strings = Native.bundleStrings(handle);
        long[] numbers = Native.bundleNumbers(handle);
        name = Native.string(strings[0]);
        engine = Native.string(strings[1]);
        labels = labels(strings);
        version = numbers[0];
        inputKind = InputKind.values()[(int) numbers[1]];
        numOutputs = (int) numbers[2];
        hasEarlyStop = numbers[3] != 0;
        resize = Resize.values()[(int) numbers[4]];
        inputShape = new long[(int) numbers[5]];
        System.arraycopy(numbers, 6, inputShape, 0, inputShape.length);
        List<Integer> indexes = new ArrayList<>();
        for (int at = 6 + inputShape.length; at < numbers.length; at++) {
            indexes.add((int) numbers[at]);
        }
        branches = Collections.unmodifiableList(indexes);
    }

    /**
     * Opens a bundle and checks every file of it against its hash.
     *
     * @param path of a folder, or of the zip that {@code paraedge pack} makes
     * @throws ParaEdgeException MANIFEST or INTEGRITY: it is no bundle, or damaged
     */
    public static Bundle open(String path) {
        return of(Native.openBundle(Native.utf8(path, "path")));
    }

    /**
     * Opens a bundle only if one of these keys signed it.
     *
     * @param path of a folder, or of the zip that {@code paraedge pack} makes
     * @param trustedKeys at least one: a public key as {@code paraedge keygen} and minisign print it (56 letters), the
     *     path of its file, or of a folder of such files (*.pub)
     * @throws ParaEdgeException INTEGRITY: it is not signed, by another key, not any more, or was changed since; INPUT: a
     *     key cannot be read; otherwise as {@link #open(String)}
     */
    public static Bundle open(String path, List<String> trustedKeys) {
        byte[] where = Native.utf8(path, "path");
        byte[][] keys = new byte[trustedKeys.size()][];
        for (int at = 0; at < keys.length; at++) {
            keys[at] = Native.utf8(trustedKeys.get(at), "trustedKeys");
        }
        return of(Native.openSignedBundle(where, keys));
    }

    private static Bundle of(long handle) {
        try {
            return new Bundle(handle);
        } catch (RuntimeException | Error problem) {
            Native.freeBundle(handle);
            throw problem;
        }
    }

    /** Of the model. */
    public String name() {
        return name;
    }

    /** The engine that runs it, such as {@code executorch}. */
    public String engine() {
        return engine;
    }

    /** Of the model: it never goes back. */
    public long version() {
        return version;
    }

    /** Names of the classes; empty: the output is a vector without labels. */
    public List<String> labels() {
        return labels;
    }

    /** Indexes of its branches in the model that it was made from, ascending. */
    public List<Integer> branches() {
        return branches;
    }

    /** Image or tensor. */
    public InputKind inputKind() {
        return inputKind;
    }

    /** Shape of the input, the batch of 1 first: (1, C, H, W) for images. */
    public long[] inputShape() {
        return inputShape.clone();
    }

    /** How an image of another size becomes one of this shape: {@link Pixels#fitted} does it. */
    public Resize resize() {
        return resize;
    }

    /** Values of one input: bytes of an image, floats of a tensor. */
    public int inputSize() {
        long size = 1;
        for (long length : inputShape) {
            size *= length;
        }
        return (int) size;
    }

    /** Values of an output. */
    public int numOutputs() {
        return numOutputs;
    }

    /** Whether it was calibrated for {@link Request#earlyStop} at export. */
    public boolean hasEarlyStop() {
        return hasEarlyStop;
    }

    /** Frees it; sessions of it go on. */
    @Override
    public synchronized void close() {
        if (handle != 0) {
            Native.freeBundle(handle);
        }
        handle = 0;
    }

    synchronized long openSession(SessionOptions options) {
        if (handle == 0) {
            throw new IllegalStateException("the bundle is closed; open sessions before");
        }
        return Native.openSession(handle, options.threads, options.firstBranches, options.spinUs,
                options.placement.ordinal(), options.partMs, options.contention);
    }

    private static List<String> labels(byte[][] strings) {
        List<String> found = new ArrayList<>(strings.length);
        for (int at = 2; at < strings.length; at++) {
            found.add(Native.string(strings[at]));
        }
        return Collections.unmodifiableList(found);
    }
}
