// What the text is shaded by: the weights of the word that is pointed at or held, in the chosen heads, one row or one
// column of the matrix; where there is no such word, what each word receives.

import { Absent } from "./absent.js";
import { topOf, shadesOf, shadesOfReceived } from "./shades.js";
import { unitAt } from "./units.js";

const PATIENCE = 30; // ms that the pointer rests before its row is asked for
const NAMED = 5; // of the largest weights

/**
 * @typedef {object} Sides the two texts, and which of them is asked about
 * @property {string[]} heads as in "3.1"; none where none are picked
 * @property {import("./types").LayerInfo} layer
 * @property {import("./types").Units} rows
 * @property {import("./types").Units} keys
 * @property {boolean} one whether rows and keys are the same text
 * @property {"query" | "key"} from the side that is asked about
 * @property {"query" | "key"} to the side that is shaded
 */
/**
 * @typedef {object} Look
 * @property {Sides} sides
 * @property {number} unit asked about; -1 for none
 * @property {Float32Array | null} weights on the units of the other side; null where no head is picked
 * @property {Float32Array | null} shades
 * @property {number[]} top units with the largest weights
 * @property {{query: number, key: number}} held units
 * @property {{query: number, key: number}} pointed units
 * @property {Float32Array | null} ofHeld the weights of the held word, while another is pointed at
 */

/** @typedef {import("./types").App} App */

/**
 * @param {App} app
 * @returns {Sides}
 */
export function sidesOf(app) {
  const { layer: chosen, head, mean, picked, words, direction } = app.store.get();
  const { heads: count } = app.data.layer(chosen);
  const all = Array.from({ length: count }, (_, i) => `${chosen}.${i}`);
  const heads = { head: [`${chosen}.${head}`], layer: all, picked }[mean];
  const layer = app.data.layer(heads.length ? Number(heads[0].split(".")[0]) : chosen);
  const [rows, keys] = [app.data.units(layer.queries_of, words, layer.queries), app.data.units(layer.keys_of, words, layer.keys)];
  const one = layer.queries_of === layer.keys_of && rows.count === keys.count;
  const gives = direction === "gives";
  return { heads, layer, rows, keys, one, from: gives ? "query" : "key", to: gives ? "key" : "query" };
}

/**
 * The view beside the map: the chosen one, but the text where a layer has no pictures to show.
 * @param {App} app
 * @returns {import("./types").View}
 */
export function viewOf(app) {
  const { view, layer } = app.store.get();
  return view === "picture" && !app.data.about.pictures?.includes(layer) ? "text" : view;
}

/**
 * Follows the state and the pointer, and tells what is looked at.
 * @param {App} app
 * @param {(look: Look) => void} tell
 * @param {(remark: string) => void} failed what is looked at could not be had; what is to be said of that
 */
export function createLook(app, tell, failed) {
  let asked = new AbortController();

  /** @param {number} patience */
  async function look(patience) {
    asked.abort();
    if (viewOf(app) !== "text") return;
    asked = new AbortController();
    const { signal } = asked;
    try {
      if (patience) await new Promise((resolve) => setTimeout(resolve, patience));
      const found = signal.aborted ? null : await lookedAt(app, signal);
      if (found && !signal.aborted) tell(found);
    } catch (error) {
      if (signal.aborted) return;
      failed(error instanceof Absent ? error.told(app.say) : "");
      if (!(error instanceof Absent)) app.report(error);
    }
  }

  const counts = new Set(["layer", "head", "mean", "picked", "query", "key", "scale", "sinks", "words", "direction", "view", "lang"]);
  app.pointer.subscribe(() => void look(PATIENCE));
  app.store.subscribe((_, changed) => {
    if ([...changed].some((name) => counts.has(name))) void look(0);
  });
  return () => void look(0);
}

/**
 * @param {App} app
 * @param {AbortSignal} signal
 * @returns {Promise<Look>}
 */
async function lookedAt(app, signal) {
  const sides = sidesOf(app);
  const { scale, query, key } = app.store.get();
  const { rows, keys, from, to, heads } = sides;
  const [ofRows, ofKeys] = await Promise.all([rows.starts(), keys.starts()]);
  const unitsAt = (/** @type {import("./types").Pointed} */ at) => ({ query: place(ofRows, at.query), key: place(ofKeys, at.key) });
  const [held, pointed] = [unitsAt({ query, key }), unitsAt(app.pointer.get())];
  const unit = pointed[from] >= 0 ? pointed[from] : held[from];
  const base = { sides, unit, held, pointed };
  if (!heads.length) return { ...base, weights: null, shades: null, top: [], ofHeld: null };
  if (unit < 0) {
    const weights = await received(app, sides, signal);
    const shades = sides.to === "key" || sides.one ? shadesOfReceived(weights, { scale, queries: rows.count }) : null;
    return { ...base, weights, shades, top: [], ofHeld: null };
  }
  const weights = await row(app, sides, unit, signal);
  const aside = held[from] >= 0 && held[from] !== unit;
  const ofHeld = aside ? await row(app, sides, held[from], signal) : null;
  const self = sides.one ? unit : -1;
  await Promise.all(topOf(weights, NAMED).map((each) => (to === "key" ? keys : rows).load(each, each + 1)));
  await (from === "query" ? rows : keys).load(unit, unit + 1);
  return { ...base, weights, shades: shadesOf(weights, { scale, keys: keys.count, self }), top: topOf(weights, NAMED), ofHeld };
}

/**
 * The unit that holds a token; -1 where there is none.
 * @param {Int32Array} starts
 * @param {number} token
 */
function place(starts, token) {
  return token < 0 || token >= starts[starts.length - 1] ? -1 : unitAt(starts, token);
}

/**
 * @param {App} app
 * @param {Sides} sides
 * @param {AbortSignal} signal
 * @returns {Promise<Float32Array>}
 */
async function received(app, { heads }, signal) {
  const { words, sinks } = app.store.get();
  const question = { heads: heads.join(), words: Number(words), ...(sinks === "shown" ? {} : { sinks }) };
  return (await app.data.ask("received", question, signal)).data;
}

/**
 * The weights of one unit, on or from those of the other side.
 * @param {App} app
 * @param {Sides} sides
 * @param {number} unit
 * @param {AbortSignal} signal
 * @returns {Promise<Float32Array>}
 */
async function row(app, { heads, layer, from }, unit, signal) {
  const { words, direction, sinks } = app.store.get();
  const of = (from === "query" ? layer.queries_of : layer.keys_of) ?? "";
  const question = { heads: heads.join(), of, unit, words: Number(words), direction, sinks };
  return (await app.data.ask("row", question, signal)).data;
}
