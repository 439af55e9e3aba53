// The words of the sentence view under the pointer and the keyboard: which is in focus, which is held.

import { eachFrame } from "../dom.js";
import { shown } from "../labels.js";
import { listed } from "./drawing.js";

/** @typedef {import("../types").App} App */
/** @typedef {import("../sentence.js").Short} Short */
/** @typedef {{side: "query" | "key", at: number}} Word */

const DRAWN_BY = new Set(["layer", "head", "words", "sinks", "lang", "theme"]);

/**
 * @param {App} app
 * @param {HTMLElement} stage
 * @param {{load: () => void, focus: () => void}} views
 */
export function follow(app, stage, { load, focus }) {
  const refocus = eachFrame(focus);
  app.store.subscribe((_, changed) => {
    if ([...changed].some((name) => DRAWN_BY.has(name)) || changed.has("view")) void load();
    else refocus();
  });
  app.pointer.subscribe(refocus);
  const point = (/** @type {Event} */ event) => {
    const word = wordOf(event.target);
    app.pointer.set(
      word ? { query: -1, key: -1, [word.side]: tokenOf(app, word) } : { query: -1, key: -1 },
      "sentence",
    );
  };
  stage.addEventListener("pointerover", point);
  stage.addEventListener("pointerleave", () => app.pointer.set({ query: -1, key: -1 }, "sentence"));
  stage.addEventListener("focusin", (event) => {
    if (stage.querySelector(".word:focus-visible")) point(event);
  });
  stage.addEventListener("focusout", () => app.pointer.set({ query: -1, key: -1 }, "sentence"));
  stage.addEventListener("click", (event) => hold(app, event.target));
  stage.addEventListener("keydown", (event) => walk(app, stage, event));
}

/**
 * Hold a word, or let it go.
 * @param {App} app
 * @param {EventTarget | null} target
 */
function hold(app, target) {
  const word = wordOf(target);
  if (!word) return;
  const token = tokenOf(app, word);
  const held = app.store.get()[word.side] === token;
  const other = word.side === "query" ? { key: -1 } : {};
  app.store.set({ [word.side]: held ? -1 : token, ...other });
}

/**
 * Arrows go to the word before and after, and over to the other column.
 * @param {App} app
 * @param {HTMLElement} stage
 * @param {KeyboardEvent} event
 */
function walk(app, stage, event) {
  const word = wordOf(event.target);
  if (!word) return;
  if (event.key === "Enter" || event.key === " ") hold(app, event.target);
  else {
    const inArcs = stage.querySelector("svg")?.classList.contains("arcs");
    const step = { ArrowUp: -1, ArrowDown: 1, ...(inArcs ? { ArrowLeft: -1, ArrowRight: 1 } : {}) }[event.key];
    const side = inArcs ? undefined : { ArrowLeft: "query", ArrowRight: "key" }[event.key];
    if (!step && !side) return;
    const words = /** @type {SVGElement[]} */ ([...stage.querySelectorAll(`.word[data-side="${side ?? word.side}"]`)]);
    const next = words[Math.min(Math.max(word.at + (step ?? 0), 0), words.length - 1)];
    words.forEach((each) => each.setAttribute("tabindex", each === next ? "0" : "-1"));
    next.focus();
  }
  event.preventDefault();
  event.stopPropagation();
}

/**
 * The word in focus: pointed at, or else held.
 * @param {App} app
 * @param {Short} short
 * @param {boolean} inArcs where one word stands for both sides
 */
export function focusOf(app, short, inArcs) {
  const pointed = app.pointer.get();
  const { query, key, direction } = app.store.get();
  const at = pointed.query >= 0 || pointed.key >= 0 ? pointed : { query, key };
  const [row, column] = [placeOf(short.rows, at.query), placeOf(short.keys, at.key)];
  return inArcs && direction === "receives" && row >= 0 ? { row: -1, key: row } : { row, key: column };
}

/**
 * @param {App} app
 * @param {SVGElement} picture
 * @param {Short} short
 * @param {import("./drawing.js").Focus} at
 */
export function mark(app, picture, short, at) {
  const { query, key } = app.store.get();
  const held = { query: placeOf(short.rows, query), key: placeOf(short.keys, key) };
  for (const word of picture.querySelectorAll(".word")) {
    const { side, at: place } = /** @type {Word} */ (wordOf(word));
    word.setAttribute("aria-pressed", String(held[side] === place));
    word.classList.toggle("pointed", (side === "query" ? at.row : at.key) === place);
  }
}

/**
 * Say of each word what it looks at, or what looks at it.
 * @param {App} app
 * @param {{short: Short, lines: import("./drawing.js").Lines[], picture: SVGElement}} drawing
 */
export function describe(app, { short, lines, picture }) {
  const count = short.keys.length;
  const mean = (/** @type {number} */ at) =>
    lines.reduce((sum, { weights }) => sum + weights[at], 0) / Math.max(lines.length, 1);
  for (const word of picture.querySelectorAll(".word")) {
    const { side, at } = /** @type {Word} */ (wordOf(word));
    const gives = side === "query";
    const others = gives ? short.keys : short.rows;
    const weights = others.map((_, i) => mean(gives ? at * count + i : i * count + at));
    const label = shown((gives ? short.rows : short.keys)[at].label);
    word.setAttribute(
      "aria-label",
      app.say(gives ? "word_gives" : "word_receives", {
        word: label,
        list: listed(others, weights) || app.say("nothing"),
      }),
    );
  }
}

/**
 * @param {EventTarget | null} target
 * @returns {Word | null}
 */
function wordOf(target) {
  const word = /** @type {Element | null} */ (target)?.closest(".word");
  if (!word) return null;
  return { side: word.getAttribute("data-side") === "key" ? "key" : "query", at: Number(word.getAttribute("data-at")) };
}

/**
 * @param {App} app
 * @param {Word} word
 */
function tokenOf(app, { side, at }) {
  const { rows, keys } = app.sides();
  return (side === "query" ? rows : keys).peek(at)?.start ?? -1;
}

/**
 * The unit that holds a token.
 * @param {import("../types").Unit[]} units
 * @param {number} token
 */
export function placeOf(units, token) {
  return token < 0 ? -1 : units.filter(({ start }) => start <= token).length - 1;
}
