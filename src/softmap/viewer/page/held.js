// What an exported file holds of a recording, put together from its pieces when it is first needed.
//
//   index                      about, and of each layer what its matrices are made of
//   text/OF, places/OF         a text, and where each token stands in it
//   units/OF/WORDS             labels, gaps, first tokens
//   thumbs/L, roles/L          of all heads
//   pictures/L, pixels/I       what the model saw
//   q/L.H, k/L.G, v/L.G        what weights are computed from; mask/N, bias/N: what several layers share
//   logsumexp/L.H[/rest]       of long texts, so that no row need be looked at whole
//   received/L.H, received/L   of a head, and the mean over all of a layer's
//   level/L.H/HOW/SINKS/ZOOM   pixels of a whole matrix
//   row/L.H/QUERY              one row, of a head whose q and k are not held

import { fromHalf } from "./float16.js";
import { createLevels } from "./levels.js";
import { scaledAt, scoreAt, unitRow, weightsRow } from "./lazy.js";
import { unitAt } from "./units.js";

const AROUND = 40; // characters of the text beside a token

/** @typedef {Awaited<ReturnType<typeof createHeld>>} Held */
/** @typedef {import("./types").UnitsChunk} Chunk */
/**
 * @typedef {object} LayerIndex
 * @property {string} [why] its q and k can't be held; all but `left` is left out then
 * @property {number} size of a query, and of a key
 * @property {number} group how many heads share a key head
 * @property {number} scale
 * @property {number | null} softcap
 * @property {number[] | null} sinks
 * @property {string | null} mask the piece that it is in
 * @property {string[] | null} bias likewise, of each head
 * @property {number[]} left the keys that are left out where sinks are not shown
 * @property {Record<string, Record<string, {title: string, sentences: string[]}>>} said of each step, in each language
 * @property {{mask: string | null, bias: string | null}} added as they are called
 * @property {Record<string, string>} agreement with the model, in each language
 */
/** @typedef {{about: import("./types").About, layers: Record<string, LayerIndex>}} Index */

/** @param {ReturnType<typeof import("./file").createPieces>} pieces */
export async function createHeld(pieces) {
  const { about, layers } = /** @type {Index} */ ((await pieces.read("index")).data);
  const named = pieces.names().map((name) => name.split("/"));
  const whole = named.filter(([kind]) => kind === "q").map(([, name]) => name);
  const overviews = [...new Set(named.filter(([kind]) => kind === "level").map(([, name]) => name))];
  /** @param {string} name */
  const piece = async (name) => (pieces.has(name) ? pieces.read(name) : null);
  const texts = createTexts(piece, about);
  const levels = createLevels(pieces, { layers, infoOf: texts.layer });
  const heads = createHeads(pieces, piece, layers, texts.layer, levels);

  return {
    about,
    whole,
    overviews,
    has: pieces.has,
    piece,
    ...texts,
    ...heads,
    ...levels,
    /** @param {number} number */
    index: (number) => layers[number],
    /**
     * The tokens whose rows are held of a head whose q and k are not.
     * @param {number} layer
     * @param {number} head
     */
    rowsOf: (layer, head) =>
      named
        .filter(([kind, name]) => kind === "row" && name === `${layer}.${head}`)
        .map(([, , query]) => Number(query))
        .sort((one, other) => one - other),
    /**
     * The mean of some rows that are held; null where one is not.
     * @param {number} layer
     * @param {number} head
     * @param {number} from
     * @param {number} to
     */
    async rows(layer, head, from, to) {
      const names = Array.from({ length: to - from }, (_, i) => `row/${layer}.${head}/${from + i}`);
      if (!names.every(pieces.has)) return null;
      return mean(await Promise.all(names.map(async (name) => (await pieces.read(name)).data)));
    },
  };
}

/**
 * @param {(name: string) => Promise<import("./file").Piece | null>} piece
 * @param {import("./types").About} about
 */
