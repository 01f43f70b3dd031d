// Measures the device as `paraedge profile` does: fetched when that is asked for.
import { profileBundle } from "./paraedge/index.js";

/**
 * A device.json of what was measured before and what is measured now.
 *
 * @param {import("./paraedge/index.js").Bundle} bundle
 * @param {Record<string, any> | null} before
 * @param {import("./paraedge/profile.js").ProfileOptions} options
 * @returns {Promise<Record<string, any>>}
 */
export async function measured(bundle, before, options) {
  const found = await profileBundle(bundle, options);
  const isAgain = (/** @type {any} */ one) =>
    found.measurements.some((/** @type {any} */ other) => other.bundle_sha256 === one.bundle_sha256);
  const kept = (before?.measurements ?? []).filter((/** @type {any} */ one) => !isAgain(one));
  return { ...found, measurements: [...kept, ...found.measurements] };
}

/** @param {Record<string, any>} device @param {(ms: number) => string} milliseconds in words */
export function textOf({ measurements }, milliseconds) {
  const times = measurements.map((/** @type {any} */ { bundle_name: name, threads, request }) => {
    return `${name}, ${threads} thread${threads === 1 ? "" : "s"}: ${milliseconds(request.p50_ms)}`;
  });
  return `${times.join("; ")} (p50).`;
}
