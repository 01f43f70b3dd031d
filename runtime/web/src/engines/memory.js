// Some builds ask for a shared memory that may grow to 4 GiB. A phone reserves all of that, for each worker, and refuses.

const MAX_PAGES = 8192; // of 64 KiB: 512 MiB

/** From now on, no memory that this worker asks for may grow beyond 512 MiB. */
export function capMemory() {
  const { Memory } = WebAssembly;
  /** @param {WebAssembly.MemoryDescriptor} wanted */
  function CappedMemory(wanted) {
    return new Memory(
      wanted.shared ? { ...wanted, maximum: Math.min(wanted.maximum ?? MAX_PAGES, MAX_PAGES) } : wanted,
    );
  }
  CappedMemory.prototype = Memory.prototype;
  Object.assign(WebAssembly, { Memory: CappedMemory });
}
