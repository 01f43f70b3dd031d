// A bundle: one stored zip (its address, a Blob, bytes), or the address of a folder. Every file is checked before it is used.
import { BundleError, IntegrityError, ManifestError } from "./errors.js";
import {
  MANIFEST_HASH_NAME,
  MANIFEST_NAME,
  MAX_BUNDLE_BYTES,
  MAX_MANIFEST_BYTES,
  MAX_SIGNATURE_BYTES,
  messageOf,
  parseManifest,
  SIGNATURE_NAME,
} from "./manifest.js";
import { parseNpy } from "./npy.js";
import { absolute, checkedOptions, shown } from "./options.js";

const STALL_MS = 60_000; // a download that brings nothing for so long has ended
const HASH_LINE = /^([0-9a-f]{64}) {2}manifest\.json\n$/; // without the flag m, $ is the end of all
const HASH_LINE_BYTES = 80;
const MAX_ZIP_BYTES = MAX_BUNDLE_BYTES + 2 ** 22; // headers of 4096 entries need less

/**
 * @typedef {import("./manifest.js").FileEntry} FileEntry
 * @typedef {import("./signature.js").PublicKey} PublicKey
 * @typedef {string | URL | Blob | ArrayBuffer | Uint8Array<ArrayBuffer>} BundleSource
 */

export class Bundle {
  /** @type {(entry: FileEntry) => Promise<Uint8Array<ArrayBuffer>>} */ #read;

  /**
   * Use `Bundle.open`.
   *
   * @param {import("./manifest.js").Manifest} manifest
   * @param {(entry: FileEntry) => Promise<Uint8Array<ArrayBuffer>>} read the bytes of a file, not hashed yet
   * @param {string | null} signedBy name of the trusted key that signed it; null when no trusted key was named
   * @param {string} hash SHA-256 of `manifest.json`, which holds those of all other files
   */
  constructor(manifest, read, signedBy, hash) {
    this.manifest = manifest;
    this.sha256 = hash;
    this.signedBy = signedBy;
    this.#read = read;
  }

  /**
   * Read and check a bundle.
   *
   * All of a zip is checked here. The files of a folder are fetched and checked one by one, when they are read: so the
   * first branch can run while the others are on their way.
   *
   * @param {BundleSource} source an address that ends with `.zip` is a zip's, another one a folder's
   * @param {{trustedKeys?: string | readonly string[]}} [options] `trustedKeys`: open it only if one of these public
   *   keys (56 letters each) signed it; whoever made it is trusted when it is left out
   * @returns {Promise<Bundle>}
   * @throws {BundleError} it cannot be fetched, or cannot be trusted
   * @throws {import("./errors.js").InputError} a trusted key is none
   * @throws {import("./errors.js").EngineUnavailable} this browser cannot check signatures
   */
  static async open(source, options = {}) {
    const { trustedKeys } = checkedOptions(options, ["trustedKeys"]);
    const keys = trustedKeys === undefined ? [] : (await signatures()).readTrustedKeys(trustedKeys);
    requireHashes();
    if (source instanceof Uint8Array) return openZip("the zip", source, keys);
    if (source instanceof ArrayBuffer) return openZip("the zip", new Uint8Array(source), keys);
    if (source instanceof Blob) return openZip("the zip", await bytesOf(source), keys);
    const url = addressOf(source);
    if (url.pathname.endsWith(".zip")) return openZip(url.href, await fetched(url, MAX_ZIP_BYTES), keys);
    if (!url.pathname.endsWith("/")) url.pathname += "/";
    return openFolder(url, keys);
  }

  /**
   * The bytes of a file of the bundle, of the size and hash that the manifest says.
   *
   * @param {FileEntry} entry
   * @returns {Promise<Uint8Array<ArrayBuffer>>}
   * @throws {BundleError} it is missing, damaged, or cannot be fetched
   */
  async read(entry) {
    const bytes = await this.#read(entry);
    if (bytes.byteLength !== entry.sizeBytes) {
      throw new IntegrityError(
        `${entry.file} has ${bytes.byteLength} bytes, ${MANIFEST_NAME} says ${entry.sizeBytes}; copy it again`,
      );
    }
    const digest = await sha256(bytes);
    if (digest !== entry.sha256) {
      throw new IntegrityError(
        `${entry.file} has SHA-256 ${digest.slice(0, 12)}…, ${MANIFEST_NAME} says ${entry.sha256.slice(0, 12)}…; ` +
          "it was damaged or changed, copy it again",
      );
    }
    return bytes;
  }

