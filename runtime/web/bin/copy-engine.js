#!/usr/bin/env node
// Copies the files of an engine from its npm package into a folder that a page can be served from.
//   npx paraedge-web-engine litert public/engines/litert
import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";

const WASM_UTILS = "@litertjs/wasm-utils";
const require = createRequire(import.meta.url);

/** Of an installed package. @param {string} name */
function resolve(name) {
  try {
    return require.resolve(name);
  } catch (error) {
    const version = require("../package.json").peerDependencies[name];
    if (!version) throw error;
    throw new Error(`${name} is not installed: npm install ${name}@${version}`, { cause: error });
  }
}

/** @type {Record<string, {package: string, files: string[]}>} */
const ENGINES = {
  litert: {
    package: "@litertjs/core",
    files: ["litert_wasm_internal", "litert_wasm_compat_internal"].flatMap((name) => [
      `wasm/${name}.js`,
      `wasm/${name}.wasm`,
    ]),
  },
  onnxruntime: {
    package: "onnxruntime-web",
    files: ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"].map(
      (name) => `dist/${name}`,
    ),
  },
};

/** The folder of an installed package, by a file that it exports. @param {string} name */
function packageFolder(name) {
  const entry = resolve(name);
  const last = entry.lastIndexOf(path.join("node_modules", name));
  return path.join(entry.slice(0, last), "node_modules", name);
}

/** @param {string} name @param {string} out */
function copyEngine(name, out) {
  const engine = Object.hasOwn(ENGINES, name) ? ENGINES[name] : undefined;
  if (!engine) throw new Error(`unknown engine '${name}'; choose one of ${Object.keys(ENGINES).join(", ")}`);
  const folder = packageFolder(engine.package);
  mkdirSync(out, { recursive: true });
  for (const file of engine.files) cpSync(path.join(folder, file), path.join(out, path.basename(file)));
  // The module that runs it in a worker.
  for (const file of [`${name}.js`, "memory.js", "parts.js"])
    cpSync(fileURLToPath(new URL(`../src/engines/${file}`, import.meta.url)), path.join(out, file));
  const { version } = JSON.parse(readFileSync(path.join(folder, "package.json"), "utf8"));
  writeFileSync(path.join(out, "version.txt"), `${version}\n`);
  if (name !== "litert") return;
  // A worker knows no import maps, so the one import by a package's name becomes one by address.
  const core = readFileSync(path.join(folder, "dist/index.js"), "utf8");
  if (core.split(`"${WASM_UTILS}"`).length !== 2)
    throw new Error(`${engine.package} ${version} is not the version that this script knows`);
  writeFileSync(
    path.join(out, "core.js"),
    core.replace(`"${WASM_UTILS}"`, '"./wasm-utils.js"').replace(/^\/\/# sourceMappingURL.*$/m, ""),
  );
  const utilities = readFileSync(path.join(packageFolder(WASM_UTILS), "dist/index.js"), "utf8");
  writeFileSync(path.join(out, "wasm-utils.js"), utilities.replace(/^\/\/# sourceMappingURL.*$/m, ""));
}

const [name, out, ...more] = process.argv.slice(2);
try {
  if (!name || !out || more.length) throw new Error("usage: paraedge-web-engine ENGINE FOLDER");
  copyEngine(name, out);
} catch (error) {
  console.error(`Error: ${error instanceof Error ? error.message : error}`);
  process.exitCode = 2;
}
