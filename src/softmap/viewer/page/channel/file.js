// Answering from what an exported file holds: the page asks it as it asks a server (softmap/viewer/answers.py), and
// matrices are computed from q and k where they are looked at. What is not held is said, never replaced.

import { Absent } from "../absent.js";
import { find } from "../find.js";
import { fromHalf, toHalf } from "../float16.js";
import { cellOf, createHeld } from "../held.js";
import * as lazy from "../lazy.js";
import { stepsOf } from "../told.js";
import { Refusal } from "./http.js";

const FOUND = 1000; // units that a search gives

/** @typedef {Record<string, string | number>} Params */
/** @typedef {import("../types").Numbers} Numbers */
/** @typedef {import("../held").Held} Held */
/** @typedef {(params: Params, signal?: AbortSignal) => Promise<any>} Answer */

/**
 * @param {ReturnType<typeof import("../file.js").createPieces>} pieces
 * @returns {Promise<import("../types").Channel>}
 */
export async function fileChannel(pieces) {
  const held = await createHeld(pieces);
  const answers = { ...ofTexts(held), ...ofLayers(held), ...ofMaps(held), ...ofRows(held) };
  return {
    holds: holds(held),
    extent: held.extent,
    preview: held.preview,
    async ask(name, params, signal) {
      signal?.throwIfAborted();
      const answer = /** @type {Record<string, Answer>} */ (answers)[name];
      if (!answer) throw new Refusal({ message: `A file answers no question called ${name}.` });
      return answer(params, signal);
    },
  };
}

/**
 * What a file holds, in words; nothing where it holds everything.
 * @param {Held} held
 * @returns {import("../types").Channel["holds"]}
 */
function holds({ about: { layers }, whole, overviews, extent, has }) {
  const heads = layers.flatMap(({ number, heads }) => Array.from({ length: heads }, (_, head) => ({ number, head })));
  const lacking = heads.filter(({ number, head }) => extent(number, head) !== "whole");
  if (!lacking.length) return undefined;
  const rest = overviews.filter((name) => !whole.includes(name));
  const kinds = new Set(
    lacking.map(({ number, head }) => {
      if (extent(number, head) === "weights") return "file_others_weights";
      return has(`thumbs/${number}`) ? "file_others_thumbs" : "file_others_none";
    }),
  );
  return (say) => {
    const more = rest.length ? say("file_more", { names: some(rest) }) : "";
    const others = [...kinds].map((kind) => say(kind)).join(say("file_or"));
    const values = { whole: whole.length, total: heads.length, names: some(whole), others, more };
    return say(whole.length ? "file_holds" : "file_holds_none", values);
  };
}

/**
 * @param {string} name of the text that says what is not held
 * @param {Params} [values]
 */
const absent = (name, values) => new Absent((say) => say(name, values));

/**
 * A head whose weights can be told.
 * @param {Held} held
 * @param {{layer: number, head: number}} place
 * @param {lazy.Sinks} sinks
 */
async function weighed(held, { layer, head }, sinks) {
  const own = await held.head(layer, head);
  // what is left beside a sink may be less than float16 can tell
  if (own && "weights" in own && sinks === "rescaled") throw absent("file_weights_sinks");
  return own;
}

/** @param {string[]} names */
function some(names) {
  return names.length > 12 ? `${names.slice(0, 12).join(", ")}, …` : names.join(", ");
}

/**
 * @param {Held} held
 * @returns {Record<string, Answer>}
 */
function ofTexts(held) {
  return {
    async about() {
      const pictures = [];
      for (const layer of held.about.pictures ?? []) if (await held.piece(`pictures/${layer}`)) pictures.push(layer);
      return { ...held.about, pictures };
    },
    async units({ of, words, start, stop }) {
      const { labels, gaps, starts, special } = await held.units(String(of), Number(words) === 1);
      const part = [Number(start), Number(stop)];
      return {
        labels: labels.slice(...part),
        gaps: gaps.slice(...part),
        starts: starts.slice(...part),
        special: special.slice(...part),
      };
    },
    async starts({ of, words }) {
      const data = await held.starts(String(of), Number(words) === 1);
      return { dtype: "int32", shape: [data.length], data };
    },
    async find({ of, words, text, start = 0 }) {
      const inWords = Number(words) === 1;
      const [{ labels }, read] = [await held.units(String(of), inWords), await held.text(String(of))];
      const places = await held.placesOf(String(of), inWords);
      const units = find(String(text), { text: read.text, places, labels }, inWords);
      return { units: units.filter((unit) => unit >= Number(start)).slice(0, FOUND), total: units.length };
    },
  };
}

/**
 * @param {Held} held
 * @returns {Record<string, Answer>}
 */
