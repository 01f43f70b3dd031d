// The package in headless Chromium, with both engines and the packaged models.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { after, before, test } from "node:test";
import { hashLine } from "../bundles.js";
import { launch, openPage, readManifest, served, setup } from "./chromium.js";

/** @type {Awaited<ReturnType<typeof launch>>} */ let browser;
/** @type {Awaited<ReturnType<typeof served>>} */ let server;
/** @type {Awaited<ReturnType<typeof openPage>>} */ let opened;
/** Branches whose program waits until it is let go. @type {Set<string>} */ const held = new Set();
/** @type {(() => void)[]} */ const waiting = [];
const letGo = () => {
  held.clear();
  for (const go of waiting.splice(0)) go();
};
const delay = (/** @type {string} */ pathname) =>
  held.has(path.basename(pathname))
    ? new Promise((/** @type {(value?: void) => void} */ go) => waiting.push(go))
    : undefined;

before(async () => {
  browser = await launch();
  server = await served({ delay });
  opened = await openPage(browser, `${server.url}page/`);
});
after(async () => {
  await browser?.close();
  server?.close();
});

const FAST = Object.keys(setup.bundles).find((name) => readManifest(name).engine === "litert") ?? "";

test("under budgets every prediction is the sum of just the branches that it names", async () => {
  const found = await opened.page.evaluate(async (bundle) => {
    const { opened, snrDb } = await import(/** @type {any} */ ("/page/helpers.js"));
    const { session, input, expected } = await opened(bundle, { slowdown: 4 });
    await session.loaded;
    let [worstDb, dropped, used] = [Infinity, 0, 0];
    /** @type {number[]} */ const means = [];
    for (const budgetMs of [4, 12, 400]) {
      used = 0;
      for (let number = 0; number < 60; number++) {
        const prediction = await session.run(input(number), { budgetMs });
        worstDb = Math.min(worstDb, snrDb(expected(number, prediction.branchesUsed), prediction.output));
        dropped += prediction.branchesDropped.length;
        used += prediction.branchesUsed.length;
      }
      means.push(used / 60);
    }
    const { requestsToLearn } = await session.run(input(0));
    session.close();
    return { worstDb, dropped, means, requestsToLearn, branches: session.branches.length };
  }, FAST);
  assert.ok(found.worstDb >= 100, `${found.worstDb} dB`);
  assert.ok(found.dropped > 0);
  assert.ok(found.means[0] < found.means[2], `${found.means}`);
  assert.ok(found.means[2] > found.branches - 0.5, `${found.means}`);
  assert.equal(found.requestsToLearn, 0);
});

test("a tab in the background answers, and one that was frozen goes on", async () => {
  const { page } = await openPage(browser, `${server.url}page/`);
  const client = await page.context().newCDPSession(page);
  const run = (/** @type {number} */ requests, /** @type {boolean} */ hidden) =>
    page.evaluate(
      async ({ bundle, requests, hidden }) => {
        const { opened, snrDb } = await import(/** @type {any} */ ("/page/helpers.js"));
        /** @type {any} */ (window).tab ??= await opened(bundle);
        const { session, input, expected } = /** @type {any} */ (window).tab;
        await session.loaded;
        const later = window.setTimeout;
        if (hidden) {
          // As browsers hold the timers of a hidden tab back: to seconds, here to a fifth of one.
          Object.defineProperty(document, "hidden", { value: true, configurable: true });
          window.setTimeout = /** @type {any} */ (
            (/** @type {any} */ call, /** @type {number} */ ms) => later(call, Math.max(ms, 200))
          );
        }
        let worstDb = Infinity;
        for (let number = 0; number < requests; number++) {
          const prediction = await session.run(input(number), { budgetMs: 60 });
          worstDb = Math.min(worstDb, snrDb(expected(number, prediction.branchesUsed), prediction.output));
        }
        Reflect.deleteProperty(document, "hidden");
        window.setTimeout = later;
        return { worstDb };
      },
      { bundle: FAST, requests, hidden },
    );
  const hidden = await run(20, true);
  const after = await run(20, false);
  const pending = run(1, false);
  await client.send("Page.setWebLifecycleState", { state: "frozen" });
  await new Promise((resolve) => setTimeout(resolve, 300));
  await client.send("Page.setWebLifecycleState", { state: "active" });
  const thawed = await pending;
  await page.close();
  for (const { worstDb } of [hidden, after, thawed]) assert.ok(worstDb >= 100, `${worstDb} dB`);
});

