// The pure parts of the sentence, the steps and saving.

import assert from "node:assert/strict";
import test from "node:test";
import { arcs, bundles, columns, stroke } from "../../../src/softmap/viewer/page/sentence/geometry.js";
import { listed } from "../../../src/softmap/viewer/page/sentence/drawing.js";
import { placeOf } from "../../../src/softmap/viewer/page/sentence/hand.js";
import { fileName, lines, regionOf, ticksOf, tilesOf } from "../../../src/softmap/viewer/page/save/region.js";
import { chain, emphasized, formulaOf, sinkWeight, typeset } from "../../../src/softmap/viewer/page/steps/reading.js";
import { STRINGS } from "../../../src/softmap/viewer/page/strings.js";
import { en, zh } from "../../../src/softmap/viewer/page/strings/steps.js";

const ROOM = { width: 460, height: 500 };
const unit = (label, start, special = false) => ({ label, gap: " ", start, special });

/** @returns {import("../../../src/softmap/viewer/page/types").StepsAnswer} */
const answer = (changes = {}) => ({
  title: "love → learning",
  query_label: "love",
  key_label: "learning",
  d_k: 64,
  scale: 0.125,
  sections: [
    { name: "scores", title: "", sentences: [], number: 80 },
    { name: "scaled", title: "", sentences: [], number: 10 },
    { name: "weights", title: "", sentences: [], number: 0.6 },
    { name: "output", title: "", sentences: [], number: 0.5 },
  ],
  added: { softcap: null, bias: null, mask: null, sink: null },
  top: [
    { key: 3, label: "learning", score: 80, scaled: 10, weight: 0.6, share: 0.5 },
    { key: 1, label: "I", score: 8, scaled: 1, weight: 0.1, share: 0.2 },
  ],
  rest: { count: 4, weight: 0.2 },
  logsumexp: 11,
  agreement: null,
  ...changes,
});

test("every text of the steps is there in both languages, with the same names to fill in", () => {
  const names = (table) => Object.keys(table).sort();
  const holes = (text) => [...text.matchAll(/\{(\w+)\}/g)].map(([, name]) => name).sort();
  assert.deepEqual(names(en), names(zh));
  for (const name of names(en)) assert.deepEqual(holes(en[name]), holes(zh[name]), name);
  assert.equal(STRINGS.en.save, en.save);
});

test("words between one or two backticks are marked, and what is inside may hold a backtick", () => {
  assert.deepEqual(emphasized("`love`: 96% `learning`."), [
    { text: "love", word: true },
    { text: ": 96% ", word: false },
    { text: "learning", word: true },
    { text: ".", word: false },
  ]);
  assert.deepEqual(emphasized("`` a`b `` is one"), [
    { text: "a`b", word: true },
    { text: " is one", word: false },
  ]);
  assert.deepEqual(emphasized("no word <b>"), [{ text: "no word <b>", word: false }]);
});

test("a formula is set as signs, slanted letters and indices", () => {
  assert.deepEqual(typeset("scores / √d_k"), [
    { text: "scores", as: "letter" },
    { text: " / √", as: "sign" },
    { text: "d", as: "letter" },
    { text: "k", as: "index" },
  ]);
  assert.equal(
    typeset("50 · tanh(q kᵀ) − bias")
      .map(({ text }) => text)
      .join(""),
    "50 · tanh(q kᵀ) − bias",
  );
});

test("a title's formula is what follows its number", () => {
  assert.equal(formulaOf("Step 1   scores = q kᵀ"), "scores = q kᵀ");
  assert.equal(formulaOf("第一步   scores = q kᵀ"), "scores = q kᵀ");
});

test("the chain of step 2 ends at the model's own number: divided, capped, and what is left is the bias", () => {
  assert.deepEqual(chain(answer()), { divided: 10, capped: null, bias: null, scaled: 10, usual: true });
  const sections = answer().sections.map((section) =>
    section.name === "scaled" ? { ...section, number: 7 } : section,
  );
  const { capped, bias, scaled } = chain(
    answer({ sections, added: { softcap: 20, bias: "ALiBi", mask: null, sink: null } }),
  );
  assert.ok(Math.abs((capped ?? 0) - 20 * Math.tanh(0.5)) < 1e-12);
  assert.ok(Math.abs((capped ?? 0) + (bias ?? 0) - (scaled ?? 0)) < 1e-12);
  assert.equal(chain(answer({ scale: 0.2 })).usual, false);
});

test("a hidden key has no scaled number, and no bias is made up for it", () => {
  const sections = answer().sections.map((section) =>
    section.name === "scaled" ? { ...section, number: null } : section,
  );
  const { bias, scaled } = chain(
    answer({ sections, added: { softcap: null, bias: "ALiBi", mask: "causal()", sink: null } }),
  );
  assert.equal(bias, null);
  assert.equal(scaled, null);
});

test("a sink takes what the keys leave, and there is none without one", () => {
  assert.equal(sinkWeight(answer()), null);
  const sink = sinkWeight(answer({ added: { softcap: null, bias: null, mask: null, sink: -1.5 } }));
  assert.ok(Math.abs((sink ?? 0) - 0.1) < 1e-12);
});

