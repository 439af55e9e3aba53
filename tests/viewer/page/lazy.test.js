// What an exported file computes in the page, next to softmax as one writes it down.

import assert from "node:assert/strict";
import { test } from "node:test";
import { deflateSync } from "node:zlib";

import { find } from "../../../src/softmap/viewer/page/find.js";
import { createPieces, fromPlanes } from "../../../src/softmap/viewer/page/file.js";
import { fromHalf, toHalf } from "../../../src/softmap/viewer/page/float16.js";
import * as lazy from "../../../src/softmap/viewer/page/lazy.js";

const pause = async () => {};

/** Numbers that are the same every time. */
function random(count, seed = 1) {
  let state = seed;
  return Float32Array.from({ length: count }, () => {
    state = (state * 1103515245 + 12345) % 2147483648;
    return (state / 1073741824 - 1) * 2;
  });
}

function makeHead({ queries = 11, keys = 11, size = 4, see = (i, j) => j <= i, left = [0], ...of } = {}) {
  const first = [0];
  const edges = [];
  for (let i = 0; i < queries; i++) {
    for (let j = 0; j < keys; j++) {
      if (see(i, j) && !(j > 0 && see(i, j - 1))) edges.push(j);
      if (see(i, j) && !(j + 1 < keys && see(i, j + 1))) edges.push(j + 1);
    }
    first.push(edges.length / 2);
  }
  const unknown = () => new Float64Array(queries).fill(NaN);
  return {
    ...{ queries, keys, size, scale: 0.5, softcap: null, sink: null, bias: null },
    q: random(queries * size, 1),
    k: random(keys * size, 2),
    runs: { first: Int32Array.from(first), edges: Int32Array.from(edges) },
    peak: { all: unknown(), rest: unknown() },
    above: { all: new Float64Array(queries), rest: new Float64Array(queries) },
    left: Uint8Array.from({ length: keys }, (_, j) => Number(left.includes(j))),
    ...of,
  };
}

/** All weights, as they are defined. */
function dense(head, see, sinks = "shown", bias = () => 0) {
  return Array.from({ length: head.queries }, (_, i) => {
    const counts = (j) => see(i, j) && (sinks !== "rescaled" || !head.left[j]);
    const scaled = Array.from({ length: head.keys }, (_, j) => {
      let score = 0;
      for (let n = 0; n < head.size; n++) score += head.q[i * head.size + n] * head.k[j * head.size + n];
      const logit = score * head.scale;
      return (head.softcap ? head.softcap * Math.tanh(logit / head.softcap) : logit) + bias(i, j);
    });
    const total = scaled.reduce((sum, value, j) => sum + (counts(j) ? Math.exp(value) : 0), head.sink === null ? 0 : Math.exp(head.sink));
    return scaled.map((value, j) => (see(i, j) && (sinks === "shown" || !head.left[j]) ? Math.exp(value) / total : NaN));
  });
}

function each(count) {
  return Int32Array.from({ length: count + 1 }, (_, i) => i);
}

function assertClose(found, expected) {
  assert.equal(found.length, expected.length);
  found.forEach((value, i) => {
    if (Number.isNaN(expected[i])) assert.ok(Number.isNaN(value), `place ${i}: ${value}`);
    else assert.ok(Math.abs(value - expected[i]) < 1e-12, `place ${i}: ${value}, expected ${expected[i]}`);
  });
}

const causal = (i, j) => j <= i;
const CASES = {
  causal: [{}, causal],
  "a window with a gap": [{ see: (i, j) => j === 0 || (j <= i && j > i - 3) }, (i, j) => j === 0 || (j <= i && j > i - 3)],
  "rows that see nothing": [{ see: (i, j) => i > 4 && j <= i }, (i, j) => i > 4 && j <= i],
  "a soft cap": [{ softcap: 0.7 }, causal],
  "a learnt sink": [{ sink: 0.3 }, causal],
  "fewer queries": [{ queries: 4, see: (i, j) => j <= i + 7 }, (i, j) => j <= i + 7],
};

for (const [name, [options, see]] of Object.entries(CASES)) {
  for (const sinks of ["shown", "hidden", "rescaled"]) {
    test(`weights with ${name}, sinks ${sinks}`, async () => {
      const head = makeHead(options);
      const sides = { rows: each(head.queries), keys: each(head.keys) };
      const block = { top: 0, bottom: head.queries, left: 0, right: head.keys };
      const { data } = await lazy.reduced(head, sides, block, { zoom: 0, how: "max", sinks }, pause);
      assertClose([...data], dense(head, see, sinks).flat());
    });
  }
}

test("a bias is added by distance or by place", () => {
  const values = random(21, 3);
  const places = Float32Array.from({ length: 121 }, (_, at) => values[(at % 11) - Math.floor(at / 11) + 10]);
  const expected = dense(makeHead(), causal, "shown", (i, j) => values[j - i + 10])[7];
  for (const bias of [{ values, byDistance: true }, { values: places, byDistance: false }]) {
    const row = new Float64Array(11);
    lazy.weightsRow(makeHead({ bias }), 7, 0, 11, "shown", row);
    assertClose([...row], expected);
  }
});

