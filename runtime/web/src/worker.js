// A worker: one engine on one thread, with the stem and the branches loaded; it runs one part at a time.
// A classic worker, because LiteRT's loader needs importScripts; ES modules are imported when they are needed.
(() => {
  /**
   * @typedef {import("./engines.js").Engine} Engine
   * @typedef {import("./engines.js").LoadedPart} LoadedPart
   * @typedef {{kind: "open", id: number, module: string, folder: string, prepared: unknown}} OpenMessage
   * @typedef {{kind: "load", id: number, part: number, program: Uint8Array, inputShape: number[], outputShape: number[]}} LoadMessage
   * @typedef {{kind: "time", id: number, part: number, loops: number, ticks: number}} TimeMessage where the clock is coarse
   * @typedef {{kind: "peer", number: number}} PeerMessage a port to another worker comes with it
   * @typedef {{kind: "stem", request: number, input: Float32Array, peers: number[]}} StemMessage part 0
   * @typedef {{kind: "branch", request: number, part: number}} BranchMessage part 1 and up
   * @typedef {{kind: "forget", request: number}} ForgetMessage its tokens will not come
   */
  const scope = /** @type {any} */ (globalThis);
  const WARM_RUNS = 2;

  /** @type {Engine} */ let engine;
  /** @type {LoadedPart[]} */ const parts = [];
  /** An input of each. @type {Float32Array[]} */ const blanks = [];
  /** @type {Map<number, MessagePort>} */ const peers = new Map();
  /** Tokens of the newest request; an earlier one's are dropped. @type {{request: number, values: Float32Array | null}} */
  let tokens = { request: -1, values: null };
  let awaited = () => {};
  let lastRun = Promise.resolve();

  const nowMs = () => performance.timeOrigin + performance.now();

  /** The step of the clock: 5 to 100 µs in Chrome, 1 ms in Firefox and Safari. */
  function tickMs() {
    let least = Infinity;
    for (let n = 0; n < 4; n++) {
      const from = performance.now();
      let to = from;
      while (to === from) to = performance.now();
      least = Math.min(least, to - from);
    }
    return least;
  }

  /** @param {unknown} error */
  const problemOf = (error) => (error instanceof Error ? `${error.name}: ${error.message}` : String(error));

  /** @param {Float32Array} values */
  function allFinite(values) {
    for (const value of values) if (!Number.isFinite(value)) return false;
    return true;
  }

  /** @param {number} request @param {Float32Array | null} values */
  function arrived(request, values) {
    if (request < tokens.request) return;
    tokens = { request, values };
    awaited();
  }

  /** @param {number} request */
  async function tokensOf(request) {
    while (tokens.request < request)
      await new Promise((/** @type {(value?: unknown) => void} */ resolve) => (awaited = () => resolve()));
    return tokens.request === request ? tokens.values : null;
  }

  /** @param {number} part @param {Float32Array} input */
  async function timed(part, input) {
    const startMs = nowMs();
    try {
      const output = (await parts[part].run(input)).slice();
      return { startMs, endMs: nowMs(), output, problem: "" };
    } catch (error) {
      return {
        startMs,
        endMs: nowMs(),
        output: null,
        problem: problemOf(error),
        isBroken: error instanceof WebAssembly.RuntimeError,
      };
    }
  }

  /** @param {OpenMessage} message */
  async function open({ module, folder, prepared }) {
    engine = await (await import(/* webpackIgnore: true */ /* @vite-ignore */ module)).open(folder, prepared);
    return { name: engine.name, tickMs: tickMs() };
  }

  /** @param {LoadMessage} message */
  async function load({ part, program, inputShape, outputShape }) {
    const loaded = await engine.load(program, inputShape, outputShape);
    blanks[part] = new Float32Array(inputShape.reduce((a, b) => a * b, 1));
    for (let n = 0; n < WARM_RUNS; n++) await loaded.run(blanks[part]);
    parts[part] = loaded;
    return {};
  }

  /** The median of some loops: whatever held one of them up would count for ever. @param {TimeMessage} message */
  async function time({ part, loops, ticks }) {
    const leastMs = ticks * tickMs();
    const means = [];
    for (let n = 0; n < loops; n++) {
      let runs = 0;
      const fromMs = nowMs();
      do {
        await parts[part].run(blanks[part]);
        runs += 1;
      } while (nowMs() - fromMs < leastMs);
      means.push((nowMs() - fromMs) / runs);
    }
    return { runMs: means.sort((a, b) => a - b)[loops >> 1] };
  }

  /** @param {StemMessage} message */
  async function stem({ request, input, peers: receivers }) {
    const { output, ...run } = await timed(0, input);
    const fine = output !== null && allFinite(output);
    const values = fine ? output : null; // null: nobody waits for them any longer
    for (const number of receivers) {
      const copy = values?.slice() ?? null;
      peers.get(number)?.postMessage({ request, values: copy }, copy ? [copy.buffer] : []);
    }
    arrived(request, values);
    const problem = run.problem || (fine ? "" : "its output is not finite");
    scope.postMessage({ kind: "ended", request, part: 0, ...run, problem });
  }

  /** @param {BranchMessage} message */
  async function branch({ request, part }) {
    const input = await tokensOf(request);
    const run = input
      ? await timed(part, input)
      : { startMs: nowMs(), endMs: nowMs(), output: null, problem: "the stem gave it nothing to read" };
    scope.postMessage({ kind: "ended", request, part, ...run });
  }

  /** @param {OpenMessage | LoadMessage | TimeMessage} message @param {() => Promise<object>} work */
  async function reply({ id }, work) {
    try {
      scope.postMessage({ kind: "done", id, result: await work() });
    } catch (error) {
      scope.postMessage({ kind: "refused", id, problem: problemOf(error) });
    }
  }

  /** @param {() => Promise<void>} work after what was asked for before */
  function inTurn(work) {
    lastRun = lastRun.then(work);
  }

  scope.onmessage = (
    /** @type {MessageEvent<OpenMessage | LoadMessage | TimeMessage | PeerMessage | StemMessage | BranchMessage | ForgetMessage>} */ event,
  ) => {
    const { data } = event;
    switch (data.kind) {
      case "open":
        return inTurn(() => reply(data, () => open(data)));
      case "load":
        return inTurn(() => reply(data, () => load(data)));
      case "time":
        return inTurn(() => reply(data, () => time(data)));
      case "stem":
        return inTurn(() => stem(data));
      case "branch":
        return inTurn(() => branch(data));
      case "forget":
        return arrived(data.request, null);
      case "peer": {
        const [port] = event.ports;
        peers.set(data.number, port);
        port.onmessage = (tokensEvent) => arrived(tokensEvent.data.request, tokensEvent.data.values);
      }
    }
  };
})();
