// Measures a bundle in this browser as `paraedge profile` does; docs/device-profile.md says what each number means.
import { Bundle } from "./bundle.js";
import { DeviceError, InputError } from "./errors.js";
import { checkedOptions, isWhole, shown } from "./options.js";
import { Session } from "./session.js";

const NAME = /^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}$/;
const [BLOCK, BLOCK_WARM_UP, WARM_UP_MS] = [10, 3, 200];
const BUSY_TOLERANCE = 0.2;
const P99_MIN_RUNS = 1000;
const FINE_TICK_MS = 0.02; // of a page that is isolated; elsewhere a short part takes one, two or three steps
const [JITTER_MS, MAX_READINGS, SLEEPS] = [300, 2 ** 20, 300];
const MOST_THREADS = 4; // that a session takes by itself
const OPTIONS = ["name", "threads", "engines", "createWorker", "minRuns", "minMs", "signal", "onProgress"];

/**
 * @typedef {import("./prediction.js").Prediction} Prediction
 * @typedef {{n: number, min_ms: number, p50_ms: number, p90_ms: number, p95_ms: number, p99_ms: number | null, first_ms: number}} PartLatency
 *
 * @typedef {object} ProfileOptions
 * @property {string} [name] of the device: letters, digits and "_.+-"
 * @property {readonly number[]} [threads] 1, and as many as a session takes by itself, when it is left out
 * @property {string | URL} [engines] as `Session.open` takes it
 * @property {(number: number) => Worker} [createWorker] likewise
 * @property {number} [minRuns] of every part; 50 when it is left out
 * @property {number} [minMs] that every part takes in all of its runs; 1000 when it is left out
 * @property {AbortSignal} [signal]
 * @property {(share: number) => void} [onProgress] called after every block of requests with 0 to 1
 */

/**
 * Measure a bundle through `Session.run` on its golden inputs, one measurement for each number of threads.
 *
 * @param {Bundle} bundle
 * @param {ProfileOptions} [options]
 * @returns {Promise<Record<string, any>>} the document of a device.json, whose connection is `browser`
 * @throws {InputError} an option is invalid
 * @throws {DeviceError} a branch was dropped, or the page went to the background
 * @throws {import("./errors.js").EngineError} as `Session.open` and `run`
 */
export async function profileBundle(bundle, options = {}) {
  const {
    name = "browser",
    minRuns = 50,
    minMs = 1000,
    signal,
    onProgress = () => {},
  } = checkedOptions(options, OPTIONS);
  if (!(bundle instanceof Bundle)) throw new InputError("profileBundle measures what Bundle.open returns");
  if (typeof name !== "string" || !NAME.test(name))
    throw new InputError(`the name must have only letters, digits and "_.+-", got ${shown(name)}`);
  if (!(isWhole(minRuns, 1, 1e6) && Number.isFinite(minMs) && minMs > 0))
    throw new InputError(
      `give 1 to 1000000 runs and a time above 0, got ${shown(minRuns)} runs and ${shown(minMs)} ms`,
    );
  const branches = bundle.manifest.branches.length;
  const counts = threadCounts(options.threads, branches);
  const inputs = await goldenInputs(bundle);
  /** @type {Map<number, Cold>} */ const cold = new Map();
  try {
    // One thread is always measured: it tells what a branch takes alone.
    for (const count of new Set([1, ...counts])) cold.set(count, await coldStart(bundle, count, inputs, options));
    const [jitter, wakeup] = [timerJitter(), await wakeUp()];
    const tickMs = tick();
    /** @type {Series[]} */ const series = [];
    for (const [count, { session }] of cold) {
      const some = count === 1 ? [] : Array.from({ length: Math.min(count, branches - 1) - 1 }, (_, more) => more + 2);
      for (const busy of [...some, branches])
        series.push(new Series(session, count, busy, { inputs, minRuns, minMs, tickMs }));
    }
    for (const one of series) await one.warmUp();
    for (;;) {
      const next = series.reduce((least, one) => (one.progress < least.progress ? one : least));
      if (next.progress >= 1) break;
      signal?.throwIfAborted();
      await next.runBlock();
      const all = series.reduce((sum, one) => sum + one.targetMs, 0);
      onProgress(series.reduce((sum, one) => sum + one.targetMs * Math.min(one.progress, 1), 0) / all);
    }
    const shared = { timer_jitter_us: jitter, wakeup_us: wakeup };
    const measurements = counts.map((count) => measurementOf(bundle, count, series, cold, shared));
    return {
      format: "paraedge-device/1",
      name,
      connection: { kind: "browser" },
      hardware: await hardware(),
      measurements,
    };
  } finally {
    for (const { session } of cold.values()) session.close();
  }
}

