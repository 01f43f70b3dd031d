// Predictions of a video that is faster than the device: the newest frame wins.

/**
 * @typedef {import("./prediction.js").Prediction} Prediction
 * @typedef {(frame: HTMLVideoElement, arrivedMs: number) => Promise<Prediction>} Predict
 */

export class LatestFrames {
  /** Frames that nobody looked at, since a newer one came. */
  dropped = 0;
  #video;
  #predict;
  #signal;

  /** @param {HTMLVideoElement} video @param {Predict} predict @param {AbortSignal} [signal] */
  constructor(video, predict, signal) {
    this.#video = video;
    this.#predict = predict;
    this.#signal = signal;
  }

  /** Until the video ends, or the signal aborts. @returns {AsyncGenerator<Prediction, void, void>} */
  async *[Symbol.asyncIterator]() {
    let presented = 0;
    while (!this.#signal?.aborted) {
      const frame = await this.#nextFrame();
      if (!frame) return;
      if (presented) this.dropped += Math.max(frame.presented - presented - 1, 0);
      presented = frame.presented;
      try {
        yield await this.#predict(this.#video, frame.arrivedMs);
      } catch (error) {
        if (this.#signal?.aborted) return;
        throw error;
      }
    }
  }

  /** The next one that the browser presents; null at the end. @returns {Promise<{presented: number, arrivedMs: number} | null>} */
  #nextFrame() {
    const video = this.#video;
    const signal = this.#signal;
    if (video.ended || signal?.aborted) return Promise.resolve(null);
    return new Promise((resolve) => {
      const over = () => {
        video.cancelVideoFrameCallback(handle);
        done(null);
      };
      const done = (/** @type {{presented: number, arrivedMs: number} | null} */ frame) => {
        for (const event of ["ended", "error", "emptied"]) video.removeEventListener(event, over);
        signal?.removeEventListener("abort", over);
        resolve(frame);
      };
      const handle = video.requestVideoFrameCallback((nowMs, { presentedFrames }) =>
        done({ presented: presentedFrames, arrivedMs: nowMs }),
      );
      for (const event of ["ended", "error", "emptied"]) video.addEventListener(event, over, { once: true });
      signal?.addEventListener("abort", over, { once: true });
    });
  }
}
