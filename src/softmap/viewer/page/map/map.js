// The map: the attention matrix of one head, all of it, every weight of it; with its rulers and what lies over it.

import { eachFrame } from "../dom.js";
import { followBox } from "./box.js";
import { followKeyboard } from "./keyboard.js";
import { notesOf } from "./notes.js";
import { createParts } from "./parts.js";
import { followPointer } from "./pointing.js";
import { openSides } from "./sides.js";

/** @typedef {import("../types").App} App */
/** @typedef {import("../types").State} State */
/** @typedef {import("./geometry.js").Block} Block */
/** @typedef {import("./parts.js").Parts} Parts */
/** @typedef {import("./sides.js").Sides} Sides */

const MEASURED = 128; // labels that are asked for before the map is shown
const REOPENS = /** @type {const} */ (["layer", "head", "how", "sinks", "words"]);
const RECOLOURS = /** @type {const} */ (["palette", "scale", "theme"]);

/**
 * @param {App} app
 * @returns {HTMLElement} with a property softmapMap: {viewer, weightAt, settled}
 */
export function createMap(app) {
  const parts = createParts(app);
  const { element, board, frame, sheets, minimap, colours, paint } = parts;
  /** @type {Sides | null} */
  let sides = null;
  let opening = 0; // how many maps were asked for
  let opened = 0;
  /** @type {(() => void)[]} */
  let followed = [];
  const sidesNow = () => sides;
  const box = followBox(app, frame);
  const pointing = followPointer(app, parts.pane, frame, sidesNow, parts.card, () => soon());
  const drawing = createDrawing(app, parts, sidesNow, pointing.units);
  const soon = eachFrame(drawing.draw);
  followKeyboard(app, board, frame, sidesNow, (factor) => parts.zoomBy(factor));
  parts.zoomBy = (factor) => frame.zoomBy(factor, heldIn(app, sides));
  parts.ondrawn = drawing.draw; // in the same frame as the picture
  parts.onmoved = () => {
    soon();
    pointing.moved();
    minimap.follow();
    box.moved();
  };

  /** Show the map that the state says. @param {boolean} boxed and the part of it */
  async function open(boxed) {
    const mine = ++opening;
    try {
      const next = await openSides(app);
      await Promise.all([next.rows, next.keys].map((units) => units.load(0, Math.min(units.count, MEASURED))));
      if (mine === opening && !app.ended.aborted) show(next, boxed);
    } catch (error) {
      app.report(error);
    }
    opened = Math.max(opened, mine);
  }

  /** @param {Sides} next @param {boolean} boxed */
  function show(next, boxed) {
    sides = next;
    for (const stop of followed) stop();
    followed = [next.rows, next.keys].map((units) => units.whenCame(soon));
    pointing.forget();
    makeRoom();
    const [{ layer, head }, { how, sinks, finest }] = [app.store.get(), app.shown()];
    const question = { layer, head, how, sinks, words: Number(next.words) };
    const ask = (/** @type {Block} */ tile, /** @type {AbortSignal} */ signal) => app.data.tile({ ...question, ...tile }, signal);
    board.classList.remove("missing");
    frame.open(next.size, ask, (error) => {
      if (board.classList.contains("missing")) return;
      board.classList.add("missing"); // blank is then not what may not be seen
      app.report(error);
      drawing.anew();
    }, finest);
    if (boxed) box.read(true);
    minimap.open(ask, colours.table, finest);
    drawing.anew();
  }

  function makeRoom() {
    if (!sides) return;
    const { left, top } = sheets.rulers.roomFor({ sides, width: board.clientWidth, height: board.clientHeight });
    board.style.setProperty("--left", `${left}px`);
    board.style.setProperty("--top", `${top}px`);
  }

  const recolour = eachFrame(() => {
    paint.forget();
    frame.redraw();
    minimap.paint(colours.table());
    drawing.anew();
  });

  /** Have the held cell on screen. */
  function reveal() {
    const { row, key } = heldIn(app, sides);
    const { kind, queries, keys } = app.data.layer(app.store.get().layer);
    const itself = kind === "self" && queries === keys ? row : -1; // which a row sees under any mask
    frame.show(row, key < 0 ? itself : key);
  }

  app.store.subscribe((_, changed) => {
    const any = (/** @type {readonly (keyof State)[]} */ names) => names.some((name) => changed.has(name));
    if (any(REOPENS)) void open(changed.has("box"));
    else if (changed.has("box")) box.read(false);
    else if (changed.has("query") || changed.has("key")) reveal();
    if (any(RECOLOURS)) recolour();
    if (changed.has("lang")) drawing.anew();
    soon();
  });
  app.pointer.subscribe(soon);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour, { signal: app.ended });
  app.ended.addEventListener("abort", () => frame.close());
  new ResizeObserver(eachFrame(makeRoom)).observe(board);
  void open(app.store.get().box !== null);
  return Object.assign(element, { softmapMap: forTests(parts, () => opened < opening) });
}

/**
 * Draws what is over and around the picture.
 * @param {App} app
 * @param {Parts} parts
 * @param {() => Sides | null} sidesNow
 * @param {() => [number, number, number, number] | null} under the rows and keys under the pointer
 */
function createDrawing(app, { board, frame, sheets, colours, heading, legend, notes, name }, sidesNow, under) {
  let told = -1; // the zoom that the words around the map are for

  function draw() {
    const sides = sidesNow();
    if (!sides) return;
    const { row, key: column, size } = sides;
    const view = frame.view();
    const cell = heldIn(app, sides);
    /** @type {[number, number]} */
    const held = [cell.row, cell.key];
    const over = app.pointer.get();
    /** @type {[number, number]} */
    const pointed = [row.unit(over.query), column.unit(over.key)];
    const lines = under() ?? linesOf(pointed);
    sheets.overlay.draw({ view, size, held, pointed: lines, weightAt: frame.weightAt, bright: colours.bright });
    sheets.rulers.draw(sides, view, { pointed, held });
    if (view.zoom === told) return;
    told = view.zoom;
    heading.draw(size, told);
    legend.draw(told);
    notes.replaceChildren(...notesOf(app, { words: sides.words, zoom: told, missing: board.classList.contains("missing") }));
    name(size);
  }

  return {
    draw,
    /** With all words around it. */
    anew() {
      told = -1;
      draw();
    },
  };
}

/**
 * The held cell in units, -1 for none.
 * @param {App} app
 * @param {Sides | null} sides
 */
function heldIn(app, sides) {
  const { query, key } = app.store.get();
  return { row: sides ? sides.row.unit(query) : -1, key: sides ? sides.key.unit(key) : -1 };
}

/**
 * Lines to what is pointed at elsewhere: a row, a column or both.
 * @param {[number, number]} pointed row and key
 * @returns {[number, number, number, number] | null}
 */
function linesOf([row, key]) {
  if (row < 0 && key < 0) return null;
  const along = (/** @type {number} */ unit) => (unit < 0 ? [0, 0] : [unit, unit + 1]);
  return /** @type {[number, number, number, number]} */ ([...along(row), ...along(key)]);
}

/**
 * @param {Parts} parts
 * @param {() => boolean} opening whether a map is on its way
 */
function forTests({ frame }, opening) {
  return {
    viewer: frame.viewer,
    weightAt: frame.weightAt,
    /** When all tiles are there that are wanted. */
    async settled() {
      for (let frames = 0; frames < 2; frames++) await new Promise(requestAnimationFrame); // in which tiles are wanted
      while (opening() || frame.awaits()) await new Promise((resolve) => setTimeout(resolve, 20));
    },
  };
}
