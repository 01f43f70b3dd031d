// What the microphone hears, at the bundle's rate: a window slides over it, an eighth of its length at a time.
import { Resampler } from "./resampler.js";

const STEPS = 8; // of the window
const DEAD_MS = 3000; // even silence comes as samples, unless a browser has not started its sound

/** @typedef {import("./paraedge/manifest.js").TensorInput} TensorInput */

export class Microphone {
  #window;
  #fresh = 0; // samples that no window has had yet
  #wake = () => {};
  #pieces = 0; // that came since somebody looked
  /** @type {ReturnType<typeof setInterval> | undefined} */ #watch;
  isOpen = true;

  /**
   * Use `Microphone.open`.
   *
   * @param {MediaStream} stream
   * @param {AudioContext} context
   * @param {number} rateHz of the windows
   * @param {number} length samples of a window
   */
  constructor(stream, context, rateHz, length) {
    this.stream = stream;
    this.rateHz = rateHz;
    this.#window = new Float32Array(length);
    this.context = context;
  }

  /**
   * @param {TensorInput} spec of a bundle that hears
   * @param {() => void} ended it gives nothing any more
   * @throws {DOMException} there is none, it was refused, or it is in use
   */
  static async open(spec, ended) {
    // As it is recorded for training: a browser's filters for calls would change it.
    const plain = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    const context = new AudioContext();
    /** @type {MediaStream | null} */ let stream = null;
    try {
      await context.audioWorklet.addModule("listener.js");
      stream = await navigator.mediaDevices.getUserMedia({ audio: plain, video: false });
      const microphone = new Microphone(stream, context, /** @type {number} */ (spec.rateHz), spec.shape[2]);
      microphone.#listen(ended);
      return microphone;
    } catch (error) {
      for (const track of stream?.getTracks() ?? []) track.stop();
      context.close().catch(() => {});
      throw error;
    }
  }

  /** @param {() => void} ended */
  #listen(ended) {
    const { context, stream } = this;
    const resampler = new Resampler(context.sampleRate, this.rateHz);
    const listener = new AudioWorkletNode(context, "listener", { numberOfInputs: 1, numberOfOutputs: 1 });
    listener.port.onmessage = ({ data }) => this.#heard(resampler.push(data));
    context.createMediaStreamSource(stream).connect(listener);
    listener.connect(context.destination); // silence: what is connected to nothing does not run everywhere
    context.resume().catch(() => {});
    for (const track of stream.getTracks()) track.onended = ended;
    this.#watch = setInterval(() => {
      if (this.#pieces === 0) ended();
      this.#pieces = 0;
    }, DEAD_MS);
  }

  /** Whether its windows are what a bundle reads. @param {TensorInput} spec */
  fits(spec) {
    return spec.rateHz === this.rateHz && spec.shape[2] === this.#window.length;
  }

  /** The newest window, as soon as an eighth of it is new; windows that nobody asked for in time are left out. Null: it was closed. @returns {Promise<Float32Array<ArrayBuffer> | null>} */
  async next() {
    while (this.isOpen && this.#fresh < Math.max(Math.floor(this.#window.length / STEPS), 1))
      await new Promise((/** @type {(value?: unknown) => void} */ resolve) => (this.#wake = () => resolve()));
    this.#fresh = 0;
    return this.isOpen ? this.#window.slice() : null;
  }

  close() {
    this.isOpen = false;
    clearInterval(this.#watch);
    for (const track of this.stream.getTracks()) {
      track.onended = null;
      track.stop();
    }
    this.context.close().catch(() => {}); // it may be closed already
    this.#wake();
  }

  /** @param {Float32Array} samples */
  #heard(samples) {
    const newest = samples.subarray(Math.max(samples.length - this.#window.length, 0));
    this.#window.copyWithin(0, newest.length);
    this.#window.set(newest, this.#window.length - newest.length);
    this.#fresh += samples.length;
    this.#pieces += 1;
    this.#wake();
  }
}
