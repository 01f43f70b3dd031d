package ai.paraedge;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;

/** What a request found: the sum of the branches that count, and what became of each. Immutable. */
public final class Prediction {
    // How the native library packs one: these, the output, what each used branch contributed, the branches.
    private static final int LABEL = 0;
    private static final int CONFIDENCE = 1;
    private static final int CALIBRATED = 2;
    private static final int ELAPSED_MS = 3;
    private static final int STEM_MS = 4;
    private static final int DEADLINE_MET = 5;
    private static final int REQUESTS_TO_LEARN = 6;
    private static final int OUTPUTS = 7;
    private static final int ROWS = 8;
    private static final int BRANCHES = 9;
    private static final int HEAD = 10;

    private final List<String> labels;
    private final float[] packed;
    private final byte[][] problems; // of each branch, UTF-8; null: none failed

    /** Called by the native library. */
    Prediction(List<String> labels, float[] packed, byte[][] problems) {
        this.labels = labels;
        this.packed = packed;
        this.problems = problems;
    }

    /** The sum of the used branches: logits of classes, or a vector. */
    public float[] output() {
        return Arrays.copyOfRange(packed, HEAD, HEAD + numOutputs());
    }

    /** What each used branch contributed to the sum, in order of index: (branches used, outputs). */
    public float[][] branchOutputs() {
        float[][] rows = new float[(int) packed[ROWS]][];
        for (int row = 0; row < rows.length; row++) {
            int from = HEAD + (row + 1) * numOutputs();
            rows[row] = Arrays.copyOfRange(packed, from, from + numOutputs());
        }
        return rows;
    }

    /** Index of the largest output. */
    public int labelIndex() {
        return (int) packed[LABEL];
    }

    /** Name of the class with the largest output; null for a vector. */
    public String label() {
        return labels.isEmpty() ? null : labels.get(labelIndex());
    }

    /**
     * Indexes of the {@code count} largest outputs, the largest first; of equal ones the lower index.
     *
     * @throws IllegalArgumentException it is below 1, or there are not so many
     */
    public int[] top(int count) {
        if (count < 1 || count > numOutputs()) {
            throw new IllegalArgumentException("count must be from 1 to " + numOutputs() + ", got " + count);
        }
        int[] best = new int[count];
        boolean[] taken = new boolean[numOutputs()];
        for (int place = 0; place < count; place++) {
            int largest = -1;
            for (int at = 0; at < taken.length; at++) {
                if (!taken[at] && (largest < 0 || packed[HEAD + at] > packed[HEAD + largest])) {
                    largest = at;
                }
            }
            taken[largest] = true;
            best[place] = largest;
        }
        return best;
    }

    /** Softmax probability of the label; NaN for a vector. */
    public float confidence() {
        return packed[CONFIDENCE];
    }

    /** Whether the confidence was calibrated at export. */
    public boolean isCalibrated() {
        return packed[CALIBRATED] != 0;
    }

    /** How long the request took. */
    public float elapsedMs() {
        return packed[ELAPSED_MS];
    }

    /** How long the stem took. */
    public float stemMs() {
        return packed[STEM_MS];
    }

    /** Whether it was there before the deadline; true without one. */
    public boolean deadlineMet() {
        return packed[DEADLINE_MET] != 0;
    }

    /** Requests until this device's speed is known; 0: it is. */
    public int requestsToLearn() {
        return (int) packed[REQUESTS_TO_LEARN];
    }

    /** How many branches are in the sum. */
    public int branchesUsed() {
        return (int) packed[ROWS];
    }

    /** Every branch that was asked for, in order of index. */
    public List<BranchRun> branches() {
        List<BranchRun> runs = new ArrayList<>();
        int first = HEAD + (branchesUsed() + 1) * numOutputs();
        for (int position = 0; position < (int) packed[BRANCHES]; position++) {
            String problem = problems == null ? "" : Native.string(problems[position]);
            runs.add(new BranchRun(packed, first + position * BranchRun.FIELDS, problem));
        }
        return Collections.unmodifiableList(runs);
    }

    @Override
    public String toString() {
        String what = labels.isEmpty() ? "a vector of " + numOutputs() : label() + " (" + confidence() + ")";
        return what + ", " + branchesUsed() + " of " + (int) packed[BRANCHES] + " branches, " + elapsedMs() + " ms";
    }

    private int numOutputs() {
        return (int) packed[OUTPUTS];
    }
}