test("damaged zips are refused, unless it is a byte that nobody reads", async () => {
  const zip = readFileSync(setup.zip);
  const { page } = await openPage(browser, `${server.url}page/`);
  await page.route("**/good.zip", (route) => route.fulfill({ body: zip }));
  const found = await page.evaluate(async () => {
    const { refusal } = await import(/** @type {any} */ ("/page/helpers.js"));
    const { Bundle, Session, registerEngine } = await import(/** @type {any} */ ("/src/index.js"));
    registerEngine("litert", "/src/engines/litert.js");
    const session = await Session.open("/page/good.zip", { engines: "/engines", threads: 1 });
    const used = (await session.run((await session.bundle.golden()).inputs.data.subarray(0, 28 * 28))).branchesUsed;
    session.close();
    const good = new Uint8Array(await (await fetch("/page/good.zip")).arrayBuffer());
    const refusals = [];
    for (let number = 0; number < 60; number++) {
      const at = Math.floor(((number + 0.5) / 60) * good.length); // programs, mostly
      const near = number % 3 === 0 ? number * 7 : number % 3 === 1 ? good.length - 1 - number * 5 : at; // headers, directory
      const bad = number % 10 === 9 ? good.slice(0, at) : good.slice();
      if (bad.length === good.length) bad[near] ^= 1 << (number % 8);
      // Permissions and the program that made the zip are not read: then all that is in it is what it was.
      const opened = Bundle.open(new Blob([bad]));
      refusals.push((await refusal(opened)) || (await opened).sha256);
    }
    return { used, refusals, sha256: session.bundle.sha256 };
  });
  await page.close();
  assert.deepEqual(found.used, [0, 1]);
  const refused = found.refusals.filter((refusal) => /^(IntegrityError|ManifestError): /.test(refusal));
  assert.ok(refused.length >= 45, `${refused.length}`);
  assert.deepEqual(
    new Set(found.refusals.filter((refusal) => !refused.includes(refusal))),
    new Set(refused.length < 60 ? [found.sha256] : []),
  );
});

test("streams, random budgets and aborts leave the session in order", async () => {
  const found = await opened.page.evaluate(async (bundle) => {
    const { opened, snrDb } = await import(/** @type {any} */ ("/page/helpers.js"));
    const { session, input, expected } = await opened(bundle);
    await session.loaded;
    let [worstDb, aborted] = [Infinity, 0];
    for (let number = 0; number < 300; number++) {
      const stop = new AbortController();
      if (number % 7 === 0) setTimeout(() => stop.abort(), (number % 5) + 1);
      try {
        if (number % 3 === 0) {
          for await (const prediction of session.stream(input(number), { signal: stop.signal })) {
            worstDb = Math.min(worstDb, snrDb(expected(number, prediction.branchesUsed), prediction.output));
            if (prediction.branchesUsed.length > number % 9) break;
          }
        } else {
          const prediction = await session.run(input(number), { budgetMs: 0.5 + (number % 13), signal: stop.signal });
          worstDb = Math.min(worstDb, snrDb(expected(number, prediction.branchesUsed), prediction.output));
        }
      } catch (error) {
        if (/** @type {Error} */ (error).name !== "AbortError") throw error;
        aborted += 1;
      }
    }
    const last = (await session.run(input(5))).branchesUsed.length;
    session.close();
    return { worstDb, aborted, last, branches: session.branches.length };
  }, FAST);
  assert.ok(found.worstDb >= 100, `${found.worstDb} dB`);
  assert.equal(found.last, found.branches);
});

