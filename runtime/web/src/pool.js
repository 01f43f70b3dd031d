// The workers of a session: opened, loaded part by part, connected to each other, and replaced when they crash.
import { EngineError, EngineUnavailable } from "./errors.js";
import { messageOf } from "./manifest.js";
import { NO_SCRIPT, Thread } from "./thread.js";

const FINE_TICK_MS = 0.2; // a clock with longer steps cannot time one part
const [CALIBRATION_LOOPS, CALIBRATION_TICKS] = [3, 8];
const MAX_CRASHES = 3; // one after another, with no part finished between

/**
 * @typedef {import("./manifest.js").Part} Part
 * @typedef {{module: string, folder: string, prepared: unknown}} EngineSource
 * @typedef {object} PoolOptions
 * @property {import("./bundle.js").Bundle} bundle
 * @property {Part[]} parts the stem and the branches to load
 * @property {number} threads
 * @property {EngineSource} engine
 * @property {boolean} calibrates whether parts are timed when they are loaded, where the clock is coarse
 * @property {(number: number) => Worker} createWorker
 *
 * @typedef {object} PoolListener
 * @property {(thread: Thread, message: import("./thread.js").Ended) => void} ended
 * @property {(thread: Thread) => void} loaded a thread has one more part
 * @property {(thread: Thread, problem: string) => void} crashed its jobs are lost; after a crash another thread takes its place
 */

/** What helps against too little memory helps against nothing else. @param {unknown} error @param {string} otherwise */
const adviceOn = (error, otherwise) =>
  /memory/i.test(messageOf(error)) ? "use fewer threads or branches, or a smaller recipe" : otherwise;
const SCRIPT_ADVICE = "serve worker.js with the page; a bundler needs createWorker";

export class Pool {
  /** @type {Thread[]} */ threads = [];
  /** Of the engine, with its version. */
  engineName = "";
  /** The step of the workers' clocks; 0 when it is fine enough. */
  coarseTickMs = 0;
  /** Median of each part by itself; empty unless they were timed. @type {number[]} */
  partMs = [];
  /** Why there is no thread any more. @type {Error | null} */
  problem = null;
  #crashes = 0;
  #isClosed = false;
  /** @type {Promise<Uint8Array>[]} */ #programs;
  #options;
  #listener;

