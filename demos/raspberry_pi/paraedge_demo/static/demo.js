// The demo's page: takes the newest state from the socket, draws it, sends what a person changes.
"use strict";

const KEPT = 300; // frames in the plots
const MISS_WINDOW = 50; // frames that a share of misses is of
const LONGEST_WAIT_MS = 4000; // between two attempts to connect
const NOTES = [ // of reasons, in short
  ["predicted to miss", "would be late"], ["nothing was known", "time not known yet"], ["the policy asks", "not asked for"],
];
const $ = (id) => document.getElementById(id);
const history = []; // {latency_ms, budget_ms, deadline_met, used}
let socket = null;
let waitMs = 250;
let frozen = false;
let replay = false;
let policiesShown = false;
let lastNumber = 0;
let spanMs = 0; // of the time axis
let drawWanted = false;
let touchedMs = -Infinity; // when a person last moved something: until the server confirms, the page keeps its own value

// ---- the socket

function connect() {
  socket = new WebSocket(new URL("socket", location.href.replace(/^http/, "ws")));
  socket.onmessage = (event) => {
    const message = JSON.parse(event.data);
    if (message.type === "hello") hello(message);
    else if (message.type === "refused") $("messages").replaceChildren(item(message.message));
    else if (!frozen) show(message);
  };
  socket.onclose = () => {
    status("waiting", "reconnecting");
    setTimeout(connect, waitMs);
    waitMs = Math.min(2 * waitMs, LONGEST_WAIT_MS);
  };
}

function send(changes) {
  touchedMs = performance.now();
  if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(changes));
}

function status(state, text) {
  document.body.dataset.state = $("status").dataset.state = state;
  if ($("status").textContent !== text) $("status").textContent = text;
}

function hello(message) {
  waitMs = 250;
  replay = message.replay;
  status(replay ? "replay" : "live", replay ? "replay" : "live");
  history.splice(0, history.length, ...message.recent);
  lastNumber = 0;
  for (const element of $("controls").elements) element.disabled = replay && element.id !== "freeze";
  if (!policiesShown) {
    policiesShown = true;
    for (const [name, meaning] of Object.entries(message.policies)) {
      const label = document.createElement("label");
      const radio = Object.assign(document.createElement("input"), { type: "radio", name: "policy", value: name });
      radio.disabled = replay;
      radio.onchange = () => send({ policy: name });
      label.title = meaning;
      label.append(radio, name);
      $("policies").append(label);
    }
  }
}

// ---- the state of now

function show(now) {
  const { frame, header } = now;
  $("model").textContent = `${header.bundle} · ${header.engine} · ${header.source}`;
  if (now.settings && performance.now() - touchedMs > 400) showSettings(now.settings, header);
  $("messages").replaceChildren(...now.messages.slice(-3).map(item));
  if (!frame) return;
  if (frame.number !== lastNumber) {
    lastNumber = frame.number;
    history.push({ ...frame, used: frame.branches.filter((bar) => bar.outcome === "used").length });
    if (history.length > KEPT) history.shift();
  }
  showPrediction(frame, now.preview);
  showRace(frame);
  showSummary(now.summary, now.accuracy, frame);
  if (!drawWanted) {
    drawWanted = true;
    requestAnimationFrame(draw);
  }
}

function item(text) {
  const entry = document.createElement("li");
  entry.textContent = text;
  return entry;
}

const toSlider = (ms) => Math.round(100 * Math.log10(ms));
const fromSlider = (place) => {
  const ms = 10 ** (place / 100);
  return ms < 10 ? Math.round(10 * ms) / 10 : Math.round(ms);
};
const ms = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;

function showSettings(settings, header) {
  $("budget").value = toSlider(settings.budget_ms);
  $("threads").max = header.max_threads;
  $("threads").value = settings.threads;
  $("count").max = header.branches.length;
  $("count").value = settings.count;
  $("load").checked = settings.load;
  for (const radio of document.getElementsByName("policy")) radio.checked = radio.value === settings.policy;
  $("count-setting").classList.toggle("off", settings.policy !== "static");
  settingTexts(settings.budget_ms);
}

function settingTexts(budgetMs) {
  $("budget-text").textContent = ms(budgetMs);
  $("budget").setAttribute("aria-valuetext", ms(budgetMs));
  $("threads-text").textContent = $("threads").value;
  $("count-text").textContent = $("count").value;
}