function createTexts(piece, about) {
  /** @param {number} number */
  function layer(number) {
    const info = about.layers.find((each) => each.number === number);
    if (!info) throw new Error(`There is no layer ${number}.`);
    return info;
  }
  /**
   * @param {string} of
   * @param {boolean} words
   * @returns {Promise<Chunk>}
   */
  async function units(of, words) {
    const read = await piece(`units/${of}/${Number(words)}`);
    if (!read) throw new Error(`There is no text called ${of}.`);
    return read.data;
  }
  /**
   * @param {string} of
   * @param {boolean} words
   */
  async function starts(of, words) {
    const count = /** @type {import("./types").TextInfo} */ (about.texts[/** @type {import("./types").Of} */ (of)]).tokens;
    return Int32Array.from([...(await units(of, words)).starts, count]);
  }
  /**
   * @param {import("./types").Of | null} of
   * @param {boolean} words
   * @param {number} count
   */
  const side = (of, words, count) =>
    of === null ? Promise.resolve(Int32Array.from({ length: count + 1 }, (_, i) => i)) : starts(of, words);

  return {
    layer,
    units,
    starts,
    /**
     * The units of a layer's rows and keys.
     * @param {number} number
     * @param {boolean} words
     */
    async sides(number, words) {
      const { queries_of, keys_of, queries, keys } = layer(number);
      return { rows: await side(queries_of, words, queries), keys: await side(keys_of, words, keys) };
    },
    /**
     * What a token is called, or the word that holds it.
     * @param {import("./types").Of | null} of
     * @param {number} token
     * @param {boolean} words
     */
    async label(of, token, words) {
      if (of === null) return String(token);
      return (await units(of, words)).labels[unitAt(await starts(of, words), token)];
    },
    /**
     * A text, and where in it each token stands: start and stop, by turns.
     * @param {string} of
     * @returns {Promise<{text: string, places: Int32Array}>}
     */
    async text(of) {
      const [text, places] = [await piece(`text/${of}`), await piece(`places/${of}`)];
      if (!text || !places) throw new Error(`There is no text called ${of}.`);
      return { text: text.data, places: places.data };
    },
    /**
     * Where in the text each unit stands.
     * @param {string} of
     * @param {boolean} words
     * @returns {Promise<[number, number][]>}
     */
    async placesOf(of, words) {
      const { data } = /** @type {import("./file").Piece} */ (await piece(`places/${of}`));
      const units = await starts(of, words);
      return Array.from({ length: units.length - 1 }, (_, u) => [data[2 * units[u]], data[2 * units[u + 1] - 1]]);
    },
  };
}

/**
 * A unit's label, and the text around it.
 * @param {Held} held
 * @param {import("./types").Of | null} of
 * @param {number} unit
 * @param {boolean} words
 * @returns {Promise<{label: string, context: [string, string, string]}>}
 */
async function unitOf(held, of, unit, words) {
  if (of === null) return { label: String(unit), context: ["", String(unit), ""] };
  const { text } = await held.text(of);
  const label = (await held.units(of, words)).labels[unit];
  const [start, stop] = (await held.placesOf(of, words))[unit];
  const before = [...text.slice(Math.max(0, start - 2 * AROUND), start)].slice(-AROUND).join("");
  const after = [...text.slice(stop, stop + 2 * AROUND)].slice(0, AROUND).join("");
  return { label, context: [before, label, after] };
}

/**
 * @param {ReturnType<typeof import("./file").createPieces>} pieces
 * @param {(name: string) => Promise<import("./file").Piece | null>} piece
 * @param {Record<string, LayerIndex>} layers
 * @param {(number: number) => import("./types").LayerInfo} infoOf
 * @param {ReturnType<typeof createLevels>} levels
 */
