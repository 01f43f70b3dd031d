// The engines of the browser: which module runs the parts of a bundle in a worker.
import { EngineUnavailable } from "./errors.js";
import { absolute } from "./options.js";

/**
 * What an engine's module exports. It is imported by every worker; `prepare` also by the page.
 *
 * @typedef {object} EngineModule
 * @property {(folder: string) => Promise<unknown>} [prepare] work that all workers share, such as compiling; what it
 *   returns is given to `open` in each
 * @property {(folder: string, prepared: unknown) => Promise<Engine>} open
 *
 * @typedef {object} Engine
 * @property {string} name with its version
 * @property {(program: Uint8Array, inputShape: number[], outputShape: number[]) => Promise<LoadedPart>} load refuses a
 *   program of other shapes
 *
 * @typedef {object} LoadedPart
 * @property {(input: Float32Array) => Promise<Float32Array>} run one part; the result is copied before the next run
 */

const OURS = ["litert", "onnxruntime"];

/** Engines of others, and ours from another address. @type {Map<string, URL>} */
const modules = new Map();

/**
 * Use another module for the bundles of an engine.
 *
 * @param {string} name as the manifest has it
 * @param {string | URL} module address of an `EngineModule`
 * @throws {import("./errors.js").InputError} the address is none
 */
export function registerEngine(name, module) {
  modules.set(name, absolute(module, "module"));
}

/**
 * The address of an engine's module: `paraedge-web-engine` copies ours beside their files, since a bundler would tear
 * them out of this package.
 *
 * @param {string} name
 * @param {string} folder of its files
 * @returns {string}
 * @throws {EngineUnavailable} no engine has that name
 */
export function engineModule(name, folder) {
  const found = modules.get(name) ?? (OURS.includes(name) ? `${folder}${name}.js` : undefined);
  if (found) return `${found}`;
  const names = [...new Set([...OURS, ...modules.keys()])].join(", ");
  throw new EngineUnavailable(
    `no engine of the browser runs a bundle for '${name}'; there are ${names}: export it with --target web`,
  );
}
