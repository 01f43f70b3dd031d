// The page: predicts one image after another within the budget, and draws every branch against the deadline.
import { BranchState, Bundle, Session } from "./paraedge/index.js";

const KEPT = 200; // predictions that the figures are of
const REST_MS = 30; // between two images that come from the bundle

/**
 * @typedef {import("./paraedge/index.js").Prediction} Prediction
 * @typedef {import("./paraedge/inputs.js").InputSpec} InputSpec
 * @typedef {import("./paraedge/manifest.js").TensorInput} TensorInput
 */

const $ = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const field = (/** @type {string} */ id) => /** @type {HTMLInputElement} */ ($(id));
const video = /** @type {HTMLVideoElement} */ ($("video"));
const sleep = (/** @type {number} */ ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** @type {Session | null} */ let session = null;
/** What the bundle's own images are, and what they show. @type {Awaited<ReturnType<Bundle["golden"]>> | null} */ let golden =
  null;
/** @type {MediaStream | null} */ let camera = null;
/** @type {import("./microphone.js").Microphone | null} */ let microphone = null;
/** What the model that was opened last reads, if that is sound. @type {TensorInput | null} */ let sound = null;
/** @type {{ms: number, isLate: boolean, used: number, isRight: boolean | null}[]} */ let recent = [];
let isPaused = false;
let isOpeningSource = false; // the user may be asked for permission meanwhile
/** Ends the measuring that goes on. @type {AbortController | null} */ let measuring = null;
/** What was measured since the page was opened. @type {Record<string, any> | null} */ let device = null;
/** Public keys; the page opens nothing that none of them signed. Null: whoever serves it is trusted. @type {string[] | null} */ let trustedKeys =
  null;
/** The model of photographs, which the camera's images are for. @type {string | null} */ let cameraModel = null;
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
  $("about").textContent = "";
  try {
    const address = new URL(`bundles/${field("model").value}/`, document.baseURI);
    const bundle = await Bundle.open(address, { trustedKeys: trustedKeys ?? undefined });
    const opened = await Session.open(bundle, { threads: Number(field("threads").value) });
    if (mine !== opening) return opened.close();
    session = opened;
    const own = await bundle.golden();
    if (mine !== opening) return; // another model was chosen meanwhile
    golden = own;
    offerSource(bundle.manifest.input);
    opened.loaded.then(
      () => mine === opening && describe(bundle),
      (error) => {
        if (mine !== opening) return;
        $("status").textContent = "running with what was loaded";
        say(error);
      },
    );
    $("status").textContent = "running, more branches are loading";
    await predictAll(opened, mine);
  } catch (error) {
    if (mine !== opening) return;
    $("status").textContent = "stopped";
    say(error);
  }
}

/** Whether a model reads sound: one channel over time, of a known rate. @param {InputSpec} spec @returns {spec is TensorInput} */
const hears = (spec) =>
  spec.kind === "tensor" && spec.rateHz !== null && `${spec.axes}` === "channel,time" && spec.shape[1] === 1;

/** What this model can be shown or told: the camera, the microphone, or nothing but its own inputs. @param {InputSpec} spec */
function offerSource(spec) {
  const isImage = spec.kind === "image";
  sound = hears(spec) ? spec : null;
  if (camera && !isImage) closeCamera();
  if (microphone && !(sound && microphone.fits(sound))) closeMicrophone();
  $("source").textContent = sound ? "Microphone" : "Camera";
  /** @type {HTMLButtonElement} */ ($("source")).disabled = !isImage && !sound;
  $("image").setAttribute("aria-label", `The ${isImage ? "image" : "input"} of the last prediction`);
}

/** @param {Bundle} bundle */
function describe({ manifest, signedBy }) {
  $("status").textContent = `running, ${session?.engine}`;
  const outputs = manifest.labels.length ? `${manifest.labels.length} labels` : `${manifest.numOutputs} numbers`;
  const { input } = manifest;
  const isShownOnly = input.kind !== "image" && !hears(input);
  const ownInputs = isShownOnly
    ? ` It reads (${input.axes.join(", ")}), neither images nor sound: this page runs it on its own inputs only.`
    : "";
  const isSure = !manifest.labels.length || manifest.stopRules !== null;
  const confidence = isSure ? "" : " Its confidence is not calibrated: paraedge export --data-dir does that.";
  $("about").textContent =
    `${manifest.name}: ${manifest.branches.length} branches, ${outputs}, ${manifest.quantization}${signedBy ? `, signed by ${signedBy}` : ""}.${ownInputs}${confidence} Nothing leaves this device.`;
}

/** One image after another, while this model is the one chosen. @param {Session} opened @param {number} mine */
async function predictAll(opened, mine) {
  for (let number = 0; mine === opening; ) {
    if (isPaused || measuring || document.hidden) {
      await sleep(100);
      continue;
    }
    const source = microphone ?? camera;
    const next = await nextInput(opened, number);
    if (!next || mine !== opening) continue;
    if (!next.isLive) number += 1;
    const budget = budgetMs();
    const prediction = await opened.run(next.input, { budgetMs: budget });
    if (mine !== opening) return;
    if (source !== (microphone ?? camera)) continue; // its figures are of another source
    show(prediction, budget, next.label);
    if (next.input instanceof Uint8Array) showImage(next.input, opened);
    else if (next.input instanceof Float32Array) await showTensor(next.input, opened);
    if (camera) await new Promise(requestAnimationFrame);
    else if (!next.isLive) await sleep(REST_MS);
  }
}

/**
 * The camera's image, the newest that the microphone heard, or one of the bundle's own inputs; null: not yet.
 *
 * @param {Session} opened @param {number} number
 * @returns {Promise<{input: import("./paraedge/inputs.js").Input, label: string | null, isLive: boolean} | null>}
 */