function ofLayers(held) {
  return {
    async thumbs({ layer }) {
      return (await held.piece(`thumbs/${layer}`)) ?? thrown(absent("file_no_thumbs", { layer }));
    },
    async roles({ layer }) {
      return (await held.piece(`roles/${layer}`))?.data ?? thrown(absent("file_no_roles", { layer }));
    },
    async pictures({ layer }) {
      return (await held.piece(`pictures/${layer}`))?.data ?? thrown(absent("file_no_pictures"));
    },
    async pixels({ index }) {
      return (await held.piece(`pixels/${index}`)) ?? thrown(absent("file_no_pictures"));
    },
    async received({ heads, words, sinks = "shown" }, signal) {
      const pairs = String(heads).split(",").map(pair);
      const [{ layer }, how] = [pairs[0], /** @type {lazy.Sinks} */ (sinks)];
      const first = await weighed(held, pairs[0], how);
      const whole = (how === "rescaled" ? null : await held.received(pairs)) ?? (await summed(pairs, how, signal));
      if (!whole) throw absent("file_no_received", pairs[0]);
      const own = Float64Array.from(whole);
      if (how !== "shown") for (const key of held.index(layer).left) own[key] = 0; // a word may have other pieces
      const { keys } = await held.sides(layer, Number(words) === 1);
      const seen = first ? lazy.seenKeys(first, how) : null;
      const data = Float32Array.from({ length: keys.length - 1 }, (_, u) => {
        const some = !seen || seen.subarray(keys[u], keys[u + 1]).some(Boolean);
        return some ? sum(own, keys[u], keys[u + 1]) : NaN;
      });
      return { dtype: "float32", shape: [data.length], data };
    },
    async matrix({ layer, words, sinks = "shown" }) {
      const { heads } = held.layer(Number(layer));
      const sides = await held.sides(Number(layer), Number(words) === 1);
      const [rows, keys] = [sides.rows.length - 1, sides.keys.length - 1];
      const data = new Float32Array(heads * rows * keys);
      for (let head = 0; head < heads; head++) {
        const own = await weighed(held, { layer: Number(layer), head }, /** @type {lazy.Sinks} */ (sinks));
        if (!own) throw absent("file_no_matrix", { layer });
        for (let row = 0; row < rows; row++) {
          const weights = lazy.unitRow(own, sides, row, 0, keys, /** @type {lazy.Sinks} */ (sinks));
          data.set(weights, (head * rows + row) * keys);
        }
      }
      return { dtype: "float32", shape: [heads, rows, keys], data };
    },
  };

  /**
   * What keys receive, added up over all rows; null where a head is not held.
   * @param {{layer: number, head: number}[]} pairs
   * @param {lazy.Sinks} sinks
   * @param {AbortSignal} [signal]
   */
  async function summed(pairs, sinks, signal) {
    const pause = lazy.pauses(signal);
    /** @type {Float64Array | null} */
    let total = null;
    for (const place of pairs) {
      const own = await weighed(held, place, sinks);
      if (!own) return null;
      total ??= new Float64Array(own.keys);
      await lazy.addRows(own, sinks, total, pause);
    }
    return total && total.map((value) => value / pairs.length);
  }
}

/**
 * @param {Held} held
 * @returns {Record<string, Answer>}
 */
function ofMaps(held) {
  return {
    async tile(params, signal) {
      const [layer, head] = [Number(params.layer), Number(params.head)];
      const [words, zoom] = [Number(params.words) === 1, Number(params.zoom)];
      const [row, column] = [Number(params.row), Number(params.column)];
      const [how, sinks] = [/** @type {lazy.How} */ (params.how), /** @type {lazy.Sinks} */ (params.sinks)];
      const level = words ? null : await held.level(layer, head, how, sinks, zoom);
      if (level) return cutOut(level, row, column);
      const overview = held.overview(`${layer}.${head}`);
      const own = await weighed(held, { layer, head }, sinks);
      if (!own) {
        const names = some([...new Set([...held.whole, ...held.overviews])]);
        if (!overview) throw new Absent((say) => say("file_no_tile", { layer, head, names: names || say("file_nothing") }));
        const values = { layer, head, cell: 2 ** overview.zoom, hows: overview.hows.join(", ") };
        throw absent(zoom < overview.zoom ? "file_no_detail" : "file_no_overview", values);
      }
      if (overview && zoom >= overview.zoom) throw absent("file_no_overview", { layer, head, hows: overview.hows.join(", ") });
      const sides = await held.sides(layer, words);
      const block = lazy.blockUnder({ row, column, zoom }, sides);
      const { shape, data } = await lazy.reduced(own, sides, block, { zoom, how, sinks }, lazy.pauses(signal));
      return { dtype: "float16", shape, data: Uint16Array.from(data, toHalf) };
    },
    async pixel(params, signal) {
      const [layer, head, zoom] = [Number(params.layer), Number(params.head), Number(params.zoom)];
      const [row, column] = [Number(params.row), Number(params.column)];
      const [sinks, words] = [/** @type {lazy.Sinks} */ (params.sinks), Number(params.words) === 1];
      const sides = await held.sides(layer, words);
      const block = lazy.blockUnder({ row, column, zoom }, sides, 1);
      const place = { rows: [block.top, block.bottom], keys: [block.left, block.right] };
      const own = await weighed(held, { layer, head }, sinks);
      if (!own) return { ...place, ...(await ofPicture()), at: null };
      const { mean, max, at } = await lazy.summed(own, sides, block, sinks, lazy.pauses(signal));
      const [top, left] = zoom === 0 ? [row, column] : (at ?? [-1, -1]);
      return { ...place, mean, max, at: top < 0 ? null : await cellOf(held, own, { layer, words, sinks, row: top, column: left }) };

      /** What an overview or a thumbnail says of a pixel, where it has that zoom. */
      async function ofPicture() {
        const known = { mean: /** @type {number | null} */ (null), max: /** @type {number | null} */ (null), partial: true };
        for (const how of /** @type {lazy.How[]} */ (words ? [] : ["mean", "max"])) {
          const level = await held.level(layer, head, how, sinks, zoom);
          const weight = level && fromHalf(level.data[row * level.shape[1] + column]);
          if (Number.isNaN(weight)) known.partial = false; // nothing of it may be seen
          else known[how] = weight;
        }
        return known;
      }
    },
    async steps({ layer, head, query, key, words, lang = "en" }) {
      const own = await held.head(Number(layer), Number(head));
      if (!own || "weights" in own) {
        throw new Absent((say) => say("file_no_steps", { layer, head, names: some(held.whole) || say("file_nothing") }));
      }
      const cell = { layer: Number(layer), head: Number(head), query: Number(query), key: Number(key) };
      return stepsOf(held, own, { ...cell, words: Number(words) === 1, lang: /** @type {import("../types").Lang} */ (lang) });
    },
  };
}

