// How soon the next requests may come, judged by the last ones. core/arrivals.cpp, line by line; reads no clock.
const GAPS = 64; // the last ones count
const LEAST = 8; // with fewer, nothing is known
const AHEAD = 2; // requests that are left time
const FORGET = 0.99; // a budget that became smaller is noticed after some dozen requests
const WHOLE = 0.9; // who has so much of it left did not wait
const [AT_ONCE_MS, AT_ONCE_SHARE] = [0.1, 0.1]; // who comes so soon after the last prediction waited for it

/** The shortest gaps between deadlines, which are those between arrivals while the budget stays; docs/anytime.md explains it. */
export class Arrivals {
  /** NaN: not counted. @type {number[]} */ #gapsMs = [];
  #deadlineMs = NaN; // of the request before; NaN: it had none
  #longestLeftMs = 0; // what a request that did not wait has left when it begins

  /**
   * A request began.
   *
   * @param {number} nowMs
   * @param {number} deadlineMs until when it may take
   * @param {number} endedMs when the one before it ended, -Infinity for the first
   * @param {number} mandatoryMs what a prediction takes at least; NaN: not known
   */
  came(nowMs, deadlineMs, endedMs, mandatoryMs) {
    const [leftMs, gapMs] = [deadlineMs - nowMs, deadlineMs - this.#deadlineMs];
    this.#longestLeftMs = Math.max(leftMs, FORGET * this.#longestLeftMs);
    if (!Number.isNaN(this.#deadlineMs)) {
      // A caller that asks again once it has its prediction leaves nobody waiting, however soon it comes.
      const atOnceMs = Math.max(AT_ONCE_MS, AT_ONCE_SHARE * mandatoryMs || 0);
      const isInTurn = nowMs - endedMs < atOnceMs && leftMs >= WHOLE * this.#longestLeftMs;
      this.#gapsMs.push(isInTurn || gapMs < 0 ? NaN : gapMs);
      if (this.#gapsMs.length > GAPS) this.#gapsMs.shift();
    }
    this.#deadlineMs = deadlineMs;
  }

  /** A request without a deadline: when it came is not known. */
  cameWithoutDeadline() {
    this.#deadlineMs = NaN;
  }

  /**
   * How much earlier than its deadline this request has to leave, so that the next ones have time for a first prediction
   * each if they come as soon as any came lately.
   *
   * @param {number} mandatoryMs
   */
  earlierMs(mandatoryMs) {
    let earlierMs = 0;
    for (let count = 1; count <= AHEAD; count++)
      earlierMs = Math.max(earlierMs, count * mandatoryMs - this.#shortestMs(count));
    return earlierMs;
  }

  /** Sum of `count` successive gaps; Infinity: not known. @param {number} count */
  #shortestMs(count) {
    let shortest = Infinity;
    if (this.#gapsMs.length < LEAST) return shortest;
    for (let begin = 0; begin + count <= this.#gapsMs.length; begin++) {
      const sum = this.#gapsMs.slice(begin, begin + count).reduce((a, b) => a + b, 0);
      if (sum < shortest) shortest = sum; // not so where one is not counted
    }
    return shortest;
  }
}