/** @param {readonly number[] | undefined} given @param {number} branches */
function threadCounts(given, branches) {
  if (given !== undefined && !Array.isArray(given))
    throw new InputError(`threads must be a list, such as [1, 2], got ${shown(given)}`);
  const cores = navigator.hardwareConcurrency || 1;
  const counts = [...new Set(given ?? [1, Math.min(cores, branches, MOST_THREADS)])].sort((a, b) => a - b);
  for (const count of counts)
    if (!(Number.isInteger(count) && count >= 1 && count <= branches))
      throw new InputError(
        `threads is ${shown(count)}, and the bundle has ${branches} branches; at most as many can be busy`,
      );
  if (!counts.length) throw new InputError("threads is empty; name at least one number of threads");
  return counts;
}

/** One after another, again and again. @param {Bundle} bundle */
async function goldenInputs(bundle) {
  const { data, shape } = (await bundle.golden()).inputs;
  const size = data.length / shape[0];
  let number = 0;
  return () => {
    const from = (number++ % shape[0]) * size;
    return data.subarray(from, from + size);
  };
}

/** @typedef {{session: Session, loadMs: number, requestMs: number, partMs: Map<string, number>}} Cold */

/** New workers, with the engine compiled anew. @param {Bundle} bundle @param {number} threads @param {() => any} inputs @param {ProfileOptions} options @returns {Promise<Cold>} */
async function coldStart(bundle, threads, inputs, { engines, createWorker }) {
  const startedMs = performance.now();
  const session = await Session.open(bundle, { threads, engines, createWorker });
  try {
    await session.loaded;
    const loadMs = performance.now() - startedMs;
    const { elapsedMs, timeline } = whole(await session.run(inputs()));
    const partMs = new Map(timeline.map(({ part, startMs, endMs }) => [part, endMs - startMs]));
    return { session, loadMs, requestMs: elapsedMs, partMs };
  } catch (error) {
    session.close();
    throw error;
  }
}

/** @param {Prediction} prediction */
function whole(prediction) {
  const [drop] = prediction.branchesDropped;
  if (drop)
    throw new DeviceError(`branch ${drop.index} was dropped while it was measured: ${drop.reason}; measure again`);
  return prediction;
}

/** Requests of the first so many branches in one session, as far as they have been measured. */
class Series {
  runs = 0;
  /** @type {number[]} */ requestMs = [];
  /** By part; where the clock is coarse, means of a block of runs. @type {Map<string, number[]>} */ partMs = new Map();
  /** While so many branches ran. @type {Map<number, {part: string, ms: number}[]>} */ busyMs = new Map();
  #spentMs = 0;
  #options;

  /** @param {Session} session @param {number} threads @param {number} branches @param {{inputs: () => any, minRuns: number, minMs: number, tickMs: number}} options */
  constructor(session, threads, branches, options) {
    this.session = session;
    this.threads = threads;
    this.branches = branches;
    this.isWhole = branches === session.branches.length;
    this.isCoarse = options.tickMs > FINE_TICK_MS;
    // Parts are measured by whole requests; fewer branches are run for the contention only.
    this.targetMs = options.minMs * (this.isWhole ? 1 + branches : 1);
    this.#options = options;
  }