test("canvas, image, ImageData and pixels are one image", async () => {
  const found = await opened.page.evaluate(async (bundle) => {
    const { opened } = await import(/** @type {any} */ ("/page/helpers.js"));
    const { session } = await opened(bundle);
    const [width, height] = [150, 90];
    const canvas = new OffscreenCanvas(width, height);
    const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const gradient = context.createLinearGradient(0, 0, width, height);
    gradient.addColorStop(0, "#123");
    gradient.addColorStop(1, "#fea");
    context.fillStyle = gradient;
    context.fillRect(0, 0, width, height);
    context.fillStyle = "#c20";
    context.fillRect(30, 20, 50, 40);
    const pixels = context.getImageData(0, 0, width, height);
    const bitmap = await createImageBitmap(canvas);
    const image = new Image();
    image.src = URL.createObjectURL(await canvas.convertToBlob());
    await image.decode();
    const given = [canvas, pixels, bitmap, image, { data: pixels.data, width, height, channels: 4 }];
    const outputs = [];
    for (const one of given) outputs.push((await session.run(one)).output);
    session.close();
    return outputs.map((output) => Math.max(...output.map((value, place) => Math.abs(value - outputs[0][place]))));
  }, FAST);
  assert.deepEqual(found, [0, 0, 0, 0, 0]);
});

test("a photograph of a phone is what it is in Python, within one grey level", async () => {
  const found = await opened.page.evaluate(async () => {
    const { stemInput } = await import(/** @type {any} */ ("/src/inputs.js"));
    const image = new Image();
    image.src = "/photo/photo.jpg";
    await image.decode();
    const expected = new Uint8Array(await (await fetch("/photo/expected")).arrayBuffer());
    const spec = {
      kind: "image",
      name: "image",
      shape: [1, 3, 96, 128],
      resize: "crop",
      scale: [1, 1, 1],
      shift: [0, 0, 0],
    };
    const bitmap = await createImageBitmap(await (await fetch("/photo/photo.jpg")).blob());
    const worst = [image, bitmap].map((one) => {
      const values = stemInput(one, spec);
      return values.reduce(
        (/** @type {number} */ most, /** @type {number} */ value, /** @type {number} */ place) =>
          Math.max(most, Math.abs(value - expected[place])),
        0,
      );
    });
    return { size: [image.naturalWidth, image.naturalHeight], worst, count: expected.length };
  });
  assert.deepEqual(found.size, [3000, 4000]); // upright
  assert.equal(found.count, 3 * 96 * 128);
  assert.ok(Math.max(...found.worst) <= 1, `${found.worst} grey levels`);
});

test("the first branch answers while the others are still on their way", async () => {
  const manifest = readManifest(FAST);
  held.add(manifest.branches[1].file); // the others are loaded after it
  const early = await opened.page.evaluate(async (bundle) => {
    const { opened } = await import(/** @type {any} */ ("/page/helpers.js"));
    const one = await opened(bundle);
    Object.assign(window, { one });
    const prediction = await one.session.run(one.input(0), { budgetMs: 200 });
    return {
      used: prediction.branchesUsed,
      reasons: prediction.branchesDropped.map((/** @type {any} */ drop) => drop.reason),
    };
  }, FAST);
  letGo();
  assert.deepEqual(early.used, [manifest.branches[0].index]);
  assert.deepEqual(new Set(early.reasons), new Set(["it was still being loaded"]));
  const whole = await opened.page.evaluate(async () => {
    const { session, input } = /** @type {any} */ (window).one;
    const prediction = await session.run(input(0));
    session.close();
    return prediction.branchesUsed.length;
  });
  assert.equal(whole, manifest.branches.length);
});

for (const order of ["trap", "throw"]) {
  test(`a worker that crashes is replaced: ${order}`, async () => {
    const found = await opened.page.evaluate(
      async ({ bundle, order }) => {
        const { opened, snrDb } = await import(/** @type {any} */ ("/page/helpers.js"));
        const { session, input, expected } = await opened(bundle, { crashes: true });
        await session.loaded;
        new BroadcastChannel("crash").postMessage(order); // to both workers
        await new Promise((resolve) => setTimeout(resolve, 50));
        const outcomes = [];
        for (let number = 0; number < 4; number++) {
          try {
            outcomes.push((await session.run(input(number))).branchesUsed.length);
          } catch (error) {
            outcomes.push(/** @type {Error} */ (error).message);
          }
        }
        const { output, branchesUsed } = await session.run(input(3));
        session.close();
        return { outcomes, db: snrDb(expected(3, branchesUsed), output), used: branchesUsed.length };
      },
      { bundle: FAST, order },
    );
    assert.equal(found.used, readManifest(FAST).branches.length, `${found.outcomes}`);
    assert.ok(found.db >= 100);
  });
}

