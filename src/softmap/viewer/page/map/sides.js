// The rows and keys of the map, and which unit holds which token, both ways.

import { shown } from "../labels.js";
import { unitAt } from "../units.js";

/** @typedef {Awaited<ReturnType<typeof openSides>>} Sides */

/**
 * @param {import("../types").App} app
 */
export async function openSides(app) {
  const { rows, keys, words } = app.sides();
  const [rowStarts, keyStarts] = words ? await Promise.all([rows.starts(), keys.starts()]) : [null, null];
  return {
    rows,
    keys,
    words,
    size: { rows: rows.count, keys: keys.count },
    row: sideOf(rows, rowStarts),
    key: sideOf(keys, keyStarts),
  };
}

/**
 * @param {import("../types").Units} units
 * @param {Int32Array | null} starts null where every unit is a token
 */
function sideOf(units, starts) {
  const inside = (/** @type {number} */ i) => Math.min(Math.max(i, 0), units.count - 1);
  return {
    units,
    tokens: starts ? starts[starts.length - 1] : units.count,
    /** The first token of a unit. @param {number} unit */
    token: (unit) => (starts ? starts[inside(unit)] : inside(unit)),
    /** The unit that holds a token; -1 for none. @param {number} token */
    unit: (token) => (token < 0 ? -1 : starts ? unitAt(starts, token) : inside(token)),
    /** What a unit is called, as one line; null while that is on its way. @param {number} unit */
    label(unit) {
      const known = units.peek(unit);
      return known ? { text: shown(known.label), special: known.special } : null;
    },
  };
}
