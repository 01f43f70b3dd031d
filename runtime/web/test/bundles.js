// Bundles for tests, made in a moment: programs of a few bytes that no engine could run.
import { createHash } from "node:crypto";
import { crc32Of } from "../src/archive.js";
import { Bundle } from "../src/bundle.js";

export const LABELS = ["ant", "bee", "cat"];

/** @param {string} file @param {Uint8Array} bytes */
const entry = (file, bytes) => ({
  file,
  size_bytes: bytes.length,
  sha256: createHash("sha256").update(bytes).digest("hex"),
});

/** What `sha256sum manifest.json` writes. @param {string | Uint8Array} manifest */
export const hashLine = (manifest) => `${createHash("sha256").update(manifest).digest("hex")}  manifest.json\n`;

/** A stored zip. @param {Map<string, Uint8Array>} files @returns {Uint8Array<ArrayBuffer>} */
export function zipOf(files) {
  const bodies = [];
  const directory = [];
  let offset = 0;
  for (const [name, bytes] of files) {
    const common = Buffer.alloc(26); // the fields that both headers have
    common.writeUInt16LE(20, 0);
    common.writeUInt32LE(crc32Of(bytes), 10);
    common.writeUInt32LE(bytes.length, 14);
    common.writeUInt32LE(bytes.length, 18);
    common.writeUInt16LE(name.length, 22);
    const last = Buffer.alloc(14);
    last.writeUInt32LE(offset, 10);
    const body = Buffer.concat([Buffer.from("PK\x03\x04"), common, Buffer.from(name), bytes]);
    directory.push(Buffer.concat([Buffer.from("PK\x01\x02\x14\x00"), common, last, Buffer.from(name)]));
    bodies.push(body);
    offset += body.length;
  }
  const central = Buffer.concat(directory);
  const end = Buffer.alloc(22);
  end.write("PK\x05\x06");
  end.writeUInt16LE(files.size, 8);
  end.writeUInt16LE(files.size, 10);
  end.writeUInt32LE(central.length, 12);
  end.writeUInt32LE(offset, 16);
  return new Uint8Array(Buffer.concat([...bodies, central, end]));
}

/**
 * The files of a bundle of parts for the engine `fake`.
 * @param {{branches?: number, macs?: number[], delegate?: string, changes?: object}} [options] `delegate`: of the stem
 */
export function bundleFiles({ branches = 3, macs = [], delegate, changes = {} } = {}) {
  /** @type {Map<string, Uint8Array>} */ const files = new Map();
  const part = (/** @type {string} */ name, /** @type {number[]} */ input, /** @type {number[]} */ output) => {
    const bytes = Buffer.from(name);
    files.set(`${name}.fake`, bytes);
    return { ...entry(`${name}.fake`, bytes), input_shape: input, output_shape: output };
  };
  const stem = { ...part("stem", [1, 1, 4, 4], [1, 5, 4]), macs: 100, ...(delegate && { delegate }) };
  const branchEntries = Array.from({ length: branches }, (_, index) => ({
    ...part(`branch_0${index}`, [1, 5, 4], [1, LABELS.length]),
    macs: macs[index] ?? 100,
    index,
  }));
  const card = Buffer.from("{}");
  const manifest = {
    format: "paraedge-bundle/2",
    name: "fake",
    version: 1,
    engine: "fake",
    engine_min_version: { fake: "1.0" },
    target: "web",
    quantization: "fp32",
    input: { kind: "image", name: "image", shape: [1, 1, 4, 4], mean: [0.5], std: [0.25] },
    output: { kind: "labels", labels: LABELS },
    stem,
    branches: branchEntries,
    total_branches: 8,
    fused: null,
    stop_rules: branchEntries.map((_, place) => ({ temperature: 1.5, threshold: place < branches - 1 ? 0.9 : null })),
    card: entry("card.json", card),
    files: [],
    signature: null,
    ...changes,
  };
  const json = Buffer.from(JSON.stringify(manifest));
  return new Map([
    ["manifest.json", json],
    ["manifest.sha256", Buffer.from(hashLine(json))],
    ["card.json", card],
    ...files,
  ]);
}

/** @param {Parameters<typeof bundleFiles>[0]} [options] */
export const fakeBundle = (options) => Bundle.open(zipOf(bundleFiles(options)));
