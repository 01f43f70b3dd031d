// What bench.js measures inside a page.
import { golden as goldenOf, opened } from "/page/helpers.js";
import { Bundle, Session } from "/src/index.js";

const WARM = 15;
const REST_MS = 40; // an engine's own threads go on spinning for some ten milliseconds, on a core that the next one needs

/**
 * Variants take turns: whatever else the machine does meets all of them. Each turn begins with a rest, and with a run
 * that wakes the workers and does not count.
 * @param {Record<string, () => Promise<unknown>>} variants @param {number} rounds
 */
async function inTurns(variants, rounds) {
  /** @type {Record<string, number[]>} */ const times = Object.fromEntries(
    Object.keys(variants).map((name) => [name, []]),
  );
  for (let round = -WARM; round < rounds; round++) {
    for (const [name, run] of Object.entries(variants)) {
      await new Promise((resolve) => setTimeout(resolve, REST_MS));
      await run();
      const startMs = performance.now();
      await run();
      if (round >= 0) times[name].push(performance.now() - startMs);
    }
  }
  return times;
}

/** @param {{bundle: string, rounds: number}} options */
export async function requests({ bundle: address, rounds }) {
  const bundle = await Bundle.open(address);
  const { inputs } = await bundle.golden();
  const input = inputs.data.subarray(0, inputs.data.length / inputs.shape[0]);
  const one = await Session.open(bundle, { threads: 1, engines: "/engines" });
  const two = await Session.open(bundle, { threads: 2, engines: "/engines" });
  await Promise.all([one.loaded, two.loaded]);
  const [raw1, raw2] = [await rawWorkers(bundle, 1), await rawWorkers(bundle, 2)];
  const fused2 = bundle.manifest.fused ? await fusedModel(bundle) : null;
  return inTurns(
    {
      session1: () => one.run(input),
      session2: () => two.run(input),
      raw1,
      raw2,
      ...(fused2 && { fused2 }),
    },
    rounds,
  );
}

/** The stem done in each worker, branches split once by their multiply-adds, and no decision. @param {any} bundle @param {number} count */
async function rawWorkers(bundle, count) {
  const { manifest } = bundle;
  const { engine } = manifest;
  const module = new URL(`/src/engines/${engine}.js`, location.href).href;
  const folder = new URL(`/engines/${engine}/`, location.href).href;
  const prepared = await (await import(module)).prepare?.(folder);
  const workers = Array.from({ length: count }, () => new Worker("/src/worker.js"));
  const loads = Array(count).fill(0);
  /** @type {number[][]} */ const plans = loads.map(() => []);
  const byCost = [...manifest.branches.keys()].sort((a, b) => manifest.branches[b].macs - manifest.branches[a].macs);
  for (const position of byCost) {
    const least = loads.indexOf(Math.min(...loads));
    plans[least].push(position + 1);
    loads[least] += manifest.branches[position].macs;
  }
  let id = 0;
  const call = (/** @type {Worker} */ worker, /** @type {object} */ message) =>
    new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => (data.kind === "done" ? resolve(data.result) : reject(new Error(data.problem)));
      worker.postMessage({ ...message, id: ++id });
    });
  for (const worker of workers) {
    await call(worker, { kind: "open", module, folder, prepared });
    for (const [part, entry] of [manifest.stem, ...manifest.branches].entries()) {
      const program = await bundle.read(entry);
      await call(worker, {
        kind: "load",
        part,
        program,
        inputShape: entry.inputShape,
        outputShape: entry.outputShape,
      });
    }
  }
  const input = new Float32Array(
    manifest.input.shape.reduce((/** @type {number} */ a, /** @type {number} */ b) => a * b, 1),
  );
  let request = 0;
  return () => {
    request += 1;
    let missing = manifest.branches.length + count;
    return new Promise((resolve) => {
      for (const [number, worker] of workers.entries()) {
        worker.onmessage = () => --missing || resolve(undefined);
        worker.postMessage({ kind: "stem", request, input, peers: [] });
        for (const part of plans[number]) worker.postMessage({ kind: "branch", request, part });
      }
    });
  };
}

/** One network in one worker, on the engine's own two threads. @param {any} bundle */
async function fusedModel(bundle) {
  const { manifest } = bundle;
  const worker = new Worker("/bench/fused_worker.js");
  const program = await bundle.read(manifest.fused);
  const shape = manifest.input.shape;
  const input = new Float32Array(shape.reduce((/** @type {number} */ a, /** @type {number} */ b) => a * b, 1));
  const answer = () =>
    new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => (data.problem ? reject(new Error(data.problem)) : resolve(data));
      worker.onerror = (event) => reject(new Error(event.message));
    });
  const loaded = answer();
  worker.postMessage({ engine: manifest.engine, program, shape });
  await loaded;
  return () => {
    const done = answer();
    worker.postMessage({ input });
    return done;
  };
}

/** Against what torch computed. @param {{bundle: string}} options */
export const golden = ({ bundle }) => goldenOf(bundle.split("/")[2]);

/** Late predictions at twice what stem and first branch take; `heldUp`: those two alone took longer, so nothing could be decided. @param {{bundle: string, rounds: number, slowdown: number}} options */
export async function budgets({ bundle, rounds, slowdown }) {
  const { session, input } = await opened(bundle.split("/")[2], { slowdown });
  await session.loaded;
  for (let number = 0; number < 40; number++) await session.run(input(number));
  const times = [];
  for (let number = 0; number < 60; number++) times.push((await session.run(input(number), { branches: 1 })).elapsedMs);
  const budgetMs = 2 * times.sort((a, b) => a - b)[30];
  const count = 2 * rounds;
  let [late, heldUp, used] = [0, 0, 0];
  for (let number = 0; number < count + WARM; number++) {
    const { deadlineMet, branches, branchesUsed } = await session.run(input(number), { budgetMs });
    if (number < WARM) continue;
    late += Number(!deadlineMet) / count;
    heldUp += Number(branches[0].endMs > budgetMs) / count;
    used += branchesUsed.length / count;
  }
  session.close();
  return { budgetMs, late, heldUp, used };
}

/** @param {{bundle: string}} options */
export async function cold({ bundle }) {
  const startMs = performance.now();
  const opened = await Bundle.open(bundle);
  const session = await Session.open(opened, { threads: 2, engines: "/engines" });
  const shape = opened.manifest.input.shape;
  await session.run(new Uint8Array(shape.reduce((/** @type {number} */ a, /** @type {number} */ b) => a * b, 1)), {
    budgetMs: 5000,
  });
  const tookMs = performance.now() - startMs;
  session.close();
  return tookMs;
}