function showPrediction(frame, preview) {
  const image = $("preview");
  image.hidden = !preview;
  $("no-preview").hidden = Boolean(preview);
  $("no-preview").textContent = replay ? "a recording keeps no images" : "no image yet";
  if (preview) {
    image.src = preview;
    image.classList.toggle("large", preview.startsWith("data:image/jpeg"));
  }
  $("label").textContent = frame.label ?? "unknown";
  $("confidence").textContent = `${(100 * frame.confidence).toFixed(0)} % confidence`;
  $("confidence-bar").style.width = `${100 * frame.confidence}%`;
  const right = frame.truth === frame.label;
  $("truth").textContent = frame.truth === null ? "" : right ? "✓ right" : `✗ is ${frame.truth}`;
  $("truth").dataset.right = right;
}

function showRace(frame) {
  const waited = Math.max(frame.latency_ms - frame.inference_ms, 0); // bars count from the request, the axis from the frame
  const last = Math.max(...frame.branches.map((bar) => bar.end_ms)) + waited;
  const wanted = 1.12 * Math.max(frame.budget_ms, Math.min(last, 4 * frame.budget_ms));
  spanMs = wanted > spanMs ? wanted : Math.max(wanted, 0.9 * spanMs); // grows at once, shrinks gently
  const place = (time) => (100 * Math.min(time, spanMs)) / spanMs;

  const used = frame.branches.filter((bar) => bar.outcome === "used").length;
  $("verdict").textContent =
    `${used} of ${frame.branches.length} branches in ${frame.latency_ms.toFixed(1)} ms` +
    (frame.deadline_met ? "" : ", too late");
  $("verdict").dataset.late = !frame.deadline_met;
  const early = place(frame.budget_ms) < 45; // texts go where there is room
  $("deadline").dataset.early = early;
  $("track").style.setProperty("--notes-from", early ? `${place(frame.budget_ms)}%` : "0%");
  $("track").style.setProperty("--notes-to", early ? "100%" : `${place(frame.budget_ms)}%`);
  $("deadline").style.left = `${place(frame.budget_ms)}%`;
  $("deadline-text").textContent = `deadline ${ms(frame.budget_ms)}`;
  const marginMs = frame.return_ms ? Math.max(frame.budget_ms - waited - frame.return_ms, 0) : 0;
  $("margin").style.left = `${place(frame.budget_ms - marginMs)}%`;
  $("margin").style.width = `${place(frame.budget_ms) - place(frame.budget_ms - marginMs)}%`;
  $("margin").hidden = !marginMs;
  $("margin-text").textContent = marginMs ? `${marginMs.toFixed(marginMs < 1 ? 2 : 1)} ms reserved for the return` : "reserved for the return";

  const rows = $("branches");
  while (rows.children.length > frame.branches.length + 1) rows.lastChild.remove();
  while (rows.children.length <= frame.branches.length) {
    const row = document.createElement("li");
    for (const tag of ["b", "i", "u", "span"]) row.append(document.createElement(tag));
    rows.append(row);
  }
  fill(rows.children[0], "stem", "stem", [place(waited), place(waited + frame.stem_ms)], [0, 0], "");
  frame.branches.forEach((bar, number) => {
    const ran = bar.thread >= 0;
    // Still running: nobody knows when it ended.
    const run = ran ? [place(waited + bar.start_ms), bar.end_ms ? place(waited + bar.end_ms) : 100] : [0, 0];
    const predicted = bar.predicted_end_ms
      ? [place(waited + bar.predicted_start_ms), place(waited + bar.predicted_end_ms)] : [0, 0];
    const note = ran ? "" : NOTES.find(([begin]) => bar.reason.startsWith(begin))?.[1] ?? bar.reason;
    fill(rows.children[number + 1], `branch ${bar.index}`, bar.outcome, run, predicted, note);
    rows.children[number + 1].title = bar.reason;
  });
  ticks();
}

function fill(row, name, outcome, run, predicted, note) {
  const [title, bar, outline, text] = row.children;
  row.dataset.outcome = outcome;
  row.setAttribute("aria-label", `${name}: ${outcome}`);
  title.textContent = name;
  for (const [element, [from, to]] of [[bar, run], [outline, predicted]]) {
    element.style.left = `${from}%`;
    element.style.width = `${Math.max(to - from, 0)}%`;
    element.hidden = to <= from;
  }
  text.textContent = note;
  text.hidden = !note;
}

function niceStep(span, count) {
  const rough = span / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
}

