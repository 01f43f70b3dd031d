// JSON as strictly as the other readers have it: no name twice, and whole numbers told from others.
// JSON.parse takes the last of two names, and 2.0 for 2.

const MAX_DEPTH = 64; // a manifest has five levels
const NUMBER = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/y;
// biome-ignore lint/suspicious/noControlCharactersInRegex: JSON refuses them
const TEXT = /"((?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*)"/y;
const SPACE = /[ \t\n\r]*/y;
const MOST_DIGITS = 20; // a whole number of more is above every limit

/**
 * @typedef {null | boolean | bigint | number | string | JsonList | JsonObject} Json
 * @typedef {Json[]} JsonList
 * @typedef {Map<string, Json>} JsonObject
 */

/**
 * Parse a document. Objects are Maps; whole numbers, written without point and exponent, are bigints.
 *
 * @param {string} text
 * @returns {Json}
 * @throws {SyntaxError} it is not JSON, a name is there twice, or it is nested too deeply
 */
export function parseJson(text) {
  let at = 0;

  /** @param {string} problem @returns {never} */
  const refuse = (problem) => {
    throw new SyntaxError(`${problem} at character ${at}`);
  };

  /** @param {RegExp} pattern */
  const match = (pattern) => {
    pattern.lastIndex = at;
    const found = pattern.exec(text);
    if (found) at = pattern.lastIndex;
    return found;
  };

  /** @param {string} letter */
  const takes = (letter) => {
    match(SPACE);
    if (text[at] !== letter) return false;
    at += 1;
    return true;
  };

  const string = () => {
    match(SPACE);
    const found = match(TEXT) ?? refuse("malformed string");
    const value = found[1].includes("\\") ? /** @type {string} */ (JSON.parse(found[0])) : found[1];
    // A lone surrogate is no character.
    if (/\p{Surrogate}/u.test(value)) refuse("malformed string, half of a character");
    return value;
  };

  /** @param {number} depth @returns {Json} */
  const value = (depth) => {
    if (depth > MAX_DEPTH) refuse("too many levels");
    match(SPACE);
    const letter = text[at];
    if (letter === "{") return object(depth);
    if (letter === "[") return list(depth);
    if (letter === '"') return string();
    for (const [word, meaning] of /** @type {[string, Json][]} */ ([
      ["null", null],
      ["true", true],
      ["false", false],
    ])) {
      if (text.startsWith(word, at)) {
        at += word.length;
        return meaning;
      }
    }
    const found = match(NUMBER) ?? refuse(at < text.length ? "malformed value" : "truncated");
    if (found[1] === undefined && found[2] === undefined) return BigInt(found[0].slice(0, MOST_DIGITS + 1));
    return Number(found[0]);
  };

  /** @param {number} depth */
  const list = (depth) => {
    /** @type {Json[]} */ const items = [];
    at += 1;
    if (takes("]")) return items;
    do items.push(value(depth + 1));
    while (takes(","));
    if (!takes("]")) refuse("malformed list");
    return items;
  };

  /** @param {number} depth */
  const object = (depth) => {
    /** @type {Map<string, Json>} */ const fields = new Map();
    at += 1;
    if (takes("}")) return fields;
    do {
      const name = string();
      if (fields.has(name)) refuse(`field '${name}' is there twice`);
      if (!takes(":")) refuse("malformed object");
      fields.set(name, value(depth + 1));
    } while (takes(","));
    if (!takes("}")) refuse("malformed object");
    return fields;
  };

  const document = value(0);
  match(SPACE);
  if (at !== text.length) refuse("trailing characters");
  return document;
}
