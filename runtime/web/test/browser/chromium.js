// Headless Chromium and a server of what tests need: the package, the engines' files, bundles.
//   PARAEDGE_WEB_SETUP: JSON with `chromium` (its path), `engines` (folder), `bundles` (name -> folder), `signed`, a
//   bundle with the public key that signed it and one that did not, `downloads`, a folder for what pages save, `zip`, a packed bundle, `photo`, a photograph
//   and what Python makes of it, `wav`, a recording that the microphone of `tones` hears, of the tone "high"
import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { serve } from "../server.js";

const FLAGS = [
  "--no-sandbox", // a container's root has none
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--js-flags=--expose-gc",
  "--use-fake-device-for-media-stream",
  "--use-fake-ui-for-media-stream",
];

/** @type {{chromium: string, engines: string, bundles: Record<string, string>, site?: string, downloads?: string, zip: string, photo: string, wav?: string,
 *   others: Record<string, string[]>, signed: {path: string, key: string, stranger: string}}} */
export const setup = JSON.parse(process.env.PARAEDGE_WEB_SETUP ?? "{}");

export const readManifest = (/** @type {string} */ bundle) =>
  JSON.parse(readFileSync(path.join(setup.bundles[bundle], "manifest.json"), "utf8"));

const folder = (/** @type {string} */ name) => fileURLToPath(new URL(name, import.meta.url));

/** @param {Omit<Parameters<typeof serve>[1], "folders">} [options] */
export async function served(options) {
  return serve(
    {
      src: folder("../../src"),
      page: folder("./page"),
      engines: setup.engines,
      bundles: { ...setup.bundles, signed: setup.signed?.path },
      photo: setup.photo,
    },
    options,
  );
}

/** @param {string[]} flags more of them */
export const launch = (...flags) => chromium.launch({ executablePath: setup.chromium, args: [...FLAGS, ...flags] });

/** A page that fails the test when it says anything of an error. @param {import("playwright-core").Browser} browser @param {string} url */
export async function openPage(browser, url) {
  const page = await browser.newPage({ viewport: { width: 390, height: 844 } });
  /** @type {string[]} */ const problems = [];
  page.on("pageerror", (error) => problems.push(error.message));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) problems.push(message.text());
  });
  await page.goto(url);
  return { page, problems };
}
