// manifest.json: the strict reader. The rules are those of docs/bundle-format.md, of manifest.py and of manifest.cpp.
import { ManifestError } from "./errors.js";
import { parseJson } from "./json.js";

export const MANIFEST_NAME = "manifest.json";
export const MANIFEST_HASH_NAME = "manifest.sha256";
export const CARD_NAME = "card.json";
export const SIGNATURE_NAME = "manifest.json.minisig";
export const MAX_MANIFEST_BYTES = 2 ** 20; // of the card too
export const MAX_SIGNATURE_BYTES = 4096;
export const MAX_BUNDLE_BYTES = 2 ** 31; // of all files together

const FORMAT = "paraedge-bundle/2";
const FORMAT_PATTERN = /^paraedge-bundle\/([0-9]{1,6})$/;
const RECIPES = ["fp32", "fp16", "int8-dynamic", "int8-static", "int8-weight", "int4-weight"];
const MAX_COUNT = 2n ** 53n;
const MAX_ELEMENTS = 2 ** 28;
const MAX_DIMENSION = 2n ** 20n;
const NAME = /^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}$/;
const AXIS = /^[a-z][a-z0-9_]{0,31}$/;
const VERSION = /^[0-9]{1,6}(\.[0-9]{1,6}){0,3}$/;
const SHA256 = /^[0-9a-f]{64}$/;
const PLAIN_PATH = /^[A-Za-z0-9][A-Za-z0-9._+-]*(\/[A-Za-z0-9][A-Za-z0-9._+-]*)*$/;

/**
 * @typedef {import("./json.js").Json} Json
 * @typedef {{file: string, sizeBytes: number, sha256: string}} FileEntry
 * @typedef {FileEntry & {inputShape: number[], outputShape: number[], macs: number, delegate: string}} Part
 * @typedef {Part & {index: number}} Branch
 * @typedef {{kind: "image", name: string, shape: number[], resize: "stretch" | "crop", scale: number[],
 *   shift: number[]}} ImageInput
 *   uint8 (H, W, C) comes in, the stem reads `x * scale - shift` of shape (1, C, H, W)
 * @typedef {{kind: "tensor", name: string, shape: number[], axes: string[], normalizedAxis: string | null,
 *   rateHz: number | null, channelNames: string[] | null, scale: number[], shift: number[]}} TensorInput
 *   float32 of shape.slice(1) comes in, `rateHz` samples a second along the axis "time"
 * @typedef {ImageInput | TensorInput} InputSpec
 * @typedef {{temperature: number, threshold: number | null}} StopRule
 * @typedef {{name: string, version: number, engine: string, target: string, quantization: string, input: InputSpec,
 *   labels: string[], numOutputs: number, stem: Part, branches: Branch[], fused: FileEntry | null,
 *   stopRules: StopRule[] | null, card: FileEntry, files: FileEntry[], isSigned: boolean}} Manifest
 *   `labels` is empty where the output is a vector
 */

/** Relative, forward slashes, letters, digits and "._+-", at most 200; nothing climbs and nothing is hidden. @param {string} path */
export function isPlainPath(path) {
  return path.length <= 200 && PLAIN_PATH.test(path);
}

/** @param {string} field @param {string} problem @returns {never} */
function refuse(field, problem) {
  throw new ManifestError(`${MANIFEST_NAME}: field '${field}' ${problem}; export the bundle again`);
}

/** @param {unknown} fine @param {string} field @param {string} problem @returns {asserts fine} */
function require(fine, field, problem) {
  if (!fine) refuse(field, problem);
}

/** A JSON value and where it stands, for messages. */
class Value {
  /** @param {Json} json @param {string} field */
  constructor(json, field) {
    this.json = json;
    this.field = field;
  }

  get isNull() {
    return this.json === null;
  }

  /** @param {number} [longest] */
  text(longest = 4096) {
    const { json, field } = this;
    require(typeof json === "string", field, "is not a string");
    require([...json].length <= longest, field, `has more than ${longest} characters`);
    return json;
  }

  /** @param {RegExp} pattern @param {string} what */
  matching(pattern, what) {
    const text = this.text();
    require(pattern.test(text), this.field, `is ${JSON.stringify(text)}, not ${what}`);
    return text;
  }