test("a profile has the same rules as Python's, and refuses what cannot be measured", async () => {
  const found = await opened.page.evaluate(async (name) => {
    const { refusal } = await import(/** @type {any} */ ("/page/helpers.js"));
    const { Bundle, profileBundle, registerEngine } = await import(/** @type {any} */ ("/src/index.js"));
    registerEngine("litert", "/src/engines/litert.js");
    const bundle = await Bundle.open(`/bundles/${name}/`);
    const short = { engines: "/engines", minRuns: 10, minMs: 5 };
    /** @type {number[]} */ const shares = [];
    const device = await profileBundle(bundle, {
      ...short,
      threads: [2],
      onProgress: (/** @type {number} */ share) => shares.push(share),
    });
    const found = {
      device,
      shares,
      name: await refusal(profileBundle(bundle, { ...short, name: "a b" })),
      threads: await refusal(profileBundle(bundle, { ...short, threads: [9] })),
      nothing: await refusal(profileBundle(bundle, { ...short, minRuns: 0 })),
      count: await refusal(profileBundle(bundle, { ...short, threads: /** @type {any} */ (2) })),
      noBundle: await refusal(profileBundle(/** @type {any} */ ("/bundles/"), short)),
      hidden: "",
    };
    Object.defineProperty(document, "hidden", { value: true, configurable: true });
    found.hidden = await refusal(profileBundle(bundle, short));
    Reflect.deleteProperty(document, "hidden");
    return found;
  }, FAST);
  writeFileSync(path.join(/** @type {string} */ (setup.downloads), "profile.json"), JSON.stringify(found.device));
  const [measurement] = found.device.measurements;
  assert.equal(found.device.measurements.length, 1);
  assert.equal(measurement.threads, 2);
  assert.equal(measurement.contention.length, 2);
  assert.equal(Object.keys(measurement.parts).length, 1 + readManifest(FAST).branches.length);
  assert.match(measurement.engine_version, /^LiteRT\.js [\d.]+$/);
  assert.ok(measurement.request.p50_ms > measurement.parts.stem.p50_ms);
  assert.equal(found.shares.at(-1), 1);
  assert.match(found.name, /^InputError: the name must have only letters, digits and .*, got "a b"/);
  assert.match(found.threads, /^InputError: threads is 9, and the bundle has 8 branches/);
  assert.match(found.nothing, /^InputError: give 1 to 1000000 runs and a time above 0, got 0 runs and 5 ms/);
  assert.match(found.count, /^InputError: threads must be a list, such as \[1, 2\], got 2/);
  assert.match(found.noBundle, /^InputError: profileBundle measures what Bundle\.open returns/);
  assert.match(found.hidden, /^DeviceError: the page went to the background.*measure again/);
});

test("what is wrong is said, with a next step", async () => {
  const found = await opened.page.evaluate(async (bundle) => {
    const { refusal } = await import(/** @type {any} */ ("/page/helpers.js"));
    const { Bundle, Session, registerEngine } = await import(/** @type {any} */ ("/src/index.js"));
    registerEngine("litert", "/src/engines/litert.js");
    return {
      nowhere: await refusal(Bundle.open("/bundles/nowhere.paraedge.zip")),
      noBundle: await refusal(Bundle.open("/page/")),
      noZip: await refusal(Bundle.open(new Blob(["PK"]))),
      noEngine: await refusal(Session.open(`/bundles/${bundle}/`, { engines: "/nowhere" })),
    };
  }, FAST);
  assert.match(
    found.nowhere,
    /^BundleError: http.*nowhere\.paraedge\.zip cannot be fetched: the server says 404; check/,
  );
  assert.match(found.noBundle, /^BundleError: http.*\/page\/manifest\.json cannot be fetched: the server says 404/);
  assert.match(found.noZip, /^IntegrityError: the zip is neither a bundle folder nor a zip made by 'paraedge pack'/);
  assert.match(
    found.noEngine,
    /^EngineUnavailable: the engine 'litert' cannot be loaded from .*nowhere\/litert\/: .*404; 'npx paraedge-web-engine litert FOLDER' copies/,
  );
});

