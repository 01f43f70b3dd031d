// From the rate of a microphone to the rate that a bundle reads, block by block: a low-pass of windowed sines.

const ZERO_CROSSINGS = 16; // of the sine, to each side
const STEPS = 64; // of the table between two of them
const PASSED = 0.92; // of the frequencies that the lower rate has

/** The low-pass from its middle to one side, (ZERO_CROSSINGS * STEPS + 2,), Blackman's window on it. */
const HALF = Float64Array.from({ length: ZERO_CROSSINGS * STEPS + 2 }, (_, place) => {
  const x = place / STEPS;
  const angle = (Math.PI * Math.min(x, ZERO_CROSSINGS)) / ZERO_CROSSINGS;
  const window = 0.42 + 0.5 * Math.cos(angle) + 0.08 * Math.cos(2 * angle);
  return place === 0 ? 1 : (window * Math.sin(Math.PI * x)) / (Math.PI * x);
});

/** @param {number} x in zero crossings */
function lowPass(x) {
  const at = Math.abs(x) * STEPS;
  const place = Math.floor(at);
  return place >= ZERO_CROSSINGS * STEPS ? 0 : HALF[place] + (at - place) * (HALF[place + 1] - HALF[place]);
}

export class Resampler {
  #step; // samples that come in for each that goes out
  #cutoff; // zero crossings for each sample that comes in
  #reach; // samples to each side that count
  #kept = new Float64Array(0); // samples that the next ones need
  #next; // where the next sample that goes out lies, in `#kept`

  /** @param {number} fromHz @param {number} toHz */
  constructor(fromHz, toHz) {
    this.#step = fromHz / toHz;
    this.#cutoff = this.#step === 1 ? 1 : PASSED * Math.min(1, 1 / this.#step);
    this.#reach = Math.ceil(ZERO_CROSSINGS / this.#cutoff);
    this.#next = this.#reach;
    this.#kept = new Float64Array(this.#reach); // silence before the first
  }

  /** @param {Float32Array} samples @returns {Float32Array<ArrayBuffer>} as many as can be known now */
  push(samples) {
    if (this.#step === 1) return samples.slice();
    const all = new Float64Array(this.#kept.length + samples.length);
    all.set(this.#kept);
    all.set(samples, this.#kept.length);
    const result = [];
    while (this.#next + this.#reach < all.length) {
      let sum = 0;
      const middle = Math.floor(this.#next);
      for (let place = middle - this.#reach + 1; place <= middle + this.#reach; place++)
        sum += all[place] * lowPass((place - this.#next) * this.#cutoff);
      result.push(sum * this.#cutoff);
      this.#next += this.#step;
    }
    const done = Math.max(Math.floor(this.#next) - this.#reach, 0);
    this.#kept = all.slice(done);
    this.#next -= done;
    return Float32Array.from(result);
  }
}
