// The sentence view as SVG: words, the lines of all of them, and over these the lines of the word in focus.

import { svg } from "../dom.js";
import { percent } from "../format.js";
import { fitted, shown } from "../labels.js";
import { bundles, stroke } from "./geometry.js";

/** @typedef {import("./geometry.js").Layout} Layout */
/** @typedef {{head: number, hue: string, weights: ArrayLike<number>}} Lines of one head; hue: the class of its colour */
/** @typedef {{row: number, key: number}} Focus places of words, -1 for none */

const LEAST = 0.01; // lines of smaller weights are drawn for one head and the word in focus alone

/**
 * The whole drawing: words once in arcs, twice in columns.
 * @param {object} what
 * @param {Layout} what.layout
 * @param {Lines[]} what.lines
 * @param {boolean} what.inArcs
 * @param {(text: string) => number} what.measure
 * @param {Record<"query" | "key", {units: import("../types").Unit[], name: string}>} what.sides
 */
export function drawPicture({ layout, lines, inArcs, measure, sides }) {
  const { width, height, longest } = layout;
  const words = (/** @type {"query" | "key"} */ side) =>
    drawWords({ places: side === "query" ? layout.rows : layout.keys, side, longest, measure, ...sides[side] });
  return svg(
    "svg",
    {
      width,
      height,
      viewBox: `0 0 ${width} ${height}`,
      role: "group",
      class: `${inArcs ? "arcs" : "columns"} ${lines.length > 1 ? "whole" : ""}`,
    },
    drawLines(layout, lines),
    svg("g", { class: "focus" }),
    ...(inArcs ? [] : [heading(layout.rows[0], sides.query.name), heading(layout.keys[0], sides.key.name)]),
    words("query"),
    inArcs ? null : words("key"),
  );
}

/**
 * What a column's words do, over the first of them.
 * @param {import("./geometry.js").Place} first
 * @param {string} name
 */
function heading({ x, anchor }, name) {
  return svg("text", { class: "heading", x: x.toFixed(1), y: 14, "text-anchor": anchor, "aria-hidden": "true" }, name);
}

/**
 * @param {Layout} layout
 * @param {Lines[]} heads
 */
function drawLines(layout, heads) {
  return svg(
    "g",
    { class: "lines", fill: "none", "aria-hidden": "true" },
    ...heads.map(({ head, hue, weights }, i) =>
      svg(
        "g",
        { class: hue, "data-head": head, stroke: "currentColor" },
        ...bundles(weights, layout, { shift: shiftOf(i, heads.length), least: LEAST }).map(({ weight, d }) =>
          svg("path", { d, ...stroke(weight, layout) }),
        ),
      ),
    ),
  );
}

/**
 * The lines of one word: what it looks at, or what looks at it.
 * @param {Layout} layout
 * @param {Lines[]} heads
 * @param {Focus} focus
 */
export function drawFocus(layout, heads, { row, key }) {
  if (row < 0 && key < 0) return svg("g", { class: "focus" });
  const count = layout.keys.length;
  const pairs = row >= 0 ? layout.keys.map((_, j) => [row, j]) : layout.rows.map((_, i) => [i, key]);
  const lines = heads.flatMap(({ hue, weights }, at) =>
    pairs.map(([i, j]) => {
      const weight = weights[i * count + j];
      const aside = row >= 0 && key >= 0 && j !== key;
      if (!(weight > (heads.length > 1 ? LEAST : 0))) return { weight: 0, line: null };
      const d = layout.path(i, j, shiftOf(at, heads.length));
      return {
        weight,
        line: svg("path", {
          class: aside ? `${hue} aside` : hue,
          d,
          stroke: "currentColor",
          ...stroke(weight, layout),
        }),
      };
    }),
  );
  lines.sort((one, other) => one.weight - other.weight);
  return svg("g", { class: "focus", fill: "none", "aria-hidden": "true" }, ...lines.map(({ line }) => line));
}

/**
 * One side's words, each of which can be pointed at and held.
 * @param {object} side
 * @param {import("./geometry.js").Place[]} side.places
 * @param {import("../types").Unit[]} side.units
 * @param {"query" | "key"} side.side
 * @param {string} side.name
 * @param {number} side.longest
 * @param {(text: string) => number} side.measure
 */
function drawWords({ places, units, side, name, longest, measure }) {
  const words = places.map((place, i) => {
    const { label, special } = units[i];
    const text = shown(label);
    return svg(
      "g",
      {
        class: special ? "word special" : "word",
        role: "button",
        tabindex: i ? -1 : 0,
        "aria-pressed": "false",
        "data-side": side,
        "data-at": i,
      },
      svg("title", {}, text),
      svg("rect", { class: "hit", fill: "transparent", rx: 4, ...place.box }),
      svg("text", { class: "label", ...standing(place, place) }, fitted(text, longest, measure)),
    );
  });
  const numbers = places.map((place) => svg("text", { class: "number", ...standing(place.number, place) }));
  return svg(
    "g",
    {},
    svg("g", { class: "words", role: "group", "aria-label": name }, ...words),
    svg("g", { class: "numbers", "aria-hidden": "true" }, ...numbers),
  );
}

/**
 * A number beside each word: the weights of the focus.
 * @param {Element} side its words and numbers
 * @param {(at: number) => number | null} weightOf null: none is shown
 */
export function setNumbers(side, weightOf) {
  const words = side.querySelectorAll(".word");
  side.querySelectorAll(".number").forEach((number, i) => {
    const weight = weightOf(i);
    number.textContent = weight === null || Number.isNaN(weight) ? "" : weight < 0.001 ? "<0.1%" : percent(weight);
    words[i].classList.toggle("faint", weight !== null && !(weight >= 0.01));
    number.classList.toggle("strong", weight !== null && weight >= 0.2);
  });
}

/**
 * What a word looks at, in words: "learning 96%, [CLS] 2%".
 * @param {import("../types").Unit[]} units
 * @param {number[]} weights
 * @returns {string} empty where there is nothing
 */
export function listed(units, weights) {
  return weights
    .map((weight, i) => ({ weight, label: shown(units[i].label) }))
    .filter(({ weight }) => weight >= LEAST)
    .sort((one, other) => other.weight - one.weight)
    .slice(0, 5)
    .map(({ weight, label }) => `${label} ${Math.round(100 * weight)}%`)
    .join(", ");
}

/**
 * @param {{x: number, y: number, anchor: string}} at
 * @param {{turned: boolean}} place
 * @returns {Record<string, string | number>}
 */
function standing({ x, y, anchor }, { turned }) {
  const [px, py] = [x.toFixed(1), y.toFixed(1)];
  const at = { x: px, y: py, dy: "0.35em", "text-anchor": anchor };
  return turned ? { ...at, transform: `rotate(-90 ${px} ${py})` } : at;
}

/**
 * Where a head's lines run among those of `count` heads, -1 to 1.
 * @param {number} at
 * @param {number} count
 */
function shiftOf(at, count) {
  return count < 2 ? 0 : (2 * at) / (count - 1) - 1;
}