  name() {
    return this.matching(NAME, "a name of letters, digits, '.', '_', '+' and '-'");
  }

  /** @param {bigint} least @param {bigint} most */
  integer(least, most) {
    const { json, field } = this;
    require(typeof json === "bigint", field, "is not a whole number");
    require(json >= least && json <= most, field, `is ${json}, not from ${least} to ${most}`);
    return Number(json);
  }

  number() {
    const { json, field } = this;
    require(typeof json === "number" || typeof json === "bigint", field, "is not a number");
    const number = Number(json);
    require(Number.isFinite(number), field, `is ${number}, which is out of range`);
    return number;
  }

  /** @param {number} [most] */
  above0(most = Number.MAX_VALUE) {
    const number = this.number();
    require(number > 0 && number <= most, this.field, `is ${number}, which is out of range`);
    return number;
  }

  /** @param {number} fewest @param {number} most */
  list(fewest, most) {
    const { json, field } = this;
    require(Array.isArray(json), field, "is not a list");
    require(json.length >= fewest && json.length <= most, field, `has ${json.length} items`);
    return json.map((item, position) => new Value(item, `${field}[${position}]`));
  }

  /** @returns {Map<string, Value>} */
  entries() {
    const { json, field } = this;
    require(json instanceof Map, field, "is not an object");
    return new Map([...json].map(([name, value]) => [name, new Value(value, field ? `${field}.${name}` : name)]));
  }

  /** The values of exactly these names. @template {string} N @param {N[]} names @returns {Record<N, Value>} */
  fields(...names) {
    const found = this.entries();
    for (const [name, value] of found) require(names.includes(/** @type {N} */ (name)), value.field, "is unknown");
    for (const name of names) require(found.has(name), this.field ? `${this.field}.${name}` : name, "is missing");
    return /** @type {Record<N, Value>} */ (Object.fromEntries(found));
  }

  /** @param {number} [fewest] @param {number} [most] */
  shape(fewest = 1, most = 6) {
    return this.list(fewest, most).map((item) => item.integer(1n, MAX_DIMENSION));
  }

  /** Of a tagged object, whose `kind` says which fields it has. */
  kind() {
    const kind = this.entries().get("kind");
    require(kind !== undefined, `${this.field}.kind`, "is missing");
    return kind.text();
  }
}

/** Every file once, none the folder of another, compared without case: some file systems do not tell A from a. */
class Files {
  /** @type {FileEntry[]} */ entries = [];
  #paths = new Set([MANIFEST_NAME, MANIFEST_HASH_NAME, SIGNATURE_NAME]);
  /** @type {Set<string>} */ #folders = new Set();
  #totalBytes = 0;

  /** @param {Value} value @returns {FileEntry} */
  read(value) {
    return this.add(value.fields("file", "size_bytes", "sha256"), value.field);
  }

