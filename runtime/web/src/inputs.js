// From what a page has (canvas, image, video frame, pixels, numbers) to what the stem reads, refusing what does not fit.
import { InputError } from "./errors.js";
import { messageOf } from "./manifest.js";
import { resized } from "./resize.js";

/**
 * @typedef {import("./manifest.js").InputSpec} InputSpec
 * @typedef {import("./manifest.js").ImageInput} ImageInput
 * @typedef {import("./manifest.js").TensorInput} TensorInput
 * @typedef {{data: Uint8Array | Uint8ClampedArray, height: number, width: number, channels: number}} Pixels (H, W, C)
 * @typedef {CanvasImageSource | ImageData | Pixels | Uint8Array | Uint8ClampedArray | Float32Array} Input
 */

const MAX_PIXELS = 50_000_000; // as in Python
const HAVE_CURRENT_DATA = 2; // of a video

/**
 * What the stem reads.
 *
 * An image input takes anything that can be drawn, `ImageData`, uint8 pixels {data, height, width, channels}, these
 * scaled and converted as the bundle's images are; the exact uint8 (H, W, C); or float32 of `spec.shape`, which is
 * taken as normalised already. A tensor input takes float32 of `spec.shape.slice(1)`, not normalised.
 *
 * @param {Input} value
 * @param {InputSpec} spec
 * @returns {Float32Array<ArrayBuffer>} a copy, of `spec.shape`
 * @throws {InputError} it does not fit; the message says what the bundle reads
 */
export function stemInput(value, spec) {
  if (spec.kind === "tensor") return normalisedTensor(value, spec);
  if (value instanceof Float32Array) return finite(sized(value, spec, product(spec.shape)), spec).slice();
  if (value instanceof Uint8Array || value instanceof Uint8ClampedArray)
    return normalisedImage(sized(value, spec, product(spec.shape)), spec);
  return normalisedImage(fitted(pixelsOf(value, spec), spec), spec);
}

/** @param {readonly number[]} shape */
const product = (shape) => shape.reduce((a, b) => a * b, 1);

/** @param {InputSpec} spec */
function reads(spec) {
  if (spec.kind === "tensor")
    return `this bundle reads float32 of shape (${spec.shape.slice(1)}), axes (${spec.axes}), before it is normalised`;
  const [, channels, height, width] = spec.shape;
  return `this bundle reads a uint8 image of shape (${height},${width},${channels}), or float32 of shape (${spec.shape}), normalised already`;
}

/** @template {ArrayLike<number>} T @param {T} values @param {InputSpec} spec @param {number} length */
function sized(values, spec, length) {
  if (values.length === length) return values;
  const hint = spec.kind === "image" ? "; pass {data, height, width, channels} to have it scaled" : "";
  throw new InputError(`input '${spec.name}' has ${values.length} values; ${reads(spec)}${hint}`);
}

/** @param {Float32Array} values @param {InputSpec} spec */
function finite(values, spec) {
  let bad = 0;
  for (const value of values) if (!Number.isFinite(value)) bad += 1;
  if (bad) throw new InputError(`input '${spec.name}' has ${bad} values that are not finite`);
  return values;
}

/** @param {unknown} value @param {TensorInput} spec */
function normalisedTensor(value, { normalizedAxis, ...spec }) {
  const whole = { ...spec, normalizedAxis };
  if (!(value instanceof Float32Array))
    throw new InputError(`input '${spec.name}' must be a Float32Array, got ${kindOf(value)}; ${reads(whole)}`);
  finite(sized(value, whole, product(spec.shape)), whole);
  const { scale, shift, shape, axes } = spec;
  const inner = normalizedAxis === null ? value.length : product(shape.slice(axes.indexOf(normalizedAxis) + 2));
  return Float32Array.from(value, (number, place) => {
    const position = Math.floor(place / inner) % scale.length;
    return Math.fround(number * scale[position]) - shift[position];
  });
}

/** (H, W, C) uint8 -> (1, C, H, W). @param {Uint8Array | Uint8ClampedArray} pixels @param {ImageInput} spec */
function normalisedImage(pixels, { shape, scale, shift }) {
  const [, channels, height, width] = shape;
  const area = height * width;
  const result = new Float32Array(channels * area);
  for (let channel = 0; channel < channels; channel++) {
    const [factor, offset] = [scale[channel], shift[channel]];
    for (let place = 0; place < area; place++) {
      result[channel * area + place] = Math.fround(pixels[place * channels + channel] * factor) - offset;
    }
  }
  return result;
}

