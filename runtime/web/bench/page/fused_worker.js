// One network on the engine's own two threads: what parallel branches are compared with.
(() => {
  const scope = /** @type {any} */ (globalThis);
  /** @type {(input: Float32Array) => Promise<unknown>} */ let run;

  /** @param {Uint8Array} program @param {number[]} shape */
  async function litert(program, shape) {
    const folder = new URL("/modules/@litertjs/core/wasm/", location.href).href;
    const { warn } = console;
    console.warn = () => {};
    const { loadLiteRt, loadAndCompile, Tensor } = await import(/** @type {any} */ ("/engines/litert/core.js"));
    scope.Module = {
      locateFile: (/** @type {string} */ file) => folder + file,
      mainScriptUrlOrBlob: `${folder}litert_wasm_threaded_internal.js`,
      print() {},
      printErr() {},
    };
    await loadLiteRt(`${folder}litert_wasm_threaded_internal.js`, { threads: true });
    console.warn = warn;
    const model = await loadAndCompile(program, { accelerator: "wasm", cpuOptions: { numThreads: 2 } });
    run = async (input) => {
      const tensor = new Tensor(input, shape);
      const [output] = await model.run(tensor);
      output.toTypedArray().slice();
      output.delete();
      tensor.delete();
    };
  }

  /** @param {Uint8Array} program @param {number[]} shape */
  async function onnxruntime(program, shape) {
    const folder = new URL("/engines/onnxruntime/", location.href).href;
    const ort = await import(`${folder}ort.wasm.min.mjs`);
    ort.env.wasm.numThreads = 2;
    ort.env.wasm.wasmPaths = folder;
    const session = await ort.InferenceSession.create(program, { executionProviders: ["wasm"], intraOpNumThreads: 2 });
    run = (input) => session.run({ [session.inputNames[0]]: new ort.Tensor("float32", input, shape) });
  }

  scope.onmessage = async (/** @type {MessageEvent<any>} */ { data }) => {
    try {
      if (data.program) await { litert, onnxruntime }[/** @type {"litert"} */ (data.engine)](data.program, data.shape);
      else await run(data.input);
      scope.postMessage({});
    } catch (error) {
      scope.postMessage({ problem: String(error) });
    }
  };
})();
