// What is said of one cell: its weight, and the scores before it.

import { number, percent } from "./format.js";

/**
 * The weight, or why there is none: the query may not see the key, or the key is left out with the sinks.
 * @param {import("./types").App} app
 * @param {NonNullable<import("./types").Pixel["at"]>} cell
 * @param {number} unit of the key
 */
export function weightOf(app, cell, unit) {
  if (cell.visible) return percent(cell.weight);
  const masked = cell.score !== null && cell.scaled === null;
  const sink = cell.key === 0 || app.sides().keys.peek(unit)?.special;
  return app.say(sink && !masked && app.shown().sinks !== "shown" ? "left_out" : "unseen");
}

/**
 * What a weight is called: where sinks are rescaled it is not the model's own.
 * @param {import("./types").App} app
 */
export function nameOfWeight(app) {
  return app.say(app.shown().sinks === "rescaled" ? "weight_rescaled" : "weight");
}

/**
 * Steps 1 and 2 by name; nothing where a file holds the weight alone.
 * @param {import("./types").App} app
 * @param {NonNullable<import("./types").Pixel["at"]>} cell
 * @returns {[string, string][]}
 */
export function scoresOf({ say }, { score, scaled, pieces }) {
  if (score === null) return [];
  return [
    [say(pieces > 1 ? "score_pieces" : "score"), number(score)],
    [say("scaled"), scaled === null ? "−∞" : number(scaled)],
  ];
}
