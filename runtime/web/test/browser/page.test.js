// The page that `paraedge web` writes, on a phone's screen.
//   PARAEDGE_WEB_SETUP: `site` is its folder
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { after, before, test } from "node:test";
import { gzipSync } from "node:zlib";
import { hashLine } from "../bundles.js";
import { serve } from "../server.js";
import { launch, openPage, setup } from "./chromium.js";

const site = /** @type {string} */ (setup.site);
/** @type {Awaited<ReturnType<typeof launch>>} */ let browser;
/** @type {Awaited<ReturnType<typeof serve>>} */ let server;

before(async () => {
  browser = await launch();
  server = await serve({ site });
});
after(async () => {
  await browser?.close();
  server?.close();
});

const visit = () => openPage(browser, `${server.url}site/`);
const branches = JSON.parse(readFileSync(path.join(site, "bundles/fashion-mnist/manifest.json"), "utf8")).branches
  .length;

test("it predicts, fits a phone, and prints nothing", async () => {
  const { page, problems } = await visit();
  await page.getByText(/^running, LiteRT\.js/).waitFor();
  await page.locator("#verdict", { hasText: /^\d of \d in [\d.]+ ms$/ }).waitFor();
  await page.locator("#right", { hasText: /%/ }).waitFor();
  assert.equal(await page.locator("#branches li").count(), branches + 1);
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 390);
  assert.deepEqual(problems, []);
  await page.close();
});

test("a smaller budget, one thread, pause: by keyboard, by their labels", async () => {
  const { page } = await visit();
  await page.getByText(/^running, LiteRT\.js/).waitFor();
  const slider = page.getByLabel("Latency budget");
  await slider.focus();
  await page.keyboard.press("Home");
  assert.equal(await page.locator("#budget-text").textContent(), "1.0 ms");
  assert.equal(await slider.getAttribute("aria-valuetext"), "1.0 ms"); // what a screen reader says
  await page.getByText("deadline 1.0 ms").waitFor();
  await page.keyboard.press("End");
  await page.locator("#verdict", { hasText: `${branches} of ${branches}` }).waitFor();
  await page.getByLabel("Threads").selectOption("1");
  await page.getByText(/1 worker$/).waitFor();
  await page.getByRole("button", { name: "Pause" }).press("Enter");
  await page.locator("#pause[aria-pressed=true]").waitFor();
  await page.close();
});

test("the camera's images are predicted", async () => {
  const { page, problems } = await visit();
  await page.getByText(/^running, LiteRT\.js/).waitFor();
  await page.getByRole("button", { name: "Camera" }).click();
  await page.locator("#right", { hasText: "–" }).waitFor();
  await page.locator("#video").waitFor();
  await page.locator("#verdict", { hasText: /in [\d.]+ ms/ }).waitFor();
  assert.deepEqual(problems, []);
  await page.close();
});

test("pressing Camera takes the model of photographs", async () => {
  const context = await browser.newContext({ serviceWorkers: "block" });
  const page = await context.newPage();
  const index = JSON.parse(readFileSync(path.join(site, "site.json"), "utf8"));
  assert.equal(index.cameraModel, null); // these are of 28 x 28 grey pixels
  await page.route("**/site.json", (route) => route.fulfill({ json: { ...index, cameraModel: "fashion-mnist-2" } }));
  await page.goto(`${server.url}site/`);
  await page.getByText(/^running, LiteRT\.js/).waitFor();
  assert.equal(await page.getByLabel("Model").inputValue(), "fashion-mnist");
  await page.getByRole("button", { name: "Camera" }).click();
  await page.locator("#verdict", { hasText: /of 2 in [\d.]+ ms/ }).waitFor();
  assert.equal(await page.getByLabel("Model").inputValue(), "fashion-mnist-2");
  await page.locator("#video").waitFor();
  await page.evaluate(() => {
    const video = /** @type {HTMLVideoElement} */ (document.getElementById("video"));
    /** @type {MediaStream} */ (video.srcObject).getTracks()[0].dispatchEvent(new Event("ended"));
  });
  await page.getByRole("alert").filter({ hasText: "The camera has stopped; press Camera to start it" }).waitFor();
  await page.locator("#source[aria-pressed=false]").waitFor();
  await page.locator("#image").waitFor();
  await context.close();
});

