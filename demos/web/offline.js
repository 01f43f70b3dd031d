// The service worker: keeps every file of this folder, so the page works offline. A new folder has a new version in
// site.json, and is fetched whole before it is used: by the next visit.
const SITE = "site.json";
const scope = /** @type {any} */ (globalThis);
const PREFIX = `paraedge ${new URL("./", location.href).pathname} `; // other pages of this address have their own

scope.addEventListener("install", (/** @type {any} */ event) =>
  event.waitUntil(keep().then(() => scope.skipWaiting())),
);
scope.addEventListener("activate", (/** @type {any} */ event) => event.waitUntil(scope.clients.claim()));

/** Fetch every file of the newest version, then drop the older ones. */
async function keep() {
  /** @type {{version: string, files: string[]}} */
  const { version, files } = await (await fetch(SITE, { cache: "no-store" })).json();
  const name = PREFIX + version;
  const older = (await caches.keys()).filter((other) => other.startsWith(PREFIX) && other !== name);
  const kept = await caches.open(name);
  // It is whole or empty: a browser that was closed meanwhile leaves an empty one.
  if (!(await kept.match(SITE))) {
    // The browser's own cache may have an older version's files, and servers that go by dates would not tell.
    const cache = older.length ? "reload" : "no-cache";
    await kept.addAll(["./", SITE, ...files].map((file) => new Request(file, { cache })));
  }
  for (const other of older) await caches.delete(other);
}

scope.addEventListener("fetch", (/** @type {any} */ event) => {
  const { request } = event;
  if (request.method !== "GET" || new URL(request.url).origin !== location.origin) return;
  event.respondWith(answer(request));
  if (request.mode === "navigate") event.waitUntil(keep().catch(() => {})); // offline: what there is goes on
});

/** @param {Request} request */
async function answer(request) {
  return (
    (await caches.match(request, { ignoreSearch: request.mode === "navigate", ignoreVary: true })) ?? fetch(request)
  );
}
