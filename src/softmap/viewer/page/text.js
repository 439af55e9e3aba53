// The text, shaded by how much the word that is pointed at looks at every other word, or is looked at by it.

import { choice } from "./choice.js";
import { el, isModifier } from "./dom.js";
import { percent } from "./format.js";
import { createHeat } from "./heat.js";
import { createLook, sidesOf, viewOf } from "./look.js";
import { createReader, unitOf } from "./reader.js";
import { createStrip } from "./strip.js";
import { unitAt } from "./units.js";

const KEYS = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Enter", "Escape"];
const LEAVING = 180; // ms between two words after which nothing is pointed at

/** @typedef {import("./types").App} App */
/** @typedef {import("./look.js").Look} Look */
/** @typedef {"query" | "key"} Side */

/**
 * One text with its heat strip, and the sides of the matrix it stands for.
 * @typedef {object} Page
 * @property {import("./reader.js").Reader} reader
 * @property {ReturnType<typeof createHeat>} heat
 * @property {Side[]} sides
 * @property {HTMLElement} element
 * @property {(shades: Float32Array | null) => void} shade
 */

/** @param {App} app */
export function createText(app) {
  const controls = el(
    "div",
    { className: "controls", role: "group" },
    choice(app, "direction", ["gives", "receives"], "direction_", () => turned(app)),
    choice(app, "mean", ["head", "layer", "picked"], "mean_"),
  );
  const strip = createStrip(app, (unit) => void pageOf(sidesOf(app).to)?.reader.show(unit));
  const body = el("div", { className: "readers" });
  /** @type {Page[]} */
  let pages = [];
  let made = "";
  /** @type {Look | null} */
  let last = null;

  const pageOf = (/** @type {Side} */ side) => pages.find((page) => page.sides.includes(side));

  /** Make the readers anew where other texts are to be read. */
  function open() {
    const { rows, keys, one, layer } = sidesOf(app);
    const { words, lang } = app.store.get();
    const wanted = [layer.queries_of, layer.keys_of, rows.count, keys.count, words, lang].join();
    if (wanted === made) return;
    made = wanted;
    const page = (/** @type {import("./types").Units} */ units, /** @type {Side[]} */ sides) => createPage(app, units, sides, steps);
    pages = one ? [page(keys, ["query", "key"])] : [page(rows, ["query"]), page(keys, ["key"])];
    body.replaceChildren(...pages.map((page) => page.element));
    body.classList.toggle("short", rows.count <= 40 && keys.count <= 40);
  }

  function draw() {
    controls.setAttribute("aria-label", app.say("text_controls"));
    if (last) strip.show(last);
  }

  /** Read a cell step by step: where none is held, that of the largest weight. */
  function steps() {
    const { to } = sidesOf(app);
    const largest = last && pageOf(to)?.reader.units.peek(last.top[0] ?? -1);
    app.store.set({ view: "steps", [to]: app.store.get()[to] < 0 && largest ? largest.start : app.store.get()[to] });
  }

  /** @param {Look} found */
  function tell(found) {
    last = found;
    open();
    for (const page of pages) {
      const shaded = found.unit < 0 ? page.sides.includes("key") : page.sides.includes(found.sides.to);
      page.shade(shaded ? found.shades : null);
      page.reader.mark({ classes: marksOf(found, page), tag: tagOf(app, found, page) });
    }
    strip.show(found);
  }

  /** What is shown is of another head or word. @param {string} remark in its place */
  function clear(remark) {
    last = null;
    for (const page of pages) {
      page.shade(null);
      page.reader.mark({ classes: new Map(), tag: null });
    }
    strip.remark(remark);
  }

  const look = createLook(app, tell, clear);

  /** Have a held word on screen. @param {Side[]} sides */
  async function reveal(sides) {
    for (const side of sides) {
      const page = pageOf(side);
      const token = app.store.get()[side];
      if (!page || token < 0) continue;
      await page.reader.show(page.reader.units.starts().then((starts) => unitAt(starts, token)));
    }
  }

  const redraw = () => pages.forEach((page) => page.heat.draw());
  /** @type {Set<Side>} */
  const moved = new Set([sidesOf(app).from]);
  const show = () => {
    if (viewOf(app) !== "text") return;
    reveal([...moved]).catch(app.report);
    moved.clear();
  };
  open();
  draw();
  look();
  show();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw, { signal: app.ended });
  app.store.subscribe((_, changed) => {
    open();
    if (changed.has("lang")) draw();
    if (changed.has("theme")) redraw();
    for (const side of /** @type {Side[]} */ (["key", "query"])) if (changed.has(side)) moved.add(side);
    if (changed.has("words")) moved.add(sidesOf(app).from);
    show();
  });
  return el("div", { className: "text" }, controls, strip.element, body);
}

/**
 * @param {App} app
 * @param {import("./types").Units} units
 * @param {Side[]} sides
 * @param {() => void} steps opens them
 * @returns {Page}
 */
