// Firefox and WebKitGTK of Debian, which nothing controls here: a page runs the bundles and posts what came of it.
//   PARAEDGE_WEB_SETUP: also `others`, name -> the command that opens an address, in which PROFILE is an empty folder
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { readManifest, served, setup } from "./chromium.js";

const LIMIT_MS = 120_000;
const names = Object.keys(setup.bundles);
const fast = names.find((name) => readManifest(name).engine === "litert") ?? "";

/** What the page posts. @param {string[]} command @returns {Promise<Record<string, any>>} */
async function resultsOf(command) {
  const folder = mkdtempSync(path.join(tmpdir(), "browser-"));
  /** @type {(body: string) => void} */ let tell = () => {};
  const body = new Promise((/** @type {(body: string) => void} */ resolve) => (tell = resolve));
  const server = await served({
    posted: (_, text) => tell(text),
    texts: { "/page/others.json": JSON.stringify({ names, fast, ...setup.signed }) },
  });
  const [program, ...args] = [...command, `${server.url}page/others.html`].map((word) =>
    word.replace("PROFILE", folder),
  );
  const child = spawn(program, args, {
    detached: true, // a group of its own, which is ended as a whole
    stdio: ["ignore", "ignore", "pipe"],
    env: { ...process.env, HOME: folder, XDG_RUNTIME_DIR: folder, NO_AT_BRIDGE: "1", GSETTINGS_BACKEND: "memory" },
  });
  let said = "";
  child.stderr.on("data", (data) => (said = `${said}${data}`.slice(-2000)));
  /** @type {ReturnType<typeof setTimeout> | undefined} */ let timer;
  try {
    const ended = new Promise((/** @type {(value: never) => void} */ _, reject) => {
      child.on("error", reject);
      child.on("exit", (code) => reject(new Error(`${program} ended with ${code}: ${said}`)));
      timer = setTimeout(() => reject(new Error(`nothing was posted: ${said}`)), LIMIT_MS);
    });
    return JSON.parse(await Promise.race([body, ended]));
  } finally {
    clearTimeout(timer);
    child.removeAllListeners("exit");
    if (child.pid) process.kill(-child.pid, "SIGKILL");
    server.close();
    rmSync(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  }
}

for (const [browser, command] of Object.entries(setup.others)) {
  test(`${browser} predicts what the others predict`, { timeout: LIMIT_MS + 10_000 }, async (t) => {
    const found = await resultsOf(command);
    t.diagnostic(JSON.stringify(found));
    assert.equal(found.problem, undefined);
    for (const name of names) {
      const { worstDb, labels, count } = found.golden[name];
      assert.ok(count >= 16);
      assert.equal(labels, count, name);
      // JSON has no infinity: null where not a bit is other.
      if (!readManifest(name).quantization.startsWith("int8")) assert.ok(worstDb === null || worstDb >= 100, name);
    }
    assert.ok(found.budgets.worstDb === null || found.budgets.worstDb >= 100);
    assert.ok(found.budgets.found[400].used > found.budgets.branches - 0.5, JSON.stringify(found.budgets));
    assert.match(found.signed, /^[0-9A-F]{16}$|^EngineUnavailable: this browser cannot check signatures \(Ed25519\)/);
    assert.match(found.stranger, /not among the trusted keys|^EngineUnavailable: this browser cannot check signatures/);
  });
}
