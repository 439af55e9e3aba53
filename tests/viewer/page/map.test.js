// The map's sums: where weights are on the screen, which tiles are wanted, what is written in a cell.

import assert from "node:assert/strict";
import test from "node:test";
import * as geometry from "../../../src/softmap/viewer/page/map/geometry.js";
import { ticksOf } from "../../../src/softmap/viewer/page/map/legend.js";
import { brief, short } from "../../../src/softmap/viewer/page/map/overlay.js";
import { createQueue } from "../../../src/softmap/viewer/page/map/queue.js";
import { openSides } from "../../../src/softmap/viewer/page/map/sides.js";
import { scoresOf, weightOf } from "../../../src/softmap/viewer/page/weight.js";

test("the coarsest picture of a map has at most 64 pixels a side", () => {
  for (const size of [1, 3, 64, 65, 74, 4096, 16384, 131072]) {
    const top = geometry.topZoom(size, 7);
    assert.ok(size / 2 ** top <= 64);
    assert.ok(top === 0 || size / 2 ** (top - 1) > 64);
  }
});

test("no pixel of the zoom that is shown is smaller than one of the screen, and none larger than need be", () => {
  for (let scale = 0.01; scale < 100; scale *= 1.07) {
    const zoom = geometry.zoomAt(scale, 20);
    assert.ok(scale * 2 ** zoom >= 1 - 1e-6);
    assert.ok(zoom === 0 || scale * 2 ** (zoom - 1) < 1);
  }
  assert.equal(geometry.zoomAt(0.001, 3), 3);
  assert.equal(geometry.zoomAt(0.25, 9), 2);
});

test("the units that are seen are those with a part in the pane", () => {
  assert.deepEqual(geometry.seen(0, 10, 100, 5), [0, 5]);
  assert.deepEqual(geometry.seen(-25, 10, 100, 50), [2, 13]);
  assert.deepEqual(geometry.seen(-1000, 10, 100, 50), [50, 50]);
  assert.deepEqual(geometry.seen(40, 10, 100, 50), [0, 6]);
});

test("steps of a ruler are 1, 2 or 5 times a power of ten, and leave room for a label", () => {
  for (let scale = 0.003; scale < 60; scale *= 1.3) {
    const step = geometry.stepOf(scale, 34);
    assert.ok(step * scale >= 34 - 1e-6);
    assert.match(String(step), /^[125]0*$/);
  }
  assert.equal(geometry.stepOf(100, 34), 1);
});

test("a map that fits stays in the corner, a larger one keeps its edges outside of the pane", () => {
  assert.equal(geometry.keptWithin(-5, 120, 100, 4), 0);
  assert.equal(geometry.keptWithin(-5, 50, 100, 4), 0);
  assert.equal(geometry.keptWithin(30, 50, 100, 4), 30);
  assert.equal(geometry.keptWithin(90, 50, 100, 4), 54);
});

test("what is seen whole stays where it is, what is not comes to the middle", () => {
  assert.equal(geometry.startToSee(12, 10, 20), 10);
  assert.equal(geometry.startToSee(50, 10, 20), 40.5);
  assert.equal(geometry.startToSee(29.5, 10, 20), 20);
});

test("the block under a point holds that point, and none is beside the map", () => {
  const size = { rows: 100, keys: 37 };
  for (const [row, key, zoom] of [[0, 0, 0], [99.9, 36.9, 2], [63, 17, 5], [8, 8, 3]]) {
    const block = geometry.blockAt(row, key, zoom, size);
    const [from, stop] = geometry.unitsOf(block.row, zoom, size.rows);
    const [first, last] = geometry.unitsOf(block.column, zoom, size.keys);
    assert.ok(from <= row && row < stop && stop <= size.rows);
    assert.ok(first <= key && key < last && last <= size.keys);
  }
  assert.equal(geometry.blockAt(-0.1, 3, 0, size), null);
  assert.equal(geometry.blockAt(3, 37, 0, size), null);
});

