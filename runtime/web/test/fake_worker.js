// A worker that does what a test tells it: no engine, no browser.

/** Stands in for a Worker. Every branch's output is its part's number, in every place. */
export class FakeWorker {
  /** Parts that do not end before `release`. @type {Set<number>} */ held = new Set();
  /** Parts that fail, with what. @type {Map<number, string>} */ failing = new Map();
  /** Parts that are not loaded before `release`. @type {Set<number>} */ unloaded = new Set();
  tickMs = 0.005; // of its clock
  nowMs = () => performance.timeOrigin + performance.now();
  runMs = 0.4; // of each part in a loop
  /** What every place of a branch's output is. */ value = (/** @type {number} */ part) => part;
  /** How long a part ran, on its clock; as long as it did when it is null. @type {((part: number) => number) | null} */
  tookMs = null;
  /** @type {Map<number, () => void>} */ #waiting = new Map();
  /** What it was told, in order. @type {any[]} */ messages = [];
  isTerminated = false;
  /** @type {((event: any) => void) | null} */ onmessage = null;
  /** @type {((event: any) => void) | null} */ onerror = null;
  #turn = Promise.resolve();

  /** @param {number} numOutputs */
  constructor(numOutputs) {
    this.numOutputs = numOutputs;
  }

  /** @param {any} message */
  postMessage(message) {
    this.messages.push(message);
    if (message.kind === "load") void this.#load(message);
    else this.#turn = this.#turn.then(() => this.#handle(message));
  }

  terminate() {
    this.isTerminated = true;
  }

  /** @param {number} part */
  release(part) {
    this.held.delete(part);
    this.unloaded.delete(part);
    this.#waiting.get(part)?.();
    this.#waiting.delete(part);
  }

  /** @param {string} problem */
  crash(problem) {
    this.onerror?.({ message: problem });
  }

  /** @param {any} message */
  async #handle({ kind, id, request, part }) {
    if (kind === "open") return this.#tell({ kind: "done", id, result: { name: "fake 1.0", tickMs: this.tickMs } });
    if (kind === "time") return this.#tell({ kind: "done", id, result: { runMs: this.runMs } });
    if (kind !== "stem" && kind !== "branch") return;
    const startMs = this.nowMs();
    if (this.held.has(part)) await new Promise((resolve) => this.#waiting.set(part, () => resolve(undefined)));
    const problem = this.failing.get(part) ?? "";
    const output = problem || part === 0 ? null : new Float32Array(this.numOutputs).fill(this.value(part));
    const endMs = this.tookMs ? startMs + this.tookMs(part ?? 0) : this.nowMs();
    this.#tell({ kind: "ended", request, part, startMs, endMs, output, problem });
  }

  /** A program that is still on its way keeps nothing else from running. @param {any} message */
  async #load({ id, part }) {
    if (this.unloaded.has(part)) await new Promise((resolve) => this.#waiting.set(part, () => resolve(undefined)));
    this.#tell({ kind: "done", id, result: {} });
  }

  /** @param {any} data */
  #tell(data) {
    if (!this.isTerminated) this.onmessage?.({ data });
  }
}