test("what the microphone hears is predicted, by its label", async () => {
  const other = await launch(`--use-file-for-fake-audio-capture=${setup.wav}`);
  try {
    const { page, problems } = await openPage(other, `${server.url}site/`);
    const button = page.getByRole("button", { name: "Microphone" });
    await page.getByRole("button", { name: "Camera" }).waitFor();
    await page.getByLabel("Model").selectOption("tones");
    await button.waitFor();
    await page.locator("#truth", { hasText: "right" }).waitFor(); // the bundle's own recordings
    await button.press("Enter");
    await page.locator("#source[aria-pressed=true]").waitFor();
    await page.locator("#right", { hasText: "–" }).waitFor();
    await page.locator("#label", { hasText: /^high$/ }).waitFor();
    await page.locator("#top li", { hasText: /^high(9\d|100) %$/ }).waitFor();
    await page.locator("#branches [data-outcome=used]").first().waitFor();
    await page.waitForTimeout(300);
    assert.equal(await page.locator("#label").textContent(), "high"); // and stays so
    assert.equal(await page.locator("#right").textContent(), "–");
    await page.getByLabel("Threads").selectOption("1"); // goes on
    await page.getByText(/1 worker$/).waitFor();
    await page.locator("#source[aria-pressed=true]").waitFor();
    await page.locator("#label", { hasText: /^high$/ }).waitFor();
    await button.press("Enter");
    await page.locator("#source[aria-pressed=false]").waitFor();
    await page.locator("#right", { hasText: /%/ }).waitFor();
    await button.evaluate((/** @type {HTMLElement} */ element) => {
      for (let press = 0; press < 3; press++) element.click(); // before it is open
    });
    await page.locator("#source[aria-pressed=true]").waitFor();
    await page.getByLabel("Model").selectOption("fashion-mnist-2");
    await page.getByRole("button", { name: "Camera" }).waitFor();
    await page.locator("#source[aria-pressed=false]").waitFor(); // nothing listens any more
    await page.locator("#verdict", { hasText: /of 2 in [\d.]+ ms/ }).waitFor();
    assert.deepEqual(problems, []);
  } finally {
    await other.close();
  }
});

test("a bundle that reads neither images nor sound says so", async () => {
  const context = await browser.newContext({ serviceWorkers: "block" });
  const page = await context.newPage();
  const index = JSON.parse(readFileSync(path.join(site, "site.json"), "utf8"));
  const manifest = JSON.parse(readFileSync(path.join(site, "bundles/tones/manifest.json"), "utf8"));
  manifest.input.axes = ["sensor", "time"];
  const text = JSON.stringify(manifest);
  await page.route("**/site.json", (route) =>
    route.fulfill({ json: { ...index, models: ["tones"], trustedKeys: null } }),
  );
  await page.route("**/manifest.json", (route) => route.fulfill({ body: text }));
  await page.route("**/manifest.sha256", (route) => route.fulfill({ body: hashLine(text) }));
  await page.goto(`${server.url}site/`);
  await page.getByText("It reads (sensor, time), neither images nor sound").waitFor();
  assert.equal(await page.locator("#source").isDisabled(), true);
  await page.locator("#verdict", { hasText: /of 2 in [\d.]+ ms/ }).waitFor(); // its own inputs
  await context.close();
});

