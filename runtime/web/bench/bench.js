// What a session takes in headless Chromium beside raw workers, one worker, and one fused model with the engine's own
// two threads; whether it agrees with the golden outputs; what is late on a slower device; a cold start; sizes over the
// wire. Variants take turns; medians. benchmarks/web.py exports the bundles and runs this.
//   node bench/bench.js BUNDLE...     folders of bundles that were exported with --fused
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { chromium } from "playwright-core";
import { serve } from "../test/server.js";

const ROUNDS = Number(process.env.ROUNDS ?? 200);
const folders = process.argv.slice(2);
const here = (/** @type {string} */ name) => fileURLToPath(new URL(name, import.meta.url));
const median = (/** @type {number[]} */ values) => [...values].sort((a, b) => a - b)[values.length >> 1];

const bundles = Object.fromEntries(folders.map((folder, number) => [String(number), folder]));
// The engines' own threads need these headers; workers do not.
const headers = { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" };
const engines = process.env.ENGINES ?? here("../../../build/web/engines");
const server = await serve(
  {
    src: here("../src"),
    page: here("../test/browser/page"),
    bench: here("page"),
    engines,
    modules: here("../node_modules"),
    bundles,
  },
  { headers },
);
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });

/** In a page of its own, so that nothing is warm. @param {string} task @param {object} options */
async function measured(task, options) {
  const page = await browser.newPage();
  page.on("pageerror", (error) => console.error(error.message));
  await page.goto(`${server.url}page/`);
  try {
    return await page.evaluate(
      async ({ task, options }) => {
        const tasks = await import(/** @type {any} */ ("/bench/tasks.js"));
        return tasks[task](options);
      },
      { task, options },
    );
  } finally {
    await page.close();
  }
}

for (const [number, folder] of Object.entries(bundles)) {
  const { name, engine, quantization } = JSON.parse(readFileSync(path.join(folder, "manifest.json"), "utf8"));
  console.log(`${name}, ${engine}, ${quantization}`);
  const { worstDb, labels, count } = await measured("golden", { bundle: `/bundles/${number}/` });
  const agreement = quantization.startsWith("int8") ? "" : `, ${worstDb.toFixed(0)} dB at least`;
  console.log(`  golden outputs: ${labels} of ${count} labels equal${agreement}`);
  const times = await measured("requests", { bundle: `/bundles/${number}/`, rounds: ROUNDS });
  const ms = Object.fromEntries(Object.entries(times).map(([variant, values]) => [variant, median(values)]));
  for (const [variant, value] of Object.entries(ms)) console.log(`  ${variant}: ${value.toFixed(2)} ms`);
  console.log(
    `  two workers / one worker: session ${(ms.session2 / ms.session1).toFixed(2)}, raw ${(ms.raw2 / ms.raw1).toFixed(2)}`,
  );
  if (ms.fused2) console.log(`  two workers / fused with two threads: ${(ms.session2 / ms.fused2).toFixed(2)}`);
  console.log(`  what the session adds to the raw workers: ${(ms.session2 - ms.raw2).toFixed(2)} ms`);
  const slow = await measured("budgets", { bundle: `/bundles/${number}/`, rounds: ROUNDS, slowdown: 4 });
  console.log(
    `  4 times slower, ${slow.budgetMs.toFixed(1)} ms: ${(100 * slow.late).toFixed(1)} % late ` +
      `(stem and first branch alone: ${(100 * slow.heldUp).toFixed(1)} %), ${slow.used.toFixed(1)} branches`,
  );
  const cold = [];
  for (let time = 0; time < 5; time++) cold.push(await measured("cold", { bundle: `/bundles/${number}/` }));
  console.log(`  first prediction after a cold start: ${median(cold).toFixed(0)} ms`);
}
for (const file of [
  "litert/litert_wasm_internal.wasm",
  "litert/litert_wasm_internal.js",
  "litert/core.js",
  "onnxruntime/ort-wasm-simd-threaded.wasm",
  "onnxruntime/ort.wasm.min.mjs",
]) {
  const bytes = readFileSync(path.join(engines, file));
  const packed = brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length } });
  console.log(`${file}: ${(packed.length / 1e6).toFixed(2)} MB brotli`);
}
const scripts = [here("../src"), here("../../../demos/web")].flatMap((folder) =>
  readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".js"))
    .map((name) => path.join(folder, name)),
);
const scriptBytes = scripts.reduce((sum, script) => sum + gzipSync(readFileSync(script)).length, 0);
console.log(`the page's own scripts, all of them: ${(scriptBytes / 1e3).toFixed(1)} kB gzip`);
await browser.close();
server.close();
