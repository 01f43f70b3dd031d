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

/** @param {Record<string, any>} device */
export function textOf({ measurements }) {
  const times = measurements.map((/** @type {any} */ { bundle_name: name, threads, request }) => {
    const ms = request.p50_ms < 10 ? request.p50_ms.toFixed(1) : Math.round(request.p50_ms);
    return `${name}, ${threads} thread${threads === 1 ? "" : "s"}: ${ms} ms`;
  });
  return `${times.join("; ")} (p50).`;
}
