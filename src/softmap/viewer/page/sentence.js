// A short text as words and lines: the wider and the stronger a line, the larger the weight.

import { Absent, noteOf } from "./absent.js";
import { choice } from "./choice.js";
import { el, eachFrame } from "./dom.js";
import { grouped } from "./format.js";
import { shown } from "./labels.js";
import { drawFocus, drawPicture, setNumbers } from "./sentence/drawing.js";
import { arcs, columns } from "./sentence/geometry.js";
import { describe, focusOf, follow, mark } from "./sentence/hand.js";
import { createLegend, hueOf } from "./sentence/legend.js";

/** @typedef {import("./types").App} App */
/** @typedef {import("./sentence/drawing.js").Lines} Lines */
/** @typedef {{rows: import("./types").Unit[], keys: import("./types").Unit[], weights: ArrayLike<number>[], oneText: boolean}} Short */

export const LIMIT = 64; // units a side

/** @param {App} app */
export function createSentence(app) {
  const form = choice(app, "form", ["columns", "arcs"], "form_");
  const controls = el("div", { className: "controls", hidden: true }, form, choice(app, "lines", ["head", "layer"], "lines_"));
  const legend = createLegend(app, { changed: () => draw(), isolate: (head) => isolate(head) });
  const stage = el("div", { className: "stage" });
  const caption = el("p", { className: "caption muted" });
  const view = el("div", { className: "sentence" }, controls, legend.element, stage, caption);
  /** @type {{short: Short, lines: Lines[], layout: import("./sentence/geometry.js").Layout, picture: SVGElement} | null} */
  let drawing = null;
  /** @type {Short | null} */
  let short = null;
  let asked = new AbortController();

  async function load() {
    if (!view.isConnected) return;
    asked.abort();
    asked = new AbortController();
    const { signal } = asked;
    const { rows, keys } = app.sides();
    const most = Math.max(rows.count, keys.count);
    if (most > LIMIT) return clear(longNote(app, most));
    try {
      const found = await fetchShort(app, signal);
      if (signal.aborted) return;
      short = found;
      controls.hidden = false;
      form.hidden = !short.oneText;
      draw();
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Absent) return clear(noteOf(error, app.say));
      clear();
      app.report(error);
    }
  }

  /** @param {...HTMLElement} notes what is shown instead of a sentence */
  function clear(...notes) {
    [short, drawing] = [null, null];
    controls.hidden = legend.element.hidden = true;
    caption.textContent = "";
    stage.replaceChildren(...notes);
  }

  function draw() {
    const room = { width: stage.clientWidth, height: stage.clientHeight };
    if (!short || room.width < 50) return;
    const { layer, head, form, lines: linesOf } = app.store.get();
    const whole = linesOf === "layer";
    legend.show(whole ? short.weights.length : 0);
    const heads = whole ? legend.shown() : [head];
    const hue = (/** @type {number} */ each) => (whole ? hueOf(each) : "hue");
    const lines = heads.map((each) => ({ head: each, hue: hue(each), weights: short?.weights[each] ?? [] }));
    const inArcs = form === "arcs" && short.oneText;
    const ahead = inArcs && looksAhead(lines, short);
    const measure = ruler(view);
    const layout = layoutOf(short, room, { inArcs, ahead, measure });
    const picture = drawPicture({ layout, lines, measure, inArcs, sides: sidesOf(app, short) });
    picture.setAttribute("aria-label", app.say(whole ? "sentence_name_layer" : "sentence_name", { layer, head }));
    stage.replaceChildren(picture);
    drawing = { short, lines, layout, picture };
    caption.title = caption.textContent = captionOf(app, ahead, whole);
    describe(app, drawing);
    focus();
  }

  /** Show the word that is pointed at, or held: its lines over the others, its numbers beside the words. */
  function focus() {
    if (!drawing) return;
    const { short, lines, layout, picture } = drawing;
    const at = focusOf(app, short, picture.classList.contains("arcs"));
    const none = at.row < 0 && at.key < 0;
    picture.classList.toggle("focused", !none);
    picture.querySelector(".focus")?.replaceWith(drawFocus(layout, lines, at));
    const mean = (/** @type {number} */ i, /** @type {number} */ j) =>
      lines.reduce((sum, { weights }) => sum + weights[i * short.keys.length + j], 0) / lines.length;
    const [rows, keys] = [...picture.querySelectorAll(".words")].map(
      (words) => /** @type {Element} */ (words.parentElement),
    );
    setNumbers(keys ?? rows, (i) => (at.row >= 0 ? mean(at.row, i) : !keys && at.key >= 0 ? mean(i, at.key) : null));
    if (keys) setNumbers(rows, (i) => (at.row < 0 && at.key >= 0 ? mean(i, at.key) : null));
    mark(app, picture, short, at);
  }

  /** @param {number} head whose lines alone are shown; -1 for all */
  function isolate(head) {
    for (const group of stage.querySelectorAll(".lines > g")) {
      group.classList.toggle("away", head >= 0 && group.getAttribute("data-head") !== String(head));
    }
    stage.firstElementChild?.classList.toggle("isolated", head >= 0);
  }

  follow(app, stage, { load, focus });
  app.store.subscribe((_, changed) => {
    if (changed.has("form") || changed.has("lines")) draw();
  });
  new ResizeObserver(eachFrame(() => (short ? draw() : void load()))).observe(stage);
  return view;
}

