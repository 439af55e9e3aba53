// Equations, fractions and sentences as elements, set as in a textbook.

import { el } from "../dom.js";
import { number } from "../format.js";
import { emphasized, typeset } from "./reading.js";

/** @typedef {import("../dom.js").Child} Child */

/** @param {...HTMLElement} lines */
export function equations(...lines) {
  return el("div", { className: "equations math" }, ...lines);
}

/**
 * @param {Child[]} left
 * @param {Child} right
 * @param {string} [note] what this line adds
 */
export function equation(left, right, note = "") {
  return el(
    "div",
    {},
    el("small", {}, note),
    el("span", { className: "left" }, ...left),
    " = ",
    el("strong", {}, right),
  );
}

/**
 * @param {string} name
 * @param {string} [index]
 */
export function letter(name, index) {
  return el("var", {}, name, index && el("sub", {}, index));
}

/**
 * @param {Child[]} over
 * @param {Child[]} under
 */
export function fraction(over, under) {
  return el("span", { className: "fraction" }, el("span", {}, ...over), el("span", {}, ...under));
}

/** @param {Child} under */
export function root(under) {
  return el("span", { className: "root" }, under);
}

/** @param {number | null} number_ */
export function value(number_) {
  return number_ === null ? "−∞" : Number.isInteger(number_) ? String(number_).replace("-", "−") : number(number_);
}

/** @param {string} sentence */
export function marked(sentence) {
  return emphasized(sentence).flatMap(({ text, word }) => (word ? [el("b", { title: text }, brief(text, 60))] : dimensions(text)));
}

/**
 * A word, or the beginning of one that is too long.
 * @param {string} word
 * @param {number} most letters
 */
export function brief(word, most) {
  const letters = word.length > most ? [...word] : [];
  return letters.length > most ? `${letters.slice(0, most - 1).join("")}…` : word;
}

/**
 * A text with its d_k set as in formulas.
 * @param {string} text
 */
function dimensions(text) {
  const set = () => el("span", { className: "math" }, letter("d"), el("sub", {}, letter("k")));
  return text.split("d_k").flatMap((part, i) => (i ? [set(), part] : [part]));
}

/** @param {string} text */
export function formula(text) {
  return typeset(text).map(({ text: part, as }) =>
    as === "letter" ? letter(part) : as === "index" ? el("sub", {}, part) : part,
  );
}