  /**
   * The golden data that `paraedge verify` uses.
   *
   * @returns {Promise<{inputs: import("./npy.js").NpyArray, branchOutputs: import("./npy.js").NpyArray, labels: number[] | null}>}
   *   inputs (n, H, W, C) uint8 or (n, ...) float32, branchOutputs (n, k, C) float32
   * @throws {BundleError} the card or the data is damaged
   */
  async golden() {
    const golden = goldenOf(await this.read(this.manifest.card));
    const [inputs, branchOutputs] = await Promise.all(
      /** @type {const} */ (["inputs", "outputs"]).map(async (field) => {
        const entry = this.manifest.files.find(({ file }) => file === golden[field]);
        if (!entry)
          throw new IntegrityError(`card.json: field 'golden.${field}' names no file of the bundle; export it again`);
        return parseNpy(await this.read(entry), entry.file);
      }),
    );
    return { inputs, branchOutputs, labels: golden.labels };
  }
}

/**
 * What `card.json` says of the golden data.
 *
 * @param {Uint8Array} bytes
 * @returns {{inputs: unknown, outputs: unknown, labels: number[] | null}}
 */
function goldenOf(bytes) {
  /** @type {any} */ let golden;
  try {
    golden = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes))?.golden;
  } catch (error) {
    throw new ManifestError(`card.json: ${messageOf(error)}; export the bundle again`, { cause: error });
  }
  const { inputs, outputs, labels = null } = golden ?? {};
  if (labels !== null && !(Array.isArray(labels) && labels.every((label) => Number.isSafeInteger(label) && label >= 0)))
    throw new ManifestError("card.json: field 'golden.labels' has no class indices; export the bundle again");
  return { inputs, outputs, labels };
}

/** Fetched when a key is trusted: few pages have one. */
const signatures = () => import("./signature.js");

/** Hashes need a secure context: https, or localhost. */
function requireHashes() {
  if (!globalThis.crypto?.subtle) {
    throw new BundleError(
      "a bundle cannot be checked here: this page is not a secure context; serve it by https, or from localhost",
    );
  }
}

/** @param {string | URL} source */
function addressOf(source) {
  try {
    if (typeof source !== "string" && !(source instanceof URL)) throw new TypeError(`it is ${typeof source}`);
    const url = absolute(source, "source");
    new URL(MANIFEST_NAME, url); // there are no files below blob: and data:
    return url;
  } catch (error) {
    throw new BundleError(
      `${shown(source)} is not a bundle's address; give that of a folder or of a .zip file, or pass a Blob or bytes`,
      { cause: error },
    );
  }
}

/** @param {Blob} blob */
async function bytesOf(blob) {
  if (blob.size > MAX_ZIP_BYTES) throw tooLong("the zip", MAX_ZIP_BYTES);
  try {
    return new Uint8Array(await blob.arrayBuffer());
  } catch (error) {
    // A file that was changed or removed since it was chosen, or no memory.
    throw new BundleError(`the zip cannot be read: ${messageOf(error)}; choose it again`, { cause: error });
  }
}

/** @param {string} where @param {number} most */
const tooLong = (where, most) => new IntegrityError(`${where} has more than the ${most} bytes expected; copy it again`);

/** @param {string} where @param {Uint8Array<ArrayBuffer>} zip @param {PublicKey[]} keys */
async function openZip(where, zip, keys) {
  const { readArchive, unhashed } = await import("./archive.js"); // most pages open folders
  const found = readArchive(where, zip);
  const json = found.get(MANIFEST_NAME);
  if (!json) throw new IntegrityError(`${where} has no ${MANIFEST_NAME}; it is not a bundle, or was copied in part`);
  unhashed(where, MANIFEST_NAME, json, MAX_MANIFEST_BYTES);
  const hash = found.get(MANIFEST_HASH_NAME) ?? noHash(where);
  unhashed(where, MANIFEST_HASH_NAME, hash, HASH_LINE_BYTES);
  const digest = await checkManifestHash(where, json.bytes, hash.bytes);
  const signature = found.get(SIGNATURE_NAME);
  if (signature) unhashed(where, SIGNATURE_NAME, signature, MAX_SIGNATURE_BYTES);
  // Before anything of it is parsed.
  const signedBy = await signerOf(where, json.bytes, signature?.bytes ?? new Uint8Array(), keys);
  const { manifest, files } = parseManifest(json.bytes);
  const listed = new Set([
    MANIFEST_NAME,
    MANIFEST_HASH_NAME,
    ...files.map(({ file }) => file),
    ...(manifest.isSigned ? [SIGNATURE_NAME] : []),
  ]);
  for (const name of listed)
    if (!found.has(name)) throw new IntegrityError(`${where}: ${name} is missing; copy the whole bundle again`);
  for (const name of found.keys()) {
    if (!listed.has(name)) throw new IntegrityError(`${where}: ${name} is not listed in ${MANIFEST_NAME}; remove it`);
  }
  const bundle = new Bundle(
    manifest,
    async ({ file }) => /** @type {import("./archive.js").ArchiveEntry} */ (found.get(file)).bytes,
    signedBy,
    digest,
  );
  for (const entry of files) await bundle.read(entry);
  return bundle;
}

