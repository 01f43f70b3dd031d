// What is said of a camera or a microphone that cannot be used: fetched when that happens.

/** @param {unknown} error @param {"camera" | "microphone"} what @param {string} own the bundle's own inputs */
export function sourceProblem(error, what, own) {
  const { name, message } = /** @type {Error} */ (error);
  const button = what === "camera" ? "Camera" : "Microphone";
  /** @type {Record<string, string>} */ const known = {
    NotAllowedError: `The ${what} was refused; allow it in the browser's settings of this page.`,
    NotFoundError: `This device has no ${what}; connect one, or go on with the bundle's own ${own}.`,
    NotReadableError: `The ${what} is used by another program; close that, and press ${button} again.`,
  };
  return known[name] ?? `No ${what} can be used: ${(message || name).replace(/\.$/, "")}.`;
}
