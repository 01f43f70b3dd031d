// The page that `paraedge web` writes, on a phone's screen.
//   PARAEDGE_WEB_SETUP: `site` is its folder
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { after, before, test } from "node:test";
import { brotliCompressSync } from "node:zlib";
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

test("what is wrong is said on the page", async () => {
  const { page } = await openPage(browser, "about:blank");
  await page.addInitScript(() => {
    navigator.mediaDevices.getUserMedia = async () => {
      throw new DOMException("no", "NotAllowedError");
    };
  });
  await page.route("**/branch_0*", async (route) => route.fulfill({ body: Buffer.alloc(10) }));
  await page.goto(`${server.url}site/`);
  await page
    .getByRole("alert")
    .filter({ hasText: /branch_00.tflite has 10 bytes, manifest.json says/ })
    .waitFor();
  await page.getByRole("button", { name: "Camera" }).click();
  await page.getByRole("alert").filter({ hasText: "The camera was refused; allow it in" }).waitFor();
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
  await other.getByRole("alert").filter({ hasText: "does not fit manifest.json" }).waitFor();
  assert.equal(await other.locator("#status").textContent(), "stopped");
  await other.unroute("**/manifest.json");
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

test("nothing comes from elsewhere, and the page's own scripts are small", () => {
  const scripts = ["", "paraedge", "paraedge/engines", "paraedge/vendor"].flatMap((folder) =>
    readdirSync(path.join(site, folder)).flatMap((name) =>
      name.endsWith(".js") ? [path.join(site, folder, name)] : [],
    ),
  );
  const bytes = scripts.reduce((sum, script) => sum + brotliCompressSync(readFileSync(script)).length, 0);
  assert.ok(scripts.length > 15);
  assert.ok(bytes <= 60_000, `${bytes} bytes compressed`);
  const page = readFileSync(path.join(site, "index.html"), "utf8");
  assert.match(page, /default-src 'none'; script-src 'self' 'wasm-unsafe-eval'/);
  assert.doesNotMatch(page, /https?:\/\//);
});
