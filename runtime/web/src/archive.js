// A bundle as one file: a zip of stored entries and nothing else. It takes and refuses what archive.py and archive.cpp do.
import { IntegrityError } from "./errors.js";
import { isPlainPath } from "./manifest.js";

const MAX_FILES = 4096; // and folders
const END_BYTES = 22;
const CENTRAL_BYTES = 46;
const LOCAL_BYTES = 30;
const [FILE_TYPE, FOLDER_TYPE, LINK_TYPE] = [0x8000, 0x4000, 0xa000];
const UTF8_NAME = 0x800; // says nothing of a name in ASCII
const NEWEST_VERSION = 20;
const SIGNATURE = { local: 0x04034b50, central: 0x02014b50, end: 0x06054b50 };

/** @typedef {{bytes: Uint8Array<ArrayBuffer>, crc32: number}} ArchiveEntry */

/**
 * The files of a stored zip by name, as views of its bytes.
 *
 * Entries follow each other without a gap, in the order of the directory, which follows them; each is said twice in
 * the same words. Nothing is compressed, encrypted, hidden, or there twice.
 *
 * @param {string} where for messages
 * @param {Uint8Array<ArrayBuffer>} zip
 * @returns {Map<string, ArchiveEntry>}
 * @throws {IntegrityError} the bytes are anything else
 */
export function readArchive(where, zip) {
  const view = new DataView(zip.buffer, zip.byteOffset, zip.byteLength);
  const { count, offset: directoryOffset, bytes: directoryBytes } = readEnd(where, view);
  const directoryEnd = directoryOffset + directoryBytes;
  /** @type {Map<string, ArchiveEntry>} */ const files = new Map();
  /** @type {Set<string>} */ const taken = new Set();
  const damaged = () => new IntegrityError(`${where}: the zip's directory is damaged; copy the file again`);
  let position = directoryOffset;
  let expectedOffset = 0;
  for (let number = 0; number < count; number++) {
    if (directoryEnd - position < CENTRAL_BYTES || view.getUint32(position, true) !== SIGNATURE.central)
      throw damaged();
    const central = position;
    const nameBytes = view.getUint16(central + 28, true);
    const nameIsThere = directoryEnd - central - CENTRAL_BYTES >= nameBytes;
    const rawName = zip.subarray(central + CENTRAL_BYTES, central + CENTRAL_BYTES + (nameIsThere ? nameBytes : 0));
    position += CENTRAL_BYTES + nameBytes;
    const name = String.fromCharCode(...rawName.subarray(0, 300)); // latin-1; a longer one is refused anyway
    const isFolder = name.endsWith("/");
    const plain = isFolder ? name.slice(0, -1) : name;
    /** @param {boolean} fine @param {string} problem */
    const require = (fine, problem) => {
      if (!fine)
        throw new IntegrityError(`${where}: ${shown(name)} ${problem}; pack the bundle again with 'paraedge pack'`);
    };

    require(nameIsThere && isPlainPath(plain), "is not a plain path inside the bundle");
    require(!taken.has(plain.toLowerCase()), "is in the zip twice");
    taken.add(plain.toLowerCase());
    const [version, flags, method] = [6, 8, 10].map((at) => view.getUint16(central + at, true));
    const [crc32, packedBytes, sizeBytes] = [16, 20, 24].map((at) => view.getUint32(central + at, true));
    const [extraBytes, commentBytes, disk] = [30, 32, 34].map((at) => view.getUint16(central + at, true));
    const kind = (view.getUint32(central + 38, true) >>> 16) & 0xf000;
    const offset = view.getUint32(central + 42, true);
    require(kind !== LINK_TYPE, "is a symbolic link");
    require(kind === 0 || kind === (isFolder ? FOLDER_TYPE : FILE_TYPE), "is not a plain file");
    require(method === 0 && (flags & 1) === 0, "is compressed or encrypted");
    require((flags === 0 || flags === UTF8_NAME) && version <= NEWEST_VERSION, "needs a newer reader of zips");
    require(extraBytes === 0 && commentBytes === 0 && disk === 0, "has an extra field or a comment");
    require(packedBytes === sizeBytes, `claims ${sizeBytes} bytes in ${packedBytes}`);
    require(!isFolder || (sizeBytes === 0 && crc32 === 0), "is a folder with bytes in it");
    require(offset === expectedOffset, "does not follow the entry before it");
    const start = offset + LOCAL_BYTES + nameBytes;
    expectedOffset = start + sizeBytes;
    require(expectedOffset <= directoryOffset, `claims ${sizeBytes} bytes of a ${zip.byteLength} byte zip`);
    const isSame =
      view.getUint32(offset, true) === SIGNATURE.local &&
      equal(zip, offset + 4, central + 6, LOCAL_BYTES - 4) &&
      equal(zip, offset + LOCAL_BYTES, central + CENTRAL_BYTES, nameBytes);
    require(isSame, "is not what the zip's directory says");
    if (!isFolder) files.set(name, { bytes: zip.subarray(start, expectedOffset), crc32 });
  }
  if (position !== directoryEnd || expectedOffset !== directoryOffset) {
    throw new IntegrityError(`${where}: the zip has bytes that belong to no file; pack the bundle again`);
  }
  return files;
}

/** The last record: where the directory is. @param {string} where @param {DataView} view */
function readEnd(where, view) {
  const problem = `${where} is neither a bundle folder nor a zip made by 'paraedge pack'`;
  const at = view.byteLength - END_BYTES;
  if (at < 0 || view.getUint32(at, true) !== SIGNATURE.end) throw new IntegrityError(`${problem}; copy it again`);
  const [disk, directoryDisk, onDisk, count] = [4, 6, 8, 10].map((field) => view.getUint16(at + field, true));
  const [bytes, offset] = [12, 16].map((field) => view.getUint32(at + field, true));
  const isOneDisk = disk === 0 && directoryDisk === 0 && onDisk === count;
  if (!isOneDisk || view.getUint16(at + 20, true) !== 0 || offset + bytes !== at) {
    throw new IntegrityError(`${problem}: its last record is damaged; copy it again`);
  }
  if (count > MAX_FILES)
    throw new IntegrityError(`${where} holds ${count} files, more than ${MAX_FILES}; it is not a bundle`);
  if (bytes > count * (CENTRAL_BYTES + 201)) {
    throw new IntegrityError(`${where}: the zip's directory is damaged; copy the file again`);
  }
  return { count, offset, bytes };
}

/** @param {Uint8Array} bytes @param {number} a @param {number} b @param {number} length */
function equal(bytes, a, b, length) {
  for (let place = 0; place < length; place++) if (bytes[a + place] !== bytes[b + place]) return false;
  return true;
}

/** For messages, whatever bytes are in it. @param {string} name */
function shown(name) {
  const escaped = name.replace(/[^ -~]/g, (letter) => `\\x${letter.charCodeAt(0).toString(16).padStart(2, "0")}`);
  return `'${escaped}'`;
}

/** @param {Uint8Array} bytes */
export function crc32Of(bytes) {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

/** The zip's own checksum, for want of a hash. @param {string} where @param {string} name @param {ArchiveEntry} entry @param {number} most */
export function unhashed(where, name, { bytes, crc32 }, most) {
  if (bytes.byteLength > most) {
    throw new IntegrityError(`${where}: ${name} has ${bytes.byteLength} bytes, the most allowed is ${most}`);
  }
  if (crc32Of(bytes) !== crc32) throw new IntegrityError(`${where}: ${name} is damaged; copy the file again`);
}