test("with trusted keys only what one of them signed is opened", async () => {
  const { page } = await openPage(browser, `${server.url}page/`);
  const manifest = readFileSync(path.join(setup.signed.path, "manifest.json"), "utf8");
  await page.route("**/changed/**", (route) => {
    const name = path.basename(new URL(route.request().url()).pathname);
    if (name === "manifest.json") return route.fulfill({ body: `${manifest} ` });
    if (name === "manifest.sha256") return route.fulfill({ body: hashLine(`${manifest} `) }); // whoever changes one, changes both
    return route.fulfill({ path: path.join(setup.signed.path, name) });
  });
  const found = await page.evaluate(
    async ({ unsigned, key, stranger }) => {
      const { refusal } = await import(/** @type {any} */ ("/page/helpers.js"));
      const { Bundle, Session } = await import(/** @type {any} */ ("/src/index.js"));
      const options = { engines: "/engines", threads: 1, branches: 1 };
      const session = await Session.open("/bundles/signed/", { ...options, trustedKeys: [stranger, key] });
      const { output } = await session.run((await session.bundle.golden()).inputs.data.subarray(0, 28 * 28));
      session.close();
      const found = {
        signedBy: session.bundle.signedBy,
        outputs: output.length,
        asked: (await Bundle.open("/bundles/signed/")).signedBy,
        unsigned: await refusal(Session.open(`/bundles/${unsigned}/`, { ...options, trustedKeys: key })),
        stranger: await refusal(Bundle.open("/bundles/signed/", { trustedKeys: stranger })),
        changed: await refusal(Bundle.open("/changed/", { trustedKeys: key })),
        late: await refusal(Session.open(session.bundle, { trustedKeys: key })),
        old: "",
      };
      crypto.subtle.importKey = async () => {
        throw new DOMException("Unrecognized name", "NotSupportedError");
      };
      found.old = await refusal(Bundle.open("/bundles/signed/", { trustedKeys: key }));
      return found;
    },
    { unsigned: FAST, ...setup.signed },
  );
  await page.close();
  assert.match(found.signedBy, /^[0-9A-F]{16}$/);
  assert.equal(found.outputs, 10);
  assert.equal(found.asked, null);
  assert.match(found.unsigned, /^IntegrityError: http.* is not signed, and trusted keys are set/);
  assert.match(found.stranger, /^IntegrityError: .* is signed by [0-9A-F]{16}, which is not among the trusted keys/);
  assert.match(found.changed, /^IntegrityError: .*does not match manifest\.json; one of the two was changed/);
  assert.match(found.late, /^InputError: trustedKeys .* pass them to Bundle\.open/);
  assert.match(found.old, /^EngineUnavailable: this browser cannot check signatures \(Ed25519\).*update it/);
});

test("a changed program ends the session that loads it, with the reason", async () => {
  const manifest = readManifest(FAST);
  const raw = readFileSync(path.join(setup.bundles[FAST], manifest.branches[1].file));
  const { page } = await openPage(browser, `${server.url}page/`);
  raw[raw.length - 1] ^= 1;
  await page.route(`**/${manifest.branches[1].file}`, (route) => route.fulfill({ body: raw }));
  const found = await page.evaluate(async (bundle) => {
    const { opened, refusal } = await import(/** @type {any} */ ("/page/helpers.js"));
    const { session, input } = await opened(bundle);
    return [await refusal(session.loaded), await refusal(session.run(input(0)))];
  }, FAST);
  await page.close();
  for (const refusal of found)
    assert.match(refusal, /^IntegrityError: branch_0\d\.tflite has SHA-256 [0-9a-f]{12}…, manifest\.json says/);
});

