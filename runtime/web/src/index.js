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
export { profileBundle } from "./profile.js";
export { Session } from "./session.js";
