// A session: who takes which branch, the deadline, and when it is enough. core/session.cpp, with workers for threads.
import { Alarm } from "./alarm.js";
import { Arrivals } from "./arrivals.js";
import { Bundle } from "./bundle.js";
import { Controller } from "./controller.js";
import { engineModule } from "./engines.js";
import { EngineError, EngineUnavailable, InputError } from "./errors.js";
import { stemInput } from "./inputs.js";
import { LatestFrames } from "./latest.js";
import { messageOf } from "./manifest.js";
import { absolute, checkedOptions, isWhole, shown } from "./options.js";
import { Pool } from "./pool.js";
import { BranchState } from "./prediction.js";
import { Request } from "./request.js";

const LEAST_MARGIN_MS = 0.1;
const MOST_THREADS = 4; // phones have no more fast cores
const SUM_TICKS = 12; // of a coarse clock, that make one measurement
const AHEAD_MS = 2; // of branches that wait in a worker
const MAX_ATTEMPTS = 3; // of a request whose stem's worker crashes
const STEM_SHARE = 1 / 8; // of the multiply-adds, that running the stem in every worker may add
const OPEN_OPTIONS = ["threads", "branches", "engines", "trustedKeys", "latency", "createWorker"];
const RUN_OPTIONS = ["budgetMs", "branches", "policy", "earlyStop", "minConfidence", "signal"];

/**
 * @typedef {import("./prediction.js").Prediction} Prediction
 * @typedef {import("./inputs.js").Input} Input
 * @typedef {import("./thread.js").Thread} Thread
 * @typedef {import("./request.js").Task} Task
 *
 * @typedef {object} OpenOptions
 * @property {number} [threads] workers, at most one per branch; one per core up to four when it is left out
 * @property {number} [branches] load the first so many; all when it is left out
 * @property {string | URL} [engines] folder with the engines' files, a folder for each: `engines/` beside the page when
 *   it is left out; `npx paraedge-web-engine` fills it
 * @property {string | readonly string[]} [trustedKeys] open the bundle only if one of these public keys signed it
 * @property {{partMs: readonly number[], contention?: readonly number[]}} [latency] of these parts on this device, as
 *   `profileBundle` measures it; learned in twenty requests when it is left out
 * @property {(number: number) => Worker} [createWorker] for bundlers, which must see where a worker is made:
 *   `() => new Worker(new URL("paraedge-web/worker", import.meta.url))`
 *
 * @typedef {object} RunOptions
 * @property {number} [budgetMs] time from the call; the prediction comes by then, with the branches that have finished
 * @property {number} [branches] the first so many only
 * @property {"anytime" | "all"} [policy] under a budget: start what will probably end in time, or everything
 * @property {boolean} [earlyStop] stop at the thresholds that were calibrated at export
 * @property {number} [minConfidence] stop as soon as a prefix of branches is that confident, above 0 and at most 1
 * @property {AbortSignal} [signal]
 */

/** The worker that ran the stem crashed: the request is tried again. */
class StemLost extends Error {}

export class Session {
  /** @type {Pool} */ #pool;
  /** @type {Controller} */ #controller;
  /** @type {RunningRequest | null} */ #current = null;
  /** @type {Promise<unknown>} */ #turn = Promise.resolve();
  /** @type {Set<() => void>} */ #waiters = new Set(); // for a thread
  /** Every free worker runs the stem itself: waking it up for the tokens takes longer. */ #repeatsStem = false;
  /** @type {Map<number, {ms: number, runs: number}>} */ #sums = new Map(); // where the clock is coarse
  #alarm = new Alarm();
  #arrivals = new Arrivals();
  #endedMs = -Infinity; // the request before
  #requests = 0;
  #isClosed = false;
  #isCalibrated = false;

