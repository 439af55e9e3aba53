// Bundles the viewer's page into what the package ships: src/softmap/viewer/static. The bundle is the same for the
// same sources, so that a check can tell whether the committed one is fresh.
//
// npm run build            write it
// npm run build -- --check fail if the committed one is stale

import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = (path) => fileURLToPath(new URL(`../${path}`, import.meta.url));
const page = here("src/softmap/viewer/page");
const target = here("src/softmap/viewer/static");

const shared = {
  bundle: true,
  minify: true,
  write: false,
  charset: "utf8",
  target: "es2022",
  legalComments: "inline",
  logLevel: "warning",
};
const bundles = [
  { ...shared, entryPoints: [`${page}/page.js`], outfile: `${target}/softmap.js`, format: "esm" },
  { ...shared, entryPoints: [`${page}/style.css`], outfile: `${target}/softmap.css` },
];

const made = [{ path: `${target}/index.html`, text: readFileSync(`${page}/index.html`, "utf8") }];
for (const options of bundles) {
  const { outputFiles } = await build(options);
  made.push(...outputFiles.map(({ path, text }) => ({ path, text })));
}
if (process.argv.includes("--check")) {
  const stale = made.filter(({ path, text }) => readFileSync(path, "utf8") !== text);
  for (const { path } of stale) console.error(`${path} is stale: npm run build`);
  process.exitCode = stale.length ? 1 : 0;
} else {
  for (const { path, text } of made) writeFileSync(path, text);
}
