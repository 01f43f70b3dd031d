// The scheduler, against workers that do what a test tells them.
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  BranchState,
  Bundle,
  EngineError,
  EngineUnavailable,
  InputError,
  registerEngine,
  Session,
} from "../src/index.js";
import { LatestFrames } from "../src/latest.js";
import { fakeBundle, LABELS } from "./bundles.js";
import { FakeWorker } from "./fake_worker.js";

registerEngine("fake", new URL("./fake_engine.js", import.meta.url));

const IMAGE = new Uint8Array(16).fill(100);
const KNOWN = { partMs: [0.05, 0.05, 0.05, 0.05] };

/**
 * @param {{threads?: number, prepare?: (worker: FakeWorker, number: number) => void, branches?: number,
 *   latency?: any, bundle?: Parameters<typeof fakeBundle>[0]}} [options]
 */
async function opened({ threads = 2, prepare = () => {}, latency, branches, bundle } = {}) {
  /** @type {FakeWorker[]} */ const workers = [];
  const session = await Session.open(await fakeBundle(bundle), {
    threads,
    branches,
    latency,
    createWorker: (number) => {
      const worker = new FakeWorker(LABELS.length);
      prepare(worker, number);
      workers.push(worker);
      return /** @type {any} */ (worker);
    },
  });
  return { session, workers };
}

/** @param {(worker: FakeWorker) => void} change @param {FakeWorker[]} workers */
const each = (workers, change) => workers.forEach((worker) => void change(worker));
const soon = () => new Promise((resolve) => setTimeout(resolve, 5));

test("every branch runs, and the outputs add up", async (t) => {
  const { session } = await opened();
  t.after(() => session.close());
  await session.loaded;
  const prediction = await session.run(IMAGE);
  assert.deepEqual(prediction.branchesUsed, [0, 1, 2]);
  assert.deepEqual([...prediction.output], [6, 6, 6]);
  assert.equal(prediction.deadlineMet, true);
  assert.deepEqual(
    prediction.prefixOutputs.map((sum) => sum[0]),
    [1, 3, 6],
  );
  assert.equal(prediction.engine, "fake 1.0, 2 workers");
  assert.equal(prediction.timeline.length, 4);
  assert.equal(JSON.parse(JSON.stringify(prediction)).label, "ant");
});

test("the largest branches are given out first, and none waits behind a large one", async (t) => {
  const { session, workers } = await opened({
    bundle: { branches: 4, macs: [10, 20, 30, 400] },
    latency: { partMs: [1, 10, 20, 30, 400] },
  });
  t.after(() => session.close());
  await session.loaded;
  await session.run(IMAGE);
  const given = workers.map(({ messages }) => messages.filter(({ kind }) => kind === "branch").map(({ part }) => part));
  assert.deepEqual(given, [[4], [3, 2, 1]]);
});

test("the longest are those that take longest on this device, and a deadline keeps the order of prefixes", async (t) => {
  const { session, workers } = await opened({
    threads: 1,
    bundle: { branches: 4, macs: [400, 30, 20, 10] },
    latency: { partMs: [1, 10, 20, 30, 400] },
  });
  t.after(() => session.close());
  await session.loaded;
  const given = async (/** @type {object} */ options) => {
    workers[0].messages.splice(0);
    for await (const _ of options === WATCHED ? session.stream(IMAGE) : [await session.run(IMAGE, options)]);
    return workers[0].messages.filter(({ kind }) => kind === "branch").map(({ part }) => part);
  };
  const WATCHED = {};
  assert.deepEqual(await given({}), [4, 3, 2, 1]);
  for (const options of [{ budgetMs: 5000 }, { earlyStop: true }, { minConfidence: 0.9 }, WATCHED])
    assert.deepEqual(await given(options), [1, 2, 3, 4]);
});

