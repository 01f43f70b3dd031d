// Who signed a manifest: minisign's signature files, checked against trusted keys. It takes and refuses what signature.py does.
import { EngineUnavailable, InputError, IntegrityError } from "./errors.js";
import { MANIFEST_NAME, SIGNATURE_NAME } from "./manifest.js";
import { blake2b } from "./vendor/blake2b.js";

const MAX_KEYS = 100;
const KEY = /^RW[A-Za-z0-9+/]{54}$/;
// Bytes as characters of latin-1; no control characters but tabs.
const BLOCK =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are refused
  /untrusted comment: [^\x00-\x08\x0a-\x1f\x7f]*\n([A-Za-z0-9+/]{99}=)\ntrusted comment: ([^\x00-\x08\x0a-\x1f\x7f]*)\n([A-Za-z0-9+/]{86}==)\n/y;
const EXPIRES = "expires:";
const SECONDS = /^[0-9]{1,12}$/;

/**
 * @typedef {Uint8Array<ArrayBuffer>} Bytes
 * @typedef {{name: string, key: Bytes}} PublicKey `name` is the id as minisign prints it
 * @typedef {{name: string, signature: Bytes, comment: string, globalSignature: Bytes, expiresS: number | null}} Block
 *   what one signer wrote; `comment` is the trusted one
 */

/**
 * @param {unknown} given a public key (56 letters), or several
 * @returns {PublicKey[]} at least one
 * @throws {InputError} one is malformed, or none is there
 */
export function readTrustedKeys(given) {
  const texts = Array.isArray(given) ? given : [given];
  if (!texts.length) throw new InputError("no trusted key is named; name a public key");
  if (texts.length > MAX_KEYS) throw new InputError(`there are more than ${MAX_KEYS} trusted keys`);
  return texts.map((text) => {
    const data = typeof text === "string" && KEY.test(text) ? latin1(atob(text)) : new Uint8Array();
    if (data[0] !== 0x45 || data[1] !== 0x64)
      throw new InputError(
        `${JSON.stringify(text)} is not a public key; give its 56 letters (make one with 'paraedge keygen' or minisign)`,
      );
    return { name: nameOf(data.subarray(2, 10)), key: data.slice(10) };
  });
}

/**
 * Check that a trusted key signed a manifest, and that every signature of a trusted key is right.
 *
 * @param {string} where for messages
 * @param {Bytes} manifest the bytes of `manifest.json`
 * @param {Bytes} signature those of `manifest.json.minisig`; empty if there is no such file
 * @param {PublicKey[]} keys
 * @returns {Promise<string>} name of the key that signed it; the first if there are several
 * @throws {IntegrityError} it is not signed, by no trusted key, not any more, or was changed since
 * @throws {EngineUnavailable} this browser cannot check Ed25519
 */
export async function checkSignature(where, manifest, signature, keys) {
  const trustedNames = keys.map(({ name }) => name).join(", ");
  if (!signature.length)
    throw new IntegrityError(
      `${where} is not signed, and trusted keys are set (${trustedNames}); sign it with 'paraedge sign'`,
    );
  const digest = new Uint8Array(blake2b(manifest));
  const blocks = readBlocks(where, signature);
  let [signer, expired] = ["", ""];
  for (const block of blocks) {
    const named = keys.filter(({ name }) => name === block.name);
    if (!named.length) continue;
    const fits = await Promise.all(named.map(({ key }) => fitsKey(block, digest, key)));
    if (!fits.includes(true))
      throw new IntegrityError(
        `${where}: the signature of key ${block.name} does not match ${MANIFEST_NAME}; one of the two was changed, copy the bundle again`,
      );
    if (block.expiresS !== null && block.expiresS <= Date.now() / 1000)
      expired = `${where}: the signature of key ${block.name} ended on ${dateOf(block.expiresS)}`;
    else signer ||= block.name;
  }
  if (signer) return signer;
  if (expired) throw new IntegrityError(`${expired}; take a newer bundle, or sign this one again`);
  const signers = blocks.map(({ name }) => name).join(", ");
  throw new IntegrityError(
    `${where} is signed by ${signers}, which is not among the trusted keys (${trustedNames}); sign it with one of them, or trust that key`,
  );
}

/** @param {string} where @param {Bytes} data @returns {Block[]} */
function readBlocks(where, data) {
  const text = textOf(data);
  const problem = () =>
    new IntegrityError(
      `${where}: ${SIGNATURE_NAME} is damaged or not in minisign's format; sign the bundle again with 'paraedge sign'`,
    );
  /** @type {Block[]} */ const blocks = [];
  for (BLOCK.lastIndex = 0; BLOCK.lastIndex < text.length; ) {
    const found = BLOCK.exec(text);
    if (!found) throw problem();
    const [first, second] = [decoded(found[1]), decoded(found[3])];
    if (!first || !second || first[0] !== 0x45 || first[1] !== 0x44) throw problem(); // "ED": prehashed
    const expiries = found[2].split("\t").flatMap((field) => (field.startsWith(EXPIRES) ? [field.slice(8)] : []));
    if (expiries.length > 1 || !expiries.every((expiry) => SECONDS.test(expiry))) throw problem();
    blocks.push({
      name: nameOf(first.subarray(2, 10)),
      signature: first.slice(10),
      comment: found[2],
      globalSignature: second,
      expiresS: expiries.length ? Number(expiries[0]) : null,
    });
  }
  return blocks;
}

/** Whether the key signed the manifest, and the signature with its comment. @param {Block} block @param {Bytes} digest @param {Bytes} key */
async function fitsKey({ signature, comment, globalSignature }, digest, key) {
  const signed = latin1(textOf(signature) + comment);
  return (await checkEd25519(signature, key, digest)) && checkEd25519(globalSignature, key, signed);
}

/** @param {Bytes} signature @param {Bytes} key @param {Bytes} message */
async function checkEd25519(signature, key, message) {
  const algorithm = { name: "Ed25519" };
  try {
    const imported = await crypto.subtle.importKey("raw", key, algorithm, false, ["verify"]);
    return await crypto.subtle.verify(algorithm, imported, signature, message);
  } catch (error) {
    if (/** @type {Error} */ (error).name !== "NotSupportedError") return false; // 32 bytes that are no key
    throw new EngineUnavailable(
      "this browser cannot check signatures (Ed25519), so nothing is opened with trusted keys; update it: Chrome 137, Firefox 129, Safari 17",
      { cause: error },
    );
  }
}

/** Base64 in its one right spelling; null for anything else. @param {string} text */
function decoded(text) {
  const data = atob(text);
  return btoa(data) === text ? latin1(data) : null;
}

/** @param {string} text */
const latin1 = (text) => Uint8Array.from(text, (letter) => letter.charCodeAt(0));

/** @param {Uint8Array} bytes at most 4096 */
const textOf = (bytes) => String.fromCharCode(...bytes);

/** A key's id as minisign prints it. @param {Uint8Array} id */
const nameOf = (id) =>
  Array.from(id, (byte) => byte.toString(16).padStart(2, "0").toUpperCase())
    .reverse()
    .join("");

/** @param {number} seconds of at most twelve digits */
const dateOf = (seconds) => new Date(1000 * seconds).toISOString().slice(0, 10);
