// An engine that breaks when the page says so: by a trap inside a part, or by an error that nobody catches.
const { searchParams } = new URL(import.meta.url);
const engine = await import(`/src/engines/${searchParams.get("engine")}.js`);
const orders = new BroadcastChannel("crash");

export const prepare = engine.prepare ?? (async () => undefined);

/** @param {string} folder @param {unknown} prepared */
export async function open(folder, prepared) {
  const opened = await engine.open(folder, prepared);
  let traps = false;
  orders.onmessage = ({ data }) => {
    if (data === "trap") traps = true;
    else
      setTimeout(() => {
        throw new Error("nobody catches this");
      });
  };
  return {
    name: opened.name,
    /** @param {Uint8Array} program @param {number[]} inputShape @param {number[]} outputShape */
    async load(program, inputShape, outputShape) {
      const part = await opened.load(program, inputShape, outputShape);
      return {
        /** @param {Float32Array} input */
        async run(input) {
          if (traps) throw new WebAssembly.RuntimeError("unreachable");
          return part.run(input);
        },
      };
    },
  };
}