for (const [macs, stems] of /** @type {[number[], number][]} */ ([
  [[400, 300], 2], // the stem's 100 are an eighth of all
  [[400, 200], 1],
])) {
  test(`${stems} of two workers run a stem of 100 beside branches of ${macs}`, async (t) => {
    const { session, workers } = await opened({ bundle: { branches: 2, macs } });
    t.after(() => session.close());
    await session.loaded;
    for (const options of [{}, { budgetMs: 1000 }]) {
      each(workers, ({ messages }) => void messages.splice(0));
      assert.deepEqual((await session.run(IMAGE, options)).branchesUsed, [0, 1]);
      const given = workers.map(({ messages }) => messages.filter(({ kind }) => kind === "stem"));
      assert.deepEqual(
        given.map(({ length }) => length),
        stems === 2 ? [1, 1] : [1, 0],
      );
      assert.deepEqual(given[0][0].peers, stems === 2 ? [] : [1]);
    }
  });
}

test("a stem that fails in any worker ends the request; a crash before it ended tries again", async (t) => {
  const { session, workers } = await opened({ bundle: { branches: 2, macs: [400, 300] } });
  t.after(() => session.close());
  await session.loaded;
  workers[1].failing.set(0, "broken");
  await assert.rejects(session.run(IMAGE), { message: /running the stem: broken/ });
  workers[1].failing.clear();
  workers[0].held.add(0);
  const answer = session.run(IMAGE);
  await soon();
  workers[0].crash("out of memory");
  assert.deepEqual((await answer).branchesUsed, [0, 1]);
});

test("a part that was made for a GPU or an NPU is refused, and named", async () => {
  const files = { macs: [], branches: 3, delegate: "gpu" };
  await assert.rejects(
    opened({ bundle: files }),
    (error) => error instanceof EngineUnavailable && /^stem\.fake was made for the delegate 'gpu'/.test(error.message),
  );
});

test("the first so many branches only", async (t) => {
  const { session } = await opened();
  t.after(() => session.close());
  assert.deepEqual((await session.run(IMAGE, { branches: 2 })).branchesUsed, [0, 1]);
});

test("calls take turns", async (t) => {
  const { session } = await opened();
  t.after(() => session.close());
  const predictions = await Promise.all([1, 2, 3].map((branches) => session.run(IMAGE, { branches })));
  assert.deepEqual(
    predictions.map(({ branchesUsed }) => branchesUsed.length),
    [1, 2, 3],
  );
});

test("a branch that fails is dropped and named; when the first one fails another takes its place", async (t) => {
  const { session, workers } = await opened({ latency: { partMs: [0.05, 0.05, 1e6, 1e6] } });
  t.after(() => session.close());
  await session.loaded;
  each(workers, (worker) => worker.failing.set(2, "no memory"));
  const some = await session.run(IMAGE);
  assert.deepEqual(some.branchesUsed, [0, 2]);
  assert.deepEqual(some.branchesDropped, [{ index: 1, reason: "no memory" }]);
  assert.equal(some.isCalibrated, false);
  each(workers, (worker) => {
    worker.failing.clear();
    worker.failing.set(1, "no memory");
  });
  const second = await session.run(IMAGE, { budgetMs: 50 });
  assert.deepEqual(second.branchesUsed, [1]);
  each(workers, (worker) => worker.failing.set(2, "none").set(3, "none"));
  await assert.rejects(session.run(IMAGE), {
    name: "EngineError",
    message: /every branch failed: branch 0: no memory;/,
  });
});

test("a stem that fails ends the request, not the session", async (t) => {
  const { session, workers } = await opened();
  t.after(() => session.close());
  await session.loaded;
  each(workers, (worker) => worker.failing.set(0, "broken"));
  await assert.rejects(session.run(IMAGE), { name: "EngineError", message: /running the stem: broken/ });
  each(workers, (worker) => worker.failing.clear());
  assert.deepEqual((await session.run(IMAGE)).branchesUsed, [0, 1, 2]);
});