test("tiles that are seen are wanted, the finest first and from the middle outwards", () => {
  const view = { zoom: 1, left: 0, top: 0, right: 1536, bottom: 512 };
  const rank = (zoom, row, column) => geometry.rankOf({ zoom, row, column }, view);
  assert.equal(rank(0, 0, 0), null);
  assert.equal(rank(1, 1, 0), null);
  assert.equal(rank(1, 0, 3), null);
  assert.ok(rank(1, 0, 1) < rank(1, 0, 0));
  assert.ok(rank(1, 0, 0) < rank(3, 0, 0));
});

test("a queue runs a few jobs at a time, the most wanted first", async () => {
  const started = [];
  const finish = [];
  const done = [];
  const queue = createQueue({
    ...{ limit: 2, rest: 0 },
    run: (job) => new Promise((resolve) => finish.push(() => resolve(job * 10)) && started.push(job)),
    rank: (job) => job,
    done: (job, answer) => done.push([job, answer]),
    failed: () => assert.fail(),
    changed: () => {},
  });
  for (const job of [5, 3, 4, 1]) queue.add(job);
  assert.deepEqual(started, [5, 3]);
  assert.equal(queue.awaited(), 4);
  finish[0]();
  await new Promise((resolve) => setTimeout(resolve));
  assert.deepEqual(started, [5, 3, 1]);
  assert.deepEqual(done, [[5, 50]]);
});

test("work that is wanted no more is ended, and runs again when it is wanted again", async () => {
  const signals = [];
  const done = [];
  let wanted = true;
  const queue = createQueue({
    ...{ limit: 1, rest: 1e6 },
    run: (job, signal) =>
      new Promise((resolve, reject) => {
        signals.push(signal);
        signal.addEventListener("abort", () => reject(signal.reason));
        if (signals.length > 1) resolve("answer");
      }),
    rank: () => (wanted ? 0 : null),
    done: (job, answer) => done.push(answer),
    failed: () => assert.fail(),
    changed: () => {},
  });
  queue.add("tile");
  wanted = false;
  queue.update();
  assert.ok(signals[0].aborted);
  assert.equal(queue.awaited(), 0);
  wanted = true;
  queue.update();
  await new Promise((resolve) => setTimeout(resolve));
  assert.deepEqual(done, ["answer"]);
  assert.equal(queue.awaited(), 0);
});

test("the queue says at last that nothing is awaited, also where the last to be done ends what was beside it", async () => {
  let [finest, awaited] = [true, -1];
  const queue = createQueue({
    ...{ limit: 2, rest: 0 },
    run: (job, signal) =>
      new Promise((resolve, reject) => {
        signal.addEventListener("abort", () => reject(signal.reason));
        if (job === "fine") setTimeout(resolve);
      }),
    rank: (job) => (job === "fine" || finest ? 0 : null), // a coarse one stands in for the fine one
    done: () => void (finest = false),
    failed: () => assert.fail(),
    changed: () => void (awaited = queue.awaited()),
  });
  for (const job of ["fine", "coarse"]) queue.add(job);
  assert.equal(awaited, 2);
  await new Promise((resolve) => setTimeout(resolve, 10));
  assert.equal(awaited, 0);
});

test("what failed is tried again when it is seen again, and not before", async () => {
  const tried = [];
  let seen = true;
  const queue = createQueue({
    ...{ limit: 1, rest: 1e6 },
    run: async (job) => {
      tried.push(job);
      throw new Error("no");
    },
    rank: () => (seen ? 0 : null),
    done: () => assert.fail(),
    failed: () => {},
    changed: () => {},
  });
  queue.add("tile");
  await new Promise((resolve) => setTimeout(resolve));
  queue.update();
  assert.deepEqual(tried, ["tile"]);
  assert.deepEqual([queue.lacks(), queue.awaited()], [true, 0]);
  for (seen of [false, true]) queue.update();
  assert.deepEqual(tried, ["tile", "tile"]);
  assert.equal(queue.lacks(), false);
});

test("what failed and is looked at all the time is tried again after a rest", async () => {
  let tries = 0;
  const run = async () => {
    if (++tries === 1) throw new Error("no");
  };
  const told = [];
  const how = { ...{ limit: 1, rest: 0, run }, rank: () => 0, done: () => told.push("done"), failed: () => told.push("failed"), changed: () => {} };
  createQueue(how).add("tile");
  await new Promise((resolve) => setTimeout(resolve));
  assert.deepEqual(told, ["failed", "done"]);
});