async function nextInput(opened, number) {
  if (microphone) {
    const input = await microphone.next();
    return input && { input, label: null, isLive: true };
  }
  if (!camera) return { ...packaged(opened, number), isLive: false };
  if (video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA) return { input: video, label: null, isLive: true };
  await sleep(REST_MS);
  return null;
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

/** @param {Float32Array} values @param {Session} opened */
async function showTensor(values, { bundle }) {
  const { showWave } = await import("./wave.js"); // few pages have a model that reads no images
  showWave(/** @type {HTMLCanvasElement} */ ($("image")), values, Number(bundle.manifest.input.shape.at(-1)));
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
    meter.ariaHidden = "true"; // the text beside it says the same
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

/** @param {unknown} error @param {"camera" | "microphone"} what @param {string} own */
async function saySource(error, what, own) {
  say((await import("./problems.js")).sourceProblem(error, what, own)); // few visits need it
}

/** The camera's images are of the model of photographs, where the page has one. */
async function openCamera() {
  if (!navigator.mediaDevices) return say("No camera here: a page needs https, or localhost, to use one.");
  /** @type {MediaStream | null} */ let stream = null;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false });
    if (sound) return stopTracks(stream); // a model that reads no images was chosen meanwhile
    camera = stream;
    for (const track of stream.getTracks()) {
      track.onended = () => {
        closeCamera();
        say("The camera has stopped; press Camera to start it again.");
      };
    }
    video.srcObject = stream;
    await video.play();
  } catch (error) {
    if (stream && !camera) return; // the same
    closeCamera();
    return saySource(error, "camera", "images");
  }
  if (!camera) return;
  showCamera();
  if (cameraModel === null || cameraModel === field("model").value) return;
  field("model").value = cameraModel;
  open();
}

/** @param {MediaStream | null} stream */
function stopTracks(stream) {
  for (const track of stream?.getTracks() ?? []) track.stop();
}

function closeCamera() {
  stopTracks(camera);
  camera = null;
  showCamera();
}

function showCamera() {
  video.hidden = camera === null;
  $("image").hidden = camera !== null;
  showSource();
}

/** What was measured is of another source now. */
function showSource() {
  $("source").setAttribute("aria-pressed", String(camera !== null || microphone !== null));
  recent = [];
}

/** @param {TensorInput} spec */
async function openMicrophone(spec) {
  if (!navigator.mediaDevices) return say("No microphone here: a page needs https, or localhost, to use one.");
  try {
    const { Microphone } = await import("./microphone.js"); // few pages have a model that hears
    const opened = await Microphone.open(spec, () => {
      closeMicrophone();
      say("The microphone has stopped; press Microphone to start it again.");
    });
    if (microphone || !sound || !opened.fits(sound)) return opened.close(); // another model was chosen meanwhile
    microphone = opened;
    showSource();
  } catch (error) {
    await saySource(error, "microphone", "sounds");
  }
}

function closeMicrophone() {
  microphone?.close();
  microphone = null;
  showSource();
}

async function toggleSource() {
  if (isOpeningSource) return;
  say(null);
  if (camera) return closeCamera();
  if (microphone) return closeMicrophone();
  isOpeningSource = true;
  await (sound ? openMicrophone(sound) : openCamera());
  isOpeningSource = false;
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
    const { measured, textOf } = await import("./measure.js"); // few visits need it
    device = await measured(bundle, device, { signal: mine.signal, onProgress: tell });
    $("save").hidden = false;
    $("profile-text").textContent = textOf(device, milliseconds);
  } catch (error) {
    $("profile-text").textContent = "not measured";
    if (!mine.signal.aborted) say(error);
  }
  measuring = null;
  $("measure").setAttribute("aria-pressed", "false");
}

function save() {
  const href = URL.createObjectURL(new Blob([`${JSON.stringify(device, null, 2)}\n`], { type: "application/json" }));
  Object.assign(document.createElement("a"), { href, download: "device.json" }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
}

async function start() {
  $("hint").remove();
  const cores = Math.max(navigator.hardwareConcurrency ?? 2, 1);
  for (let threads = 1; threads <= Math.min(cores, 8); threads++) {
    field("threads").append(new Option(String(threads), String(threads), threads === Math.min(cores, 4)));
  }
  field("threads").value = String(Math.min(cores, 4));
  const showBudget = () => {
    $("budget-text").textContent = milliseconds(budgetMs());
    $("budget").setAttribute("aria-valuetext", milliseconds(budgetMs())); // the slider's own value is no time
  };
  showBudget();
  $("budget").addEventListener("input", () => {
    showBudget();
    recent = [];
  });
  $("model").addEventListener("change", open);
  $("threads").addEventListener("change", open);
  $("settings").addEventListener("submit", (event) => event.preventDefault());
  $("source").addEventListener("click", toggleSource);
  $("measure").addEventListener("click", measure);
  $("save").addEventListener("click", save);
  $("pause").addEventListener("click", () => {
    isPaused = !isPaused;
    $("pause").setAttribute("aria-pressed", String(isPaused));
  });
  const response = await fetch("site.json");
  if (!response.ok)
    throw new Error(`site.json cannot be fetched (${response.status}); make the folder again with 'paraedge web'`);
  const site = await response.json().catch(() => {
    throw new Error("site.json is damaged; make the folder again with 'paraedge web'");
  });
  ({ trustedKeys, cameraModel } = site);
  for (const name of site.models) field("model").append(new Option(name, name));
  // Works offline after this visit, where the page is secure.
  await navigator.serviceWorker?.register("offline.js").catch(() => {});
  await open();
}

start().catch(say);
