// The page: predicts one image after another within the budget, and draws every branch against the deadline.
import { BranchState, Bundle, profileBundle, Session } from "./paraedge/index.js";

const KEPT = 200; // predictions that the figures are of
const REST_MS = 30; // between two images that come from the bundle

/** @typedef {import("./paraedge/index.js").Prediction} Prediction */

const $ = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const field = (/** @type {string} */ id) => /** @type {HTMLInputElement} */ ($(id));
const video = /** @type {HTMLVideoElement} */ ($("video"));
const sleep = (/** @type {number} */ ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** @type {Session | null} */ let session = null;
/** What the bundle's own images are, and what they show. @type {Awaited<ReturnType<Bundle["golden"]>> | null} */ let golden =
  null;
/** @type {MediaStream | null} */ let camera = null;
/** @type {{ms: number, isLate: boolean, used: number, isRight: boolean | null}[]} */ let recent = [];
let isPaused = false;
/** Ends the measuring that goes on. @type {AbortController | null} */ let measuring = null;
/** What was measured since the page was opened. @type {Record<string, any> | null} */ let device = null;
/** Public keys; the page opens nothing that none of them signed. Null: whoever serves it is trusted. @type {string[] | null} */ let trustedKeys =
  null;
let opening = 0; // grows with every model that is chosen: what belongs to an earlier one ends
let spanMs = 0; // of the track

/** Slider -> milliseconds, 1 to 200. */
function budgetMs() {
  const value = 10 ** (Number(field("budget").value) / 100);
  return value < 10 ? Math.round(10 * value) / 10 : Math.round(value);
}

const milliseconds = (/** @type {number} */ value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
const percent = (/** @type {number} */ share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

/** @param {unknown} problem null: all is well */
function say(problem) {
  $("problem").hidden = problem === null;
  $("problem").textContent = problem instanceof Error ? problem.message : String(problem ?? "");
}

/** Open the model that is chosen, with as many threads. */
async function open() {
  const mine = ++opening;
  session?.close();
  measuring?.abort();
  [session, recent] = [null, []];
  say(null);
  $("status").textContent = "loading";
  try {
    const address = new URL(`bundles/${field("model").value}/`, document.baseURI);
    const bundle = await Bundle.open(address, { trustedKeys: trustedKeys ?? undefined });
    const opened = await Session.open(bundle, { threads: Number(field("threads").value) });
    if (mine !== opening) return opened.close();
    session = opened;
    golden = await bundle.golden();
    opened.loaded.then(
      () => mine === opening && describe(bundle),
      (error) => mine === opening && say(error),
    );
    $("status").textContent = "running, more branches are loading";
    await predictAll(opened, mine);
  } catch (error) {
    if (mine !== opening) return;
    $("status").textContent = "stopped";
    say(error);
  }
}

/** @param {Bundle} bundle */
function describe({ manifest, signedBy }) {
  $("status").textContent = `running, ${session?.engine}`;
  const outputs = manifest.labels.length ? `${manifest.labels.length} labels` : `${manifest.numOutputs} numbers`;
  $("about").textContent =
    `${manifest.name}: ${manifest.branches.length} branches, ${outputs}, ${manifest.quantization}${signedBy ? `, signed by ${signedBy}` : ""}. Nothing leaves this device.`;
}

/** One image after another, while this model is the one chosen. @param {Session} opened @param {number} mine */
async function predictAll(opened, mine) {
  for (let number = 0; mine === opening; ) {
    if (isPaused || measuring || document.hidden) {
      await sleep(100);
      continue;
    }
    const isCamera = camera !== null;
    if (isCamera && video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) {
      await sleep(REST_MS);
      continue;
    }
    const budget = budgetMs();
    const { input, label } = isCamera ? { input: video, label: null } : packaged(opened, number++);
    const prediction = await opened.run(input, { budgetMs: budget });
    if (mine !== opening) return;
    if (input instanceof Uint8Array) showImage(input, opened);
    show(prediction, budget, label);
    await (isCamera ? new Promise(requestAnimationFrame) : sleep(REST_MS));
  }
}

/** One of the bundle's own inputs. @param {Session} opened @param {number} number */
function packaged({ bundle }, number) {
  const { inputs, labels } = /** @type {NonNullable<typeof golden>} */ (golden);
  const place = number % inputs.shape[0];
  const size = inputs.data.length / inputs.shape[0];
  const label = labels ? bundle.manifest.labels[labels[place]] : null;
  return { input: inputs.data.subarray(place * size, (place + 1) * size), label };
}

/** @param {Uint8Array} pixels (H, W, C) @param {Session} opened */
function showImage(pixels, { bundle }) {
  const [, channels, height, width] = bundle.manifest.input.shape;
  const canvas = /** @type {HTMLCanvasElement} */ ($("image"));
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const image = new ImageData(width, height);
  for (let place = 0; place < width * height; place++) {
    for (let channel = 0; channel < 3; channel++) {
      image.data[4 * place + channel] = pixels[place * channels + Math.min(channel, channels - 1)];
    }
    image.data[4 * place + 3] = 255;
  }
  canvas.getContext("2d")?.putImageData(image, 0, 0);
}

/** @param {Prediction} prediction @param {number} budget @param {string | null} label of the image, if it is known */
function show(prediction, budget, label) {
  const hasLabels = session?.bundle.manifest.labels.length !== 0;
  const isRight = hasLabels && label !== null ? prediction.label === label : null;
  $("label").textContent = hasLabels ? prediction.label : `${prediction.output.length} numbers`;
  $("truth").textContent = isRight === null ? "" : isRight ? "right" : `wrong: it is ${label}`;
  if (hasLabels) showTop(prediction.topK(Math.min(3, session?.bundle.manifest.labels.length ?? 1)));
  const used = prediction.branchesUsed.length;
  $("verdict").textContent = `${used} of ${prediction.branches.length} in ${milliseconds(prediction.elapsedMs)}`;
  $("verdict").dataset.late = String(!prediction.deadlineMet);
  recent.push({ ms: prediction.elapsedMs, isLate: !prediction.deadlineMet, used, isRight });
  if (recent.length > KEPT) recent.shift();
  showBranches(prediction, budget);
  showFigures();
}

/** As many list items as there are values, each filled. @template T @param {HTMLElement} list @param {readonly T[]} values @param {string[]} tags of an item's children @param {(item: HTMLElement, value: T) => void} fill */
function fillList(list, values, tags, fill) {
  while (list.children.length > values.length) list.lastElementChild?.remove();
  while (list.children.length < values.length) {
    const item = document.createElement("li");
    item.append(...tags.map((tag) => document.createElement(tag)));
    list.append(item);
  }
  for (const [place, value] of values.entries()) fill(/** @type {HTMLElement} */ (list.children[place]), value);
}

/** @param {[string, number][]} top */
function showTop(top) {
  fillList($("top"), top, ["b", "meter", "span"], (item, [label, probability]) => {
    const [name, meter, text] = item.children;
    name.textContent = label;
    /** @type {HTMLMeterElement} */ (meter).value = probability;
    text.textContent = percent(probability);
  });
}

/** @param {Prediction} prediction @param {number} budget */
function showBranches(prediction, budget) {
  const ends = prediction.branches.map(({ endMs }) => endMs);
  const wanted = 1.15 * Math.max(budget, Math.min(Math.max(...ends), 4 * budget));
  spanMs = wanted > spanMs ? wanted : Math.max(wanted, 0.9 * spanMs);
  const place = (/** @type {number} */ ms) => (100 * Math.min(Math.max(ms, 0), spanMs)) / spanMs;
  const [stem] = prediction.timeline;
  const rows = [
    { name: "stem", outcome: "stem", fromMs: stem.startMs, toMs: stem.endMs },
    ...prediction.branches.map(({ index, state, thread, startMs, endMs }) => {
      const outcome = state === BranchState.USED ? "used" : thread >= 0 ? "late" : "dropped";
      const fromMs = startMs || stem.endMs;
      return { name: `branch ${index}`, outcome, fromMs, toMs: outcome === "dropped" ? fromMs : endMs || spanMs };
    }),
  ];
  fillList($("branches"), rows, ["b", "i"], (item, { name, outcome, fromMs, toMs }) => {
    const [title, bar] = /** @type {HTMLElement[]} */ ([...item.children]);
    item.dataset.outcome = outcome;
    item.setAttribute("aria-label", `${name}: ${outcome === "late" ? "too late" : outcome}`);
    title.textContent = name;
    bar.hidden = outcome === "dropped";
    bar.style.left = `${place(fromMs)}%`;
    bar.style.width = `${place(toMs) - place(fromMs)}%`;
  });
  $("deadline").style.left = `${place(budget)}%`;
  $("deadline").dataset.early = String(place(budget) < 45);
  $("deadline-text").textContent = `deadline ${milliseconds(budget)}`;
}

function showFigures() {
  const times = recent.map(({ ms }) => ms).sort((a, b) => a - b);
  const quantile = (/** @type {number} */ share) => milliseconds(times[Math.floor(share * (times.length - 1))]);
  const mean = (/** @type {number[]} */ values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const judged = recent.flatMap(({ isRight }) => (isRight === null ? [] : [Number(isRight)]));
  $("times").textContent = `${quantile(0.5)} / ${quantile(0.95)}`;
  $("late").textContent = percent(mean(recent.map(({ isLate }) => Number(isLate))));
  $("used").textContent = mean(recent.map(({ used }) => used)).toFixed(1);
  $("right").textContent = judged.length ? percent(mean(judged)) : "–";
}

async function toggleCamera() {
  say(null);
  if (camera) {
    for (const track of camera.getTracks()) track.stop();
    camera = null;
  } else {
    if (!navigator.mediaDevices) return say("No camera here: a page needs https, or localhost, to use one.");
    try {
      camera = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false });
      video.srcObject = camera;
      await video.play();
    } catch (error) {
      camera = null;
      const { name, message } = /** @type {Error} */ (error);
      say(
        name === "NotAllowedError"
          ? "The camera was refused; allow it in the browser's settings of this page."
          : `No camera can be used: ${message || name}.`,
      );
    }
  }
  video.hidden = camera === null;
  $("image").hidden = camera !== null;
  $("camera").setAttribute("aria-pressed", String(camera !== null));
  recent = [];
}

/** As `paraedge profile` does, with whatever was measured before; a second press ends it. */
async function measure() {
  if (measuring) return measuring.abort();
  if (!session) return;
  const { bundle } = session;
  const mine = new AbortController();
  measuring = mine;
  $("measure").setAttribute("aria-pressed", "true");
  say(null);
  try {
    const tell = (/** @type {number} */ share) => ($("profile-text").textContent = `measuring, ${percent(share)}`);
    const found = await profileBundle(bundle, { signal: mine.signal, onProgress: tell });
    const isAgain = (/** @type {any} */ one) =>
      found.measurements.some((/** @type {any} */ other) => other.bundle_sha256 === one.bundle_sha256);
    const kept = (device?.measurements ?? []).filter((/** @type {any} */ one) => !isAgain(one));
    device = { ...found, measurements: [...kept, ...found.measurements] };
    offer(device);
  } catch (error) {
    $("profile-text").textContent = "not measured";
    if (!mine.signal.aborted) say(error);
  }
  measuring = null;
  $("measure").setAttribute("aria-pressed", "false");
}

/** @param {Record<string, any>} file */
function offer({ measurements }) {
  $("save").hidden = false;
  const times = measurements.map((/** @type {any} */ { bundle_name: name, threads, request }) => {
    return `${name}, ${threads} thread${threads === 1 ? "" : "s"}: ${milliseconds(request.p50_ms)}`;
  });
  $("profile-text").textContent = `${times.join("; ")} (p50).`;
}

function save() {
  const href = URL.createObjectURL(new Blob([`${JSON.stringify(device, null, 2)}\n`], { type: "application/json" }));
  Object.assign(document.createElement("a"), { href, download: "device.json" }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
}

async function start() {
  const cores = Math.max(navigator.hardwareConcurrency ?? 2, 1);
  for (let threads = 1; threads <= Math.min(cores, 8); threads++) {
    field("threads").append(new Option(String(threads), String(threads), threads === Math.min(cores, 4)));
  }
  field("threads").value = String(Math.min(cores, 4));
  const showBudget = () => ($("budget-text").textContent = milliseconds(budgetMs()));
  showBudget();
  $("budget").addEventListener("input", () => {
    showBudget();
    recent = [];
  });
  $("model").addEventListener("change", open);
  $("threads").addEventListener("change", open);
  $("settings").addEventListener("submit", (event) => event.preventDefault());
  $("camera").addEventListener("click", toggleCamera);
  $("measure").addEventListener("click", measure);
  $("save").addEventListener("click", save);
  $("pause").addEventListener("click", () => {
    isPaused = !isPaused;
    $("pause").setAttribute("aria-pressed", String(isPaused));
  });
  const response = await fetch("site.json");
  if (!response.ok)
    throw new Error(`site.json cannot be fetched (${response.status}); make the folder again with 'paraedge web'`);
  const site = await response.json();
  trustedKeys = site.trustedKeys;
  for (const name of site.models) field("model").append(new Option(name, name));
  // Works offline from the second visit on, where the page is secure.
  await navigator.serviceWorker?.register("offline.js").catch(() => {});
  await open();
}

start().catch(say);
