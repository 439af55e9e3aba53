// The pure parts of the text view, of the heads and of the search.

import assert from "node:assert/strict";
import { test } from "node:test";

import { walked } from "../../../src/softmap/viewer/page/heads.js";
import { breakBefore, breakLines, endsLine, heatOf, indent, lineOf } from "../../../src/softmap/viewer/page/lines.js";
import { read, stepped } from "../../../src/softmap/viewer/page/search.js";
import { shadesOf, shadesOfReceived, topOf } from "../../../src/softmap/viewer/page/shades.js";
import { unitAt, unitsOf } from "../../../src/softmap/viewer/page/units.js";

const unit = (label, gap = " ", special = false) => ({ label, gap, start: 0, special });

/** Words as wide as given, a space of 1 before each that is not glued, in pieces of `size`. */
function textOf(widths, { size = 4, breaks = widths.map(() => 1), here = () => true } = {}) {
  const piece = (i) => {
    const part = (all) => all.slice(i * size, (i + 1) * size);
    const [own, ends] = [part(widths), part(breaks)];
    const gaps = Float32Array.from(ends, (end) => Number(end > 0));
    return here(i) ? { widths: Float32Array.from(own), gaps, breaks: Uint16Array.from(ends) } : undefined;
  };
  return { count: widths.length, size, piece };
}

test("words fill a line as far as they fit, across pieces", () => {
  assert.deepEqual([...breakLines(textOf([3, 3, 3, 3, 3, 3]), 12, 5)], [0, 3, 6]);
  assert.deepEqual([...breakLines(textOf([3, 3, 3, 3, 3, 3], { size: 2 }), 12, 5)], [0, 3, 6]);
});

test("a line break of the text ends a line, and two leave a blank one", () => {
  assert.deepEqual([...breakLines(textOf([1, 1, 1], { breaks: [1, 2, 3] }), 100, 5)], [0, 1, 2, 2, 3]);
});

test("what may not be parted goes to the next line together", () => {
  assert.deepEqual([...breakLines(textOf([4, 4, 1], { breaks: [1, 1, 0] }), 10, 5)], [0, 1, 3]);
});

test("a run that is too long for any line is broken where it is full", () => {
  const lines = breakLines(textOf(Array(10).fill(4), { size: 10, breaks: Array(10).fill(0) }), 9, 5);
  assert.deepEqual([...lines], [0, 2, 4, 6, 8, 10]);
});

test("a very long word takes the lines it needs, and the next begins after them", () => {
  const lines = breakLines(textOf([10, 250, 10]), 100, 5);
  assert.deepEqual([...lines], [0, 1, 2, 2, 2, 2, 3]);
  assert.equal(lineOf(lines, 1), 1);
  assert.equal(lineOf(lines, 2), 5);
});

test("pieces that are not here take as many lines as guessed, and no unit is lost", () => {
  const lines = breakLines(textOf(Array(12).fill(3), { here: (i) => i !== 1 }), 100, 2);
  assert.deepEqual([...lines], [0, 4, 6, 8, 12]);
});

test("every unit is in the line that holds it", () => {
  const widths = Array.from({ length: 300 }, (_, i) => 1 + ((i * 7919) % 13));
  const breaks = widths.map((_, i) => (i % 17 === 0 ? 3 : i % 5 === 0 ? 0 : 1));
  const lines = breakLines(textOf(widths, { size: 64, breaks, here: (i) => i !== 2 }), 40, 6);
  for (let i = 1; i < lines.length; i++) assert.ok(lines[i] >= lines[i - 1]);
  for (let i = 0; i < widths.length; i++) {
    const line = lineOf(lines, i);
    assert.ok(lines[line] <= i && i < lines[line + 1]);
  }
});

test("lines may end at white space, between ideographs and around special tokens, not before a comma", () => {
  assert.equal(breakBefore(unit("love"), unit("learning")), 1);
  assert.equal(breakBefore(unit("love"), unit(",", "")), 0);
  assert.equal(breakBefore(unit("play"), unit("##ing", "")), 0);
  assert.equal(breakBefore(unit("注"), unit("意", "")), 1);
  assert.equal(breakBefore(unit("意"), unit("。", "")), 0);
  assert.equal(breakBefore(unit("[CLS]", "", true), unit("I", "")), 1);
  assert.equal(breakBefore(unit("a"), unit("b", "\r\n\r\n  ")), 3);
});

test("a line keeps its indent, and only that of the last of several", () => {
  assert.equal(indent(" "), " ");
  assert.equal(indent("  \n\n\t"), "    ");
  assert.ok(endsLine("\n") && !endsLine("  "));
  assert.ok(endsLine("\n"), "asked twice, the answer is the same");
});

test("the heat of a row of pixels is the largest of its lines", () => {
  const lines = Int32Array.of(0, 2, 4, 4, 6);
  const values = Float32Array.of(0.1, 0.9, 0, 0.2, 0.3, 0.4);
  const rounded = (rows) => [...heatOf(lines, values, rows)].map((value) => +value.toFixed(1));
  assert.deepEqual(rounded(2), [0.9, 0.4]);
  assert.deepEqual(rounded(8), [0.9, 0.9, 0.2, 0.2, 0, 0, 0.4, 0.4]);
});