  /** @param {PoolOptions} options @param {PoolListener} listener */
  constructor(options, listener) {
    this.#options = options;
    this.#listener = listener;
    const { bundle, parts } = options;
    // Stem and first branch have the connection to themselves: with them there are predictions.
    const first = parts.slice(0, 2).map((part) => bundle.read(part));
    const rest = parts.slice(2).map(async (part) => {
      await Promise.all(first);
      return bundle.read(part);
    });
    this.#programs = [...first, ...rest];
    for (const program of this.#programs) program.catch(() => {}); // whoever loads it is told
  }

  /** Start every thread. Resolves when one of them can predict; `all` when everything is loaded. */
  open() {
    const opened = Array.from({ length: this.#options.threads }, (_, number) => this.#start(number));
    const all = Promise.all(opened.map(({ loaded }) => loaded));
    all.catch(() => {});
    return {
      first: Promise.any(opened.map(({ first }) => first)).catch((error) => Promise.reject(error.errors[0])),
      all,
    };
  }

  /** A part finished: whatever crashes next is another matter. */
  finishedOne() {
    this.#crashes = 0;
  }

  /** @param {Thread} thread @param {string} problem */
  replace(thread, problem) {
    this.#end(thread, `worker ${thread.number} crashed: ${problem}`, `its worker crashed: ${problem}`);
    if (this.#isClosed) return;
    this.#crashes += 1;
    if (this.#crashes > MAX_CRASHES)
      return this.#fail(
        new EngineError(
          `workers crash again and again: ${problem}; use fewer threads or branches, or a smaller recipe`,
        ),
      );
    try {
      this.#start(thread.number).first.catch(() => {});
    } catch (error) {
      this.#fail(/** @type {Error} */ (error));
    }
  }

  close() {
    this.#isClosed = true;
    for (const thread of this.threads) thread.end("the session was closed");
  }

  /** @param {Thread} thread @param {string} problem for whoever waits for an answer @param {string} [lost] why its branches fail */
  #end(thread, problem, lost = problem) {
    thread.end(problem);
    if (!this.#isClosed) this.#listener.crashed(thread, lost);
    thread.jobs = [];
  }

  /** @param {Error} problem */
  #fail(problem) {
    this.problem = problem;
    for (const thread of this.threads) {
      if (thread.isAlive) this.#end(thread, problem.message);
      this.#listener.loaded(thread); // whoever waits for a thread looks again
    }
  }

  /** @param {number} number */
  #worker(number) {
    try {
      const worker = this.#options.createWorker(number);
      if (typeof worker?.postMessage === "function") return worker;
      throw new TypeError("createWorker did not return a Worker");
    } catch (error) {
      throw new EngineUnavailable(`worker ${number} cannot be made: ${messageOf(error)}; ${SCRIPT_ADVICE}`, {
        cause: error,
      });
    }
  }

  /** @param {number} number */
  #start(number) {
    const thread = new Thread(number, this.#worker(number), {
      ended: (from, message) => this.#listener.ended(from, message),
      crashed: (from, problem) => this.replace(from, problem),
    });
    this.threads[number] = thread;
    this.#connect(thread);
    const first = this.#openEngine(thread).then(() => this.#load(thread, [0, 1].slice(0, this.#options.parts.length)));
    const loaded = first
      .then(() => this.#load(thread, [...this.#options.parts.keys()].slice(2)))
      .then(() => this.#time(thread));
    loaded.catch((error) => {
      if (!thread.isAlive) return; // it crashed, and another takes its place
      this.#end(thread, messageOf(error));
      if (!this.threads.some(({ isAlive }) => isAlive)) this.#fail(error);
    });
    return { first, loaded };
  }

  /** Tokens go from worker to worker, past the page. @param {Thread} thread */
  #connect(thread) {
    for (const other of this.threads) {
      if (other === undefined || other === thread || !other.isAlive) continue;
      const { port1, port2 } = new MessageChannel();
      thread.worker.postMessage({ kind: "peer", number: other.number }, [port1]);
      other.worker.postMessage({ kind: "peer", number: thread.number }, [port2]);
    }
  }

  /** @param {Thread} thread */
  async #openEngine(thread) {
    const { engine } = this.#options.bundle.manifest;
    try {
      const { name, tickMs } = await thread.call({ kind: "open", ...this.#options.engine });
      this.engineName = name;
      this.coarseTickMs = tickMs > FINE_TICK_MS ? tickMs : 0;
    } catch (error) {
      const copies = `'npx paraedge-web-engine ${engine} FOLDER' copies its files`;
      const advice = messageOf(error).includes(NO_SCRIPT) ? SCRIPT_ADVICE : adviceOn(error, copies);
      throw new EngineUnavailable(
        `the engine of worker ${thread.number} did not start: ${messageOf(error)}; ${advice}`,
        {
          cause: error,
        },
      );
    }
  }

  /**
   * Where the clock is coarse, each part in loops, once for all threads: when everything is loaded, and a second time,
   * since a browser compiles WebAssembly better after it has run for a while.
   * @param {Thread} thread
   */
  async #time(thread) {
    if (!this.coarseTickMs || !this.#options.calibrates || thread.number > 0 || this.partMs.length) return;
    /** @type {number[]} */ const partMs = [];
    for (const loops of [1, CALIBRATION_LOOPS])
      for (const part of this.#options.parts.keys())
        partMs[part] = (await thread.call({ kind: "time", part, loops, ticks: CALIBRATION_TICKS })).runMs;
    this.partMs = partMs;
    this.#listener.loaded(thread);
  }

  /** @param {Thread} thread @param {number[]} parts */
  async #load(thread, parts) {
    for (const part of parts) {
      const { file, inputShape, outputShape } = this.#options.parts[part];
      const program = await this.#programs[part];
      try {
        await thread.call({ kind: "load", part, program, inputShape, outputShape });
      } catch (error) {
        throw new EngineError(
          `loading ${file}: ${messageOf(error)}; ${adviceOn(error, "'paraedge verify' checks the bundle")}`,
          { cause: error },
        );
      }
      thread.loaded[part] = true;
      this.#listener.loaded(thread);
    }
  }
}
