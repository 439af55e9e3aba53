// What is read off the weights of one token: how strongly each patch is shaded, what is marked, and what is said.

import { floorOf, share as shareOf } from "../colors.js";
import { percent } from "../format.js";

/** @typedef {import("../types").App} App */
/** @typedef {import("./asking.js").Asked} Asked */
/** @typedef {import("./asking.js").Grid} Grid */
/** @typedef {import("./asking.js").Seen} Seen */
/** @typedef {import("./asking.js").Side} Side */
/**
 * @typedef {object} Scale from weights to shares of the colours
 * @property {(weight: number) => number} share from 0 to 1; NaN where nothing is to be seen
 * @property {number} least the weight of the first colour
 * @property {number} most that of the last
 */

/**
 * The strongest colour is that of the largest weight on a patch, but for the patch that is asked about.
 * @param {Asked} asked
 * @param {import("../types").Scale} scale
 * @returns {Scale}
 */
export function scaleOf({ weights, pictures, to, token, one, layer }, scale) {
  let most = 0;
  for (const each of pictures.flatMap(({ grids }) => grids[to]?.tokens ?? [])) {
    if (weights && (!one || each !== token) && weights[each] > most) most = weights[each];
  }
  most ||= 1;
  if (scale === "linear") return { share: (weight) => Math.min(1, weight / most), least: 0, most };
  const least = Math.min(floorOf(to === "key" ? layer.keys : layer.queries), most / 10);
  return { share: (weight) => (Number.isNaN(weight) ? NaN : shareOf(weight / most, "log", least / most)), least, most };
}

/**
 * How much goes to the patches of each picture and to the other tokens: the sums of a row, the means of a column.
 * @param {App} app
 * @param {Asked} asked
 */
export function factsOf(app, { weights, pictures, from, to }) {
  const all = Array.from(weights ?? [], (weight) => weight || 0);
  const own = pictures.filter(({ grids }) => grids[to]);
  const patches = own.map(({ grids }) => /** @type {Grid} */ (grids[to]).tokens);
  const sums = patches.map((tokens) => tokens.reduce((sum, token) => sum + all[token], 0));
  const rest = all.length - patches.flat().length;
  const left = Math.max(0, add(all) - add(sums));
  const shown = (/** @type {number} */ sum, /** @type {number} */ count) => percent(from === "query" ? sum : sum / count);
  const name = (/** @type {number} */ i) => (own.length > 1 ? app.say("picture_one", { number: own[i].index + 1 }) : app.say("picture_patches"));
  const facts = sums.map((sum, i) => ({ name: name(i), text: shown(sum, patches[i].length) }));
  return rest ? [...facts, { name: app.say("picture_others"), text: shown(left, rest) }] : facts;
}

/** @param {number[]} numbers */
function add(numbers) {
  return numbers.reduce((sum, each) => sum + each, 0);
}

/**
 * Where a patch is, as it is said: counted from 1.
 * @param {Grid} grid
 * @param {number} patch
 */
export function placeOf({ columns }, patch) {
  return { row: Math.floor(patch / columns) + 1, column: (patch % columns) + 1 };
}

/**
 * The patches that are held and pointed at.
 * @param {Asked} asked
 * @param {Seen} picture
 */
export function marksOf({ held, pointed, from, to }, { grids }) {
  /** @type {{patch: number, kind: "held" | "over" | "met"}[]} */
  const marks = [];
  for (const side of [to, from]) {
    const shown = grids[side]?.tokens ?? [];
    const [kept, over] = [shown.indexOf(held[side]), shown.indexOf(pointed[side])];
    if (kept >= 0) marks.push({ patch: kept, kind: side === from ? "held" : "met" });
    if (over >= 0 && over !== kept) marks.push({ patch: over, kind: "over" });
  }
  return marks;
}

/**
 * Likewise, the tokens beside the pictures.
 * @param {Asked} asked
 * @param {Side} side
 */
export function marksOfTokens({ held, pointed, from, to, one }, side) {
  /** @type {Map<number, string>} */
  const marks = new Map();
  for (const each of one ? [to, from] : [side]) {
    marks.set(pointed[each], "over");
    marks.set(held[each], each === from ? "held" : "met");
  }
  return marks;
}

/**
 * The number beside the patch that is pointed at.
 * @param {App} app
 * @param {Asked} asked
 * @param {Seen} picture
 * @param {(token: number, side: Side) => string} labelOf
 */
export function tagOf(app, { one, from, to, token, weights, ofHeld, held, pointed }, { grids }, labelOf) {
  const grid = grids[to];
  if (!grid || !weights) return null;
  const at = pointed[to] >= 0 || !one ? pointed[to] : pointed[from];
  const patch = at < 0 ? -1 : grid.tokens.indexOf(at);
  if (patch < 0) return null;
  const said = { ...placeOf(grid, patch), weight: percent((ofHeld ?? weights)[at] || 0) };
  if (pointed[to] >= 0 || token < 0) return { patch, text: app.say("picture_tag", { ...said, weight: percent(weights[at] || 0) }) };
  if (!ofHeld) return { patch, text: app.say("picture_tag_self", said) };
  return { patch, text: app.say(`picture_tag_held_${from}`, { ...said, label: labelOf(held[from], from) }) };
}
