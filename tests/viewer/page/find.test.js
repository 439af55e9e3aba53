import assert from "node:assert/strict";
import { test } from "node:test";
import { find } from "../../../src/softmap/viewer/page/find.js";

test("a character of several tokens is found once, with what stands beside it", () => {
  const units = { text: "a😀b", places: [[0, 1], [1, 3], [1, 3], [3, 4]], labels: ["a", "x", "y", "b"] };
  assert.deepEqual(find("a😀b", units, true), [0]);
  assert.deepEqual(find("b", units, true), [3]);
});
