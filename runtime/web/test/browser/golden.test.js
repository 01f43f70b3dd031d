// What the package predicts in headless Chromium, beside what torch computed: every bundle of the set-up.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch, openPage, readManifest, served, setup } from "./chromium.js";

/** @type {Awaited<ReturnType<typeof launch>>} */ let browser;
/** @type {Awaited<ReturnType<typeof served>>} */ let server;
/** @type {Awaited<ReturnType<typeof openPage>>} */ let opened;

before(async () => {
  browser = await launch();
  server = await served();
  opened = await openPage(browser, `${server.url}page/`);
});
after(async () => {
  await browser?.close();
  server?.close();
});

for (const name of Object.keys(setup.bundles)) {
  test(`golden predictions: ${name}`, async (t) => {
    const { worstDb, labels, count } = await opened.page.evaluate(async (bundle) => {
      const { golden } = await import(/** @type {any} */ ("/page/helpers.js"));
      return golden(bundle);
    }, name);
    t.diagnostic(`${name}: ${labels} of ${count} labels, ${worstDb.toFixed(1)} dB at least`);
    assert.ok(count > 0);
    assert.equal(labels, count);
    if (readManifest(name).quantization === "fp32") assert.ok(worstDb >= 100, `${worstDb} dB`);
  });
}
