// Checks what callers pass as options: objects of known names, whole numbers, functions, signals.

import { InputError } from "./errors.js";

/**
 * @template {object} T
 * @param {T} options
 * @param {readonly string[]} names of the options that there are
 * @returns {T}
 * @throws {InputError} it is no object, has an unknown name, or its `signal` or `createWorker` is none
 */
export function checkedOptions(options, names) {
  if (typeof options !== "object" || options === null)
    throw new InputError(`the options must be an object, such as { ${names[0]}: … }, got ${shown(options)}`);
  for (const name of Object.keys(options))
    if (!names.includes(name)) throw new InputError(`unknown option '${name}'; choose from ${names.join(", ")}`);
  const { signal, createWorker } = /** @type {{signal?: unknown, createWorker?: unknown}} */ (options);
  if (signal !== undefined && !(signal instanceof AbortSignal))
    throw new InputError("signal must be the signal of an AbortController; leave it out for none");
  if (createWorker !== undefined && typeof createWorker !== "function")
    throw new InputError(`createWorker must be a function that returns a Worker, got ${shown(createWorker)}`);
  return options;
}

/** For messages: text in quotes, since "2" is no number. @param {unknown} value */
export const shown = (value) => (typeof value === "string" ? JSON.stringify(value) : String(value));

/** @param {unknown} value @param {number} least @param {number} most */
export const isWhole = (value, least, most) =>
  Number.isInteger(value) && Number(value) >= least && Number(value) <= most;

/** An address as the page means it. @param {string | URL} address @param {string} option that has it */
export function absolute(address, option) {
  try {
    return new URL(address, globalThis.document?.baseURI ?? globalThis.location?.href ?? import.meta.url);
  } catch (error) {
    throw new InputError(`${option} is ${shown(address)}, which is no address`, { cause: error });
  }
}
