// What the pictures are shaded by: the weights of the token that is pointed at or held, in the chosen heads; where there
// is none, what each token receives. Always by tokens: a patch is one, also where the text is looked at in words.

import { Absent } from "../absent.js";
import { sidesOf, viewOf } from "../look.js";

const PATIENCE = 30; // ms that the pointer rests before its row is asked for

/** @typedef {import("../types").App} App */
/** @typedef {"query" | "key"} Side */
/**
 * @typedef {object} Grid where the patches of a picture stand on one side of the matrix
 * @property {number} rows
 * @property {number} columns
 * @property {number[]} tokens of the patches, row by row
 */
/**
 * @typedef {object} Seen one picture of a layer
 * @property {number} index
 * @property {number} width in pixels
 * @property {number} height
 * @property {boolean} stretched whether its colours are
 * @property {Record<Side, Grid | null>} grids
 */
/**
 * @typedef {object} Asked
 * @property {import("../types").LayerInfo} layer
 * @property {Seen[]} pictures
 * @property {boolean} one whether queries and keys are the same tokens
 * @property {Side} from the side that is asked about
 * @property {Side} to the side that is shaded
 * @property {number} token asked about; -1 for none
 * @property {Float32Array | null} weights on the tokens of the other side; null where no head is picked, or all is absent
 * @property {string} [absent] what an exported file does not hold
 * @property {Float32Array | null} ofHeld those of the held token, while another is pointed at
 * @property {Record<Side, number>} held
 * @property {Record<Side, number>} pointed
 */

/**
 * Follows the state and the pointer while the view is shown, and tells what is asked.
 * @param {App} app
 * @param {(asked: Asked) => void} tell
 */
export function createAsking(app, tell) {
  let before = new AbortController();

  /** @param {number} patience */
  async function ask(patience) {
    before.abort();
    if (viewOf(app) !== "picture") return;
    before = new AbortController();
    const { signal } = before;
    try {
      if (patience) await new Promise((resolve) => setTimeout(resolve, patience));
      const found = signal.aborted ? null : await asked(app, signal);
      if (found && !signal.aborted) tell(found);
    } catch (error) {
      if (!signal.aborted) app.report(error);
    }
  }

  const counts = new Set(["layer", "head", "mean", "picked", "query", "key", "scale", "sinks", "direction", "view", "lang"]);
  app.pointer.subscribe(() => void ask(PATIENCE));
  app.store.subscribe((_, changed) => {
    if ([...changed].some((name) => counts.has(name))) void ask(0);
  });
  return () => void ask(0);
}

/**
 * @param {App} app
 * @param {AbortSignal} signal
 * @returns {Promise<Asked>}
 */
async function asked(app, signal) {
  const { heads, layer, from, to } = sidesOf(app);
  const { query, key, sinks, direction } = app.store.get();
  const pictures = seen((await app.data.ask("pictures", { layer: layer.number }, signal)).pictures);
  const one = layer.queries_of === layer.keys_of && layer.queries === layer.keys;
  const inside = (/** @type {import("../types").Pointed} */ at) => ({
    query: at.query < layer.queries ? at.query : -1,
    key: at.key < layer.keys ? at.key : -1,
  });
  const [held, pointed] = [inside({ query, key }), inside(app.pointer.get())];
  const token = pointed[from] >= 0 ? pointed[from] : held[from];
  const base = { layer, pictures, one, from, to: token < 0 ? "key" : to, token, held, pointed, weights: null, ofHeld: null };
  if (!heads.length) return base;
  /** @param {number} unit */
  const row = async (unit) => {
    const of = (from === "query" ? layer.queries_of : layer.keys_of) ?? "";
    return (await app.data.ask("row", { heads: heads.join(), of, unit, words: 0, direction, sinks }, signal)).data;
  };
  try {
    if (token < 0) return { ...base, weights: await received(app, heads, layer.queries, signal) };
    return { ...base, weights: await row(token), ofHeld: held[from] >= 0 && held[from] !== token ? await row(held[from]) : null };
  } catch (error) {
    if (error instanceof Absent) return { ...base, absent: error.told(app.say) };
    throw error;
  }
}

/**
 * The mean over all queries of what each token receives.
 * @param {App} app
 * @param {string[]} heads
 * @param {number} queries
 * @param {AbortSignal} signal
 * @returns {Promise<Float32Array>}
 */
async function received(app, heads, queries, signal) {
  const { sinks } = app.store.get();
  const question = { heads: heads.join(), words: 0, ...(sinks === "shown" ? {} : { sinks }) };
  return (await app.data.ask("received", question, signal)).data.map((/** @type {number} */ sum) => sum / queries);
}

/**
 * The pictures with both sides of each together.
 * @param {import("../types").PictureInfo[]} told
 */
function seen(told) {
  /** @type {Map<number, Seen>} */
  const pictures = new Map();
  for (const { index, width, height, stretched, side, grid: [rows, columns], tokens } of told) {
    const picture = pictures.get(index) ?? { index, width, height, stretched, grids: { query: null, key: null } };
    const grid = { rows, columns, tokens };
    if (side !== "keys") picture.grids.query = grid;
    if (side !== "queries") picture.grids.key = grid;
    pictures.set(index, picture);
  }
  return [...pictures.values()];
}
