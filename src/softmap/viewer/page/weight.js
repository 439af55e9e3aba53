// What is said of one cell: its weight, and the scores before it.

import { number, percent } from "./format.js";

const LEAST = 2 ** -14; // below it float16, in which a file holds weights alone, has fewer digits than are said

/** @typedef {NonNullable<import("./types").Pixel["at"]>} Cell */

/**
 * The weight, or why there is none.
 * @param {import("./types").App} app
 * @param {Cell} cell
 */
export function weightOf({ say }, { hidden, weight, score }) {
  if (hidden) return say(hidden);
  return score === null && weight < LEAST ? `<${percent(LEAST)}` : percent(weight);
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
 * @param {Cell} cell
 * @returns {[string, string][]}
 */
export function scoresOf({ say }, { score, scaled, pieces, hidden }) {
  if (score === null) return [];
  return [
    [say(pieces > 1 && !hidden ? "score_pieces" : "score"), number(score)],
    [say("scaled"), scaled === null ? "−∞" : number(scaled)],
  ];
}
