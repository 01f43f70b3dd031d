// Runs on the browser's thread for sound: mixes what comes to one channel, and hands it to the page in pieces.
const PIECE = 1024; // samples: a message for each block of 128 would keep the page busy

/** @typedef {{port: MessagePort}} Processor */

const scope = /** @type {any} */ (globalThis);

class Listener extends scope.AudioWorkletProcessor {
  #piece = new Float32Array(PIECE);
  #filled = 0;

  /** @param {Float32Array[][]} inputs */
  process([channels]) {
    const count = channels[0]?.length ?? 0;
    for (let place = 0; place < count; place++) {
      let sum = 0;
      for (const channel of channels) sum += channel[place];
      this.#piece[this.#filled++] = sum / channels.length;
      if (this.#filled === PIECE) {
        /** @type {Processor} */ (/** @type {unknown} */ (this)).port.postMessage(this.#piece, [this.#piece.buffer]);
        this.#piece = new Float32Array(PIECE);
        this.#filled = 0;
      }
    }
    return true;
  }
}

scope.registerProcessor("listener", Listener);
