// Predicts how long a part will take, and learns from how long it took. Knows no engine, no worker, no clock.
// runtime/native/core/controller.cpp, line by line; tests/web holds it to the core's numbers.
import { InputError } from "./errors.js";

export const REQUESTS_TO_LEARN = 20;

const [FAST, SLOW] = [0.3, 0.03]; // gains of the two filters
const LARGEST_STEP = 1.0; // one outlier moves a filter no further than a factor of e would
const [MISS_RATE, TAIL_STEP] = [0.1, 0.05]; // adaptive conformal inference: rate aimed at, step
const [FIRST_TAIL, LARGEST_TAIL] = [0.25, 3.0];
const [LATE_RATE, LATE_STEP] = [0.003, 0.5]; // the same for how late a caller returns
const [DOUBT_CENSORED, DOUBT_KNOWN] = [0.05, 0.001]; // of a branch that is dropped again and again
const [LEAST_LATE, LARGEST_LATE] = [Math.log(0.02), Math.log(1000)];
const LONGEST_MS = 1e9; // some days

/** @param {number} value @param {number} low @param {number} high */
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** log(time) = base of the part + contention + slowdown + tail; docs/anytime.md explains it. */
export class Controller {
  /** @type {number[]} */ #macs;
  /** @type {number[]} */ #contention; // logarithms, as are all times below
  /** @type {number[]} */ #base; // a part by itself on a device that nothing slows down
  /** @type {number[]} */ #seen; // how often a part was observed, up to REQUESTS_TO_LEARN
  /** @type {boolean[]} */ #boundOnly; // never seen to finish: its base is a lower bound
  /** @type {number[]} */ #doubt; // grows while a branch is dropped
  #fast = 0;
  #slow = 0;
  #tail = FIRST_TAIL; // 0.9 quantile of what is left
  #late = LEAST_LATE; // 0.997 quantile of how late a caller that waits returns

  /**
   * Parts are numbered: 0 is the stem, branches follow.
   *
   * @param {readonly number[]} macs multiply-adds of each branch
   * @param {{partMs?: readonly number[], contention?: readonly number[]}} [latency] medians of each part by itself, the
   *   stem's first; factors of a branch's time when 1, 2, … branches run at once. Without it both are learned.
   * @throws {InputError} the latency is not of these branches, or holds what is no time
   */
  constructor(macs, latency = {}) {
    const { partMs = [], contention = [] } = latency ?? {};
    if (typeof latency !== "object" || latency === null || ![partMs, contention].every(Array.isArray))
      throw new InputError("latency must be { partMs: [ms of the stem, of each branch], contention: [factors] }");
    const parts = macs.length + 1;
    if (partMs.length && partMs.length !== parts) {
      throw new InputError(`latency has ${partMs.length} parts, a stem and ${macs.length} branches are loaded`);
    }
    for (const value of [...partMs, ...contention]) {
      if (!(Number.isFinite(value) && value > 0))
        throw new InputError(`latency holds ${value}; give times and factors above 0`);
    }
    this.#macs = macs.map((value) => Math.max(value, 1));
    this.#contention = contention.map(Math.log);
    this.#base = partMs.length ? partMs.map(Math.log) : Array(parts).fill(NaN);
    this.#seen = Array(parts).fill(partMs.length ? REQUESTS_TO_LEARN : 0);
    this.#boundOnly = Array(parts).fill(false);
    this.#doubt = Array(parts).fill(0);
  }

  /** The time that a part will probably (0.9) not exceed with `busy` branches running, itself included; NaN: nothing is known. @param {number} part @param {number} busy */
  predictedMs(part, busy) {
    const logMs = this.#baseOf(part) + this.#contentionOf(busy) + this.#slowdown + this.#tail - this.#doubt[part];
    return Math.min(Math.exp(logMs), LONGEST_MS); // NaN stays NaN
  }