  /**
   * Use `Session.open`.
   *
   * @param {Bundle} bundle
   * @param {import("./manifest.js").Branch[]} branches
   * @param {Omit<import("./pool.js").PoolOptions, "bundle" | "parts">} pool
   * @param {OpenOptions["latency"]} latency
   */
  constructor(bundle, branches, pool, latency) {
    const macs = branches.map((branch) => branch.macs);
    this.bundle = bundle;
    this.branches = branches;
    this.#controller = new Controller(macs, latency);
    const { stem } = bundle.manifest;
    const allMacs = macs.reduce((sum, value) => sum + value, stem.macs);
    this.#repeatsStem = (pool.threads - 1) * stem.macs <= STEM_SHARE * allMacs;
    this.#pool = new Pool(
      { ...pool, bundle, parts: [bundle.manifest.stem, ...branches] },
      {
        ended: (thread, message) => this.#ended(thread, message),
        loaded: () => this.#loaded(),
        crashed: (thread, problem) => this.#crashed(thread, problem),
      },
    );
  }

  /**
   * Load a bundle into its engine, once for each thread.
   *
   * Resolves as soon as the stem and the first branch are loaded in one thread. The others go on loading: a request
   * without a budget waits for them, one with a budget does without what is not there yet. `session.loaded` resolves
   * when everything is.
   *
   * @param {Bundle | import("./bundle.js").BundleSource} source
   * @param {OpenOptions} [options]
   * @returns {Promise<Session>}
   * @throws {import("./errors.js").BundleError} the bundle cannot be fetched or trusted
   * @throws {EngineError} the engine cannot be loaded, or refuses a part
   * @throws {InputError} an option is invalid
   */
  static async open(source, options = {}) {
    const { trustedKeys } = checkedOptions(options, OPEN_OPTIONS);
    if (source instanceof Bundle && trustedKeys !== undefined)
      throw new InputError("trustedKeys are for a bundle that is opened here; pass them to Bundle.open");
    const bundle = source instanceof Bundle ? source : await Bundle.open(source, { trustedKeys });
    const { stem, branches, engine } = bundle.manifest;
    for (const { file, delegate } of [stem, ...branches]) {
      if (delegate)
        throw new EngineUnavailable(
          `${file} was made for the delegate '${delegate}', which no browser has; export the bundle without --delegate`,
        );
    }
    const count = options.branches ?? branches.length;
    if (!isWhole(count, 1, branches.length))
      throw new InputError(`branches is ${shown(count)}; this bundle has ${branches.length}`);
    const wanted = options.threads ?? Math.min(globalThis.navigator?.hardwareConcurrency ?? 2, MOST_THREADS);
    if (!isWhole(wanted, 1, 64)) throw new InputError(`threads is ${shown(wanted)}; give a whole number from 1 to 64`);
    const pool = {
      threads: Math.min(wanted, count),
      engine: await engineSource(engine, options.engines),
      calibrates: options.latency === undefined,
      createWorker: options.createWorker ?? defaultWorker,
    };
    const session = new Session(bundle, branches.slice(0, count), pool, options.latency);
    try {
      const { first, all } = session.#pool.open();
      session.loaded = all.then(() => {});
      session.loaded.catch(() => {});
      await first;
      return session;
    } catch (error) {
      session.close();
      throw error;
    }
  }

  /** Resolves when every branch is loaded in every thread; rejects with what is wrong. @type {Promise<void>} */
  loaded = Promise.resolve();

  get threads() {
    return this.#pool.threads.length;
  }

  /** Of the engine, with its version. */
  get engine() {
    return `${this.#pool.engineName}, ${this.threads} worker${this.threads === 1 ? "" : "s"}`;
  }

  /** How many branches some thread has loaded. */
  get branchesLoaded() {
    return this.branches.filter((_, position) => this.#isLoaded(position)).length;
  }

  /** What a prediction takes at least, probably (0.9); NaN when nothing is known yet. */
  get mandatoryMs() {
    return this.#controller.mandatoryMs;
  }

  /**
   * Run the stem, then branches in parallel, and add up their outputs. Calls take turns.
   *
   * @param {Input} input see `stemInput`
   * @param {RunOptions} [options]
   * @returns {Promise<Prediction>}
   * @throws {InputError} the input or an option is invalid
   * @throws {EngineError} every branch failed, or the session is closed
   */
  async run(input, options = {}) {
    return this.#inTurn(input, options, null);
  }

  /**
   * Every prediction on the way. Whoever stops reading stops the request.
   *
   * @param {Input} input
   * @param {RunOptions} [options]
   * @returns {AsyncGenerator<Prediction, void, void>}
   */
  async *stream(input, options = {}) {
    const stop = new AbortController();
    const { signal } = checkedOptions(options, RUN_OPTIONS);
    const abort = () => stop.abort(signal?.reason);
    if (signal?.aborted) abort();
    signal?.addEventListener("abort", abort, { once: true });
    /** @type {Prediction[]} */ const ready = [];
    let tell = () => {};
    let isOver = false;
    /** @type {unknown[]} */ const problems = [];
    const last = this.#inTurn(input, { ...options, signal: stop.signal }, (prediction) => {
      ready.push(prediction);
      tell();
    });
    last
      .then(
        (prediction) => ready.push(prediction),
        (error) => problems.push(error),
      )
      .finally(() => {
        isOver = true;
        tell();
      });
    try {
      for (;;) {
        const prediction = ready.shift();
        if (prediction) yield prediction;
        else if (problems.length) throw problems[0];
        else if (isOver) return;
        else await new Promise((/** @type {(value?: unknown) => void} */ resolve) => (tell = () => resolve()));
      }
    } finally {
      signal?.removeEventListener("abort", abort);
      stop.abort(new InputError("nobody reads this stream any more"));
    }
  }

  /**
   * Predictions of a video, each of the newest frame; frames that came while another was predicted are dropped.
   * The budget counts from the frame.
   *
   * @param {HTMLVideoElement} video
   * @param {RunOptions} [options]
   * @returns {LatestFrames} to be read with `for await`; `dropped` counts
   */
  latest(video, options = {}) {
    this.#refuseIfClosed();
    this.#parsed(checkedOptions(options, RUN_OPTIONS), false); // now, not with the first frame
    if (typeof video?.requestVideoFrameCallback !== "function")
      throw new InputError("latest() reads a <video> element of a browser that has requestVideoFrameCallback");
    return new LatestFrames(video, (frame, arrivedMs) => this.#inTurn(frame, options, null, arrivedMs), options.signal);
  }

  /** End the workers, whatever they are doing. */
  close() {
    this.#isClosed = true;
    this.#current?.fail(new EngineError("the session was closed"));
    this.#alarm.close();
    this.#pool.close();
    this.#wake();
  }

  // Requests ------------------------------------------------------------------------------------

  /** @param {Input} value @param {RunOptions} options @param {((prediction: Prediction) => void) | null} tell @param {number} [startedMs] @returns {Promise<Prediction>} */
  async #inTurn(value, options, tell, startedMs = performance.now()) {
    this.#refuseIfClosed();
    const input = stemInput(value, this.bundle.manifest.input); // now: a video goes on
    const parsed = this.#parsed(checkedOptions(options, RUN_OPTIONS), tell !== null);
    const prediction = this.#turn.then(async () => {
      options.signal?.throwIfAborted();
      this.#refuseIfClosed(); // meanwhile
      parsed.request.leaveMs = this.#leaveMs(startedMs + parsed.request.budgetMs, parsed.request.policy);
      for (let attempt = 1; ; attempt++) {
        try {
          return await this.#attempt(input, parsed, startedMs, options.signal, tell);
        } catch (error) {
          if (!(error instanceof StemLost)) throw error;
          if (attempt === MAX_ATTEMPTS) throw new EngineError(error.message);
        }
      }
    });
    this.#turn = prediction.catch(() => {});
    return options.signal ? heeding(options.signal, prediction) : prediction;
  }

  /** @param {RunOptions} options @param {boolean} isWatched */
  #parsed(
    { budgetMs, branches = this.branches.length, policy = "anytime", earlyStop = false, minConfidence },
    isWatched,
  ) {
    if (budgetMs !== undefined && !(Number.isFinite(budgetMs) && budgetMs > 0)) {
      throw new InputError(`budgetMs must be a number above 0, got ${shown(budgetMs)}`);
    }
    if (!isWhole(branches, 1, this.branches.length)) {
      throw new InputError(`branches is ${shown(branches)}; this session has ${this.branches.length}`);
    }
    if (policy !== "anytime" && policy !== "all")
      throw new InputError(`policy is ${shown(policy)}; choose 'anytime' or 'all'`);
    if (minConfidence !== undefined && !(Number.isFinite(minConfidence) && minConfidence > 0 && minConfidence <= 1)) {
      throw new InputError(`minConfidence must be a number above 0 and at most 1, got ${shown(minConfidence)}`);
    }
    const stopRules = earlyStop || minConfidence !== undefined ? this.#stopRules(earlyStop, minConfidence) : null;
    return { branches, request: { budgetMs: budgetMs ?? Infinity, leaveMs: Infinity, policy, stopRules, isWatched } };
  }

  /** The deadline, or earlier where others may come meanwhile. @param {number} deadlineMs @param {"anytime" | "all"} policy */
  #leaveMs(deadlineMs, policy) {
    if (deadlineMs === Infinity) {
      this.#arrivals.cameWithoutDeadline();
      return deadlineMs;
    }
    // A clock that steps while the caller has its prediction makes nobody wait.
    const nowMs = performance.now() - this.#pool.coarseTickMs;
    const { mandatoryMs } = this;
    this.#arrivals.came(nowMs, deadlineMs, this.#endedMs, mandatoryMs);
    if (policy === "all" || Number.isNaN(mandatoryMs)) return deadlineMs;
    return deadlineMs - this.#arrivals.earlierMs(mandatoryMs);
  }

  /** @param {boolean} earlyStop @param {number | undefined} minConfidence */
  #stopRules(earlyStop, minConfidence) {
    const rules = this.bundle.manifest.stopRules;
    if (!rules)
      throw new InputError(
        "earlyStop and minConfidence need a bundle that was calibrated at export; give 'paraedge export' --data-dir",
      );
    if (earlyStop && rules.length > 1 && rules.every(({ threshold }) => threshold === null)) {
      throw new InputError("earlyStop needs thresholds, and this bundle has none; leave it out, or give minConfidence");
    }
    if (earlyStop && this.branches.length !== rules.length) {
      throw new InputError(
        `earlyStop is calibrated for all ${rules.length} branches; leave out 'branches' when the session is opened`,
      );
    }
    return rules.map(({ temperature, threshold }) => {
      const thresholds = [earlyStop ? threshold : null, minConfidence ?? null].filter((value) => value !== null);
      return { temperature, threshold: thresholds.length ? Math.min(...thresholds) : null };
    });
  }

  /**
   * @param {Float32Array} input @param {{branches: number, request: import("./request.js").RequestOptions}} parsed
   * @param {number} startedMs @param {AbortSignal | undefined} signal @param {((prediction: Prediction) => void) | null} tell
   */
  async #attempt(input, parsed, startedMs, signal, tell) {
    signal?.throwIfAborted();
    const branches = this.branches.slice(0, parsed.branches).map(({ index }, position) => ({ position, index }));
    const request = new RunningRequest(
      ++this.#requests,
      branches,
      this.bundle.manifest.numOutputs,
      startedMs,
      parsed.request,
    );
    if (tell)
      request.tell = () => {
        try {
          tell(this.#collect(request));
        } catch (error) {
          request.fail(error); // the sum is not finite
        }
      };
    request.settled.catch(() => {}); // it may fail before anybody waits
    const abort = () => {
      request.fail(signal?.reason);
      this.#wake();
    };
    signal?.addEventListener("abort", abort, { once: true });
    request.dueMs = this.#dueMs(request);
    try {
      await this.#begin(request, input);
      await request.settled;
    } finally {
      this.#alarm.clear();
      signal?.removeEventListener("abort", abort);
      this.#close(request);
    }
    return this.#collect(request);
  }

  /** Stem and first branch are given to a thread together, with no way back to the page between them. @param {RunningRequest} request @param {Float32Array} input */
  async #begin(request, input) {
    this.#current = request;
    const leader = await this.#leader(request);
    if (!leader) return; // the request failed meanwhile
    const first = /** @type {Task} */ (this.#next(request, leader));
    const others =
      request.tasks.length > 1 ? this.#pool.threads.filter((thread) => thread !== leader && thread.isAlive) : [];
    request.thread = leader.number;
    request.readers = new Set([leader, ...others]);
    const repeating = this.#repeatsStem ? others.filter(({ jobs, loaded }) => !jobs.length && loaded[0]) : [];
    const waiting = others.filter((thread) => !repeating.includes(thread)).map(({ number }) => number);
    for (const thread of [leader, ...repeating])
      thread.run(
        { request: request.number, part: 0, postedMs: performance.now() },
        { kind: "stem", input, peers: thread === leader ? waiting : [] },
      );
    this.#give(request, first, leader);
    this.#fill(request);
  }

  /** A thread that is free and has loaded the stem and a branch to begin with. @param {RunningRequest} request @returns {Promise<Thread | null>} */
  async #leader(request) {
    for (;;) {
      if (request.isFailed) return null;
      if (this.#pool.problem) throw this.#pool.problem;
      const free = this.#pool.threads.find(
        (thread) => thread.isAlive && !thread.jobs.length && thread.loaded[0] && this.#next(request, thread) !== null,
      );
      if (free) return free;
      await new Promise((/** @type {(value?: unknown) => void} */ resolve) => this.#waiters.add(() => resolve()));
    }
  }

  #wake() {
    const waiters = [...this.#waiters];
    this.#waiters.clear();
    for (const wake of waiters) wake();
  }

  // Who runs what -------------------------------------------------------------------------------

  /** Where only the end counts the longest branches come first: so those of unequal size end at about the same time. @param {Request} request @returns {Task[]} */
  #ordered(request) {
    if (request.isInOrder) return request.tasks;
    const cost = (/** @type {Task} */ { position }) =>
      this.#controller.predictedMs(position + 1, 1) || this.branches[position].macs;
    return [...request.tasks].sort((a, b) => cost(b) - cost(a) || a.position - b.position);
  }

  /** The next branch that waits and that the thread has loaded. Under a deadline the first one is mandatory. @param {Request} request @param {Thread} thread @returns {Task | null} */
  #next(request, thread) {
    return (
      this.#ordered(request).find(({ step, position }) => step === "waiting" && thread.loaded[position + 1]) ?? null
    );
  }

  /** @param {Request} request @param {Task} task @param {Thread} thread */
  #give(request, task, thread) {
    request.running += 1;
    task.step = "running";
    task.thread = thread.number;
    task.busy = this.#busy() + 1;
    task.postedMs = performance.now();
    thread.run({ request: request.number, part: task.position + 1, postedMs: task.postedMs }, { kind: "branch" });
  }

  /** Branches that run, late ones of requests before included. */
  #busy() {
    return this.#pool.threads.filter(({ jobs }) => jobs.some(({ part }) => part > 0)).length;
  }

  /** Give threads what may run now. Called at every completion, so every decision is made anew. @param {RunningRequest} request */
  #fill(request) {
    if (!request.isOpen || request.thread < 0) return;
    if (request.isInOrder) {
      for (const thread of request.readers) {
        const hasMore = thread.jobs.some((job) => job.part > 0 || job.request !== request.number);
        if (!thread.isAlive || hasMore) continue;
        const task = this.#admitted(request, thread);
        if (task) this.#give(request, task, thread);
      }
    } else {
      this.#fillAhead(request);
    }
    this.#dropIfNothingRuns(request);
  }

  /**
   * Every branch will run, so each thread may have some waiting: it saves the way to the page and back, and where the
   * workers have every core the page hears late. Only the thread that will be free first is given one, or a small branch
   * would wait behind a large one.
   * @param {RunningRequest} request
   */
  #fillAhead(request) {
    const threads = [...request.readers].filter(({ isAlive }) => isAlive);
    const freeMs = threads.map((thread) => this.#freeMs(thread));
    for (;;) {
      const soonest = freeMs.indexOf(Math.min(...freeMs));
      const thread = threads[soonest];
      if (!thread || freeMs[soonest] === Infinity || this.#hasEnough(thread)) return;
      const task = this.#next(request, thread);
      if (task) this.#give(request, task, thread);
      freeMs[soonest] = task ? this.#freeMs(thread) : Infinity; // it has loaded nothing that waits
    }
  }

  /** One branch that runs and one that waits, or small ones for two milliseconds; one while nothing is known. @param {Thread} thread */
  #hasEnough({ jobs }) {
    const branches = jobs.filter(({ part }) => part > 0);
    if (Number.isNaN(this.#controller.mandatoryMs)) return branches.length >= 1;
    const waitingMs = branches.slice(1).reduce((sum, job) => sum + this.#probablyMs(job), 0);
    return branches.length >= 2 && waitingMs >= AHEAD_MS;
  }

  /** When a thread will have run its jobs, probably; one without any is free before all others. @param {Thread} thread */
  #freeMs({ jobs, endedMs }) {
    const [head] = jobs;
    if (!head) return -Infinity;
    const overMs = jobs.reduce((sum, job) => sum + this.#probablyMs(job), Math.max(head.postedMs, endedMs));
    return Math.max(overMs, performance.now());
  }

  /** @param {{part: number}} job */
  #probablyMs({ part }) {
    return this.#controller.predictedMs(part, part === 0 ? 1 : this.threads) || 0;
  }

  /** @param {Request} request @param {Thread} thread @returns {Task | null} */
  #admitted(request, thread) {
    for (const task of this.#ordered(request)) {
      if (task.step === "waiting" && thread.loaded[task.position + 1] && this.#admits(request, task)) return task;
    }
    return null;
  }

  /** @param {Request} request @param {Task} task */
  #admits(request, task) {
    if (!request.hasDeadline) return true;
    if (request.used === 0 && request.running === 0) return true; // the first branch failed: there is no prediction yet
    // Before the stem has ended, what it will probably take counts too.
    const stemMs = Number.isNaN(request.stemEndMs) ? this.#controller.predictedMs(0, 1) : 0;
    const leftMs = this.#dueMs(request) - performance.now() - stemMs;
    if (request.options.policy === "all") return !(leftMs <= 0);
    task.predictedMs = this.#controller.predictedMs(task.position + 1, this.#busy() + 1);
    task.leftMs = leftMs;
    return task.predictedMs <= leftMs; // not so when nothing is known
  }

  /** Nothing will finish any more that could change a decision. @param {RunningRequest} request */
  #dropIfNothingRuns(request) {
    if (!request.hasDeadline || request.running > 0 || !request.isOpen || Number.isNaN(request.stemEndMs)) return;
    for (const task of request.tasks)
      if (task.step === "waiting")
        request.finish(task, this.#isLoaded(task.position) ? BranchState.WOULD_NOT_FIT : BranchState.LATE);
    if (request.unfinished === 0) request.settle();
  }

  /** @param {number} position */
  #isLoaded(position) {
    return this.#pool.threads.some((thread) => thread.isAlive && thread.loaded[position + 1]);
  }

  // What comes back -----------------------------------------------------------------------------

  /** @param {Thread} thread @param {import("./thread.js").Ended} message */
  #ended(thread, message) {
    const job = thread.jobs.shift();
    thread.endedMs = this.#pool.coarseTickMs ? performance.now() : message.endMs - performance.timeOrigin;
    const request = this.#current;
    this.#pool.finishedOne();
    if (job && request?.isOpen && job.request === request.number) {
      if (job.part === 0) this.#stemEnded(request, thread, message);
      else this.#branchEnded(request, request.tasks[job.part - 1], message);
    }
    this.#wake();
    if (this.#current) this.#fill(this.#current);
  }

  /** @param {RunningRequest} request @param {Thread} thread @param {import("./thread.js").Ended} message */
  #stemEnded(request, thread, { problem, startMs, endMs }) {
    if (problem)
      return request.fail(new EngineError(`running the stem: ${problem}; 'paraedge verify' checks the bundle`));
    if (thread.number !== request.thread) return; // for its own branches
    request.stemStartMs = startMs - performance.timeOrigin;
    request.stemEndMs = endMs - performance.timeOrigin;
    request.stemHeardMs = performance.now();
    this.#observe(0, 1, endMs - startMs);
  }

  /** @param {RunningRequest} request @param {Task} task @param {import("./thread.js").Ended} message */
  #branchEnded(request, task, message) {
    task.startMs = message.startMs - performance.timeOrigin;
    task.endMs = message.endMs - performance.timeOrigin;
    task.problem = message.problem;
    request.running -= 1;
    request.lastEndMs = task.endMs;
    const fine = message.output?.every(Number.isFinite) ?? false;
    if (fine) task.output = message.output;
    if (!message.problem) this.#observe(task.position + 1, task.busy, this.#tookMs(request, task));
    request.finish(task, message.problem ? BranchState.FAILED : fine ? BranchState.USED : BranchState.NOT_FINITE);
    if (request.isEnough() || request.unfinished === 0) return request.settle();
    if (request.used && performance.now() >= request.dueMs) return request.settle(); // it came when there was no prediction
    if (task.state !== BranchState.USED) return;
    // Not before there is a prediction: an alarm keeps the page awake, on a core that the workers need.
    if (request.used === 1 && request.hasDeadline) this.#alarm.set(request.dueMs, () => this.#due(request));
    request.tell?.();
  }

  /** The way to the worker and back counts where nothing hides it: it is time that a branch needs. @param {Request} request @param {Task} task */
  #tookMs(request, task) {
    if (this.#pool.coarseTickMs) {
      // Two such clocks are up to two steps apart, for good: only times of one clock are compared.
      const isHidden = !request.hasDeadline || !(task.postedMs >= request.stemHeardMs);
      return isHidden ? task.endMs - task.startMs : performance.now() - task.postedMs;
    }
    const wasBehind =
      task.startMs - task.postedMs > 1 || task.thread === request.thread || !(task.postedMs >= request.stemEndMs);
    return (
      (request.hasDeadline ? performance.now() : task.endMs) -
      (wasBehind ? task.startMs : Math.min(task.postedMs, task.startMs))
    );
  }

  /** With a coarse clock one time is 0 or a step; the mean of many is right. @param {number} part @param {number} busy @param {number} ms */
  #observe(part, busy, ms) {
    const tickMs = this.#pool.coarseTickMs;
    if (!tickMs) return this.#controller.observe(part, busy, Math.max(ms, 0.02));
    const sum = this.#sums.get(part) ?? { ms: 0, runs: 0 };
    sum.ms += ms;
    sum.runs += 1;
    this.#sums.set(part, sum);
    if (sum.ms < SUM_TICKS * tickMs) return;
    this.#sums.delete(part);
    this.#controller.observe(part, busy, sum.ms / sum.runs);
  }

  #loaded() {
    const { partMs } = this.#pool;
    if (!this.#isCalibrated && partMs.length) {
      this.#isCalibrated = true; // what is observed later counts as much: this may have been a bad moment
      for (const [part, ms] of partMs.entries()) this.#controller.observe(part, 1, Math.max(ms, 0.02));
    }
    this.#wake();
    if (this.#current) this.#fill(this.#current);
  }

  /** @param {Thread} thread @param {string} problem */
  #crashed(thread, problem) {
    const request = this.#current;
    if (!request?.isOpen) return;
    if (!request.readers.has(thread)) return; // it had nothing of this request
    const hasLostStem = thread.number === request.thread && Number.isNaN(request.stemEndMs);
    const isLast = ![...request.readers].some(({ isAlive }) => isAlive); // those that come later have no tokens
    if (hasLostStem || (isLast && !request.used)) {
      for (const other of this.#pool.threads)
        if (other.isAlive) other.worker.postMessage({ kind: "forget", request: request.number });
      return request.fail(new StemLost(`the stem was lost, ${problem}`));
    }
    const nowMs = performance.now() + performance.timeOrigin;
    for (const task of request.tasks)
      if (isLast && task.step === "waiting") {
        task.problem = problem;
        request.finish(task, BranchState.FAILED);
      }
    for (const { step, thread: number, position } of request.tasks)
      if (step === "running" && number === thread.number)
        this.#branchEnded(request, request.tasks[position], {
          request: request.number,
          part: position + 1,
          startMs: nowMs,
          endMs: nowMs,
          output: null,
          problem,
        });
    if (request.unfinished === 0) request.settle();
    this.#fill(request);
  }

  // The end of a request ------------------------------------------------------------------------

  /** When the session has to return so that its caller has the prediction in time. @param {Request} request */
  #dueMs(request) {
    return request.options.leaveMs - this.#controller.marginMs(LEAST_MARGIN_MS);
  }

  /** @param {RunningRequest} request */
  #due(request) {
    if (!request.isOpen) return;
    request.isCutShort = true;
    request.settle();
  }

  /** @param {RunningRequest} request */
  #close(request) {
    const nowMs = performance.now();
    this.#endedMs = nowMs;
    request.isOpen = false;
    this.#current = null;
    for (const task of request.tasks) {
      task.isLoaded = this.#isLoaded(task.position) || task.thread >= 0;
      if (task.step === "running") this.#outlasted(request, task, nowMs);
      else if (task.step === "waiting" && task.state === BranchState.LATE && !Number.isNaN(task.leftMs))
        task.state = BranchState.WOULD_NOT_FIT;
      if (task.state === BranchState.WOULD_NOT_FIT) this.#controller.dropped(task.position + 1);
    }
    const learns =
      request.hasDeadline &&
      !request.isFailed &&
      !request.options.isWatched &&
      request.tasks.length > 1 &&
      !globalThis.document?.hidden;
    if (!learns) return;
    // A stem and first branch that take longer than the budget are no lateness of a wait. On a coarse clock an alarm
    // rings at the step after it, and a worker's time says nothing.
    const { coarseTickMs } = this.#pool;
    if (request.isCutShort) this.#controller.returned(Math.max(nowMs - request.dueMs - coarseTickMs, 0));
    else if (!coarseTickMs && request.lastEndMs <= request.dueMs)
      this.#controller.returned(Math.max(nowMs - request.lastEndMs, 0));
  }

  /** Only a branch that runs, not one that waits behind the stem, says anything. @param {Request} request @param {Task} task @param {number} nowMs */
  #outlasted(request, task, nowMs) {
    const [head] = this.#pool.threads[task.thread].jobs;
    if (head?.request !== request.number || head.part !== task.position + 1 || Number.isNaN(request.stemEndMs)) return;
    const { coarseTickMs } = this.#pool;
    const { endedMs } = this.#pool.threads[task.thread];
    const ms = nowMs - Math.max(task.postedMs, endedMs, coarseTickMs ? request.stemHeardMs : request.stemEndMs);
    if (ms > 3 * coarseTickMs) this.#controller.outlasted(task.position + 1, task.busy, ms);
  }

  /** @param {Request} request */
  #collect(request) {
    const { labels, stopRules } = this.bundle.manifest;
    return request.collect(performance.now(), {
      labels,
      engine: this.engine,
      temperatures: stopRules?.map(({ temperature }) => temperature) ?? [],
      requestsToLearn: this.#controller.requestsToLearn,
    });
  }

  #refuseIfClosed() {
    if (this.#isClosed) throw new EngineError("the session is closed; open a new one");
  }
}

