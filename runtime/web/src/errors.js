// The one tree of errors, the same as Python's: a message has the value that was wrong and the next step.

export class ParaEdgeError extends Error {}

/** A bundle cannot be trusted or read. */
export class BundleError extends ParaEdgeError {}

/** `manifest.json` is malformed, or says something impossible. */
export class ManifestError extends BundleError {}

/** A file of a bundle is missing, or has the wrong size, hash or kind. */
export class IntegrityError extends BundleError {}

/** An engine failed while loading or running a part. */
export class EngineError extends ParaEdgeError {}

/** The engine that a bundle needs cannot be loaded here. */
export class EngineUnavailable extends EngineError {}

/** A device cannot be measured. */
export class DeviceError extends ParaEdgeError {}

/** What the caller passed cannot be used. */
export class InputError extends ParaEdgeError {}

/** Kept where a bundler shortens the names of classes. */
const NAMED = {
  ParaEdgeError,
  BundleError,
  ManifestError,
  IntegrityError,
  EngineError,
  EngineUnavailable,
  DeviceError,
  InputError,
};
for (const [name, type] of Object.entries(NAMED)) Object.defineProperty(type.prototype, "name", { value: name });