/** Whatever a page has, as pixels. @param {unknown} value @param {ImageInput} spec @returns {Pixels} */
function pixelsOf(value, spec) {
  if (typeof ImageData !== "undefined" && value instanceof ImageData)
    return { data: value.data, height: value.height, width: value.width, channels: 4 };
  if (isPixels(value)) {
    if (value.data.length === value.height * value.width * value.channels && [1, 3, 4].includes(value.channels))
      return value;
    throw new InputError(
      `input '${spec.name}' has ${value.data.length} values for ${value.height} × ${value.width} pixels of ${value.channels} channels; give 1, 3 or 4 channels`,
    );
  }
  const { complete, readyState } = /** @type {any} */ (value) ?? {};
  if (complete === false || readyState < HAVE_CURRENT_DATA)
    // drawing it would draw nothing
    throw new InputError(`input '${spec.name}' has no image yet; wait until it is loaded`);
  const size = sizeOf(value);
  if (!size)
    throw new InputError(
      `input '${spec.name}' is ${kindOf(value)}; ${reads(spec)}, or what can be drawn: a canvas, an image, a video`,
    );
  const [width, height] = size;
  checkSize(width, height, spec);
  const canvas = scratch(width, height);
  canvas.fillStyle = "#fff"; // what shows through transparent pixels
  canvas.fillRect(0, 0, width, height);
  try {
    canvas.drawImage(/** @type {CanvasImageSource} */ (value), 0, 0, width, height);
    return { data: canvas.getImageData(0, 0, width, height).data, height, width, channels: 4 };
  } catch (error) {
    // An image that is broken, or of another site, which did not allow it to be read.
    throw new InputError(`input '${spec.name}' cannot be drawn and read: ${messageOf(error)}`, { cause: error });
  }
}

/** @param {number} width @param {number} height @param {InputSpec} spec */
function checkSize(width, height, spec) {
  if (!(width > 0 && height > 0))
    throw new InputError(`input '${spec.name}' has ${width} x ${height} pixels; wait until it is loaded`);
  if (width * height > MAX_PIXELS)
    throw new InputError(`input '${spec.name}' has ${width * height} pixels, more than the ${MAX_PIXELS} allowed`);
}

/** @param {unknown} value @returns {value is Pixels} */
function isPixels(value) {
  const pixels = /** @type {Partial<Pixels> | null} */ (value);
  const isBytes = pixels?.data instanceof Uint8Array || pixels?.data instanceof Uint8ClampedArray;
  return isBytes && Number.isInteger(pixels?.height) && Number.isInteger(pixels?.width);
}

/** @param {unknown} value */
function kindOf(value) {
  return typeof value === "object" ? (value?.constructor?.name ?? "null") : typeof value;
}

/** @param {any} value @returns {[number, number] | null} null: nothing that can be drawn */
function sizeOf(value) {
  const prefix = ["video", "natural", "display"].find((name) => value?.[`${name}Width`] !== undefined);
  const width = prefix ? value[`${prefix}Width`] : value?.width; // an attribute, where there is another
  const height = prefix ? value[`${prefix}Height`] : value?.height;
  return typeof width === "number" && typeof height === "number" ? [Math.round(width), Math.round(height)] : null;
}

/** @type {OffscreenCanvasRenderingContext2D | undefined} */ let context;

/** @param {number} width @param {number} height */
function scratch(width, height) {
  if (!context || context.canvas.width !== width || context.canvas.height !== height) {
    context = /** @type {OffscreenCanvasRenderingContext2D} */ (
      new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true })
    );
  }
  return context;
}

/** On white, grey or coloured, scaled to the whole height and width: the one rule for images, as in Python. @param {Pixels} pixels @param {ImageInput} spec */
function fitted(pixels, spec) {
  const [, channels, height, width] = spec.shape;
  if (channels !== 1 && channels !== 3) {
    throw new InputError(
      `this bundle reads ${channels} channels, an image has 1 or 3; pass a Uint8Array of (${height},${width},${channels})`,
    );
  }
  checkSize(pixels.width, pixels.height, spec);
  const whole = { ...pixels, data: converted(pixels, channels), channels };
  const kept = spec.resize === "crop" ? middle(whole, { height, width }) : whole;
  return resized(kept.data, kept, { height, width });
}

/** The largest part of these proportions, from the middle: rule 8 of docs/bundle-format.md. @param {Pixels} pixels @param {{height: number, width: number}} to @returns {Pixels} */
function middle({ data, height, width, channels }, to) {
  const scale = Math.min(width / to.width, height / to.height);
  const across = Math.max(1, roundHalfEven(to.width * scale));
  const down = Math.max(1, roundHalfEven(to.height * scale));
  const [left, top] = [Math.floor((width - across) / 2), Math.floor((height - down) / 2)];
  const result = new Uint8Array(down * across * channels);
  for (let row = 0; row < down; row++) {
    const start = ((top + row) * width + left) * channels;
    result.set(data.subarray(start, start + across * channels), row * across * channels);
  }
  return { data: result, height: down, width: across, channels };
}

/** As Python rounds. @param {number} value */
function roundHalfEven(value) {
  const rounded = Math.round(value);
  return value % 1 === 0.5 && rounded % 2 === 1 ? rounded - 1 : rounded;
}

/** To grey as Pillow's "L", or to RGB; transparent pixels show white. @param {Pixels} pixels @param {1 | 3} channels */
function converted({ data, height, width, channels: from }, channels) {
  if (from === channels) return data;
  const area = height * width;
  const result = new Uint8Array(area * channels);
  const step = from === 1 ? 0 : 1;
  for (let place = 0; place < area; place++) {
    let [r, g, b] = [data[place * from], data[place * from + step], data[place * from + 2 * step]];
    if (from === 4 && data[place * 4 + 3] !== 255)
      [r, g, b] = [r, g, b].map((value) => onWhite(value, data[place * 4 + 3]));
    if (channels === 1) result[place] = (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;
    else result.set([r, g, b], 3 * place);
  }
  return result;
}

/** As Pillow's paste with a mask. @param {number} value @param {number} alpha */
function onWhite(value, alpha) {
  const sum = value * alpha + 255 * (255 - alpha) + 128;
  return ((sum >> 8) + sum) >> 8;
}