  /** @param {{file: Value, size_bytes: Value, sha256: Value}} fields @param {string} field @returns {FileEntry} */
  add(fields, field) {
    const file = fields.file.text(200);
    const entry = {
      file,
      sizeBytes: fields.size_bytes.integer(0n, MAX_COUNT),
      sha256: fields.sha256.matching(SHA256, "a SHA-256"),
    };
    require(isPlainPath(file), `${field}.file`, `is ${JSON.stringify(file)}, not a plain path inside the bundle`);
    const path = file.toLowerCase();
    const above = [...path].flatMap((letter, end) => (letter === "/" ? [path.slice(0, end)] : []));
    const isFree =
      !this.#paths.has(path) && !this.#folders.has(path) && !above.some((folder) => this.#paths.has(folder));
    require(isFree, `${field}.file`, `is '${file}', which another entry uses too`);
    this.#paths.add(path);
    for (const folder of above) this.#folders.add(folder);
    this.#totalBytes += entry.sizeBytes;
    require(this.#totalBytes <= MAX_BUNDLE_BYTES, "size_bytes", `adds up to more than ${MAX_BUNDLE_BYTES}`);
    this.entries.push(entry);
    return entry;
  }
}

/**
 * Parse and check `manifest.json`.
 *
 * @param {Uint8Array} bytes
 * @returns {{manifest: Manifest, files: FileEntry[]}} and everything that lies beside it, its hash and its signature
 * @throws {ManifestError} the message names the field
 */
export function parseManifest(bytes) {
  if (bytes.byteLength > MAX_MANIFEST_BYTES) {
    throw new ManifestError(
      `${MANIFEST_NAME} has ${bytes.byteLength} bytes, more than the ${MAX_MANIFEST_BYTES} allowed`,
    );
  }
  /** @type {Json} */ let document;
  try {
    document = parseJson(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch (error) {
    throw new ManifestError(`${MANIFEST_NAME} is not JSON: ${messageOf(error)}; export the bundle again`, {
      cause: error,
    });
  }
  checkFormat(document);
  return readManifest(new Value(document, ""));
}

/** @param {unknown} error */
export function messageOf(error) {
  return error instanceof Error ? error.message : String(error);
}

/** Another age of the format is told apart before its fields are read. @param {Json} document */
function checkFormat(document) {
  const format = document instanceof Map ? document.get("format") : undefined;
  require(typeof format === "string", "format", "is missing");
  const number = Number(FORMAT_PATTERN.exec(format)?.[1] ?? Number.NaN);
  const problem = `${MANIFEST_NAME}: field 'format' is ${JSON.stringify(format)}`;
  if (number > 2) throw new ManifestError(`${problem}, newer than '${FORMAT}'; update paraedge-web`);
  if (number < 2) throw new ManifestError(`${problem}, older than '${FORMAT}'; export the bundle again`);
  require(format === FORMAT, "format", `is ${JSON.stringify(format)}, not '${FORMAT}'`);
}

/** @param {Value} root */
function readManifest(root) {
  const f = root.fields(
    "format",
    "name",
    "version",
    "engine",
    "engine_min_version",
    "target",
    "quantization",
    "input",
    "output",
    "stem",
    "branches",
    "total_branches",
    "fused",
    "stop_rules",
    "card",
    "files",
    "signature",
  );
  const versions = f.engine_min_version.entries();
  require(versions.size > 0, "engine_min_version", "is empty");
  for (const version of versions.values()) version.matching(VERSION, "a version");
  const files = new Files();
  const { labels, numOutputs } = readOutput(f.output);
  /** @type {Manifest} */
  const manifest = {
    name: f.name.name(),
    version: f.version.integer(1n, MAX_COUNT),
    engine: f.engine.name(),
    target: f.target.name(),
    quantization: readQuantization(f.quantization),
    input: readInput(f.input),
    labels,
    numOutputs,
    stem: readPart(partFields(f.stem), "stem", files),
    branches: f.branches.list(1, 1000).map((value) => readBranch(value, files)),
    fused: f.fused.isNull ? null : files.read(f.fused),
    stopRules: null,
    card: files.read(f.card),
    files: f.files.list(0, 1000).map((value) => files.read(value)),
    isSigned: !f.signature.isNull,
  };
  checkParts(manifest, f.total_branches.integer(1n, 10_000n));
  require(manifest.card.file === CARD_NAME, "card.file", `is '${manifest.card.file}', not '${CARD_NAME}'`);
  require(manifest.card.sizeBytes <= MAX_MANIFEST_BYTES, "card.size_bytes", `is more than ${MAX_MANIFEST_BYTES}`);
  if (!f.stop_rules.isNull) manifest.stopRules = readStopRules(f.stop_rules, manifest);
  if (manifest.isSigned) {
    const signature = f.signature.fields("algorithm", "file");
    require(signature.algorithm.text() === "ed25519", "signature.algorithm", "is not 'ed25519'");
    require(signature.file.text() === SIGNATURE_NAME, "signature.file", `is not '${SIGNATURE_NAME}'`);
  }
  return { manifest, files: files.entries };
}

/** @param {Value} value @returns {InputSpec} */
function readInput(value) {
  const kind = value.kind();
  require(kind === "image" ||
    kind === "tensor", `${value.field}.kind`, `is ${JSON.stringify(kind)}, not 'image' or 'tensor'`);
  if (kind === "image") {
    const given = value.entries().get("resize"); // bundles of before there was one stretch
    const f = value.fields(
      "kind",
      "name",
      "shape",
      "mean",
      "std",
      .../** @type {"resize"[]} */ (given ? ["resize"] : []),
    );
    const shape = f.shape.shape(4, 4);
    const resize = given ? given.text() : "stretch";
    require(resize === "stretch" ||
      resize === "crop", `${value.field}.resize`, `is '${resize}', not 'stretch' or 'crop'`);
    const normalisation = readNormalisation(f.mean, f.std, shape[1], 255);
    return { kind, name: f.name.name(), shape: batchOfOne(shape), resize, ...normalisation };
  }
  const given = value.entries();
  const optional = /** @type {("rate_hz" | "channel_names")[]} */ (["rate_hz", "channel_names"]).filter((name) =>
    given.has(name),
  );
  const f = value.fields("kind", "name", "shape", "axes", "normalized_axis", "mean", "std", ...optional);
  const shape = batchOfOne(f.shape.shape(2, 6));
  const axes = f.axes.list(0, 6).map((axis) => axis.matching(AXIS, "a name of small letters, digits and '_'"));
  require(new Set(axes).size === axes.length, f.axes.field, "has a name twice");
  require(axes.length === shape.length - 1, f.axes.field, `has ${axes.length} names for ${shape.length - 1} axes`);
  const normalizedAxis = f.normalized_axis.isNull ? null : f.normalized_axis.text();
  require(normalizedAxis === null || axes.includes(normalizedAxis), f.normalized_axis.field, "is not one of the axes");
  const count = normalizedAxis === null ? 1 : shape[axes.indexOf(normalizedAxis) + 1];
  return {
    kind,
    name: f.name.name(),
    shape,
    axes,
    normalizedAxis,
    rateHz: readRate(f.rate_hz, axes),
    channelNames: readChannelNames(f.channel_names, axes.includes("channel") ? shape[axes.indexOf("channel") + 1] : 0),
    ...readNormalisation(f.mean, f.std, count, 1),
  };
}

/** @param {Value | undefined} value @param {string[]} axes */
function readRate(value, axes) {
  if (value === undefined || value.isNull) return null;
  const rateHz = value.above0(1e6);
  require(axes.includes("time"), value.field, "needs an axis 'time'");
  return rateHz;
}

/** @param {Value | undefined} value @param {number} count positions along the axis "channel" */
function readChannelNames(value, count) {
  if (value === undefined || value.isNull) return null;
  const names = value.list(0, MAX_MANIFEST_BYTES).map((name) => name.name());
  require(names.length === count, value.field, `has ${names.length} names, the axis 'channel' has ${count}`);
  require(new Set(names).size === names.length, value.field, "has a name twice");
  return names;
}

/** @param {number[]} shape */
function batchOfOne(shape) {
  require(shape[0] === 1, "input.shape", `is (${shape}), its first dimension must be 1`);
  return shape;
}

/** (x / range - mean) / std as x * scale - shift, each rounded to float32 once. @param {Value} mean @param {Value} std @param {number} count @param {number} range */
function readNormalisation(mean, std, count, range) {
  const [means, stds] = [mean, std].map((values) => {
    const numbers = values.list(0, MAX_MANIFEST_BYTES).map((item) => item.number());
    require(numbers.length === count, values.field, `has ${numbers.length} values, not ${count}`);
    return numbers;
  });
  require(stds.every((value) => value > 0), std.field, "is not above 0");
  const scale = stds.map((value) => Math.fround(1 / (range * value)));
  const shift = means.map((value, place) => Math.fround(value / stds[place]));
  require(scale.every(Number.isFinite), std.field, "is too small for float32");
  require(shift.every(Number.isFinite), mean.field, "is too large beside std for float32");
  return { scale, shift };
}

/** It decides how near to torch `paraedge verify` wants the bundle. @param {Value} value */
function readQuantization(value) {
  const name = value.name();
  const isKnown = RECIPES.some((recipe) => name === recipe || (name === `${recipe}+fp32-stem` && recipe !== "fp32"));
  if (!isKnown) {
    throw new ManifestError(
      `${MANIFEST_NAME}: field '${value.field}' is '${name}', not one of ${RECIPES.join(", ")} (all but fp32 also with ` +
        "+fp32-stem); update paraedge-web, or export the bundle again",
    );
  }
  return name;
}

/** @param {Value} value */
function readOutput(value) {
  const kind = value.kind();
  require(kind === "labels" ||
    kind === "vector", `${value.field}.kind`, `is ${JSON.stringify(kind)}, not 'labels' or 'vector'`);
  if (kind === "labels") {
    /** @type {Map<string, string>} */ const first = new Map(); // field by label
    for (const label of value.fields("kind", "labels").labels.list(1, 100_000)) {
      const text = label.text();
      require(text !== "", label.field, "is empty");
      require(!first.has(text), label.field, `is the same as ${first.get(text)}`);
      first.set(text, label.field);
    }
    return { labels: [...first.keys()], numOutputs: first.size };
  }
  const f = value.fields("kind", "name", "size");
  f.name.name();
  return { labels: [], numOutputs: f.size.integer(1n, MAX_DIMENSION) };
}

/** @typedef {Record<"file" | "size_bytes" | "sha256" | "input_shape" | "output_shape" | "macs" | "index" | "delegate", Value>} PartFields */

/** @param {Value} value @param {"index"[]} more @returns {PartFields} */
function partFields(value, ...more) {
  const optional = /** @type {"delegate"[]} */ (["delegate"]).filter((name) => value.entries().has(name));
  return value.fields("file", "size_bytes", "sha256", "input_shape", "output_shape", "macs", ...more, ...optional);
}

/** @param {PartFields} f @param {string} field @param {Files} files @returns {Part} */
function readPart(f, field, files) {
  const [inputShape, outputShape] = [f.input_shape, f.output_shape].map((value) => {
    const shape = value.shape();
    require(shape.reduce((a, b) => a * b) <= MAX_ELEMENTS, value.field, `has more than ${MAX_ELEMENTS} elements`);
    return shape;
  });
  const delegate = f.delegate && !f.delegate.isNull ? f.delegate.name() : "";
  return { ...files.add(f, field), inputShape, outputShape, macs: f.macs.integer(0n, MAX_COUNT), delegate };
}

/** @param {Value} value @param {Files} files @returns {Branch} */
function readBranch(value, files) {
  const f = partFields(value, "index");
  return { ...readPart(f, value.field, files), index: f.index.integer(0n, 9999n) };
}

/** @param {number[]} a @param {number[]} b */
const same = (a, b) => a.length === b.length && a.every((value, place) => value === b[place]);

/** @param {Manifest} manifest @param {number} totalBranches */
function checkParts({ stem, branches, input, numOutputs }, totalBranches) {
  require(same(
    stem.inputShape,
    input.shape,
  ), "stem.input_shape", `is (${stem.inputShape}), input.shape is (${input.shape})`);
  let previous = -1;
  for (const [position, branch] of branches.entries()) {
    const field = `branches[${position}]`;
    require(branch.index > previous, `${field}.index`, `is ${branch.index} after ${previous}: duplicate or unordered`);
    require(branch.index < totalBranches, `${field}.index`, `is ${branch.index}, total_branches is ${totalBranches}`);
    require(same(
      branch.inputShape,
      stem.outputShape,
    ), `${field}.input_shape`, `is (${branch.inputShape}), the stem makes (${stem.outputShape})`);
    require(same(branch.outputShape, [
      1,
      numOutputs,
    ]), `${field}.output_shape`, `is (${branch.outputShape}), ${numOutputs} outputs need (1,${numOutputs})`);
    previous = branch.index;
  }
}

/** One for each prefix of branches. @param {Value} value @param {Manifest} manifest @returns {StopRule[]} */
function readStopRules(value, { labels, branches }) {
  require(labels.length > 0, value.field, "is not null, but the output is a vector");
  const rules = value.list(0, MAX_MANIFEST_BYTES).map((prefix) => {
    const f = prefix.fields("temperature", "threshold");
    return { temperature: f.temperature.above0(), threshold: f.threshold.isNull ? null : f.threshold.above0(1) };
  });
  require(rules.length === branches.length, value.field, `has ${rules.length} values for ${branches.length} branches`);
  require(rules[rules.length - 1].threshold === null, value.field, "has a threshold for all branches, not null");
  return rules;
}
