// The module of an engine that nothing is asked of: FakeWorker answers in its place.
export async function open() {
  throw new Error("only workers open engines");
}
