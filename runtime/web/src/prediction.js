// A prediction: the output, which branches made it and why, and when each part ran. The same as Python's.
import { InputError } from "./errors.js";

/** What became of a branch; the numbers are those of paraedge.h. */
export const BranchState = Object.freeze({
  USED: 0,
  FAILED: 1,
  NOT_FINITE: 2,
  WOULD_NOT_FIT: 3,
  LATE: 4,
  NOT_NEEDED: 5,
});

/**
 * One branch in one request. Times are milliseconds since the request began.
 *
 * @typedef {object} BranchRun
 * @property {number} index its position in the model it was taken from
 * @property {number} state a `BranchState`
 * @property {number} thread -1 when it never started
 * @property {number} startMs
 * @property {number} endMs 0 when it had not finished
 * @property {number} predictedMs when it was last decided on: the time it would probably (0.9) not exceed; NaN: nothing was known
 * @property {number} leftMs what was left of the budget then; NaN when no decision was needed
 * @property {boolean} isLoaded whether a thread had loaded it
 * @property {string} problem why it failed
 * @property {Float32Array | null} output (C,), of a branch that is used
 */

/**
 * What the session knows of a request beside its branches.
 *
 * @typedef {object} RequestFacts
 * @property {readonly string[]} labels empty where the output is a vector
 * @property {string} engine
 * @property {readonly number[]} temperatures of the first 1, 2, … branches; empty: not calibrated
 * @property {number} thread which ran the stem
 * @property {number} stemStartMs
 * @property {number} stemEndMs
 * @property {number} elapsedMs
 * @property {boolean} deadlineMet
 * @property {number} requestsToLearn
 */

/** The softmax of `logits / temperature`. @param {Float32Array} logits (C,) @param {number} temperature */
export function softmax(logits, temperature) {
  const largest = maximum(logits);
  const exponentials = Float64Array.from(logits, (value) => Math.exp((value - largest) / temperature));
  const total = exponentials.reduce((sum, value) => sum + value, 0);
  return exponentials.map((value) => value / total);
}

/** That softmax at its largest. @param {Float32Array} logits (C,) @param {number} temperature */
export function softmaxConfidence(logits, temperature) {
  const largest = maximum(logits);
  let total = 0;
  for (const value of logits) total += Math.exp((value - largest) / temperature);
  return 1 / total;
}

/** Added in float32. @param {Float32Array} sum @param {Float32Array} output */
export function addTo(sum, output) {
  for (let place = 0; place < sum.length; place++) sum[place] += output[place];
}

/** @param {Float32Array} values */
function maximum(values) {
  let largest = -Infinity;
  for (const value of values) if (value > largest) largest = value;
  return largest;
}

/**
 * The result of one request.
 *
 * A bundle whose output is a vector has no labels: `label`, `labelIndex`, `confidence`, `probabilities` and `topK`
 * throw `InputError`; read `output`.
 */
export class Prediction {
  /** @type {RequestFacts} */ #facts;

  /** @param {readonly BranchRun[]} branches every branch that was asked for, in order @param {number} numOutputs @param {RequestFacts} facts */
  constructor(branches, numOutputs, facts) {
    this.#facts = facts;
    this.branches = branches;
    this.elapsedMs = facts.elapsedMs;
    /** Whether it was there in time; true without a budget. */
    this.deadlineMet = facts.deadlineMet;
    /** Requests until the speed of this device is known; 0 when it is. */
    this.requestsToLearn = facts.requestsToLearn;
    this.engine = facts.engine;
    /** (C,): the sum of the branches used, added in branch order: logits, or the vector. */
    this.output = new Float32Array(numOutputs);
    const used = branches.filter(({ state }) => state === BranchState.USED);
    for (const run of used) addTo(this.output, /** @type {Float32Array} */ (run.output));
    const isPrefix = branches.slice(0, used.length).every(({ state }) => state === BranchState.USED);
    /** Whether a temperature was fitted at export for just the branches used. */
    this.isCalibrated = facts.labels.length > 0 && isPrefix && used.length <= facts.temperatures.length;
    Object.freeze(this);
  }

  /** Of the largest logit. */
  get labelIndex() {
    this.#labels();
    return this.output.indexOf(maximum(this.output));
  }

  get label() {
    return this.#labels()[this.labelIndex];
  }

