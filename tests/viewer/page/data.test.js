import assert from "node:assert/strict";
import { test } from "node:test";
import { createCache, createData } from "../../../src/softmap/viewer/page/data.js";

const settle = () => new Promise((resolve) => setTimeout(resolve, 5));

function channelThatWaits() {
  const asked = [];
  const waiting = [];
  const ask = (name) => {
    asked.push(name);
    return new Promise((resolve) => waiting.push(() => resolve({ name })));
  };
  return { asked, channel: { ask }, answer: async () => (waiting.shift()(), settle()) };
}

test("thumbnails come after the map's first tile, one layer at a time", async () => {
  const { asked, channel, answer } = channelThatWaits();
  const data = createData(channel, { layers: [], texts: {} });
  data.ask("thumbs", { layer: 0 });
  data.ask("thumbs", { layer: 1 });
  data.tile({ layer: 0 });
  await settle();
  assert.deepEqual(asked, ["tile"]);
  await answer();
  assert.deepEqual(asked, ["tile", "thumbs"]);
  await answer();
  assert.deepEqual(asked, ["tile", "thumbs", "thumbs"]);
});

test("an answer that was given is not asked for again", async () => {
  const { asked, channel, answer } = channelThatWaits();
  const data = createData(channel, { layers: [], texts: {} });
  const first = data.ask("row", { unit: 1 });
  await answer();
  assert.equal(await first, await data.ask("row", { unit: 1 }));
  assert.deepEqual(asked, ["row"]);
});

test("the cache drops what was used least lately", () => {
  const cache = createCache(100);
  const of = (bytes) => ({ data: new Uint8Array(bytes) });
  cache.put("a", of(40));
  cache.put("b", of(40));
  cache.get("a");
  cache.put("c", of(40));
  assert.equal(cache.get("b"), undefined);
  assert.ok(cache.get("a") && cache.get("c"));
  assert.equal(cache.bytes(), 80);
});
