// Files of numpy arrays, such as the golden data of a bundle: uint8 and float32, in C order.
import { IntegrityError } from "./errors.js";

/** @typedef {{shape: number[], data: Uint8Array<ArrayBuffer> | Float32Array<ArrayBuffer>}} NpyArray */

/**
 * @param {Uint8Array<ArrayBuffer>} bytes
 * @param {string} file for messages
 * @returns {NpyArray}
 * @throws {IntegrityError} it is anything else
 */
export function parseNpy(bytes, file) {
  const refuse = (/** @type {string} */ problem) => new IntegrityError(`${file} ${problem}; export the bundle again`);
  if (bytes.byteLength < 10 || String.fromCharCode(...bytes.subarray(1, 6)) !== "NUMPY" || bytes[6] !== 1)
    throw refuse("is not a .npy file");
  const start = 10 + (bytes[8] | (bytes[9] << 8));
  const header = new TextDecoder("latin1").decode(bytes.subarray(10, start));
  const type = /'descr': '([^']*)'/.exec(header)?.[1];
  const shape = (/'shape': \(([^)]*)\)/.exec(header)?.[1] ?? "")
    .split(",")
    .filter((part) => part.trim())
    .map(Number);
  if (/'fortran_order': True/.test(header)) throw refuse("is in Fortran order");
  if (type !== "|u1" && type !== "<f4") throw refuse(`holds ${type}, not uint8 or float32`);
  const values = shape.reduce((a, b) => a * b, 1);
  if (bytes.byteLength - start !== values * (type === "|u1" ? 1 : 4))
    throw refuse(`is too short or too long for (${shape})`);
  const body = bytes.slice(start);
  return { shape, data: type === "|u1" ? body : new Float32Array(body.buffer) };
}
