// The service worker: keeps every file of this folder, so the page works offline. A new folder has a new version in
// site.json, and is fetched whole before it is used.
const SITE = "site.json";
const scope = /** @type {any} */ (globalThis);

/** @returns {Promise<{version: string, files: string[]}>} */
async function site() {
  return (await fetch(SITE, { cache: "no-store" })).json();
}

scope.addEventListener("install", (/** @type {any} */ event) =>
  event.waitUntil(keep().then(() => scope.skipWaiting())),
);
scope.addEventListener("activate", (/** @type {any} */ event) => event.waitUntil(scope.clients.claim()));

/** Fetch every file of the newest version, then drop the older ones. */
async function keep() {
  const { version, files } = await site();
  const name = `paraedge-${version}`;
  if (!(await caches.has(name))) {
    const cache = await caches.open(name);
    try {
      await cache.addAll(["./", SITE, ...files]);
    } catch (error) {
      await caches.delete(name);
      throw error;
    }
  }
  for (const other of await caches.keys())
    if (other.startsWith("paraedge-") && other !== name) await caches.delete(other);
}

scope.addEventListener("fetch", (/** @type {any} */ event) => {
  const { request } = event;
  if (request.method !== "GET" || new URL(request.url).origin !== location.origin) return;
  event.respondWith(answer(request));
  if (request.mode === "navigate") event.waitUntil(keep().catch(() => {})); // offline: what there is goes on
});

/** @param {Request} request */
async function answer(request) {
  return (await caches.match(request, { ignoreSearch: request.mode === "navigate" })) ?? fetch(request);
}
