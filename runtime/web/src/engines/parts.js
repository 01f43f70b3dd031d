// What engines share: the program's own shapes against the manifest's, and the version that was copied beside the files.

/** @param {string} which @param {ArrayLike<number | string> | undefined} found undefined: the engine does not tell @param {number[]} expected */
export function checkShape(which, found, expected) {
  if (found === undefined) return;
  const shape = Array.from(found);
  if (shape.length !== expected.length || shape.some((size, place) => size !== expected[place])) {
    throw new Error(`the program's ${which} is (${shape}), the manifest says (${expected}); export the bundle again`);
  }
}

/** As `paraedge-web-engine` wrote it. @param {string} folder */
export async function versionOf(folder) {
  const response = await fetch(`${folder}version.txt`);
  return response.ok ? (await response.text()).trim() : "of unknown version";
}