test("a key that a bias hides has weight 0, and may be seen all the same", () => {
  const values = new Float32Array(21);
  values[10] = -Infinity;
  const row = new Float64Array(11);
  lazy.weightsRow(makeHead({ bias: { values, byDistance: true } }), 0, 0, 11, "shown", row);
  assert.equal(row[0], 0);
});

test("a logsumexp that is known is not computed", () => {
  const head = makeHead();
  head.peak.all[3] = 5;
  assert.equal(lazy.logsumexp(head, 3, "all"), 5);
});

test("a pixel is the maximum or the mean of its block, in which what is not seen counts as 0", async () => {
  const head = makeHead();
  const sides = { rows: each(11), keys: each(11) };
  const block = { top: 0, bottom: 11, left: 0, right: 11 };
  const weights = dense(head, causal);
  for (const how of ["max", "mean"]) {
    const { shape, data } = await lazy.reduced(head, sides, block, { zoom: 2, how, sinks: "shown" }, pause);
    assert.deepEqual(shape, [3, 3]);
    const last = [8, 9, 10].flatMap((i) => [8, 9, 10].map((j) => weights[i][j] || 0));
    assertClose([data[8]], [how === "max" ? Math.max(...last) : last.reduce((sum, value) => sum + value) / 9]);
    assert.ok(Number.isNaN(data[1]));
  }
  const { max, at } = await lazy.summed(head, sides, { top: 8, bottom: 11, left: 8, right: 11 }, "shown", pause);
  assertClose([max], [weights[at[0]][at[1]]]);
});

test("to a word goes the sum over its pieces, from a word the mean", () => {
  const head = makeHead();
  const sides = { rows: Int32Array.of(0, 5, 7, 11), keys: Int32Array.of(0, 2, 7, 11) };
  const weights = dense(head, causal);
  const mean = [0, 1].map((j) => (weights[5][j] + weights[6][j]) / 2);
  const [first, , last] = lazy.unitRow(head, sides, 1, 0, 3, "shown");
  assertClose([first], [mean[0] + mean[1]]);
  assert.ok(Number.isNaN(last));
});

test("numbers of 16 bits are the nearest ones", () => {
  for (let bits = 0; bits <= 0x3c00; bits++) assert.equal(toHalf(fromHalf(bits)), bits);
  const [below, above] = [fromHalf(0x3555), fromHalf(0x3556)];
  assert.equal(toHalf((below + above) / 2), 0x3556);
  assert.equal(toHalf(below + (above - below) * 0.49), 0x3555);
  assert.equal(toHalf(2 ** -26), 0);
  assert.ok(Number.isNaN(fromHalf(toHalf(NaN))));
});

test("keys that no query sees are told", () => {
  const head = makeHead({ see: (i, j) => j <= i && j !== 4 });
  assert.deepEqual([...lazy.seenKeys(head, "hidden")], [0, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1]);
});

test("work that nobody waits for ends", async () => {
  const ended = new AbortController();
  ended.abort();
  await assert.rejects(lazy.pauses(ended.signal)(), { name: "AbortError" });
});

test("bytes come back from their planes", () => {
  const numbers = Float32Array.of(1.5, -2.25, 3e-9);
  const bytes = new Uint8Array(numbers.buffer);
  const planes = Uint8Array.from({ length: 12 }, (_, i) => bytes[(i % 3) * 4 + Math.floor(i / 3)]);
  assert.deepEqual(new Float32Array(fromPlanes(planes, 4).buffer), numbers);
});

test("a piece is read once, and one that is missing is said", async () => {
  const textContent = deflateSync(JSON.stringify({ "</script>": "<b>" })).toString("base64");
  const elements = [{ dataset: { piece: "a", dtype: "json" }, textContent }];
  const pieces = createPieces({ querySelectorAll: () => elements });
  assert.deepEqual((await pieces.read("a")).data, { "</script>": "<b>" });
  assert.equal(await pieces.read("a"), await pieces.read("a"));
  await assert.rejects(pieces.read("b"), /no piece called b/);
});

test("some text is found in any case, over several words, once for each place", () => {
  const text = "New York, new york";
  const units = { text, places: [[0, 3], [4, 8], [8, 9], [10, 13], [14, 18]], labels: ["New", "York", ",", "new", "york"] };
  assert.deepEqual(find("new  YORK", units, true), [0, 3]);
  assert.deepEqual(find("york,", units, true), [1]);
  assert.deepEqual(find("or", units, false), [1, 4]);
  assert.deepEqual(find("  ", units, true), []);
});

test("rows of scores at any size sum to 1, though their logsumexp can't tell two equal ones from one", () => {
  for (const size of [1e2, 1e6, 1e12, 1e18, 1e30]) {
    const head = makeHead({ see: () => true });
    head.q = head.q.map((value) => value * size);
    head.k.set(head.k.subarray(0, 4), 4); // keys 0 and 1 are the same
    const row = new Float64Array(11);
    for (let query = 0; query < 11; query++) {
      lazy.weightsRow(head, query, 0, 11, "shown", row);
      assert.ok(Math.abs(row.reduce((sum, weight) => sum + weight) - 1) < 1e-12);
      assert.equal(row[0], row[1]);
      assert.equal(lazy.weightAt(head, query, 1), row[1]);
    }
  }
});
