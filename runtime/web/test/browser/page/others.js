// What browsers without a remote control do: run every bundle, and post what came of it to /results.
import { Bundle } from "/src/index.js";
import { golden, opened, refusal, snrDb } from "./helpers.js";

const BUDGETS_MS = [10, 20, 400];
const REQUESTS = 40;

/** The step of the clock, and what budgets give on it. @param {string} name */
async function budgets(name) {
  const { session, input, expected } = await opened(name);
  await session.loaded;
  for (let number = 0; number < REQUESTS; number++) await session.run(input(number), { budgetMs: 400 }); // it learns
  /** @type {Record<number, {used: number, late: number, wholeMs: number, why: string}>} */ const found = {};
  let worstDb = Infinity;
  for (const budgetMs of BUDGETS_MS) {
    let [used, late, why] = [0, 0, ""];
    const startedMs = performance.now();
    for (let number = 0; number < REQUESTS; number++) {
      const prediction = await session.run(input(number), { budgetMs });
      used += prediction.branchesUsed.length / REQUESTS;
      late += Number(!prediction.deadlineMet);
      why = prediction.explain();
      worstDb = Math.min(worstDb, snrDb(expected(number, prediction.branchesUsed), prediction.output));
    }
    found[budgetMs] = { used, late, wholeMs: (performance.now() - startedMs) / REQUESTS, why };
  }
  session.close();
  return { found, worstDb, branches: session.branches.length };
}

function tick() {
  const fromMs = performance.now();
  let toMs = fromMs;
  while (toMs === fromMs) toMs = performance.now();
  return toMs - fromMs;
}

/** @type {Record<string, any>} */ const results = { userAgent: navigator.userAgent, tickMs: tick(), golden: {} };
try {
  const { names, fast, key, stranger } = await (await fetch("/page/others.json")).json();
  for (const name of names) results.golden[name] = await golden(name);
  results.budgets = await budgets(fast);
  results.signed = await Bundle.open("/bundles/signed/", { trustedKeys: key }).then(
    ({ signedBy }) => signedBy,
    (error) => `${error.name}: ${error.message}`,
  );
  results.stranger = await refusal(Bundle.open("/bundles/signed/", { trustedKeys: stranger }));
} catch (error) {
  results.problem = `${/** @type {Error} */ (error).name}: ${/** @type {Error} */ (error).message}`;
}
await fetch("/results", { method: "POST", body: JSON.stringify(results) });
