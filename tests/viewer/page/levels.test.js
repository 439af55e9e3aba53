// How much an exported file holds of a head, and what the map shows of it.

import assert from "node:assert/strict";
import { test } from "node:test";

import { createLevels } from "../../../src/softmap/viewer/page/levels.js";

const thumbs = { dtype: "float16", shape: [3, 2, 3], data: Uint16Array.from({ length: 18 }, (_, i) => i) };

function levelsOf(names, why = "") {
  const pieces = { names: () => names, has: (name) => names.includes(name), read: async (name) => (name.startsWith("thumbs") ? thumbs : name) };
  return createLevels(pieces, { layers: { 0: {}, 1: { why } }, infoOf: () => ({ thumb: 4 }) });
}

const overview = ["max/shown/3", "max/shown/4", "mean/shown/3", "max/hidden/5"].map((of) => `level/0.1/${of}`);
const names = ["q/0.0", ...overview, "row/1.0/7", "thumbs/0"];

test("a head is held whole, in part, as a thumbnail or not at all", () => {
  const { extent } = levelsOf(names);
  assert.deepEqual([[0, 0], [0, 1], [0, 2], [1, 0], [1, 1]].map(([layer, head]) => extent(layer, head)), ["whole", "part", "thumb", "part", "none"]);
});

test("the map shows what is most like what is wanted, and nothing that is not held", () => {
  const { preview } = levelsOf(names);
  const shown = (how, sinks, finest) => ({ how, sinks, finest, preview: true, able: true });
  assert.equal(preview(0, 0, "max", "shown"), null);
  assert.deepEqual(preview(0, 1, "max", "hidden"), shown("max", "hidden", 5));
  assert.deepEqual(preview(0, 1, "mean", "rescaled"), shown("mean", "shown", 3));
  assert.deepEqual(preview(0, 2, "mean", "hidden"), shown("max", "shown", 4));
  assert.equal(preview(1, 0, "max", "shown"), null);
  assert.equal(levelsOf(["thumbs/1"], "its q and k were not kept").preview(1, 1, "max", "shown").able, false);
});

test("a thumbnail stands for pixels of its own zoom alone, the largest of them, of a head that is not whole", async () => {
  const { level } = levelsOf(names);
  const { shape, data } = await level(0, 2, "max", "shown", 4);
  assert.deepEqual([shape, ...data], [[2, 3], 12, 13, 14, 15, 16, 17]);
  assert.equal(await level(0, 1, "max", "shown", 4), "level/0.1/max/shown/4");
  for (const [head, how, sinks, zoom] of [[2, "max", "shown", 3], [2, "mean", "shown", 4], [2, "max", "hidden", 4], [0, "max", "shown", 4]]) {
    assert.equal(await level(0, head, how, sinks, zoom), null);
  }
});