function createHeads(pieces, piece, layers, infoOf, levels) {
  /** @type {Map<string, Promise<import("./lazy").Weighed>>} */
  const made = new Map();

  /**
   * @param {number} layer
   * @param {number} head
   * @returns {Promise<import("./lazy").Head>}
   */
  async function make(layer, head) {
    const [own, { queries, keys }, name] = [layers[layer], infoOf(layer), `${layer}.${head}`];
    const { data: q } = await pieces.read(`q/${name}`);
    const { data: k } = await pieces.read(`k/${layer}.${Math.floor(head / own.group)}`);
    const bias = own.bias && (await pieces.read(own.bias[head]));
    const known = async (/** @type {string} */ place) => (await piece(place))?.data ?? new Float64Array(queries).fill(NaN);
    return {
      ...{ queries, keys, q, k, left: leftOf(layer), size: own.size, scale: own.scale, softcap: own.softcap },
      sink: own.sinks ? own.sinks[head] : null,
      runs: runsOf((await pieces.read(/** @type {string} */ (own.mask))).data, queries),
      bias: bias && { values: bias.data, byDistance: bias.shape.length === 1 },
      peak: { all: await known(`logsumexp/${name}`), rest: await known(`logsumexp/${name}/rest`) },
      above: { all: new Float64Array(queries), rest: new Float64Array(queries) },
    };
  }

  /**
   * A head of a short text, whose thumbnail has every weight.
   * @param {number} layer
   * @param {number} head
   * @returns {Promise<import("./lazy").Weights>}
   */
  async function makeOfThumb(layer, head) {
    const { queries, keys } = infoOf(layer);
    const { data } = /** @type {import("./file").Piece} */ (await levels.thumb(layer, head));
    return { queries, keys, left: leftOf(layer), weights: Float64Array.from(data, fromHalf) };
  }

  /**
   * The keys that are left out where sinks are not shown.
   * @param {number} layer
   */
  function leftOf(layer) {
    const left = new Uint8Array(infoOf(layer).keys);
    for (const key of layers[layer].left) left[key] = 1;
    return left;
  }

  /**
   * What a head's weights are computed from, or they themselves; null where neither is held.
   * @param {number} layer
   * @param {number} head
   */
  async function head(layer, head) {
    const [name, extent] = [`${layer}.${head}`, levels.extent(layer, head)];
    if (extent !== "whole" && extent !== "weights") return null;
    let making = made.get(name);
    if (!making) made.set(name, (making = extent === "whole" ? make(layer, head) : makeOfThumb(layer, head)));
    return making;
  }

  return {
    head,
    /**
     * A layer's values of a head; null where they are not held.
     * @param {number} layer
     * @param {number} head
     */
    values: (layer, head) => piece(`v/${layer}.${Math.floor(head / layers[layer].group)}`),
    /**
     * What keys receive in the mean of some heads; null where one is not held.
     * @param {{layer: number, head: number}[]} pairs
     * @returns {Promise<ArrayLike<number> | null>}
     */
    async received(pairs) {
      const read = await Promise.all(pairs.map(({ layer, head }) => piece(`received/${layer}.${head}`)));
      if (read.every((each) => each !== null)) return mean(read.map((each) => each.data));
      const [{ layer }] = pairs;
      const all = pairs.every((each, i) => each.layer === layer && each.head === i) && pairs.length === infoOf(layer).heads;
      return all ? ((await piece(`received/${layer}`))?.data ?? null) : null;
    },
  };
}

/**
 * Runs of keys, from how many each query has and where they begin and end.
 * @param {Int32Array} data
 * @param {number} queries
 * @returns {import("./lazy").Runs}
 */
function runsOf(data, queries) {
  return { first: data.subarray(0, queries + 1), edges: data.subarray(queries + 1) };
}

/** @param {ArrayLike<number>[]} rows */
function mean(rows) {
  if (rows.length === 1) return rows[0];
  return Float64Array.from({ length: rows[0].length }, (_, i) => rows.reduce((sum, row) => sum + row[i], 0) / rows.length);
}

/**
 * All that can be said of one cell; between two words, score and scaled are of the pieces that look most.
 * @param {Held} held
 * @param {import("./lazy").Weighed} head
 * @param {{layer: number, words: boolean, sinks: import("./types").Sinks, row: number, column: number}} cell in units
 * @returns {Promise<import("./types").Pixel["at"]>}
 */
export async function cellOf(held, head, { layer, words, sinks, row, column }) {
  const { queries_of, keys_of } = held.layer(layer);
  const sides = await held.sides(layer, words);
  const [weight] = unitRow(head, sides, row, column, column + 1, sinks);
  const [unmasked] = unitRow(head, sides, row, column, column + 1, "shown");
  const { query, key } = largestOf(head, sides, row, column, sinks);
  const scaled = "weights" in head ? null : scaledAt(head, query, key);
  const [one, other] = [await unitOf(held, queries_of, row, words), await unitOf(held, keys_of, column, words)];
  return {
    query,
    key,
    weight: weight || 0,
    score: "weights" in head ? null : scoreAt(head, query, key),
    scaled: Number.isFinite(scaled) ? scaled : null,
    pieces: Math.max(sides.rows[row + 1] - sides.rows[row], sides.keys[column + 1] - sides.keys[column]),
    hidden: !Number.isNaN(weight) ? "" : Number.isNaN(unmasked) ? "masked" : "left_out",
    query_label: one.label,
    key_label: other.label,
    query_context: one.context,
    key_context: other.context,
  };
}

/**
 * The tokens of two units of which one looks most at the other.
 * @param {import("./lazy").Weighed} head
 * @param {import("./lazy").Sides} sides
 * @param {number} row
 * @param {number} column
 * @param {import("./types").Sinks} sinks
 */
function largestOf(head, { rows, keys }, row, column, sinks) {
  let best = { query: rows[row], key: keys[column], weight: 0 };
  const weights = new Float64Array(keys[column + 1] - keys[column]);
  for (let query = rows[row]; query < rows[row + 1]; query++) {
    weightsRow(head, query, keys[column], keys[column + 1], sinks, weights);
    weights.forEach((weight, i) => {
      if (weight > best.weight) best = { query, key: keys[column] + i, weight };
    });
  }
  return best;
}
