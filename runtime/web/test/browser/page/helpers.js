// What the tests do inside the page.
import { Bundle, registerEngine, Session } from "/src/index.js";

/**
 * Open a bundle, with its golden data.
 *
 * @param {string} name
 * @param {{threads?: number, slowdown?: number, crashes?: boolean, branches?: number}} [options] `slowdown`: every part
 *   runs so many times, as on a slower device; throttling of a browser's tools does not reach workers
 */
export async function opened(name, { slowdown = 1, crashes = false, ...options } = {}) {
  const bundle = await Bundle.open(new URL(`/bundles/${name}/`, location.href));
  const { engine } = bundle.manifest;
  if (slowdown > 1) registerEngine(engine, `/page/slow_engine.js?engine=${engine}&times=${slowdown}`);
  else if (crashes) registerEngine(engine, `/page/crashing_engine.js?engine=${engine}`);
  else registerEngine(engine, `/src/engines/${engine}.js`);
  const session = await Session.open(bundle, { threads: 2, engines: "/engines", ...options });
  const golden = await bundle.golden();
  const [count, ...shape] = golden.inputs.shape;
  const size = shape.reduce((a, b) => a * b, 1);
  return {
    session,
    bundle,
    count,
    /** @param {number} number */
    input: (number) => golden.inputs.data.subarray((number % count) * size, ((number % count) + 1) * size),
    /** The sum of these branches as torch computed it. @param {number} number @param {readonly number[]} positions */
    expected(number, positions) {
      const [, branches, outputs] = golden.branchOutputs.shape;
      const sum = new Float32Array(outputs);
      for (const position of positions) {
        const from = ((number % count) * branches + position) * outputs;
        for (let place = 0; place < outputs; place++) sum[place] += golden.branchOutputs.data[from + place];
      }
      return sum;
    },
  };
}

/** Signal to noise in dB. @param {Float32Array} expected @param {Float32Array} found */
export function snrDb(expected, found) {
  let [signal, noise] = [0, 0];
  for (const [place, value] of expected.entries()) {
    signal += value ** 2;
    noise += (value - found[place]) ** 2;
  }
  return noise === 0 ? Infinity : 10 * Math.log10(signal / noise);
}

/** @param {Float32Array} values */
export const largest = (values) => values.indexOf(Math.max(...values));

/** @param {Promise<unknown>} promise */
export async function refusal(promise) {
  try {
    await promise;
  } catch (error) {
    return `${/** @type {Error} */ (error).name}: ${/** @type {Error} */ (error).message}`;
  }
  return "";
}

/** Every golden input of a bundle against what torch computed. @param {string} name */
export async function golden(name) {
  const { session, input, expected, count } = await opened(name);
  const positions = [...session.branches.keys()];
  let [worstDb, labels] = [Infinity, 0];
  for (let number = 0; number < count; number++) {
    const { output, labelIndex } = await session.run(input(number));
    worstDb = Math.min(worstDb, snrDb(expected(number, positions), output));
    labels += Number(labelIndex === largest(expected(number, positions)));
  }
  session.close();
  return { worstDb, labels, count };
}