/** @param {string} where @returns {never} */
function noHash(where) {
  throw new IntegrityError(
    `${where}: ${MANIFEST_HASH_NAME} is missing; copy all of it again, or export the bundle again`,
  );
}

/**
 * The hash of a manifest, not parsed yet, which is what `manifest.sha256` says, as sha256sum writes it.
 *
 * @param {string} where @param {Uint8Array<ArrayBuffer>} manifest @param {Uint8Array} line
 * @returns {Promise<string>}
 */
async function checkManifestHash(where, manifest, line) {
  const wanted = HASH_LINE.exec(new TextDecoder("latin1").decode(line))?.[1];
  if (wanted === undefined) {
    throw new IntegrityError(
      `${where}: ${MANIFEST_HASH_NAME} is not the line that 'sha256sum ${MANIFEST_NAME}' writes; copy it again`,
    );
  }
  const digest = await sha256(manifest);
  if (digest !== wanted) {
    throw new IntegrityError(
      `${where}: ${MANIFEST_NAME} has SHA-256 ${digest.slice(0, 12)}…, ${MANIFEST_HASH_NAME} says ` +
        `${wanted.slice(0, 12)}…; it was damaged or changed, copy it again`,
    );
  }
  return digest;
}

/** @param {string} where @param {Uint8Array<ArrayBuffer>} json @param {Uint8Array<ArrayBuffer>} signature @param {PublicKey[]} keys */
const signerOf = async (where, json, signature, keys) =>
  keys.length ? (await signatures()).checkSignature(where, json, signature, keys) : null;

/** @param {URL} url @param {PublicKey[]} keys */
async function openFolder(url, keys) {
  const [json, hash, signature] = await Promise.all([
    fetched(new URL(MANIFEST_NAME, url), MAX_MANIFEST_BYTES),
    fetched(new URL(MANIFEST_HASH_NAME, url), HASH_LINE_BYTES, [404]),
    keys.length ? fetched(new URL(SIGNATURE_NAME, url), MAX_SIGNATURE_BYTES, [404]) : new Uint8Array(),
  ]);
  if (hash.byteLength === 0) noHash(url.href);
  const digest = await checkManifestHash(url.href, json, hash);
  const signedBy = await signerOf(url.href, json, signature, keys);
  const { manifest } = parseManifest(json);
  if (signedBy && !manifest.isSigned)
    throw new IntegrityError(`${url.href}: ${SIGNATURE_NAME} is not listed in ${MANIFEST_NAME}; remove it`);
  return new Bundle(manifest, (entry) => fetched(new URL(entry.file, url), entry.sizeBytes), signedBy, digest);
}

/**
 * @param {URL} url @param {number} most bytes; one that says more, or sends more, is given up
 * @param {number[]} nothing statuses that say that there is no such file: no bytes
 * @returns {Promise<Uint8Array<ArrayBuffer>>}
 */
async function fetched(url, most, nothing = []) {
  const stop = new AbortController();
  let timer = setTimeout(() => stop.abort(), STALL_MS);
  /** @type {Uint8Array<ArrayBuffer>[]} */ const chunks = [];
  let size = 0;
  try {
    const response = await fetch(url, { signal: stop.signal });
    if (nothing.includes(response.status)) return new Uint8Array();
    if (!response.ok)
      throw new BundleError(`${url} cannot be fetched: the server says ${response.status}; check the address`);
    const reader = /** @type {ReadableStream<Uint8Array<ArrayBuffer>>} */ (response.body).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      clearTimeout(timer);
      timer = setTimeout(() => stop.abort(), STALL_MS);
      size += value.byteLength;
      if (size === value.byteLength && isPage(response, value))
        throw new BundleError(`${url} cannot be fetched: the server sends a web page in its place; check the address`);
      if (size > most) throw tooLong(url.href, most);
      chunks.push(value);
    }
  } catch (error) {
    stop.abort();
    if (error instanceof BundleError) throw error;
    const problem =
      stop.signal.aborted && messageOf(error).includes("abort")
        ? `nothing came for ${STALL_MS / 1000} s`
        : messageOf(error);
    throw new BundleError(`${url} cannot be fetched: ${problem}; check the address and the connection`, {
      cause: error,
    });
  } finally {
    clearTimeout(timer);
  }
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.byteLength;
  }
  return bytes;
}

/** Some servers answer with their start page and status 200 where there is no file. @param {Response} response @param {Uint8Array} start */
const isPage = ({ headers }, [letter]) => letter === 0x3c && headers.get("content-type")?.startsWith("text/html");

/** @param {Uint8Array<ArrayBuffer>} bytes */
async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