/**
 * All of a short layer: its words and its weights.
 * @param {App} app
 * @param {AbortSignal} signal
 * @returns {Promise<Short>}
 */
async function fetchShort(app, signal) {
  const { layer, sinks } = app.store.get();
  const { rows, keys, words } = app.sides();
  const { queries_of, keys_of } = app.data.layer(layer);
  const [matrix] = await Promise.all([
    app.data.ask("matrix", { layer, words: Number(words), sinks }, signal),
    rows.load(0, rows.count),
    keys.load(0, keys.count),
  ]);
  const units = (/** @type {import("./types").Units} */ side) =>
    Array.from({ length: side.count }, (_, i) => /** @type {import("./types").Unit} */ (side.peek(i)));
  const size = rows.count * keys.count;
  const weights = Array.from({ length: matrix.shape[0] }, (_, head) =>
    matrix.data.subarray(head * size, (head + 1) * size),
  );
  return {
    rows: units(rows),
    keys: units(keys),
    weights,
    oneText: queries_of === keys_of && rows.count === keys.count,
  };
}

/**
 * @param {Short} short
 * @param {{width: number, height: number}} room
 * @param {{inArcs: boolean, ahead: boolean, measure: (text: string) => number}} how
 */
function layoutOf({ rows, keys }, room, { inArcs, ahead, measure }) {
  const widths = (/** @type {import("./types").Unit[]} */ units) => units.map(({ label }) => measure(shown(label)));
  return inArcs ? arcs(widths(rows), ahead, room) : columns(widths(rows), widths(keys), room);
}

/**
 * @param {App} app
 * @param {Short} short
 */
function sidesOf(app, { rows, keys }) {
  return { query: { units: rows, name: app.say("looks") }, key: { units: keys, name: app.say("looked_at") } };
}

/**
 * @param {App} app
 * @param {boolean} ahead
 * @param {boolean} whole
 */
function captionOf(app, ahead, whole) {
  const { sinks } = app.store.get();
  return [
    app.say(whole ? "sentence_lines_whole" : "sentence_lines"),
    ahead && app.say("sentence_arcs"),
    whole && app.say("sentence_mean"),
    sinks !== "shown" && app.say(`sentence_${sinks}`),
  ]
    .filter(Boolean)
    .join(" ");
}

/**
 * @param {App} app
 * @param {number} count
 */
function longNote(app, count) {
  return el(
    "div",
    { className: "note" },
    el("p", {}, app.say("sentence_long", { limit: LIMIT, count: grouped(count) })),
    el("p", { className: "muted" }, app.say("sentence_long_hint")),
    el(
      "button",
      { type: "button", className: "button", onclick: () => app.store.set({ view: "text" }) },
      app.say("open_text"),
    ),
  );
}

/**
 * @param {Lines[]} lines
 * @param {Short} short
 */
function looksAhead(lines, { rows, keys }) {
  return lines.some(({ weights }) =>
    rows.some((_, i) => keys.some((_, j) => j > i && weights[i * keys.length + j] >= 0.005)),
  );
}

/**
 * The width of texts as the view sets them.
 * @param {HTMLElement} view
 */
function ruler(view) {
  const context = /** @type {CanvasRenderingContext2D} */ (document.createElement("canvas").getContext("2d"));
  const { fontSize, fontFamily } = getComputedStyle(view);
  context.font = `${fontSize} ${fontFamily}`;
  return (/** @type {string} */ text) => context.measureText(text).width;
}