test("on the linear scale the largest weight on another word is as strong as can be", () => {
  const shades = shadesOf(Float32Array.of(0.8, 0.1, 0.05, NaN), { scale: "linear", keys: 4, self: 0 });
  assert.deepEqual([...shades].map((shade) => +shade.toFixed(2)), [1, 1, 0.5, 0]);
});

test("on the log scale a weight of 1 is as strong as can be, and what is below the floor is not shaded", () => {
  const shades = shadesOf(Float32Array.of(1, 0.01, 1e-7, NaN), { scale: "log", keys: 1000, self: -1 });
  assert.equal(shades[0], 1);
  assert.ok(shades[1] > 0 && shades[1] < 1);
  assert.deepEqual([...shades.slice(2)], [0, 0]);
});

test("one sink does not make the other words pale where nothing is pointed at", () => {
  const shades = shadesOfReceived(Float32Array.of(90, 4, 3, 2, 1), { scale: "linear", queries: 100 });
  assert.deepEqual([...shades].map((shade) => +shade.toFixed(2)), [1, 1, 1, 0.67, 0.33]);
  assert.equal(shadesOfReceived(Float32Array.of(2, 1, 0), { scale: "linear", queries: 3 })[2], 0);
});

test("the top are the largest weights in order, without what is left out", () => {
  assert.deepEqual(topOf(Float32Array.of(0.1, NaN, 0.5, 0, 0.3, 0.05), 3), [2, 4, 0]);
  assert.deepEqual(topOf(Float32Array.of(0.2, 0.2, 0.2), 2), [0, 1]);
  assert.deepEqual(topOf(Float32Array.of(0, 0), 2), []);
});

test("what is typed is a token, a cell or a word", () => {
  assert.deepEqual(read(" :123 "), { token: 123 });
  assert.deepEqual(read("12,34"), { query: 12, key: 34 });
  assert.deepEqual(read(":12 :34"), { query: 12, key: 34 });
  assert.deepEqual(read(":12, :34"), { query: 12, key: 34 });
  assert.deepEqual(read("123"), { text: "123" });
  assert.deepEqual(read("12 34"), { text: "12 34" });
  assert.deepEqual(read(":"), { text: ":" });
  assert.equal(read("  "), null);
});

test("the next found after the last is the first, and the other way round", () => {
  assert.equal(stepped(-1, 3, 1), 0);
  assert.equal(stepped(-1, 3, -1), 2);
  assert.equal(stepped(2, 3, 1), 0);
  assert.equal(stepped(0, 3, -1), 2);
  assert.equal(stepped(-1, 0, 1), -1);
});

test("arrows walk heads along a layer, and between layers stay on the head or the last there is", () => {
  const cells = [[0, 4], [1, 4], [2, 2]].flatMap(([layer, heads]) => Array.from({ length: heads }, (_, head) => ({ layer, head })));
  const go = (layer, head, key) => walked(cells, cells.find((cell) => cell.layer === layer && cell.head === head), key);
  assert.deepEqual(go(0, 3, "ArrowRight"), { layer: 1, head: 0 });
  assert.deepEqual(go(0, 2, "ArrowDown"), { layer: 1, head: 2 });
  assert.deepEqual(go(1, 3, "ArrowDown"), { layer: 2, head: 1 });
  assert.deepEqual(go(1, 1, "End"), { layer: 1, head: 3 });
  assert.equal(go(0, 0, "ArrowUp"), undefined);
  assert.equal(go(2, 1, "ArrowRight"), undefined);
  assert.equal(go(0, 0, "a"), undefined);
});

test("units come piece by piece, each asked for once, and say when they are here", async () => {
  const asked = [];
  const ask = async (name, { start, stop }) => {
    asked.push([name, start, stop]);
    const numbers = Array.from({ length: stop - start }, (_, i) => start + i);
    return { labels: numbers.map(String), gaps: numbers.map(() => " "), starts: numbers, special: numbers.map(() => false) };
  };
  const about = { texts: { tokens: { tokens: 3000, words: 2500, cut: 0 }, target: null } };
  const units = unitsOf(ask, about, "tokens", true, 3000);
  let came = 0;
  units.whenCame(() => came++);
  assert.equal(units.count, 2500);
  assert.equal(units.peek(1500), null);
  await units.load(1500, 1501);
  assert.equal(units.peek(1500).label, "1500");
  await units.load(1000, 2500);
  assert.deepEqual(asked.map(([, start, stop]) => [start, stop]), [[1024, 2048], [0, 1024], [2048, 2500]]);
  assert.equal(came, 3);
  assert.equal(units.peek(-1), null);
  assert.equal(units.peek(2500), null);
});

test("a token is in the word that begins with it or before", () => {
  const starts = Int32Array.of(0, 1, 4, 5, 9);
  assert.deepEqual([0, 1, 3, 4, 5, 8].map((token) => unitAt(starts, token)), [0, 1, 1, 2, 3, 3]);
});