  /** 1 when both limits are reached. */
  get progress() {
    return Math.min(this.runs / this.#options.minRuns, this.#spentMs / this.targetMs);
  }

  async warmUp() {
    const endMs = performance.now() + WARM_UP_MS;
    do await this.#run();
    while (performance.now() < endMs);
  }

  /** All but the first few count: other sessions have had the caches and the cores in between. */
  async runBlock() {
    for (let n = 0; n < BLOCK_WARM_UP; n++) await this.#run();
    /** @type {Map<string, number[]>} */ const block = new Map();
    /** @type {Map<string, number[]>} */ const whileBusy = new Map();
    for (let n = 0; n < BLOCK; n++) {
      const { elapsedMs, timeline } = await this.#run();
      this.runs += 1;
      this.#spentMs += elapsedMs;
      this.requestMs.push(elapsedMs);
      for (const { part, startMs, endMs } of timeline) into(block, part, endMs - startMs);
      for (const { part, ms, busy } of busyWorkers(timeline))
        if (Math.abs(busy - Math.round(busy)) <= BUSY_TOLERANCE) into(whileBusy, `${Math.round(busy)} ${part}`, ms);
    }
    const values = (/** @type {number[]} */ times) => (this.isCoarse ? [mean(times)] : times);
    for (const [part, times] of block) for (const ms of values(times)) into(this.partMs, part, ms);
    for (const [key, times] of whileBusy) {
      const [busy, part] = key.split(" ");
      for (const ms of values(times)) into(this.busyMs, Number(busy), { part, ms });
    }
  }

  async #run() {
    if (globalThis.document?.hidden)
      throw new DeviceError(
        "the page went to the background, where browsers slow it down; keep it in view, and measure again",
      );
    return whole(await this.session.run(this.#options.inputs(), { branches: this.branches }));
  }
}

/** @template K, V @param {Map<K, V[]>} lists @param {K} key @param {V} value */
function into(lists, key, value) {
  const list = lists.get(key);
  if (list) list.push(value);
  else lists.set(key, [value]);
}

/** @param {readonly number[]} values */
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Each branch's run with how many branches ran meanwhile, averaged over its duration, itself included. @param {Prediction["timeline"]} timeline */
function busyWorkers(timeline) {
  const runs = timeline.filter(({ part }) => part !== "stem");
  return runs.map((run) => {
    const ms = run.endMs - run.startMs;
    const sharedMs = runs.reduce((sum, other) => {
      const both = Math.min(run.endMs, other.endMs) - Math.max(run.startMs, other.startMs);
      return sum + (other === run ? 0 : Math.max(both, 0));
    }, 0);
    return { part: run.part, ms, busy: 1 + (ms > 0 ? sharedMs / ms : 0) };
  });
}

/** @param {Bundle} bundle @param {number} threads @param {Series[]} series @param {Map<number, Cold>} cold @param {object} shared */
function measurementOf(bundle, threads, series, cold, shared) {
  const alone = /** @type {Series} */ (series.find((one) => one.threads === 1 && one.isWhole));
  const all = /** @type {Series} */ (series.find((one) => one.threads === threads && one.isWhole));
  const first = /** @type {Cold} */ (cold.get(threads));
  const latency = (/** @type {Series} */ { partMs, runs }, /** @type {string} */ part) =>
    latencyOf(partMs.get(part) ?? [], runs, first.partMs.get(part) ?? 0);
  const names = bundle.manifest.branches.map(({ index }) => `branch_${String(index).padStart(2, "0")}`);
  const parts = Object.fromEntries([
    ["stem", latency(all, "stem")],
    ...names.map((part) => [part, latency(alone, part)]),
  ]);
  return {
    bundle_name: bundle.manifest.name,
    bundle_sha256: bundle.sha256,
    engine: bundle.manifest.engine,
    engine_version: all.session.engine.replace(/, \d+ workers?$/, ""),
    threads,
    measured_at: `${new Date().toISOString().slice(0, 19)}Z`,
    parts,
    request: latencyOf(all.requestMs, all.runs, first.requestMs),
    contention: contentionOf(
      series.filter((one) => one.threads === threads),
      parts,
      threads,
    ),
    load_ms: rounded(first.loadMs),
    memory_bytes: null,
    ...shared,
    temperature_start_c: null,
    temperature_end_c: null,
    frequency_start_mhz: null,
    frequency_end_mhz: null,
    throttled: false,
    other_load: null,
    valid: true,
    firmware_limits: null,
    sustained: null,
  };
}

/** @param {Series[]} series @param {Record<string, PartLatency>} parts @param {number} threads */
function contentionOf(series, parts, threads) {
  const factors = [1];
  for (let busy = 2; busy <= threads; busy++) {
    const runs = series.flatMap(({ busyMs }) => busyMs.get(busy) ?? []);
    const ratios = runs.map(({ part, ms }) => ms / Math.max(parts[part].p50_ms, 1e-6));
    const factor = quantile(Float64Array.from(ratios).sort(), 0.5);
    factors.push(factor > 0 ? factor : factors[factors.length - 1]); // it never happened
  }
  return factors.map(rounded);
}

/** @param {number[]} values @param {number} n runs @param {number} firstMs @returns {PartLatency} */
function latencyOf(values, n, firstMs) {
  const sorted = Float64Array.from(values).sort();
  const at = (/** @type {number} */ share) => rounded(quantile(sorted, share));
  return {
    n,
    min_ms: rounded(sorted[0]),
    p50_ms: at(0.5),
    p90_ms: at(0.9),
    p95_ms: at(0.95),
    p99_ms: n >= P99_MIN_RUNS ? at(0.99) : null,
    first_ms: rounded(firstMs),
  };
}

/** Between neighbours; NaN of nothing. @param {ArrayLike<number>} sorted @param {number} share */
function quantile(sorted, share) {
  const place = share * (sorted.length - 1);
  const below = sorted[Math.floor(place)];
  return below + (place % 1) * (sorted[Math.ceil(place)] - below);
}

/** Six digits: a clock tells no more, and a file of them can be read. @param {number} value */
const rounded = (value) => Number(value.toPrecision(6));

/** The step of this page's clock, which its workers share. */
function tick() {
  const fromMs = performance.now();
  let toMs = fromMs;
  while (toMs === fromMs) toMs = performance.now();
  return toMs - fromMs;
}

/** Microseconds between two readings of the clock in a loop that does nothing else. */
function timerJitter() {
  const gaps = new Float64Array(MAX_READINGS);
  const endMs = performance.now() + JITTER_MS;
  let [count, lastMs] = [0, performance.now()];
  while (count < MAX_READINGS && lastMs < endMs) {
    const nowMs = performance.now();
    gaps[count++] = 1000 * (nowMs - lastMs);
    lastMs = nowMs;
  }
  const sorted = gaps.subarray(0, count).sort();
  const at = (/** @type {number} */ share) => rounded(quantile(sorted, share));
  return { p50: at(0.5), p99: at(0.99), p999: at(0.999) };
}

/** Microseconds by which sleeps of a millisecond end late. */
async function wakeUp() {
  const late = new Float64Array(SLEEPS);
  for (let n = 0; n < SLEEPS; n++) {
    const startedMs = performance.now();
    await new Promise((resolve) => setTimeout(resolve, 1));
    late[n] = Math.max(0, 1000 * (performance.now() - startedMs - 1));
  }
  late.sort();
  return { p50: rounded(quantile(late, 0.5)), p99: rounded(quantile(late, 0.99)) };
}

/** What the browser tells of the device; what it does not tell is null. */
async function hardware() {
  const { hardwareConcurrency, platform, userAgent, userAgentData } = /** @type {any} */ (navigator);
  const hints = await userAgentData?.getHighEntropyValues?.(["model", "platformVersion"])?.catch(() => ({}));
  const machine = label(platform) ?? "unknown";
  const cpu = label(hints?.model);
  const cores = hardwareConcurrency || 1;
  return {
    machine,
    os: label(hints ? `${hints.platform ?? platform} ${hints.platformVersion ?? ""}` : platform) ?? "unknown",
    kernel: label(userAgent) ?? "unknown",
    cpu,
    cores,
    clusters: [],
    max_frequency_mhz: null,
    governor: null,
    memory_bytes: null,
    fingerprint: await fingerprint(machine, cpu, cores),
  };
}

/** Printable, at most 200 letters; null where nothing is told. @param {unknown} text */
const label = (text) =>
  String(text ?? "")
    .replace(/[^ -~]/g, "?")
    .slice(0, 200)
    .trim() || null;

/** As device.py makes it: no clusters, frequencies and memory. @param {string} machine @param {string | null} cpu @param {number} cores */
async function fingerprint(machine, cpu, cores) {
  const identity = `[${JSON.stringify(machine)}, ${JSON.stringify(cpu)}, ${cores}, [], null, null]`;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(identity)));
  return Array.from(digest.subarray(0, 8), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
