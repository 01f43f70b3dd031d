// paraedge-web: bundles of paraedge in a browser. Branches run in workers, and predictions come within a budget.
export { Bundle } from "./bundle.js";
export { registerEngine } from "./engines.js";
export {
  BundleError,
  DeviceError,
  EngineError,
  EngineUnavailable,
  InputError,
  IntegrityError,
  ManifestError,
  ParaEdgeError,
} from "./errors.js";
export { BranchState, Prediction } from "./prediction.js";
export { Session } from "./session.js";

/**
 * Types for those who name them.
 *
 * @typedef {import("./bundle.js").BundleSource} BundleSource
 * @typedef {import("./inputs.js").Input} Input
 * @typedef {import("./session.js").OpenOptions} OpenOptions
 * @typedef {import("./session.js").RunOptions} RunOptions
 * @typedef {import("./profile.js").ProfileOptions} ProfileOptions
 */

/** Fetched when it is called: few pages need it. @type {typeof import("./profile.js").profileBundle} */
export const profileBundle = async (...options) => (await import("./profile.js")).profileBundle(...options);