function createPage(app, units, sides, steps) {
  const reader = createReader(units, {
    drawn: () => heat.frame(),
    laid: () => heat.draw(),
    failed: app.report,
  });
  const heat = createHeat(reader);
  const title = sides.length > 1 ? "text_all" : `text_${sides[0]}`;
  reader.element.setAttribute("aria-label", app.say(title, { count: units.count }));
  const side = () => (sides.length > 1 ? sidesOf(app).from : sides[0]);
  followPointer(app, reader, side);
  followKeys(app, reader, side, steps);
  const heading = sides.length > 1 ? null : el("p", { className: "heading" }, app.say(title, { count: units.count }));
  return {
    reader,
    heat,
    sides,
    element: el("div", { className: "page" }, heading, reader.element, heat.element),
    shade(shades) {
      reader.shade(shades);
      heat.shade(shades ?? new Float32Array(0));
    },
  };
}

/**
 * @param {App} app
 * @param {import("./reader.js").Reader} reader
 * @param {() => Side} side that its words stand for
 */
function followPointer(app, reader, side) {
  let leaving = 0;
  const none = () => app.pointer.set({ query: -1, key: -1 }, "text");
  reader.element.addEventListener("pointermove", (event) => {
    if (event.pointerType === "touch") return;
    const word = reader.units.peek(unitOf(event));
    clearTimeout(leaving);
    if (word) app.pointer.set({ query: -1, key: -1, [side()]: word.start }, "text");
    else leaving = setTimeout(none, LEAVING);
  });
  reader.element.addEventListener("pointerleave", () => {
    clearTimeout(leaving);
    none();
  });
  app.root.addEventListener("keydown", (event) => void (isModifier(event) || none()), { capture: true, signal: app.ended });
  reader.element.addEventListener("click", (event) => {
    const word = reader.units.peek(unitOf(event));
    if (!word) return;
    hold(app, side(), app.store.get()[side()] === word.start ? -1 : word.start);
  });
}

/**
 * @param {App} app
 * @param {import("./reader.js").Reader} reader
 * @param {() => Side} side
 * @param {() => void} steps opens them
 */
function followKeys(app, reader, side, steps) {
  const { units } = reader;
  /** @param {number} unit */
  async function go(unit) {
    const at = Math.max(0, Math.min(unit, units.count - 1));
    await units.load(at, at + 1);
    const word = units.peek(at);
    if (word) hold(app, side(), word.start);
  }

  reader.element.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || !KEYS.includes(event.key)) return;
    event.preventDefault();
    act(event.key).catch(app.report);
  });

  /** @param {string} key */
  async function act(key) {
    if (key === "Enter") return steps();
    if (key === "Escape") return hold(app, side(), -1);
    const token = app.store.get()[side()];
    if (token < 0) return go(reader.lines()[Math.floor(reader.seen()[0] * (reader.lines().length - 1))]);
    const unit = unitAt(await units.starts(), token);
    if (key === "ArrowLeft" || key === "ArrowRight") return go(unit + (key === "ArrowLeft" ? -1 : 1));
    return go(reader.beside(unit, key === "ArrowUp" ? -1 : 1));
  }
}

/**
 * Hold a word. In one text that is a word and no cell: no other is held any more.
 * @param {App} app
 * @param {Side} side
 * @param {number} token -1 to let go
 */
function hold(app, side, token) {
  const { one, from, to } = sidesOf(app);
  app.store.set({ ...(one ? { [side === from ? to : from]: -1 } : {}), [side]: token });
}

/**
 * What becomes of the held word where the other side is asked about: the same word, asked the other way.
 * @param {App} app
 * @returns {Partial<import("./types").State>}
 */
function turned(app) {
  const { one, from, to } = sidesOf(app);
  const held = app.store.get();
  return one && held[to] < 0 ? { [to]: held[from], [from]: -1 } : {};
}

/**
 * How words are marked: the held query and key, and those that are pointed at.
 * @param {Look} look
 * @param {Page} page
 */
function marksOf({ held, pointed, unit, sides }, page) {
  /** @type {Map<number, string>} */
  const marks = new Map();
  const add = (/** @type {number} */ at, /** @type {string} */ mark) => {
    if (at >= 0) marks.set(at, `${marks.get(at) ?? ""} ${mark}`.trim());
  };
  for (const side of page.sides) {
    add(held[side], side === sides.from ? "held" : "met");
    if (pointed[side] !== held[side]) add(pointed[side], side === sides.from ? "over" : "overMet");
    if (side === sides.from && unit >= 0) add(unit, "now");
  }
  return marks;
}

/**
 * The number beside the word that is pointed at: of the map's cell, or how much the held word looks at it.
 * @param {App} app
 * @param {Look} look
 * @param {Page} page
 */
function tagOf(app, { sides, held, pointed, unit, weights, ofHeld }, page) {
  const { from, to } = sides;
  if (!weights || unit < 0) return null;
  if (pointed[to] >= 0 && page.sides.includes(to)) return { unit: pointed[to], text: percent(weights[pointed[to]] || 0) };
  if (!sides.one || pointed[from] < 0) return null;
  const at = pointed[from];
  if (!ofHeld) return { unit: at, text: app.say("tag_self", { weight: percent(weights[at] || 0) }) };
  const [label, other] = [at, held[from]].map((each) => page.reader.units.peek(each)?.label ?? String(each));
  const [query, key] = from === "query" ? [other, label] : [label, other];
  return { unit: at, text: app.say("tag_pair", { query, key, weight: percent(ofHeld[at] || 0) }) };
}