test("a model that was left while its inputs were on their way leaves nothing behind", async () => {
  const context = await browser.newContext({ serviceWorkers: "block" });
  const page = await context.newPage();
  let letGo = () => {};
  const held = new Promise((/** @type {(value?: void) => void} */ resolve) => (letGo = resolve));
  await page.route("**/fashion-mnist/card.json", async (route) => {
    await held;
    await route.continue();
  });
  await page.goto(`${server.url}site/`);
  await page.getByText("running, more branches are loading").waitFor({ state: "detached" });
  await Promise.all([
    page.waitForRequest("**/fashion-mnist/card.json"),
    page.getByLabel("Model").selectOption("fashion-mnist"),
  ]);
  await page.getByLabel("Model").selectOption("tones");
  await page.locator("#about", { hasText: /^[^:]+: 2 branches/ }).waitFor();
  const answered = page.waitForResponse("**/fashion-mnist/card.json");
  letGo();
  await answered;
  await page.waitForTimeout(300);
  await page.locator("#verdict", { hasText: /of 2 in [\d.]+ ms/ }).waitFor();
  assert.equal(await page.locator("#source").textContent(), "Microphone");
  assert.equal(await page.locator("#problem").isVisible(), false);
  await context.close();
});

/** What a visit says, of which some answers are others. @param {Record<string, import("playwright-core").Route["fulfill"] extends (options?: infer O) => any ? O : never>} answers @param {RegExp} problem */
async function problemOf(answers, problem) {
  const context = await browser.newContext({ serviceWorkers: "block" });
  const page = await context.newPage();
  for (const [address, answer] of Object.entries(answers)) await page.route(address, (route) => route.fulfill(answer));
  await page.goto(`${server.url}site/`);
  await page.getByRole("alert").filter({ hasText: problem }).waitFor();
  await context.close();
}

const worker = readFileSync(path.join(site, "paraedge/worker.js"), "utf8");
const noMemory = `WebAssembly.instantiate = async () => {
  throw new RangeError("WebAssembly.instantiate(): Out of memory: Cannot allocate Wasm memory for new instance");
};
`;
const script = { contentType: "text/javascript" };
/** @type {Record<string, [Parameters<typeof problemOf>[0], RegExp]>} */
const WRONG = {
  "no index": [{ "**/site.json": { status: 404 } }, /site\.json cannot be fetched \(404\); make the folder again/],
  "an index that is none": [
    { "**/site.json": { body: "<!doctype html>", contentType: "text/html" } },
    /site\.json is damaged; make the folder again/,
  ],
  "no bundle": [
    { "**/manifest.json": { status: 404 } },
    /manifest\.json cannot be fetched: the server says 404; check/,
  ],
  "a damaged branch": [
    { "**/branch_0*": { body: Buffer.alloc(10) } },
    /branch_00\.tflite has 10 bytes, manifest\.json says/,
  ],
  "a start page in place of a file": [
    { "**/manifest.json": { body: "<!doctype html>", contentType: "text/html" } },
    /manifest\.json cannot be fetched: the server sends a web page in its place; check the address/,
  ],
  "a damaged card": [{ "**/card.json": { body: "{}" } }, /card\.json has 2 bytes, manifest\.json says/],
  "no engine": [{ "**/*.wasm": { status: 404 } }, /the engine 'litert' cannot be loaded from .*404/],
  "an engine that is none": [
    { "**/*.wasm": { body: "not found", contentType: "application/wasm" } },
    /the engine 'litert' cannot be loaded from .*expected magic word/,
  ],
  "no worker": [
    { "**/worker.js": { status: 404 } },
    /worker \d crashed: its script did not load; serve worker.js with the page/,
  ],
  "no memory": [
    { "**/worker.js": { ...script, body: noMemory + worker } },
    /the engine of worker \d did not start: RangeError: .*Out of memory.*; use fewer threads or branches/,
  ],
};

for (const [name, [answers, problem]] of Object.entries(WRONG))
  test(`what is wrong is said on the page: ${name}`, () => problemOf(answers, problem));

test("what is wrong is said on the page: scripts of another type", async () => {
  const context = await browser.newContext({ serviceWorkers: "block" });
  const page = await context.newPage();
  await page.route("**/app.js", (route) => route.fulfill({ contentType: "text/plain", body: "" }));
  await page.goto(`${server.url}site/`);
  const hint = page.locator("#hint", { hasText: "a server that sends files that end with .js as text/javascript" });
  assert.equal(await hint.isVisible(), false); // in most visits a script takes it away first
  await page.evaluate(() => {
    for (const animation of document.getAnimations()) animation.finish();
  });
  assert.equal(await hint.isVisible(), true);
  await context.close();
});