function ticks() {
  const step = niceStep(spanMs, 6);
  const texts = [];
  for (let value = 0; value < 0.98 * spanMs; value += step) {
    const tick = document.createElement("span");
    tick.style.left = `${(100 * value) / spanMs}%`;
    tick.textContent = value === 0 ? "0 ms" : +value.toFixed(2);
    texts.push(tick);
  }
  $("axis").replaceChildren(...texts);
}

function showSummary(summary, accuracy, frame) {
  const share = summary.frames ? (100 * summary.misses) / summary.frames : 0;
  $("accuracy").textContent = accuracy === null ? "–" : `${(100 * accuracy).toFixed(1)} %`;
  $("misses").textContent = `${summary.misses} (${share.toFixed(1)} %)`;
  $("latency").textContent = `${summary.p50_ms.toFixed(1)} / ${summary.p95_ms.toFixed(1)} ms`;
  $("mean-branches").textContent = `${summary.mean_branches.toFixed(1)} of ${frame.branches.length}`;
  $("dropped").textContent = `${summary.dropped_frames} · ${summary.fps.toFixed(0)} fps`;
}

// ---- the plots

function draw() {
  drawWanted = false;
  if (!history.length) return;
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const top = 1.1 * Math.max(...history.map((point) => Math.max(point.budget_ms, Math.min(point.latency_ms, 3 * point.budget_ms))));
  plot($("latency-plot"), top, colour, (line, x, y) => {
    line(history.map((point) => point.budget_ms), colour("deadline"), true);
    line(history.map((point) => point.latency_ms), colour("used"), false);
    return history.flatMap((point, number) => (point.deadline_met ? [] : [[x(number), y(Math.min(point.latency_ms, top))]]));
  });
  const most = Math.max(...history.map((point) => point.used), ($("branches").children.length || 2) - 1);
  plot($("branches-plot"), most + 0.4, colour, (line) => {
    line(history.map((point) => point.used), colour("used"), true);
    return [];
  });
  const shares = history.map((_, number) => {
    if (number < MISS_WINDOW - 1) return null; // one miss of the first frame would be 100 %
    const recent = history.slice(number - MISS_WINDOW + 1, number + 1);
    return (100 * recent.filter((point) => !point.deadline_met).length) / recent.length;
  });
  plot($("misses-plot"), Math.max(5, 1.15 * Math.max(...shares)), colour, (line) => {
    line(shares, colour("late"), false);
    return [];
  });
}

function plot(canvas, top, colour, content) {
  const ratio = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  const left = 34;
  const x = (number) => left + ((width - left - 2) * (number + KEPT - history.length)) / (KEPT - 1);
  const y = (value) => height - 4 - ((height - 10) * value) / top;

  context.font = "11px system-ui, sans-serif";
  context.textAlign = "right";
  context.textBaseline = "middle";
  const step = niceStep(top, 3);
  for (let value = 0; value <= top; value += step) {
    context.fillStyle = colour("quiet");
    context.fillText(+value.toFixed(2), left - 6, Math.min(y(value), height - 6));
    context.fillStyle = colour("line");
    context.fillRect(left, Math.round(y(value)), width - left, 1);
  }
  const line = (values, stroke, steps) => {
    context.strokeStyle = stroke;
    context.lineWidth = 1.75;
    context.lineJoin = "round";
    context.beginPath();
    const first = values.findIndex((value) => value !== null);
    values.forEach((value, number) => {
      if (value === null) return;
      const at = y(Math.min(value, top));
      if (number === first) context.moveTo(x(number), at);
      else {
        if (steps) context.lineTo(x(number), y(Math.min(values[number - 1], top)));
        context.lineTo(x(number), at);
      }
    });
    context.stroke();
  };
  context.fillStyle = colour("late");
  for (const [at, height_] of content(line, x, y)) {
    context.beginPath();
    context.arc(at, height_, 3, 0, 7);
    context.fill();
  }
}

// ---- what a person does

$("budget").oninput = () => {
  const budgetMs = fromSlider($("budget").value);
  settingTexts(budgetMs);
  send({ budget_ms: budgetMs });
};
for (const name of ["threads", "count"]) {
  $(name).oninput = () => {
    settingTexts(fromSlider($("budget").value));
    send({ [name]: Number($(name).value) });
  };
}
$("load").onchange = () => send({ load: $("load").checked });
$("freeze").onclick = () => {
  frozen = !frozen;
  $("freeze").setAttribute("aria-pressed", frozen);
};
$("controls").onsubmit = (event) => event.preventDefault();
addEventListener("resize", draw);
connect();