test("nothing is known yet: under a budget only the first branch is sure to run", async (t) => {
  const { session, workers } = await opened();
  t.after(() => session.close());
  await session.loaded;
  each(workers, (worker) => worker.held.add(1));
  const answer = session.run(IMAGE, { budgetMs: 60 });
  await soon();
  each(workers, (worker) => worker.release(1));
  const prediction = await answer;
  assert.equal(prediction.branches[0].state, BranchState.USED);
  assert.match(prediction.explain(), /^this device's speed is still being learned/);
});

test("a late branch is left out, and nothing of it gets into the next prediction", async (t) => {
  const { session, workers } = await opened({ latency: KNOWN });
  t.after(() => session.close());
  await session.loaded;
  each(workers, (worker) => worker.held.add(2));
  const started = performance.now();
  const prediction = await session.run(IMAGE, { budgetMs: 30 });
  assert.ok(performance.now() - started < 200);
  assert.deepEqual(prediction.branchesUsed, [0, 2]);
  assert.equal(prediction.branches[1].state, BranchState.LATE);
  assert.deepEqual(prediction.branchesDropped, [{ index: 1, reason: "it had not finished at the deadline" }]);
  const next = session.run(IMAGE);
  await soon();
  each(workers, (worker) => worker.release(2));
  assert.deepEqual([...(await next).output], [6, 6, 6]);
});

test("a branch that would be late is not started", async (t) => {
  const { session, workers } = await opened({ latency: { partMs: [0.05, 0.05, 500, 0.05] } });
  t.after(() => session.close());
  await session.loaded;
  const prediction = await session.run(IMAGE, { budgetMs: 40 });
  assert.deepEqual(prediction.branchesUsed, [0, 2]);
  assert.match(prediction.branchesDropped[0].reason, /^predicted to miss the deadline: \d{3}\.\d\d ms predicted/);
  assert.ok(!workers.some(({ messages }) => messages.some(({ kind, part }) => kind === "branch" && part === 2)));
  const all = await session.run(IMAGE, { budgetMs: 40, policy: "all" });
  assert.deepEqual(all.branchesUsed, [0, 1, 2]);
});

test("the mandatory branch is waited for, and lateness is said", async (t) => {
  const { session, workers } = await opened({ latency: KNOWN });
  t.after(() => session.close());
  await session.loaded;
  each(workers, (worker) => [1, 2, 3].forEach((part) => void worker.held.add(part)));
  const answer = session.run(IMAGE, { budgetMs: 10 });
  await new Promise((resolve) => setTimeout(resolve, 30));
  each(workers, (worker) => worker.release(1));
  const prediction = await answer;
  assert.deepEqual(prediction.branchesUsed, [0]);
  assert.equal(prediction.deadlineMet, false);
});

test("it predicts while branches are still being loaded, and without a budget it waits for them", async (t) => {
  const { session, workers } = await opened({
    latency: KNOWN,
    prepare: (worker) => worker.unloaded.add(3),
  });
  t.after(() => session.close());
  assert.equal(session.branchesLoaded, 1);
  await soon();
  assert.equal(session.branchesLoaded, 2);
  const early = await session.run(IMAGE, { budgetMs: 30 });
  assert.deepEqual(early.branchesUsed, [0, 1]);
  assert.deepEqual(early.branchesDropped, [{ index: 2, reason: "it was still being loaded" }]);
  const whole = session.run(IMAGE);
  await soon();
  workers[1].release(3);
  assert.deepEqual((await whole).branchesUsed, [0, 1, 2]);
});

test("a worker that crashes is replaced; what it was running is dropped and named", async (t) => {
  const { session, workers } = await opened({ latency: KNOWN });
  t.after(() => session.close());
  await session.loaded;
  each(workers, (worker) => worker.held.add(3));
  const answer = session.run(IMAGE);
  await soon();
  const crashed = workers.findIndex(({ messages }) =>
    messages.some(({ kind, part }) => kind === "branch" && part === 3),
  );
  workers[crashed].crash("out of memory");
  const prediction = await answer;
  assert.deepEqual(prediction.branchesDropped, [{ index: 2, reason: "its worker crashed: out of memory" }]);
  assert.ok(workers[crashed].isTerminated);
  assert.equal(workers.length, 3);
  each(workers, (worker) => worker.release(3));
  await soon();
  assert.deepEqual((await session.run(IMAGE)).branchesUsed, [0, 1, 2]);
  assert.equal(session.threads, 2);
});

test("a request whose stem is lost with its worker is tried again", async (t) => {
  const { session, workers } = await opened({ threads: 1 });
  t.after(() => session.close());
  await session.loaded;
  workers[0].held.add(0);
  const answer = session.run(IMAGE);
  await soon();
  workers[0].crash("out of memory");
  assert.deepEqual((await answer).branchesUsed, [0, 1, 2]);
});

test("a worker that comes later is not given branches whose tokens it never had", async (t) => {
  const { session, workers } = await opened({ threads: 1 });
  t.after(() => session.close());
  await session.loaded;
  workers[0].held.add(2);
  const answer = session.run(IMAGE, { earlyStop: true });
  await soon();
  workers[0].crash("out of memory");
  await soon();
  const { branchesUsed, branchesDropped } = await answer;
  assert.deepEqual(branchesUsed, [0]);
  const reason = "its worker crashed: out of memory";
  assert.deepEqual(
    branchesDropped,
    [1, 2].map((index) => ({ index, reason })),
  );
  assert.ok(workers[1].messages.every(({ kind }) => kind !== "branch"));
});

test("workers that crash again and again end the session with a reason", async (t) => {
  const { session, workers } = await opened({ threads: 1 });
  t.after(() => session.close());
  for (let time = 0; time < 4; time++) {
    await soon();
    workers[workers.length - 1].crash("out of memory");
  }
  await assert.rejects(session.run(IMAGE), {
    name: "EngineError",
    message: /crash again and again: out of memory; use fewer threads/,
  });
});

test("a part that the engine refuses is named", async () => {
  const refusing = (/** @type {FakeWorker} */ worker) => {
    const { postMessage } = worker;
    worker.postMessage = (message) => {
      if (message.kind !== "load" || message.part !== 1) return postMessage.call(worker, message);
      queueMicrotask(() => worker.onmessage?.({ data: { kind: "refused", id: message.id, problem: "not a program" } }));
    };
  };
  await assert.rejects(opened({ prepare: refusing }), {
    name: "EngineError",
    message: "loading branch_00.fake: not a program; 'paraedge verify' checks the bundle",
  });
});

test("a request that waits for a part that is refused ends, and the next ones say why", async (t) => {
  let refuse = () => {};
  const prepare = (/** @type {FakeWorker} */ worker) => {
    const { postMessage } = worker;
    worker.postMessage = (message) => {
      if (message.kind !== "load" || message.part !== 2) return postMessage.call(worker, message);
      refuse = () => worker.onmessage?.({ data: { kind: "refused", id: message.id, problem: "not a program" } });
    };
  };
  const { session } = await opened({ threads: 1, prepare });
  t.after(() => session.close());
  const answer = session.run(IMAGE);
  await soon();
  refuse();
  const { branchesUsed, branchesDropped } = await answer;
  assert.deepEqual(branchesUsed, [0]);
  const message = "loading branch_01.fake: not a program; 'paraedge verify' checks the bundle";
  assert.deepEqual(branchesDropped[0], { index: 1, reason: message });
  await assert.rejects(session.run(IMAGE), { name: "EngineError", message });
  await assert.rejects(session.loaded, { message });
});

test("every prediction on the way; whoever stops reading stops the request", async (t) => {
  const { session, workers } = await opened({ threads: 1 });
  t.after(() => session.close());
  await session.loaded;
  const counts = [];
  for await (const { branchesUsed } of session.stream(IMAGE)) counts.push(branchesUsed.length);
  assert.deepEqual(counts, [1, 2, 3]);
  workers[0].held.add(2);
  for await (const prediction of session.stream(IMAGE)) {
    assert.deepEqual(prediction.branchesUsed, [0]);
    break;
  }
  workers[0].release(2);
  assert.deepEqual((await session.run(IMAGE)).branchesUsed, [0, 1, 2]);
});

test("an aborted request leaves the session as it was", async (t) => {
  const { session, workers } = await opened();
  t.after(() => session.close());
  await session.loaded;
  each(workers, (worker) => worker.held.add(3));
  const stop = new AbortController();
  const answer = session.run(IMAGE, { signal: stop.signal });
  await soon();
  stop.abort();
  await assert.rejects(answer, { name: "AbortError" });
  each(workers, (worker) => worker.release(3));
  assert.deepEqual((await session.run(IMAGE)).branchesUsed, [0, 1, 2]);
  await assert.rejects(session.run(IMAGE, { signal: AbortSignal.abort() }), { name: "AbortError" });
  const waiting = new AbortController();
  each(workers, (worker) => worker.held.add(3));
  const first = session.run(IMAGE);
  const second = session.run(IMAGE, { signal: waiting.signal });
  await soon();
  waiting.abort(0); // whatever the reason is
  await assert.rejects(second, (reason) => reason === 0); // while the one before goes on
  await assert.rejects(session.stream(IMAGE, { signal: waiting.signal }).next(), (reason) => reason === 0);
  each(workers, (worker) => worker.release(3));
  assert.deepEqual((await first).branchesUsed, [0, 1, 2]);
});

test("it stops early when a prefix is sure enough", async (t) => {
  const { session, workers } = await opened({ threads: 1 });
  t.after(() => session.close());
  await session.loaded;
  // All outputs are alike, so every prefix is one third sure.
  assert.deepEqual((await session.run(IMAGE, { earlyStop: true })).branchesUsed, [0, 1, 2]);
  const enough = await session.run(IMAGE, { minConfidence: 0.3 });
  assert.deepEqual(enough.branchesUsed, [0]);
  assert.equal(enough.isCalibrated, true);
  assert.equal(enough.branchesDropped[0].reason, "the prediction was confident enough without it");
  assert.equal(workers[0].messages.filter(({ kind, part }) => kind === "branch" && part === 3).length, 1);
});

for (const [options, message] of /** @type {[any, RegExp][]} */ ([
  [{ budgetMs: 0 }, /^budgetMs must be a number above 0, got 0/],
  [{ budgetMs: Number.NaN }, /^budgetMs must be a number above 0, got NaN/],
  [{ budgetMs: "10" }, /^budgetMs must be a number above 0, got "10"/],
  [{ budget_ms: 10 }, /^unknown option 'budget_ms'; choose from budgetMs, branches, policy/],
  [{ branches: 4 }, /^branches is 4; this session has 3/],
  [{ branches: 1.5 }, /^branches is 1.5/],
  [{ policy: "some" }, /^policy is "some"; choose 'anytime' or 'all'/],
  [{ minConfidence: 2 }, /^minConfidence must be a number .*, got 2/],
  [{ minConfidence: "0.5" }, /^minConfidence must be a number .*, got "0.5"/],
  [{ signal: "stop" }, /^signal must be the signal of an AbortController/],
  [{ signal: {} }, /^signal must be the signal/],
  [null, /^the options must be an object, such as \{ budgetMs: … \}, got null/],
  [12, /^the options must be an object, .*, got 12/],
])) {
  test(`an option that cannot be is refused: ${JSON.stringify(options)}`, async (t) => {
    const { session } = await opened();
    t.after(() => session.close());
    await assert.rejects(
      session.run(IMAGE, options),
      (error) => error instanceof InputError && message.test(error.message),
    );
  });
}

test("what is no image is refused, and what no video", async (t) => {
  const { session } = await opened();
  t.after(() => session.close());
  const sizes = /** @type {[number, number][]} */ ([
    [0, 0],
    [-2, -8],
  ]);
  for (const [height, width] of sizes)
    await assert.rejects(session.run({ data: new Uint8Array(height * width), height, width, channels: 1 }), {
      name: "InputError",
      message: `input 'image' has ${width} x ${height} pixels; wait until it is loaded`,
    });
  await assert.rejects(session.run(/** @type {any} */ ({ width: 0, height: 0 })), /has 0 x 0 pixels/);
  for (const element of /** @type {any[]} */ ([
    { naturalWidth: 9, naturalHeight: 9, complete: false },
    { videoWidth: 9, videoHeight: 9, readyState: 1 },
  ]))
    await assert.rejects(session.run(element), /has no image yet; wait until it is loaded/);
  for (const name of ["natural", "video"]) // its attributes are no size
    await assert.rejects(
      session.run(/** @type {any} */ ({ [`${name}Width`]: 0, [`${name}Height`]: 0, width: 9, height: 9 })),
      /has 0 x 0 pixels/,
    );
  for (const [value, kind] of /** @type {[any, string][]} */ ([
    [null, "null"],
    ["cat.png", "string"],
    [new Float64Array(16), "Float64Array"],
  ]))
    await assert.rejects(session.run(value), { message: new RegExp(`is ${kind}; this bundle reads .*a video$`) });
  const video = /** @type {any} */ ({ requestVideoFrameCallback() {} });
  assert.throws(() => session.latest(/** @type {any} */ (null)), InputError);
  assert.throws(
    () => session.latest(video, { budgetMs: -1 }),
    /^InputError: budgetMs must be a number above 0, got -1/,
  );
  session.close();
  assert.throws(() => session.latest(video), /the session is closed/);
});

test("what cannot be opened is refused", async () => {
  const bundle = await fakeBundle();
  await assert.rejects(Session.open(bundle, { threads: 0 }), { name: "InputError", message: /^threads is 0/ });
  await assert.rejects(Session.open(bundle, { branches: 4 }), { name: "InputError", message: /^branches is 4/ });
  await assert.rejects(Session.open(await fakeBundle({ changes: { engine: "executorch" } })), {
    name: "EngineUnavailable",
    message: /runs a bundle for 'executorch'; there are litert, onnxruntime, fake: export it with --target web/,
  });
  await assert.rejects(opened({ latency: { partMs: [1, 2] } }), {
    name: "InputError",
    message: /^latency has 2 parts/,
  });
  for (const latency of /** @type {any[]} */ ([null, 3, "1", { partMs: 5 }, { contention: null }]))
    await assert.rejects(opened({ latency }), { name: "InputError", message: /^latency must be \{ partMs/ });
  for (const [options, message] of /** @type {[any, RegExp][]} */ ([
    [{ threads: "2" }, /^threads is "2"; give a whole number/],
    [{ thread: 2 }, /^unknown option 'thread'; choose from threads, /],
    [{ engines: "http://[" }, /^engines is .*, which is no address/],
    [{ createWorker: 3 }, /^createWorker must be a function that returns a Worker, got 3/],
  ]))
    await assert.rejects(Session.open(bundle, options), { name: "InputError", message });
  assert.throws(() => registerEngine("fake", "http://["), /^InputError: module is "http:.*, which is no address/);
  for (const createWorker of /** @type {any[]} */ ([
    () => undefined,
    () => {
      throw new DOMException("another origin", "SecurityError");
    },
  ]))
    await assert.rejects(Session.open(bundle, { createWorker }), {
      name: "EngineUnavailable",
      message: /^worker 0 cannot be made: .*; serve worker.js with the page; a bundler needs createWorker/,
    });
  for (const source of /** @type {any[]} */ ([null, 5, "blob:http://localhost/1", "data:,PK"]))
    await assert.rejects(Bundle.open(source), { name: "BundleError", message: /is not a bundle's address; give/ });
  for (const options of /** @type {any[]} */ ([null, 2, "threads"])) {
    await assert.rejects(Session.open(bundle, options), {
      name: "InputError",
      message: /^the options must be an object/,
    });
    await assert.rejects(Bundle.open("there.zip", options), { name: "InputError" });
  }
});

test("a closed session refuses, and ends what runs", async () => {
  const { session, workers } = await opened();
  await session.loaded;
  each(workers, (worker) => worker.held.add(1));
  const answer = session.run(IMAGE);
  const next = session.run(IMAGE);
  await soon();
  session.close();
  await assert.rejects(answer, { name: "EngineError", message: "the session was closed" });
  await assert.rejects(next, { name: "EngineError", message: /^the session is closed/ });
  await assert.rejects(session.run(IMAGE), (error) => error instanceof EngineError && /is closed/.test(error.message));
  assert.ok(workers.every(({ isTerminated }) => isTerminated));
});

test("a clock that steps by a millisecond costs no branches", async (t) => {
  // Parts of 0.4 ms: of five runs three take 0 ms by such a clock, and two take 1.
  let nowMs = 1000; // moved on by the parts alone, so that a busy machine changes nothing
  t.mock.method(performance, "now", () => nowMs);
  /** @type {Record<number, number>} */ const runs = {};
  const tookMs = (/** @type {number} */ part) => {
    nowMs += 0.4;
    runs[part] = (runs[part] ?? 0) + 1;
    return Number(runs[part] % 5 < 2);
  };
  const { session } = await opened({ prepare: (worker) => Object.assign(worker, { tickMs: 1, tookMs }) });
  t.after(() => session.close());
  await session.loaded;
  const first = await session.run(IMAGE, { budgetMs: 1000 });
  assert.deepEqual(first.branchesUsed, [0, 1, 2]); // they were timed when they were loaded
  /** @type {number[]} */ const predicted = [];
  for (let number = 0; number < 400; number++) {
    const { branches } = await session.run(IMAGE, { budgetMs: 1000 });
    if (number >= 200) predicted.push(...branches.map(({ predictedMs }) => predictedMs).filter((ms) => ms > 0));
  }
  assert.ok(predicted.length > 200);
  predicted.sort((a, b) => a - b);
  const [low, high] = [0.05, 0.95].map((share) => predicted[Math.floor(share * predicted.length)]);
  assert.ok(low > 0.2 && high < 2, `${low} to ${high} ms`); // at a budget of 10 ms each of them fits
});

/** Requests that are cut short, with timers that ring so late. @param {Session} session @param {FakeWorker[]} workers @param {number} lateMs */
async function cutShort(session, workers, lateMs) {
  const { setTimeout } = globalThis;
  globalThis.setTimeout = /** @type {any} */ (
    (/** @type {() => void} */ call, /** @type {number} */ ms) => setTimeout(call, ms + lateMs)
  );
  for (let number = 0; number < 18; number++) {
    each(workers, (worker) => worker.held.add(3));
    await session.run(IMAGE, { budgetMs: 30, policy: "all" });
    each(workers, (worker) => worker.release(3));
    await new Promise((resolve) => setImmediate(resolve));
  }
  globalThis.setTimeout = setTimeout;
}

for (const hidden of [true, false]) {
  test(`how late timers are is learned, but not in a tab in the background: hidden ${hidden}`, async (t) => {
    const { session, workers } = await opened({ latency: KNOWN });
    t.after(() => session.close());
    await session.loaded;
    Object.assign(globalThis, { document: { hidden, baseURI: "http://localhost/" } });
    await cutShort(session, workers, 40);
    Reflect.deleteProperty(globalThis, "document");
    await soon();
    const { branchesUsed } = await session.run(IMAGE, { budgetMs: 25 });
    assert.deepEqual(branchesUsed, hidden ? [0, 1, 2] : [0]);
  });
}

test("requests that came close to each other lately are left time", async (t) => {
  let nowMs = 1000; // a clock that only the parts move on
  t.mock.method(performance, "now", () => nowMs);
  const { session } = await opened({
    threads: 1,
    latency: { partMs: [100, 100, 100, 100] },
    prepare: (worker) => {
      worker.tookMs = () => {
        nowMs += 100;
        return 100;
      };
    },
  });
  t.after(() => session.close());
  await session.loaded;
  const bursts = [];
  for (let burst = 0; burst < 5; burst++) {
    bursts.push(await Promise.all([1, 2, 3].map(() => session.run(IMAGE, { budgetMs: 750 }))));
    nowMs += 1000;
  }
  const met = bursts.map((predictions) => predictions.map(({ deadlineMet }) => deadlineMet));
  const used = bursts.map((predictions) => predictions.map(({ branchesUsed }) => branchesUsed.length));
  assert.deepEqual([met[0], used[0][0]], [[true, true, false], 3]); // nothing is known of gaps yet
  assert.deepEqual(met[4], [true, true, true], JSON.stringify(used));
  assert.ok(used[4][0] < 3);
});

test("who asks again with the prediction at hand leaves nobody waiting", async (t) => {
  for (const tickMs of [0.005, 1]) {
    const { session } = await opened({
      latency: { partMs: [1000, 1000, 1000, 1000] },
      prepare: (worker) => (worker.tickMs = tickMs),
    });
    t.after(() => session.close());
    await session.loaded;
    for (let number = 0; number < 14; number++)
      assert.equal((await session.run(IMAGE, { budgetMs: 3000 })).branchesUsed.length, 3);
  }
});

test("clocks that step by a millisecond, and are apart, cost no branches", async (t) => {
  const now = performance.now.bind(performance);
  t.after(() => void Object.assign(performance, { now }));
  for (const apartMs of [-1.8, -0.9, 0, 0.9, 1.8]) {
    let realMs = 1000; // that only the parts move on
    performance.now = () => Math.floor(realMs);
    const { session } = await opened({
      bundle: { branches: 8, macs: Array(8).fill(100) },
      prepare: (worker) => {
        worker.tickMs = 1;
        worker.runMs = 0.7;
        worker.nowMs = () => performance.timeOrigin + Math.floor(realMs + apartMs);
        worker.tookMs = () => {
          const startMs = worker.nowMs();
          realMs += 0.7 + (worker.messages.length % 5) * 0.02;
          return worker.nowMs() - startMs;
        };
      },
    });
    await session.loaded;
    let used = 0;
    for (let number = 0; number < 300; number++) {
      const prediction = await session.run(IMAGE, { budgetMs: 10 });
      if (number >= 200) used += prediction.branchesUsed.length / 100;
      realMs += 3.3;
    }
    session.close();
    assert.ok(used > 7.9, `${used} of 8 branches, clocks ${apartMs} ms apart`);
  }
});

test("predictions of a video end with its signal, also in the middle of one", async () => {
  const video = Object.assign(new EventTarget(), {
    requestVideoFrameCallback: (/** @type {(nowMs: number, frame: object) => void} */ call) =>
      void queueMicrotask(() => call(0, { presentedFrames: 1 })),
  });
  for (const aborts of [true, false]) {
    const stop = new AbortController();
    const predict = async () => {
      if (aborts) stop.abort();
      throw new EngineError("no prediction");
    };
    const frames = new LatestFrames(/** @type {any} */ (video), predict, stop.signal)[Symbol.asyncIterator]();
    if (aborts) assert.equal((await frames.next()).done, true);
    else await assert.rejects(frames.next(), { name: "EngineError" });
  }
});

test("a sum that is not finite ends a stream with its reason", async (t) => {
  const { session, workers } = await opened({ threads: 1 });
  t.after(() => session.close());
  await session.loaded;
  workers[0].value = () => 3e38;
  const stream = session.stream(IMAGE);
  assert.deepEqual((await stream.next()).value?.branchesUsed, [0]);
  await assert.rejects(stream.next(), { name: "EngineError", message: /the sum of the branches is not finite/ });
});