for (const [model, button, own] of [
  ["fashion-mnist", "Camera", "images"],
  ["tones", "Microphone", "sounds"],
])
  test(`a ${button} that cannot be used is said, and the page goes on`, async () => {
    const { page } = await visit();
    await page.getByLabel("Model").selectOption(model);
    await page.getByRole("button", { name: button }).waitFor();
    await page.getByText(/^running, LiteRT\.js/).waitFor();
    const what = button.toLowerCase();
    const problems = {
      NotAllowedError: `The ${what} was refused; allow it in the browser's settings of this page.`,
      NotFoundError: `This device has no ${what}; connect one, or go on with the bundle's own ${own}.`,
      NotReadableError: `The ${what} is used by another program; close that, and press ${button} again.`,
      OverconstrainedError: `No ${what} can be used: no.`,
    };
    for (const [name, problem] of Object.entries(problems)) {
      await page.evaluate((error) => {
        navigator.mediaDevices.getUserMedia = async () => {
          throw new DOMException("no", error);
        };
      }, name);
      await page.getByRole("button", { name: button }).click();
      await page.getByRole("alert").filter({ hasText: problem }).waitFor();
      await page.locator("#source[aria-pressed=false]").waitFor();
    }
    await page.evaluate(() => Object.defineProperty(navigator, "mediaDevices", { value: undefined }));
    await page.getByRole("button", { name: button }).click();
    await page
      .getByRole("alert")
      .filter({ hasText: `No ${what} here: a page needs https, or localhost` })
      .waitFor();
    await page.locator("#verdict", { hasText: /in [\d.]+ ms/ }).waitFor();
    await page.close();
  });

test("a microphone that gives nothing is said", async () => {
  const { page } = await visit();
  await page.getByLabel("Model").selectOption("tones");
  await page.getByRole("button", { name: "Microphone" }).waitFor();
  await page.evaluate(() => {
    Object.defineProperty(AudioWorkletNode.prototype, "port", { value: {} });
  });
  await page.getByRole("button", { name: "Microphone" }).click();
  await page
    .getByRole("alert")
    .filter({ hasText: "The microphone has stopped; press Microphone to start it" })
    .waitFor();
  await page.locator("#source[aria-pressed=false]").waitFor();
  await page.locator("#truth", { hasText: /right|wrong/ }).waitFor(); // the bundle's own recordings again
  await page.close();
});

test("a page with trusted keys opens nothing else", async () => {
  const { page } = await openPage(browser, `${server.url}site/`);
  await page.locator("#about", { hasText: /signed by [0-9A-F]{16}\. Nothing leaves this device/ }).waitFor();
  await page.close();
  const context = await browser.newContext({ serviceWorkers: "block" });
  const other = await context.newPage();
  const manifest = readFileSync(path.join(site, "bundles/fashion-mnist/manifest.json"), "utf8");
  await other.route("**/manifest.json", (route) => route.fulfill({ body: `${manifest} ` }));
  await other.goto(`${server.url}site/`);
  await other.getByRole("alert").filter({ hasText: "manifest.json has SHA-256" }).waitFor();
  await other.route("**/manifest.sha256", (route) => route.fulfill({ body: hashLine(`${manifest} `) }));
  await other.goto(`${server.url}site/`);
  await other.getByRole("alert").filter({ hasText: "does not match manifest.json" }).waitFor();
  assert.equal(await other.locator("#status").textContent(), "stopped");
  await other.unroute("**/manifest.json");
  await other.unroute("**/manifest.sha256");
  await other.route("**/manifest.json.minisig", (route) => route.fulfill({ status: 404 }));
  await other.goto(`${server.url}site/`);
  await other.getByRole("alert").filter({ hasText: "is not signed" }).waitFor();
  await context.close();
});