/**
 * @param {Held} held
 * @returns {Record<string, Answer>}
 */
function ofRows(held) {
  /**
   * @param {{layer: number, head: number}} place
   * @param {lazy.Sides} sides
   * @param {number} unit
   * @param {lazy.Sinks} sinks
   */
  async function gives({ layer, head }, sides, unit, sinks) {
    const own = await weighed(held, { layer, head }, sinks);
    if (own) return lazy.unitRow(own, sides, unit, 0, sides.keys.length - 1, sinks);
    const kept = await held.rows(layer, head, sides.rows[unit], sides.rows[unit + 1]);
    if (kept && sinks !== "shown") throw absent("file_row_sinks");
    if (!kept) {
      const rows = some(held.rowsOf(layer, head).map(String));
      throw new Absent((say) => say("file_no_row", { layer, head }) + (rows && say("file_rows", { rows })));
    }
    return Float64Array.from({ length: sides.keys.length - 1 }, (_, u) => sum(kept, sides.keys[u], sides.keys[u + 1]));
  }

  return {
    async row({ heads, unit, words, direction = "gives", sinks = "shown" }, signal) {
      const pairs = String(heads).split(",").map(pair);
      const how = /** @type {lazy.Sinks} */ (sinks);
      const pause = lazy.pauses(signal);
      /** @type {Float64Array | null} */
      let total = null;
      for (const place of pairs) {
        const sides = await held.sides(place.layer, Number(words) === 1);
        const own = direction === "gives" ? null : await weighed(held, place, how);
        if (direction !== "gives" && !own) throw absent("file_no_column", place);
        const row = own ? await lazy.unitColumn(own, sides, Number(unit), how, pause) : await gives(place, sides, Number(unit), how);
        total = total ? total.map((value, i) => plus(value, row[i])) : row;
        await pause();
      }
      const data = Float32Array.from(/** @type {Float64Array} */ (total), (value) => value / pairs.length);
      return { dtype: "float32", shape: [data.length], data };
    },
  };
}

/**
 * A tile of a level that is held whole.
 * @param {import("../file").Piece} level
 * @param {number} row
 * @param {number} column
 * @returns {Numbers}
 */
function cutOut({ data, shape: [height, width] }, row, column) {
  const [top, left] = [row * lazy.TILE, column * lazy.TILE];
  const shape = [Math.max(0, Math.min(lazy.TILE, height - top)), Math.max(0, Math.min(lazy.TILE, width - left))];
  const tile = new Uint16Array(shape[0] * shape[1]);
  for (let y = 0; y < shape[0]; y++) {
    const from = (top + y) * width + left;
    tile.set(data.subarray(from, from + shape[1]), y * shape[1]);
  }
  return { dtype: "float16", shape, data: tile };
}

/** @param {string} text as in "3.1" */
function pair(text) {
  const [layer, head] = text.split(".").map(Number);
  return { layer, head };
}

/**
 * @param {ArrayLike<number>} values
 * @param {number} from
 * @param {number} to
 */
function sum(values, from, to) {
  let total = 0;
  for (let i = from; i < to; i++) total += values[i];
  return total;
}

/**
 * A sum in which NaN counts as 0, unless both are.
 * @param {number} one
 * @param {number} other
 */
function plus(one, other) {
  return Number.isNaN(one) ? other : Number.isNaN(other) ? one : one + other;
}

/**
 * @param {Refusal} refusal
 * @returns {never}
 */
function thrown(refusal) {
  throw refusal;
}
