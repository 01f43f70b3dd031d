// Checks what callers pass as options: objects, whole numbers, signals.

import { InputError } from "./errors.js";

/**
 * @template {object} T
 * @param {T} options
 * @returns {T}
 * @throws {InputError} it is no object, or its `signal` is none
 */
export function checkedOptions(options) {
  if (typeof options !== "object" || options === null)
    throw new InputError(`the options must be an object, such as { budgetMs: 12 }, got ${options}`);
  const { signal } = /** @type {{signal?: unknown}} */ (options);
  if (signal !== undefined && !(signal instanceof AbortSignal))
    throw new InputError("signal must be the signal of an AbortController; leave it out for none");
  return options;
}

/** @param {unknown} value @param {number} least @param {number} most */
export const isWhole = (value, least, most) =>
  Number.isInteger(value) && Number(value) >= least && Number(value) <= most;