test("it measures the device, and offers device.json", async () => {
  const { page, problems } = await openPage(browser, `${server.url}site/`);
  await page.getByLabel("Model").selectOption("fashion-mnist-2");
  await page.getByText(/^running, LiteRT\.js/).waitFor();
  const text = page.locator("#profile-text");
  const button = page.getByRole("button", { name: "Measure this device" });
  await button.click();
  await text.filter({ hasText: /^measuring, \d/ }).waitFor();
  await button.click(); // ends it
  await text.filter({ hasText: "not measured" }).waitFor();
  assert.equal(await page.locator("#save").isVisible(), false);
  await button.click();
  await text
    .filter({ hasText: /^fashion-mnist, 1 thread: [\d.]+ ms; fashion-mnist, 2 threads: [\d.]+ ms \(p50\)/ })
    .waitFor({ timeout: 60_000 });
  const [download] = await Promise.all([
    page.waitForEvent("download"),
    page.getByRole("button", { name: "Save device.json" }).click(),
  ]);
  assert.equal(download.suggestedFilename(), "device.json");
  await download.saveAs(path.join(/** @type {string} */ (setup.downloads), "device.json"));
  await page.locator("#verdict", { hasText: /in [\d.]+ ms/ }).waitFor(); // and it goes on
  assert.deepEqual(problems, []);
  await page.close();
});

test("it works offline after the first visit", async () => {
  const own = await serve({ site });
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(`${own.url}site/`);
  await page.evaluate(() => navigator.serviceWorker.ready);
  own.close();
  await page.reload();
  await page.getByText(/^running, LiteRT\.js/).waitFor();
  await page.locator("#verdict", { hasText: /in [\d.]+ ms/ }).waitFor();
  await context.close();
});

test("an update is whole and fresh, and other pages of this address keep their files", async () => {
  const index = JSON.parse(readFileSync(path.join(site, "site.json"), "utf8"));
  /** @type {Record<string, string>} */ const texts = {};
  const own = await serve({ site }, { texts, headers: { "cache-control": "max-age=3600" } });
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(`${own.url}site/`);
  await page.evaluate(() => navigator.serviceWorker.ready);
  texts["/site/icon.svg"] = "new";
  texts["/site/site.json"] = JSON.stringify({ ...index, version: "2" });
  await page.evaluate(async () => {
    await caches.open("paraedge /other/ 1");
    await caches.open("paraedge /site/ 2"); // of a browser that was closed before it had a file
  });
  await page.reload(); // shows what it has, and fetches the new one
  await page.evaluate(async () => {
    while ((await caches.keys()).length > 2) await new Promise((resolve) => setTimeout(resolve, 50));
  });
  const found = await page.evaluate(async () => [...(await caches.keys()), await (await fetch("icon.svg")).text()]);
  assert.deepEqual(found, ["paraedge /other/ 1", "paraedge /site/ 2", "new"]);
  await context.close();
  own.close();
});

test("nothing comes from elsewhere, and the page's own scripts are small", async () => {
  const context = await browser.newContext({ serviceWorkers: "block" });
  const page = await context.newPage();
  const index = JSON.parse(readFileSync(path.join(site, "site.json"), "utf8"));
  await page.route("**/site.json", (route) => route.fulfill({ json: { ...index, trustedKeys: null } }));
  const scripts = new Set([path.join(site, "offline.js")]); // which the browser fetches by itself
  context.on("request", (request) => {
    assert.ok(request.url().startsWith(server.url), request.url());
    const name = request.url().slice(`${server.url}site/`.length);
    const isOurs = !name.startsWith("engines/") || /(litert|memory|parts)\.js$/.test(name);
    if (name.endsWith(".js") && isOurs) scripts.add(path.join(site, name));
  });
  await page.goto(`${server.url}site/`);
  await page.getByText(/^running, LiteRT\.js/).waitFor();
  await context.close();
  const bytes = [...scripts].reduce((sum, script) => sum + gzipSync(readFileSync(script)).length, 0);
  assert.ok(scripts.size > 15, [...scripts].join());
  assert.ok(bytes <= 60_000, `${bytes} bytes compressed`);
  const text = readFileSync(path.join(site, "index.html"), "utf8");
  assert.match(text, /default-src 'none'; script-src 'self' 'wasm-unsafe-eval'/);
  assert.doesNotMatch(text, /https?:\/\//);
});