test("frames of a camera: the newest wins, until the signal", async () => {
  const found = await opened.page.evaluate(async (bundle) => {
    const { opened } = await import(/** @type {any} */ ("/page/helpers.js"));
    const { session } = await opened(bundle, { slowdown: 10 });
    await session.loaded;
    const video = document.createElement("video");
    video.muted = true;
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { width: 320, height: 240 } });
    await video.play();
    const stop = new AbortController();
    const frames = session.latest(video, { budgetMs: 60, signal: stop.signal });
    let seen = 0;
    for await (const prediction of frames) {
      seen += Number(prediction.branchesUsed.length > 0);
      if (seen === 8) break;
    }
    stop.abort();
    for await (const _ of session.latest(video, { signal: stop.signal })) seen += 1000;
    for (const track of video.srcObject.getTracks()) track.stop();
    session.close();
    return { seen, dropped: frames.dropped };
  }, FAST);
  assert.equal(found.seen, 8);
  assert.ok(found.dropped >= 0);
});

test("two thousand requests leave no more memory behind than two hundred", { timeout: 120_000 }, async () => {
  const client = await browser.newBrowserCDPSession();
  const rssBytes = async () => {
    const { processInfo } = await client.send("SystemInfo.getProcessInfo");
    return processInfo
      .filter(({ type }) => type === "renderer")
      .reduce((sum, { id }) => sum + 4096 * Number(readFileSync(`/proc/${id}/statm`, "utf8").split(" ")[1]), 0);
  };
  const run = (/** @type {number} */ requests) =>
    opened.page.evaluate(
      async ({ bundle, requests }) => {
        const { opened } = await import(/** @type {any} */ ("/page/helpers.js"));
        /** @type {any} */ (window).two ??= await opened(bundle, { branches: 2 });
        const { session, input } = /** @type {any} */ (window).two;
        for (let number = 0; number < requests; number++) await session.run(input(number), { budgetMs: 50 });
        /** @type {any} */ (globalThis).gc();
        return /** @type {any} */ (performance).memory.usedJSHeapSize;
      },
      { bundle: FAST, requests },
    );
  const heapBefore = await run(200);
  const rssBefore = await rssBytes();
  const heapAfter = await run(2000);
  const rssAfter = await rssBytes();
  assert.ok(heapAfter - heapBefore < 2e6, `${heapBefore} bytes of heap became ${heapAfter}`);
  assert.ok(rssAfter - rssBefore < 40e6, `${rssBefore} bytes of memory became ${rssAfter}`);
  await opened.page.evaluate(() => /** @type {any} */ (window).two.session.close());
});

test("the example in docs/web.md runs", async () => {
  const docs = readFileSync(new URL("../../../../docs/web.md", import.meta.url), "utf8");
  const examples = [...docs.matchAll(/^```js\n(.*?)^```$/gms)].map(([, example]) => example);
  assert.ok(examples.length > 0);
  const { page } = await openPage(browser, `${server.url}page/`);
  await page.route("**/page/fashion.paraedge/*", (route) =>
    route.fulfill({ path: path.join(setup.bundles[FAST], path.basename(new URL(route.request().url()).pathname)) }),
  );
  await page.route("**/page/engines/**", (route) =>
    route.fulfill({
      path: path.join(setup.engines, new URL(route.request().url()).pathname.replace("/page/engines/", "")),
    }),
  );
  /** @type {string[]} */ const printed = [];
  page.on("console", (message) => printed.push(message.text()));
  for (const example of examples) {
    await page.evaluate((text) => import(URL.createObjectURL(new Blob([text], { type: "text/javascript" }))), example);
  }
  await page.close();
  assert.match(printed[0], /^\S+ 0\.\d+ \[0/);
  assert.match(printed[1], /branch 0 ran from/);
});

test("nothing was printed, and no error was left over", () => {
  const expected = /nobody catches this|404/;
  assert.deepEqual(
    opened.problems.filter((problem) => !expected.test(problem)),
    [],
  );
});
