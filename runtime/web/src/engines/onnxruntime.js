// ONNX Runtime, the npm package onnxruntime-web, on one thread of WebAssembly: the workers are the threads.
import { capMemory } from "./memory.js";
import { checkShape, versionOf } from "./parts.js";

/** @param {string} folder @returns {Promise<import("../engines.js").Engine>} */
export async function open(folder) {
  capMemory();
  const ort = await import(`${folder}ort.wasm.min.mjs`);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = folder;
  ort.env.logLevel = "error";
  return {
    name: `onnxruntime-web ${await versionOf(folder)}`,
    async load(program, inputShape, outputShape) {
      const session = await ort.InferenceSession.create(program, { executionProviders: ["wasm"] });
      const [[input], [output]] = [session.inputNames, session.outputNames];
      checkShape("input", session.inputMetadata?.[0]?.shape, inputShape);
      checkShape("output", session.outputMetadata?.[0]?.shape, outputShape);
      return {
        async run(values) {
          const result = await session.run({ [input]: new ort.Tensor("float32", values, inputShape) });
          return result[output].data;
        },
      };
    },
  };
}
