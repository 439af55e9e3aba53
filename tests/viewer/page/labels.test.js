// What words, tokens and numbers are called where they are shown.

import assert from "node:assert/strict";
import { test } from "node:test";
import { number } from "../../../src/softmap/viewer/page/format.js";
import { fitted, shown } from "../../../src/softmap/viewer/page/labels.js";

test("a label is never empty, and white space is shown by its signs", () => {
  const labels = { "": "∅", " ": "␣", "  ": "␣␣", "\n": "⏎", "a\nb": "a⏎b", "\tx ": "⇥x", "<b>": "<b>", love: "love" };
  for (const [label, expected] of Object.entries(labels)) assert.equal(shown(label), expected);
});

test("a long word is cut between letters, a surrogate pair never", () => {
  const measure = (text) => [...text].length * 10;
  assert.equal(fitted("word", 40, measure), "word");
  assert.equal(fitted("wordless", 50, measure), "word…");
  assert.equal(fitted("😀😀😀😀", 30, measure), "😀😀…");
  assert.equal(fitted("w", 5, measure), "w");
});

test("each minus of a score is a minus, also that of its exponent", () => {
  assert.deepEqual([0, -1.75, -2e-8, 12345.6].map(number), ["0", "−1.750", "−2.000e−8", "12346"]);
});
