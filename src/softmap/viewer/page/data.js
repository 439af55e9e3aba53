// What was asked for and is kept: answers that are used again, and the units of texts, piece by piece.

import { stringsOf } from "./channel/numbers.js";
import { unitsOf } from "./units.js";

const KEPT_BYTES = 48 << 20; // of all tiles and rows
const PATIENCE = 500; // ms for which they wait for the map
const BEHIND = new Set(["thumbs", "roles"]); // one at a time, so that what is looked at finds a connection
const REMEMBERED = new Set(["tile", "pixel", "row", "received", "thumbs", "roles", "matrix", "pictures", "pixels"]);

/**
 * @param {import("./types").Channel} channel
 * @param {import("./types").About} about
 * @returns {import("./types").Data}
 */
export function createData(channel, about) {
  const kept = createCache(KEPT_BYTES);
  /** @type {Map<string, import("./types").Units>} */
  const units = new Map();

  let mapIsThere = () => {};
  let last = Promise.race([
    new Promise((resolve) => (mapIsThere = () => resolve(undefined))),
    new Promise((resolve) => setTimeout(resolve, PATIENCE)),
  ]);
  /**
   * One after the other, and after the map's first tile.
   * @template Answer
   * @param {() => Promise<Answer>} work
   * @returns {Promise<Answer>}
   */
  function behind(work) {
    const found = last.then(work);
    last = found.then(
      () => {},
      () => {},
    );
    return found;
  }

  /** @type {import("./types").Data["ask"]} */
  async function ask(name, params, signal) {
    if (!REMEMBERED.has(name)) return channel.ask(name, params, signal);
    const place = `${name}?${new URLSearchParams(stringsOf(params))}`;
    const known = kept.get(place);
    if (known) return known;
    const answer = await (BEHIND.has(name) ? behind(() => channel.ask(name, params, signal)) : channel.ask(name, params, signal));
    kept.put(place, answer);
    return answer;
  }

  return {
    about,
    ask,
    extent: (layer, head) => channel.extent?.(layer, head) ?? "whole",
    preview: (layer, head, how, sinks) => channel.preview?.(layer, head, how, sinks) ?? null,
    layer(number) {
      const found = about.layers.find((layer) => layer.number === number);
      if (!found) throw new Error(`There is no layer ${number}.`);
      return found;
    },
    units(of, words, count) {
      const place = `${of} ${words} ${count}`;
      let found = units.get(place);
      if (!found) units.set(place, (found = unitsOf(ask, about, of, words, count)));
      return found;
    },
    async tile(question, signal) {
      const tile = await ask("tile", question, signal);
      mapIsThere();
      return tile;
    },
  };
}

/**
 * Answers by their question, the least lately used dropped first.
 * @param {number} limit bytes
 */
export function createCache(limit) {
  /** @type {Map<string, {answer: any, bytes: number}>} */
  const entries = new Map();
  let held = 0;
  return {
    /** @param {string} place */
    get(place) {
      const entry = entries.get(place);
      if (!entry) return undefined;
      entries.delete(place);
      entries.set(place, entry);
      return entry.answer;
    },
    /**
     * @param {string} place
     * @param {any} answer
     */
    put(place, answer) {
      if (entries.has(place)) return;
      const bytes = answer?.data?.byteLength ?? 20_000;
      entries.set(place, { answer, bytes });
      held += bytes;
      for (const [oldest, entry] of entries) {
        if (held <= limit || oldest === place) break;
        entries.delete(oldest);
        held -= entry.bytes;
      }
    },
    bytes: () => held,
  };
}
