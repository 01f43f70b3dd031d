// One request: what became of each branch, the sum so far, and the prediction that comes of it. core/request.cpp, in JavaScript.
import { EngineError } from "./errors.js";
import { addTo, BranchState, Prediction, softmaxConfidence } from "./prediction.js";

/** @typedef {import("./manifest.js").StopRule} StopRule */

/** A branch in one request. */
export class Task {
  /** @type {"waiting" | "running" | "finished"} */ step = "waiting";
  /** @type {number} */ state = BranchState.LATE;
  thread = -1;
  busy = 0; // branches that ran when it was given to a thread, itself included
  postedMs = NaN; // when it was
  startMs = NaN;
  endMs = NaN;
  predictedMs = NaN;
  leftMs = NaN;
  isLoaded = true;
  problem = "";
  /** @type {Float32Array | null} */ output = null;

  /** @param {number} position among the loaded branches @param {number} index of the model */
  constructor(position, index) {
    this.position = position;
    this.index = index;
  }
}

/**
 * @typedef {object} RequestOptions
 * @property {number} budgetMs Infinity: none
 * @property {number} leaveMs when it ends at the latest: at its deadline, or earlier where others may come meanwhile
 * @property {"anytime" | "all"} policy
 * @property {StopRule[] | null} stopRules of the first 1, 2, … branches; null: all of them run
 * @property {boolean} isWatched whether somebody wants every prediction on the way
 */

export class Request {
  isOpen = true; // results count
  thread = -1; // that runs the stem
  stemStartMs = NaN;
  stemEndMs = NaN;
  stemHeardMs = NaN; // when the page heard of it
  lastEndMs = -Infinity; // of a branch
  dueMs = Infinity; // when it has to return
  isCutShort = false; // the time to return came, and there was a prediction
  used = 0;
  running = 0;
  #judged = 0; // branches of the prefix whose sum this is
  /** @type {Float32Array} */ #prefixSum;

  /**
   * @param {number} number
   * @param {{position: number, index: number}[]} branches asked for, ascending
   * @param {number} numOutputs
   * @param {number} startedMs
   * @param {RequestOptions} options
   */
  constructor(number, branches, numOutputs, startedMs, options) {
    this.number = number;
    this.tasks = branches.map(({ position, index }) => new Task(position, index));
    this.startedMs = startedMs;
    this.deadlineMs = startedMs + options.budgetMs;
    this.options = options;
    this.unfinished = branches.length;
    this.#prefixSum = new Float32Array(numOutputs);
  }

  get hasDeadline() {
    return this.deadlineMs !== Infinity;
  }

  /** Branches are started in order of index: not all of them may run, or somebody watches. */
  get isInOrder() {
    return this.hasDeadline || this.options.stopRules !== null || this.options.isWatched;
  }

  /** @param {Task} task @param {number} state */
  finish(task, state) {
    task.step = "finished";
    task.state = state;
    this.unfinished -= 1;
    this.used += state === BranchState.USED ? 1 : 0;
  }

  /** Adds the finished branches to the prefix, and says whether its confidence is enough. The rule is of exactly this prefix. */
  isEnough() {
    const { stopRules } = this.options;
    while (stopRules && this.#judged < this.tasks.length) {
      const { output } = this.tasks[this.#judged];
      if (!output) return false;
      addTo(this.#prefixSum, output);
      const { temperature, threshold } = stopRules[this.#judged++];
      if (this.#judged === this.tasks.length || threshold === null) continue;
      if (softmaxConfidence(this.#prefixSum, temperature) < threshold) continue;
      for (const task of this.tasks.slice(this.#judged))
        Object.assign(task, { state: BranchState.NOT_NEEDED, output: null, problem: "" });
      return true;
    }
    return false;
  }

  /**
   * @param {number} nowMs
   * @param {Pick<import("./prediction.js").RequestFacts, "labels" | "engine" | "temperatures" | "requestsToLearn">} session
   * @returns {Prediction}
   * @throws {EngineError} every branch failed, or the sum is not finite
   */
  collect(nowMs, session) {
    const since = (/** @type {number} */ timeMs) => (Number.isNaN(timeMs) ? 0 : timeMs - this.startedMs);
    const runs = this.tasks.map(
      ({ index, state, thread, startMs, endMs, predictedMs, leftMs, isLoaded, problem, output }) =>
        Object.freeze({
          index,
          state,
          thread,
          startMs: since(startMs),
          endMs: since(endMs),
          predictedMs,
          leftMs,
          isLoaded,
          problem,
          output,
        }),
    );
    if (!this.used) {
      const causes = runs.flatMap(({ index, state, problem }) => {
        const cause = state === BranchState.NOT_FINITE ? "its output is not finite" : problem;
        return cause ? [` branch ${index}: ${cause};`] : [];
      });
      throw new EngineError(`every branch failed:${causes.join("")} 'paraedge verify' checks the bundle`);
    }
    const prediction = new Prediction(runs, this.#prefixSum.length, {
      ...session,
      thread: this.thread,
      stemStartMs: since(this.stemStartMs),
      stemEndMs: since(this.stemEndMs),
      elapsedMs: nowMs - this.startedMs,
      deadlineMet: nowMs <= this.deadlineMs,
    });
    if (!prediction.output.every(Number.isFinite)) {
      throw new EngineError("the sum of the branches is not finite; 'paraedge verify' checks the bundle");
    }
    return prediction;
  }
}
