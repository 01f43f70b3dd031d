// What an engine can allocate: the memory that it makes, and the one that its module brings.
import assert from "node:assert/strict";
import { test } from "node:test";
import { capMemory } from "../src/engines/memory.js";

capMemory();

// (module (memory (export "m") 1))
const OWN_MEMORY = Uint8Array.from([0, 97, 115, 109, 1, 0, 0, 0, 5, 3, 1, 0, 1, 7, 5, 1, 1, 109, 2, 0]);

/** @type {[string, () => WebAssembly.Memory][]} */
const MEMORIES = [
  [
    "brought by a module",
    () => /** @type {any} */ (new WebAssembly.Instance(new WebAssembly.Module(OWN_MEMORY))).exports.m,
  ],
  ["made without a maximum", () => new WebAssembly.Memory({ initial: 1 })],
  ["shared, of 4 GiB at most", () => new WebAssembly.Memory({ initial: 1, maximum: 65536, shared: true })],
];
for (const [name, memory] of MEMORIES) {
  test(`a memory grows to 512 MiB and no further: ${name}`, () => {
    const made = memory();
    assert.equal(made.grow(2), 1);
    assert.throws(() => made.grow(8190), RangeError);
    assert.equal(made.grow(8189), 3);
    assert.equal(made.buffer.byteLength, 2 ** 29);
    assert.throws(() => made.grow(1), RangeError);
    assert.ok(made instanceof WebAssembly.Memory);
  });
}
