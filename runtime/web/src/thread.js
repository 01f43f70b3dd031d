// One worker as the page sees it: what it has loaded, what it was given to run, and whether it still answers.
import { EngineError } from "./errors.js";

const WATCH_MS = 1000;
export const NO_SCRIPT = "its script did not load";
const STUCK_AFTER = 20; // looks at the same part: a page that was asleep sees few, so it blames nobody

/**
 * A part that a thread was given in a request.
 * @typedef {{request: number, part: number, postedMs: number}} Job
 *
 * What a worker says of a part that it ran; times count from the epoch.
 * @typedef {{request: number, part: number, startMs: number, endMs: number, output: Float32Array | null, problem: string, isBroken?: boolean}} Ended
 *
 * @typedef {{ended: (thread: Thread, message: Ended) => void, crashed: (thread: Thread, problem: string) => void}} Listener
 */

export class Thread {
  /** Jobs in the order in which they were given; the first one runs. @type {Job[]} */ jobs = [];
  /** By part, the stem's first. @type {boolean[]} */ loaded = [];
  isAlive = true;
  endedMs = -Infinity; // its last part; on a coarse clock, when the page heard of it
  /** @type {Map<number, {resolve: (result: any) => void, reject: (error: Error) => void}>} */ #calls = new Map();
  #calledTimes = 0;
  /** @type {ReturnType<typeof setInterval> | undefined} */ #watch;
  /** @type {{job: Job | undefined, looks: number}} */ #seen = { job: undefined, looks: 0 };

  /** @param {number} number @param {Worker} worker @param {Listener} listener */
  constructor(number, worker, listener) {
    this.number = number;
    this.worker = worker;
    const crash = (/** @type {string} */ problem) => {
      if (this.isAlive) listener.crashed(this, problem);
    };
    worker.onmessage = ({ data }) => {
      if (!this.isAlive) return;
      if (data.kind === "ended") {
        listener.ended(this, data);
        if (data.isBroken) crash(data.problem);
      } else this.#answered(data);
    };
    worker.onerror = (event) => {
      event.preventDefault?.();
      crash(event.message || NO_SCRIPT);
    };
    worker.onmessageerror = () => crash("a message could not be read");
    this.#watch = setInterval(() => {
      const [job] = this.jobs;
      this.#seen = { job, looks: job && job === this.#seen.job ? this.#seen.looks + 1 : 0 };
      if (this.#seen.looks >= STUCK_AFTER) crash(`nothing was heard of it for ${STUCK_AFTER} s`);
    }, WATCH_MS);
    /** @type {any} */ (this.#watch).unref?.();
  }

  /** Ask for something that is answered. @param {object} message @returns {Promise<any>} */
  call(message) {
    const id = ++this.#calledTimes;
    return new Promise((resolve, reject) => {
      this.#calls.set(id, { resolve, reject });
      this.worker.postMessage({ ...message, id });
    });
  }

  /** @param {Job} job @param {object} message */
  run(job, message) {
    this.jobs.push(job);
    this.worker.postMessage({ ...message, request: job.request, part: job.part });
  }

  /** It forgets what it was doing. @param {string} problem for whoever waits for an answer */
  end(problem) {
    this.isAlive = false;
    clearInterval(this.#watch);
    this.worker.terminate();
    for (const { reject } of this.#calls.values()) reject(new EngineError(problem));
    this.#calls.clear();
  }

  /** @param {{id: number, kind: string, result: any, problem: string}} message */
  #answered({ id, kind, result, problem }) {
    const call = this.#calls.get(id);
    this.#calls.delete(id);
    if (kind === "refused") call?.reject(new EngineError(problem));
    else call?.resolve(result);
  }
}
