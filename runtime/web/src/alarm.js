// Rings at a point in time of performance.now(). A timer of a browser knows whole milliseconds, and rings late: the last
// bit is spent awake, going round the page's queue of messages, so that results still come in. No longer than that, since
// workers may need the core.

const LATE_MS = 0.5; // that timers ring, at most (p99 0.4 in Chromium)
const EARLY_MS = 0.02;

export class Alarm {
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  #atMs = Infinity;
  /** @type {() => void} */ #ring = () => {};
  /** @type {MessageChannel | null} */ #channel = null; // made when it is needed: an open one keeps Node from ending

  /** The last one that was set rings, once. @param {number} atMs @param {() => void} ring */
  set(atMs, ring) {
    this.clear();
    this.#atMs = atMs;
    this.#ring = ring;
    this.#look();
  }

  clear() {
    clearTimeout(this.#timer);
    this.#atMs = Infinity;
  }

  close() {
    this.clear();
    this.#channel?.port1.close();
    this.#channel = null;
  }

  #goRound() {
    if (!this.#channel) {
      this.#channel = new MessageChannel();
      this.#channel.port1.onmessage = () => this.#look();
    }
    return this.#channel.port2;
  }

  #look() {
    if (this.#atMs === Infinity) return;
    const leftMs = this.#atMs - performance.now();
    if (leftMs <= EARLY_MS) {
      this.#atMs = Infinity;
      this.#ring();
    } else if (leftMs >= LATE_MS + 1) {
      this.#timer = setTimeout(() => this.#look(), Math.floor(leftMs - LATE_MS));
    } else {
      this.#goRound().postMessage(null);
    }
  }
}
