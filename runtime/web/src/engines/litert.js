// LiteRT.js, the npm package @litertjs/core: TensorFlow Lite with XNNPACK, on one thread of WebAssembly.
// Its loader calls importScripts, so it runs in a classic worker only.
import { capMemory } from "./memory.js";
import { checkShape, versionOf } from "./parts.js";

// relaxed_swizzle in a module of two constants: Chrome 114, Firefox 145, and no Safari yet.
const RELAXED_SIMD = Uint8Array.from([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1, 253, 15, 65, 2, 253, 15,
  253, 128, 2, 11,
]);

function build() {
  return WebAssembly.validate(RELAXED_SIMD) ? "litert_wasm_internal" : "litert_wasm_compat_internal";
}

/** Compiled once for all workers. @param {string} folder */
export async function prepare(folder) {
  const address = `${folder}${build()}.wasm`;
  const response = await fetch(address);
  if (!response.ok) throw new Error(`${address}: the server says ${response.status}`);
  if (response.headers.get("content-type")?.startsWith("application/wasm"))
    return WebAssembly.compileStreaming(response);
  return WebAssembly.compile(await response.arrayBuffer());
}

/** It would open a device of the GPU, which nobody uses, and print that there is none. @param {() => Promise<unknown>} load */
async function withoutGpu(load) {
  const { warn } = console;
  console.warn = () => {};
  Object.defineProperty(navigator, "gpu", { value: { requestAdapter: async () => null }, configurable: true });
  try {
    await load();
  } finally {
    console.warn = warn;
  }
}

/** @param {string} folder @param {unknown} prepared @returns {Promise<import("../engines.js").Engine>} */
export async function open(folder, prepared) {
  capMemory();
  const module = /** @type {WebAssembly.Module} */ (prepared);
  let refuse = (/** @type {unknown} */ _problem) => {};
  const refused = new Promise((_, reject) => (refuse = reject)); // its loader would wait for ever
  Object.assign(globalThis, {
    Module: {
      // It would look for the .wasm beside the worker's script.
      locateFile: (/** @type {string} */ file) => folder + file,
      instantiateWasm(
        /** @type {WebAssembly.Imports} */ imports,
        /** @type {(instance: WebAssembly.Instance, module: WebAssembly.Module) => void} */ done,
      ) {
        WebAssembly.instantiate(module, imports).then((instance) => done(instance, module), refuse);
        return {};
      },
      print() {},
      printErr() {},
    },
  });
  const { loadLiteRt, loadAndCompile, Tensor } = await import(`${folder}core.js`);
  await withoutGpu(() => Promise.race([loadLiteRt(`${folder}${build()}.js`), refused]));
  return {
    name: `LiteRT.js ${await versionOf(folder)}`,
    async load(program, inputShape, outputShape) {
      const model = await loadAndCompile(program, { accelerator: "wasm", cpuOptions: { numThreads: 1 } });
      checkShape("input", model.getInputDetails()[0]?.shape, inputShape);
      checkShape("output", model.getOutputDetails()[0]?.shape, outputShape);
      return {
        async run(input) {
          const tensor = new Tensor(input, inputShape);
          try {
            const [output] = await model.run(tensor);
            const values = output.toTypedArray().slice();
            output.delete(); // the engine's memory is freed by hand
            return values;
          } finally {
            tensor.delete();
          }
        },
      };
    },
  };
}
