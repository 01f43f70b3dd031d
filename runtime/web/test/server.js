// A small server of files for tests and measurements: folders by the first part of the address, on this machine only.
import { createReadStream, statSync } from "node:fs";
import http from "node:http";
import path from "node:path";

const TYPES = /** @type {Record<string, string>} */ ({
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".css": "text/css",
  ".json": "application/json",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
  ".webmanifest": "application/manifest+json",
});

/**
 * @param {Record<string, string | Record<string, string>>} folders first part of the address -> folder, or second
 *   part -> folder
 * @param {{headers?: Record<string, string>, delay?: (pathname: string) => Promise<void> | undefined,
 *   posted?: (pathname: string, body: string) => void, texts?: Record<string, string>}} [options]
 *   `delay`: what an answer waits for; `posted`: who is told of what a page posts; `texts`: by address, beside the folders
 * @returns {Promise<{url: string, requests: string[], close: () => void}>}
 */
export async function serve(folders, { headers = {}, delay = () => undefined, posted, texts = {} } = {}) {
  /** @type {string[]} */ const requests = [];
  const server = http.createServer(async (request, response) => {
    const { pathname } = new URL(request.url ?? "/", "http://localhost");
    requests.push(pathname);
    await delay(pathname);
    if (request.method === "POST") {
      let body = "";
      for await (const chunk of request) body += chunk;
      posted?.(pathname, body);
      return void response.writeHead(204).end();
    }
    if (texts[pathname] !== undefined) return void response.writeHead(200, headers).end(texts[pathname]);
    const [, first, ...rest] = decodeURIComponent(pathname).split("/");
    const found = folders[first];
    const folder = typeof found === "object" ? found[rest.shift() ?? ""] : found;
    if (folder === undefined || rest.includes("..")) return void response.writeHead(404).end();
    let file = path.join(folder, ...rest);
    if (pathname.endsWith("/")) file = path.join(file, "index.html");
    try {
      const { size } = statSync(file);
      response.writeHead(200, {
        "content-type": TYPES[path.extname(file)] ?? "application/octet-stream",
        "content-length": size,
        ...headers,
      });
      createReadStream(file).pipe(response);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  return {
    url: `http://127.0.0.1:${port}/`,
    requests,
    close: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}