/** A request and whoever waits for its end. */
class RunningRequest extends Request {
  isFailed = false;
  settle = () => {};
  /** @type {(error: unknown) => void} */ fail = () => {};
  /** @type {(() => void) | null} */ tell = null;
  /** Who has the tokens, or will have them: workers that come later do not. @type {Set<Thread>} */ readers = new Set();
  /** @type {Promise<void>} */
  settled = new Promise((resolve, reject) => {
    this.settle = () => {
      this.isOpen = false;
      resolve();
    };
    this.fail = (error) => {
      this.isOpen = false;
      this.isFailed = true;
      reject(error);
    };
  });
}

/** Who aborts does not wait for the requests before. @template T @param {AbortSignal} signal @param {Promise<T>} promise @returns {Promise<T>} */
function heeding(signal, promise) {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}

/** @param {number} number */
function defaultWorker(number) {
  return new Worker(new URL("./worker.js", import.meta.url), { name: `paraedge-${number}` });
}

/** @param {string} engine @param {string | URL} [engines] @returns {Promise<import("./pool.js").EngineSource>} */
async function engineSource(engine, engines = "engines/") {
  const folder = absolute(`${engines}`.replace(/\/?$/, `/${engine}/`), "engines").href;
  const module = engineModule(engine, folder);
  try {
    const { prepare } = /** @type {import("./engines.js").EngineModule} */ (
      await import(/* webpackIgnore: true */ /* @vite-ignore */ module)
    );
    return { module, folder, prepared: await prepare?.(folder) };
  } catch (error) {
    throw new EngineUnavailable(
      `the engine '${engine}' cannot be loaded from ${folder}: ${messageOf(error)}; 'npx paraedge-web-engine ${engine} FOLDER' copies its files`,
      { cause: error },
    );
  }
}