test("columns stand apart, lines lead from one to the other, and long texts become taller than the room", () => {
  const layout = columns([30, 40], [30, 40, 35], ROOM);
  assert.equal(layout.rows.length, 2);
  assert.ok(layout.rows.every(({ x }) => x < layout.keys[0].x));
  assert.ok(layout.rows[0].y > layout.keys[0].y, "the shorter column stands in the middle");
  assert.ok(layout.path(0, 2, 0).includes(` ${layout.keys[2].y}`));
  assert.ok(columns(Array(64).fill(30), [30], ROOM).height > ROOM.height);
});

test("words that fit stand upright in a line, others are turned, and none overlap", () => {
  const few = arcs([30, 40, 50], true, ROOM);
  assert.ok(few.rows.every(({ turned }) => !turned));
  const many = arcs(Array(64).fill(50), true, ROOM);
  assert.ok(many.rows.every(({ turned }) => turned));
  for (const { rows } of [few, many]) {
    for (let i = 1; i < rows.length; i++) {
      assert.ok(rows[i].box.x >= rows[i - 1].box.x + rows[i - 1].box.width - 1e-6);
    }
  }
  assert.ok(many.width > ROOM.width);
});

test("arcs back run over the words, arcs ahead under them", () => {
  const layout = arcs([30, 40, 50], true, ROOM);
  const peak = (path) => Number(path.match(/C\S+ (\S+)/)[1]);
  assert.ok(peak(layout.path(2, 0, 0)) < layout.rows[0].y);
  assert.ok(peak(layout.path(0, 2, 0)) > layout.rows[0].y);
});

test("every weight that is drawn is in one bundle, those that are too small or not there in none", () => {
  const layout = columns([30, 30], [30, 30], ROOM);
  const drawn = bundles([0.9, NaN, 0.005, 0.4], layout, { shift: 0, least: 0.01 });
  assert.equal(
    drawn
      .map(({ d }) => d)
      .join("")
      .match(/M/g)?.length,
    2,
  );
  assert.deepEqual(
    drawn.map(({ weight }) => weight > 0.5),
    [false, true],
    "the heaviest over the others",
  );
});

test("a larger weight is a wider and stronger line", () => {
  const layout = columns([30], [30], ROOM);
  const [light, heavy] = [stroke(0.05, layout), stroke(0.95, layout)];
  assert.ok(light["stroke-width"] < heavy["stroke-width"] && light["stroke-opacity"] < heavy["stroke-opacity"]);
  assert.ok(heavy["stroke-opacity"] <= 1);
});

test("what a word looks at is told largest first, without what is below one per cent", () => {
  const units = [unit("[CLS]", 0, true), unit("love", 1), unit("learning", 2)];
  assert.equal(listed(units, [0.02, 0.003, 0.96]), "learning 96%, [CLS] 2%");
  assert.equal(listed(units, [NaN, NaN, NaN]), "");
});

test("a token belongs to the word that holds it", () => {
  const units = [unit("un", 0), unit("breakable", 2), unit("thing", 5)];
  assert.deepEqual(
    [-1, 0, 1, 2, 4, 5, 9].map((token) => placeOf(units, token)),
    [-1, 0, 0, 1, 1, 2, 2],
  );
});

test("a figure shows what the map shows, in whole blocks, within the matrix", () => {
  const size = { rows: 5, keys: 5 };
  assert.deepEqual(regionOf(null, 1, size), { left: 0, right: 5, top: 0, bottom: 5, zoom: 0, cell: 72 });
  const part = regionOf([1.4, -3, 2.2], 2, size);
  assert.deepEqual([part.left, part.right, part.top, part.bottom], [1, 4, 0, 2]);
  const large = regionOf(null, 1, { rows: 16384, keys: 16384 });
  assert.equal(large.zoom, 4);
  assert.equal(regionOf(null, 1, { rows: 700, keys: 700 }, 3).zoom, 3); // there is nothing finer
  const within = regionOf([8000.5, 8000.5, 4000], 1, { rows: 16384, keys: 16384 });
  assert.ok(within.left % 2 ** within.zoom === 0 && within.right >= 12000.5);
});

test("a region's tiles cover all of it", () => {
  const region = { left: 200, right: 600, top: 0, bottom: 100, zoom: 0, cell: 1 };
  assert.deepEqual(tilesOf(region, 256), [
    { row: 0, column: 0, x: -200, y: 0 },
    { row: 0, column: 1, x: 56, y: 0 },
    { row: 0, column: 2, x: 312, y: 0 },
  ]);
});

test("an axis names every unit where there is room, else round numbers", () => {
  assert.deepEqual(ticksOf(3, 6, 20), { places: [3, 4, 5], each: true });
  assert.deepEqual(ticksOf(0, 1000, 0.36), { places: [0, 200, 400, 600, 800], each: false });
});

test("files are named by layer and head", () => {
  assert.equal(fileName({ layer: 3, head: 1, kind: "png" }), "softmap-layer3-head1.png");
  assert.equal(fileName({ layer: 0, head: null, what: "sentence", kind: "svg" }), "softmap-layer0-sentence.svg");
});

test("a caption's parts share lines as long as they fit", () => {
  assert.deepEqual(lines(["weights", "log scale", "sinks hidden"], 20), ["weights · log scale", "sinks hidden"]);
});
