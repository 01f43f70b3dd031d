// An engine on a slower device: every part runs several times.
const { searchParams } = new URL(import.meta.url);
const times = Number(searchParams.get("times"));
const engine = await import(`/src/engines/${searchParams.get("engine")}.js`);

export const prepare = engine.prepare ?? (async () => undefined);

/** @param {string} folder @param {unknown} prepared */
export async function open(folder, prepared) {
  const opened = await engine.open(folder, prepared);
  return {
    name: opened.name,
    /** @param {Uint8Array} program @param {number[]} inputShape @param {number[]} outputShape */
    async load(program, inputShape, outputShape) {
      const part = await opened.load(program, inputShape, outputShape);
      return {
        /** @param {Float32Array} input */
        async run(input) {
          for (let time = 1; time < times; time++) await part.run(input);
          return part.run(input);
        },
      };
    },
  };
}
