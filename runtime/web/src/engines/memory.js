// Both engines ask for a memory that may grow to 4 GiB, one that is shared even from the start: a phone reserves all of
// that, for each worker, and refuses. LiteRT.js brings its memory in its own module, where no maximum can be given; but it
// grows through this function, as every memory of Emscripten does.

const PAGE_BYTES = 65536;
const MAX_PAGES = 8192; // 512 MiB

/** From now on, no memory that this worker asks for, or was given by a module, grows beyond 512 MiB. */
export function capMemory() {
  const { Memory } = WebAssembly;
  const { grow } = Memory.prototype;
  /** @param {WebAssembly.MemoryDescriptor} wanted */
  function CappedMemory(wanted) {
    return new Memory(
      wanted.shared ? { ...wanted, maximum: Math.min(wanted.maximum ?? MAX_PAGES, MAX_PAGES) } : wanted,
    );
  }
  CappedMemory.prototype = Memory.prototype;
  Object.assign(WebAssembly, { Memory: CappedMemory });
  /** @this {WebAssembly.Memory} @param {number} pages */
  Memory.prototype.grow = function (pages) {
    const wanted = this.buffer.byteLength / PAGE_BYTES + pages;
    if (wanted > MAX_PAGES) throw new RangeError(`a memory of ${wanted} pages is wanted, ${MAX_PAGES} are allowed`);
    return grow.call(this, pages);
  };
}
