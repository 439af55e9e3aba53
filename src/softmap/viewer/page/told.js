// The four steps of a cell from what an exported file holds: its numbers, and what is said of any row.

import { isSeen, logsumexp, scaledAt, scoreAt, weightAt } from "./lazy.js";

const STAGES = /** @type {const} */ (["scores", "scaled", "weights", "output"]);
const TOP = 12; // keys that are told with their numbers

/** @typedef {{layer: number, head: number, query: number, key: number, words: boolean, lang: import("./types").Lang}} Question */

/**
 * @param {import("./held").Held} held
 * @param {import("./lazy").Head} head
 * @param {Question} question
 * @returns {Promise<import("./types").StepsAnswer>}
 */
export async function stepsOf(held, head, { layer, head: number, query, key, words, lang }) {
  const { said, added, agreement } = held.index(layer);
  const { queries_of, keys_of } = held.layer(layer);
  const labels = [await held.label(queries_of, query, words), await held.label(keys_of, key, words)];
  const row = rowOf(head, query, (await held.values(layer, number)) ?? null);
  const numbers = { scores: row.score, scaled: row.scaled, weights: row.weight, output: row.share };
  const named = largest(head, query, row.weight);
  const told = named.includes(key) ? named : [...named, key];
  const rest = seenOf(head, query).filter((each) => !told.includes(each));
  const total = logsumexp(head, query, "all");
  return {
    title: labels.join(" → "),
    query_label: labels[0],
    key_label: labels[1],
    d_k: head.size,
    scale: head.scale,
    sections: STAGES.map((name) => ({ name, ...said[lang][name], number: finite(numbers[name](key)) })),
    added: { softcap: head.softcap, ...added, sink: head.sink },
    top: await Promise.all(told.map(async (each) => ({ key: each, label: await held.label(keys_of, each, false), ...of(each) }))),
    rest: { count: rest.length, weight: rest.reduce((sum, each) => sum + row.weight(each), 0) },
    logsumexp: finite(total),
    agreement: agreement[lang],
  };

  /** @param {number} each */
  function of(each) {
    return { score: row.score(each), scaled: finite(row.scaled(each)), weight: row.weight(each), share: finite(row.share(each)) };
  }
}

/**
 * The numbers of a row, by key.
 * @param {import("./lazy").Head} head
 * @param {number} query
 * @param {import("./file").Piece | null} values
 */
function rowOf(head, query, values) {
  const weights = Float64Array.from({ length: head.keys }, (_, key) => weightAt(head, query, key));
  const brought = values && weights.map((weight, key) => weight * length(values, key));
  const total = brought ? brought.reduce((sum, value) => sum + value, 0) || 1 : 1;
  return {
    score: (/** @type {number} */ key) => scoreAt(head, query, key),
    scaled: (/** @type {number} */ key) => scaledAt(head, query, key),
    weight: (/** @type {number} */ key) => weights[key],
    share: (/** @type {number} */ key) => (brought ? brought[key] / total : NaN),
  };
}

/**
 * How long one value vector is.
 * @param {import("./file").Piece} values
 * @param {number} key
 */
function length({ data, shape: [, size] }, key) {
  return Math.hypot(...data.subarray(key * size, (key + 1) * size));
}

/**
 * The keys that a query sees, but those that a bias hides.
 * @param {import("./lazy").Head} head
 * @param {number} query
 */
function seenOf(head, query) {
  const keys = Array.from({ length: head.keys }, (_, key) => key);
  return keys.filter((key) => isSeen(head, query, key) && scaledAt(head, query, key) > -Infinity);
}

/**
 * The keys of the largest weights of a row, in falling order; of equal ones the lower key first.
 * @param {import("./lazy").Head} head
 * @param {number} query
 * @param {(key: number) => number} weight
 */
function largest(head, query, weight) {
  return seenOf(head, query)
    .sort((a, b) => weight(b) - weight(a) || a - b)
    .slice(0, TOP);
}

/** @param {number} value */
function finite(value) {
  return Number.isFinite(value) ? value : null;
}