test("a queue tells what failed and goes on; what is closed tells nothing", async () => {
  const told = [];
  const run = async (job) => {
    if (job === "bad") throw new Error("no such layer");
    return job;
  };
  const queue = createQueue({
    ...{ limit: 1, rest: 1e6, run },
    rank: () => 0,
    done: (job) => told.push(job),
    failed: (error) => told.push(error.message),
    changed: () => {},
  });
  queue.add("bad");
  queue.add("good");
  await new Promise((resolve) => setTimeout(resolve));
  assert.deepEqual(told, ["no such layer", "good"]);
  queue.add("late");
  assert.deepEqual(queue.close(), ["late", "bad"]);
  await new Promise((resolve) => setTimeout(resolve));
  assert.equal(told.length, 2);
});

test("words and tokens are found from each other; a word is that which holds the token", async () => {
  const labels = ["[CLS]", "un\nbelievable", "!"];
  const units = {
    count: 3,
    peek: (i) => ({ label: labels[i], gap: "", start: [0, 1, 5][i], special: i === 0 }),
    starts: async () => Int32Array.of(0, 1, 5, 6),
  };
  const { row, size } = await openSides({ sides: () => ({ rows: units, keys: units, words: true }) });
  assert.deepEqual(size, { rows: 3, keys: 3 });
  assert.deepEqual([0, 1, 4, 5].map(row.unit), [0, 1, 1, 2]);
  assert.deepEqual([0, 1, 2].map(row.token), [0, 1, 5]);
  assert.equal(row.unit(-1), -1);
  assert.equal(row.token(99), 5);
  assert.deepEqual(row.label(1), { text: "un⏎believable", special: false });
  const tokens = await openSides({ sides: () => ({ rows: units, keys: units, words: false }) });
  assert.equal(tokens.key.unit(2), 2);
  assert.equal(tokens.key.token(2), 2);
});

test("cells say their weight in few characters, and never that a weight is 0", () => {
  assert.deepEqual([1, 0.955, 0.0994, 0.0123, 0.0005, 0.0004, 0].map(short), ["100%", "96%", "9.9%", "1.2%", "0.1%", "<0.1%", "<0.1%"]);
  assert.deepEqual([1, 0.955, 0.0994, 0.0123, 0.0094, 0.0005, 0.0004, 0].map(brief), ["100", "96", "10", "1", ".9", ".1", "<.1", "<.1"]);
});

test("a cell says its weight, or why there is none; of weights in float16 no digits that these do not have", () => {
  const app = { say: (name) => name };
  const said = (of) => weightOf(app, { hidden: "", weight: 0.1234, score: 1.5, scaled: 0.75, pieces: 1, ...of });
  assert.deepEqual([said({}), said({ hidden: "masked" }), said({ hidden: "left_out" })], ["12.3%", "masked", "left_out"]);
  assert.deepEqual([said({ score: null }), said({ score: null, weight: 1e-6 })], ["12.3%", "<0.0061%"]);
});

test("scores of words are said to be those of pieces, but where nothing is seen", () => {
  const names = (of) => scoresOf({ say: (name) => name }, { hidden: "", weight: 0.5, score: 1.5, scaled: 0.75, pieces: 2, ...of }).map(([name]) => name);
  assert.deepEqual([names({}), names({ hidden: "masked", scaled: null }), names({ pieces: 1 })], [["score_pieces", "scaled"], ["score", "scaled"], ["score", "scaled"]]);
  assert.deepEqual(names({ score: null, scaled: null }), []);
});

test("the legend's ticks go from the low end of the scale to 100%", () => {
  assert.deepEqual(ticksOf("linear", 0.1).map(({ text }) => text), ["0%", "25%", "50%", "75%", "100%"]);
  const ticks = ticksOf("log", 1e-6);
  assert.deepEqual(ticks.map(({ text }) => text), ["≤10⁻⁴%", "10⁻³%", "0.01%", "0.1%", "1%", "10%", "100%"]);
  assert.deepEqual([ticks[0].at, ticks.at(-1).at], [0, 1]);
});
