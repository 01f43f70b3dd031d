// Scaling of images by Python's rule: Pillow's bilinear filter, in whole numbers; within one grey level of it. A canvas
// scales by another rule in every browser.

const PRECISION_BITS = 32 - 8 - 2; // of a weight, as in Pillow's Resample.c

/** @typedef {{first: number, weights: Int32Array}[]} Filter for each place of the result, what it is made of */

/**
 * (height, width, channels) uint8 -> (outHeight, outWidth, channels): bilinear, over all pixels that a new one covers.
 *
 * @param {Uint8Array | Uint8ClampedArray} pixels
 * @param {{height: number, width: number, channels: number}} from
 * @param {{height: number, width: number}} to
 */
export function resized(pixels, { height, width, channels }, to) {
  let rows = pixels;
  if (to.width !== width)
    rows = resampled(rows, bilinear(width, to.width), {
      lines: height,
      step: channels,
      stride: width * channels,
      channels,
    });
  if (to.height !== height) rows = columns(rows, bilinear(height, to.height), to.width * channels);
  return rows;
}

/** Each line by itself. @param {Uint8Array | Uint8ClampedArray} pixels @param {Filter} filter @param {{lines: number, step: number, stride: number, channels: number}} layout */
function resampled(pixels, filter, { lines, step, stride, channels }) {
  const result = new Uint8Array(lines * filter.length * channels);
  let at = 0;
  for (let line = 0; line < lines; line++) {
    for (const { first, weights } of filter) {
      for (let channel = 0; channel < channels; channel++) {
        let sum = 1 << (PRECISION_BITS - 1);
        let place = line * stride + first * step + channel;
        for (let tap = 0; tap < weights.length; tap++, place += step) sum += pixels[place] * weights[tap];
        result[at++] = clipped(sum);
      }
    }
  }
  return result;
}

/** Whole lines of `length` values are mixed. @param {Uint8Array | Uint8ClampedArray} pixels @param {Filter} filter @param {number} length */
function columns(pixels, filter, length) {
  const result = new Uint8Array(filter.length * length);
  const sums = new Int32Array(length);
  for (const [line, { first, weights }] of filter.entries()) {
    sums.fill(1 << (PRECISION_BITS - 1));
    for (let tap = 0; tap < weights.length; tap++) {
      const weight = weights[tap];
      const row = (first + tap) * length;
      for (let place = 0; place < length; place++) sums[place] += pixels[row + place] * weight;
    }
    for (let place = 0; place < length; place++) result[line * length + place] = clipped(sums[place]);
  }
  return result;
}

/** @param {number} sum */
function clipped(sum) {
  const value = sum >> PRECISION_BITS;
  return Math.min(Math.max(value, 0), 255);
}

/** The weights of each new place. @param {number} inSize @param {number} outSize @returns {Filter} */
function bilinear(inSize, outSize) {
  const scale = inSize / outSize;
  const filterScale = Math.max(scale, 1); // a smaller image covers several old pixels with each new one
  const step = 1 / filterScale;
  return Array.from({ length: outSize }, (_, place) => {
    const centre = (place + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - filterScale + 0.5), 0);
    const end = Math.min(Math.trunc(centre + filterScale + 0.5), inSize);
    const exact = Array.from({ length: end - first }, (_, tap) =>
      Math.max(1 - Math.abs((tap + first - centre + 0.5) * step), 0),
    );
    const total = exact.reduce((sum, value) => sum + value, 0);
    return {
      first,
      weights: Int32Array.from(exact, (value) => Math.trunc((value / total) * (1 << PRECISION_BITS) + 0.5)),
    };
  });
}