  /** A part took so long. @param {number} part @param {number} busy @param {number} ms */
  observe(part, busy, ms) {
    const logMs = this.#log(part, busy, ms);
    this.#doubt[part] = 0;
    if (this.#boundOnly[part]) this.#seen[part] = 0; // now it is known better
    this.#boundOnly[part] = false;
    const seen = this.#seen[part];
    if (seen < REQUESTS_TO_LEARN) {
      this.#base[part] = seen === 0 ? logMs : this.#base[part] + (logMs - this.#base[part]) / (seen + 1);
      this.#seen[part] += 1;
      return;
    }
    const residual = logMs - this.#base[part];
    if (part > 0) {
      const exceeded = residual > this.#slowdown + this.#tail;
      this.#tail = clamp(this.#tail + TAIL_STEP * (exceeded ? 1 - MISS_RATE : -MISS_RATE), 0, LARGEST_TAIL);
    }
    this.#follow(residual);
  }

  /** A part has not ended after so long; how long it will take is not known. @param {number} part @param {number} busy @param {number} ms */
  outlasted(part, busy, ms) {
    const logMs = this.#log(part, busy, ms);
    const doubt = this.#doubt[part];
    this.#doubt[part] = 0;
    if (this.#seen[part] < REQUESTS_TO_LEARN) {
      this.#outlastedWhileLearning(part, logMs, doubt);
      return;
    }
    const residual = logMs - this.#base[part]; // at least
    if (residual <= this.#slowdown) return;
    if (part > 0 && residual > this.#slowdown + this.#tail) {
      this.#tail = Math.min(this.#tail + TAIL_STEP * (1 - MISS_RATE), LARGEST_TAIL);
    }
    this.#follow(residual);
  }

  /** A branch was not started, since it would probably not have finished in time. @param {number} part */
  dropped(part) {
    this.#doubt[part] += this.#seen[part] < REQUESTS_TO_LEARN ? DOUBT_CENSORED : DOUBT_KNOWN;
  }

  /** A caller that had waited returned so late. @param {number} lateMs */
  returned(lateMs) {
    const exceeded = Math.log(Math.max(lateMs, 1e-6)) > this.#late;
    this.#late = clamp(this.#late + LATE_STEP * (exceeded ? 1 - LATE_RATE : -LATE_RATE), LEAST_LATE, LARGEST_LATE);
  }

  /** A request ended without a wait. */
  didNotWait() {
    this.#late = Math.max(this.#late - LATE_STEP * LATE_RATE, LEAST_LATE);
  }

  /** How late a caller that waits will return, in all but three requests of a thousand. @param {number} leastMs */
  marginMs(leastMs) {
    return Math.max(leastMs, Math.exp(this.#late));
  }

  /** What a prediction takes at least, probably (0.9): the stem and the first branch; NaN: nothing is known. */
  get mandatoryMs() {
    return this.predictedMs(0, 1) + this.predictedMs(1, 1);
  }

  get requestsToLearn() {
    return REQUESTS_TO_LEARN - this.#seen[0];
  }

  /** @param {number} part @param {number} logMs @param {number} doubt */
  #outlastedWhileLearning(part, logMs, doubt) {
    if (this.#seen[part] === 0 || this.#boundOnly[part]) {
      // A bound of long ago counts for no more than what was tried now.
      const known = this.#boundOnly[part] ? this.#base[part] - doubt : this.#baseOf(part);
      if (logMs > known || Number.isNaN(known) || this.#boundOnly[part]) {
        this.#base[part] = Number.isNaN(known) ? logMs : Math.max(logMs, known);
        this.#boundOnly[part] = true;
        this.#seen[part] = Math.max(this.#seen[part], 1);
      }
    } else if (logMs > this.#base[part]) {
      this.#seen[part] += 1;
      this.#base[part] += (logMs - this.#base[part]) / this.#seen[part];
    }
  }

  get #slowdown() {
    return Math.max(this.#fast, this.#slow);
  }

  /** @param {number} part @param {number} busy @param {number} ms */
  #log(part, busy, ms) {
    return Math.log(Math.max(ms, 1e-6)) - this.#contentionOf(part === 0 ? 1 : busy);
  }

  /** Guessed by multiply-adds when it was not seen yet. @param {number} part */
  #baseOf(part) {
    if (this.#seen[part] > 0 || part === 0) return this.#base[part];
    let [sum, known] = [0, 0];
    for (let other = 1; other < this.#base.length; other++) {
      if (this.#seen[other] === 0) continue;
      sum += this.#base[other] + Math.log(this.#macs[part - 1] / this.#macs[other - 1]);
      known += 1;
    }
    return known === 0 ? NaN : sum / known;
  }

  /** @param {number} busy */
  #contentionOf(busy) {
    if (!this.#contention.length || busy < 1) return 0;
    return this.#contention[Math.min(busy, this.#contention.length) - 1];
  }

  /** @param {number} residual */
  #follow(residual) {
    this.#fast += FAST * clamp(residual - this.#fast, -LARGEST_STEP, LARGEST_STEP);
    this.#slow += SLOW * clamp(residual - this.#slow, -LARGEST_STEP, LARGEST_STEP);
  }
}
