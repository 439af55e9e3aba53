// The page's state and its address.

import assert from "node:assert/strict";
import { test } from "node:test";
import { read, written } from "../../../src/softmap/viewer/page/address.js";

const USUAL = {
  ...{ layer: 0, head: 3, mean: "head", picked: [], query: 4, key: -1, view: "text", how: "max", scale: "linear" },
  ...{ palette: "viridis", sinks: "shown", words: true, direction: "gives", form: "columns", lines: "head" },
  ...{ patchScale: "linear", lang: "en", theme: "auto", box: null },
};
const OTHER = {
  ...{ layer: 2, head: 1, mean: "picked", picked: ["0.1", "2.3"], query: -1, key: 7, view: "sentence", how: "mean" },
  ...{ scale: "log", palette: "ink", sinks: "hidden", words: false, direction: "receives", form: "arcs", lines: "layer" },
  ...{ patchScale: "log", lang: "zh", theme: "dark", box: [1.5, -2, 30.25] },
};
const exists = (layer, head) => layer < 3 && head < 4;

test("all of the state is in the address, what is as usual is left out, but not where one is", () => {
  assert.equal(written(USUAL, USUAL), "layer=0&head=3&query=4");
  assert.deepEqual(Object.keys(OTHER).sort(), Object.keys(USUAL).sort());
  assert.deepEqual(read(`#${written(OTHER, USUAL)}`, USUAL, exists), OTHER);
});

test("what an address says wrongly is as usual", () => {
  const wrong = "layer=9&query=x&view=nothing&picked=0.1,9.9,a&box=1,2,-3&scale=Log&__proto__=1";
  assert.deepEqual(read(wrong, USUAL, exists), { ...USUAL, picked: ["0.1"] });
});