  /** Softmax probability of the label, see `isCalibrated`. */
  get confidence() {
    this.#labels();
    return Math.fround(softmaxConfidence(this.output, this.#temperature));
  }

  /** (C,): of every label; the largest is the confidence. */
  get probabilities() {
    this.#labels();
    return softmax(this.output, this.#temperature);
  }

  /**
   * The `k` most probable labels with their probabilities, the most probable first.
   *
   * @param {number} k
   * @returns {[string, number][]}
   * @throws {InputError} k is no whole number from 1 to the number of labels
   */
  topK(k) {
    const labels = this.#labels();
    if (!(Number.isInteger(k) && k >= 1 && k <= labels.length)) {
      throw new InputError(`k must be an integer from 1 to ${labels.length} (the number of labels), got ${k}`);
    }
    const { output, probabilities } = this;
    const order = [...output.keys()].sort((a, b) => output[b] - output[a] || a - b);
    return order.slice(0, k).map((index) => [labels[index], probabilities[index]]);
  }

  /** Indexes of the branches in the sum. */
  get branchesUsed() {
    return this.branches.filter(({ state }) => state === BranchState.USED).map(({ index }) => index);
  }

  /** The others that were asked for, each with its reason. */
  get branchesDropped() {
    return this.branches
      .filter(({ state }) => state !== BranchState.USED)
      .map((run) => ({ index: run.index, reason: reasonOf(run) }));
  }

  /** (C,) each: what every used branch contributed. */
  get branchOutputs() {
    return this.branches.flatMap(({ state, output }) => (state === BranchState.USED && output ? [output] : []));
  }

  /** (C,) each: the sum after the first, the first two, … used branches. */
  get prefixOutputs() {
    const sum = new Float32Array(this.output.length);
    return this.branchOutputs.map((output) => {
      addTo(sum, output);
      return sum.slice();
    });
  }

  /** When each finished part ran, by start. @returns {{part: string, thread: number, startMs: number, endMs: number}[]} */
  get timeline() {
    const finished = this.branches
      .filter(({ endMs }) => endMs > 0)
      .map(({ index, thread, startMs, endMs }) => ({
        part: `branch_${String(index).padStart(2, "0")}`,
        thread,
        startMs,
        endMs,
      }))
      .sort((a, b) => a.startMs - b.startMs);
    const { thread, stemStartMs, stemEndMs } = this.#facts;
    return [{ part: "stem", thread, startMs: stemStartMs, endMs: stemEndMs }, ...finished];
  }

  /** Everything about the prediction in types that JSON has. */
  toJSON() {
    const hasLabels = this.#facts.labels.length > 0;
    return {
      label: hasLabels ? this.label : null,
      labelIndex: hasLabels ? this.labelIndex : null,
      confidence: hasLabels ? this.confidence : null,
      isCalibrated: this.isCalibrated,
      output: [...this.output],
      branchesUsed: this.branchesUsed,
      branchesDropped: this.branchesDropped,
      elapsedMs: this.elapsedMs,
      deadlineMet: this.deadlineMet,
      requestsToLearn: this.requestsToLearn,
      engine: this.engine,
      timeline: this.timeline,
    };
  }

  /** Why each branch ran or was dropped, a line each. */
  explain() {
    const lines = this.requestsToLearn
      ? [`this device's speed is still being learned, for ${this.requestsToLearn} more request(s)`]
      : [];
    for (const [position, run] of this.branches.entries()) {
      if (run.state === BranchState.USED) {
        const when = `ran from ${run.startMs.toFixed(2)} to ${run.endMs.toFixed(2)} ms on thread ${run.thread}`;
        lines.push(`branch ${run.index} ${when}: ${position === 0 ? "the first branch always runs" : reasonOf(run)}`);
      } else {
        lines.push(`branch ${run.index} was dropped: ${reasonOf(run)}`);
      }
    }
    return lines.join("\n");
  }

  get #temperature() {
    return this.isCalibrated ? this.#facts.temperatures[this.branchesUsed.length - 1] : 1;
  }

  #labels() {
    const { labels } = this.#facts;
    if (!labels.length)
      throw new InputError(`this bundle's output is a vector of ${this.output.length} numbers; read 'output'`);
    return labels;
  }
}

/** Why it ran, or why it does not count. @param {BranchRun} run */
export function reasonOf(run) {
  const predicted = `${run.predictedMs.toFixed(2)} ms predicted, ${run.leftMs.toFixed(2)} ms left`;
  switch (run.state) {
    case BranchState.USED:
      return Number.isNaN(run.leftMs) ? "no decision was needed" : predicted;
    case BranchState.FAILED:
      return run.problem;
    case BranchState.NOT_FINITE:
      return "its output is not finite";
    case BranchState.WOULD_NOT_FIT:
      return Number.isNaN(run.predictedMs)
        ? "its time on this device is not known yet"
        : `predicted to miss the deadline: ${predicted}`;
    case BranchState.LATE:
      if (!run.isLoaded) return "it was still being loaded";
      return run.thread >= 0 ? "it had not finished at the deadline" : "no thread was free before the deadline";
    default:
      return "the prediction was confident enough without it";
  }
}
