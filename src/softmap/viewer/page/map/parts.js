// What the map is made of: its elements, and what draws into them.

import { el } from "../dom.js";
import { createCard } from "./card.js";
import { createColours } from "./colours.js";
import { createFrame } from "./frame.js";
import { createHeading } from "./heading.js";
import { createLegend } from "./legend.js";
import { createMinimap } from "./minimap.js";
import { createOverlay } from "./overlay.js";
import { createPaint } from "./pen.js";
import { createRulers } from "./rulers.js";

/** @typedef {ReturnType<typeof createParts>} Parts */

/**
 * @param {import("../types").App} app
 */
export function createParts(app) {
  const colours = createColours(app);
  const pane = el("div", { className: "pane" });
  const board = el("div", { className: "board", role: "application", tabIndex: 0 });
  const loading = el("div", { className: "loading", hidden: true });
  const notes = el("div", { className: "mapNotes" });
  const corner = el("div", { className: "corner", "aria-hidden": "true" });
  const element = el("section", { className: "map" });
  const paint = createPaint(element);
  const overlay = createOverlay(paint);
  const rulers = createRulers(paint);
  const card = createCard(app);
  const stage = el("div", { className: "stage" }, overlay.ground, pane, overlay.canvas, loading);
  const parts = { ondrawn: () => {}, onmoved: () => {}, zoomBy: (/** @type {number} */ _factor) => {}, name };
  const frame = createFrame(pane, {
    colours: colours.table,
    drawn: () => parts.ondrawn(),
    moved: () => parts.onmoved(),
    awaited: (some) => void (loading.hidden = !some),
  });
  frame.viewer.addHandler("canvas-press", () => {
    board.classList.add("clicked"); // a click needs no ring
    board.focus({ preventScroll: true });
  });
  board.addEventListener("keydown", () => board.classList.remove("clicked"));
  const minimap = createMinimap(app, frame);
  const heading = createHeading(app, { zoomBy: (factor) => parts.zoomBy(factor), whole: () => frame.wholeView() });
  const legend = createLegend(app);
  stage.append(minimap.element, card.element);
  board.append(corner, rulers.top, rulers.left, stage);
  element.append(heading.element, notes, board, legend.element);

  /** Say what this is to those who do not see it. @param {{rows: number, keys: number}} size */
  function name(size) {
    const { layer, head } = app.store.get();
    board.setAttribute("aria-label", `${app.say("map_name", { layer, head, ...size })} ${app.say("map_keys")}`);
    corner.replaceChildren(
      el("span", {}, app.say("map_keys_title"), el("i", {}, ` ${app.say("map_keys_more")}`)),
      el("span", {}, app.say("map_rows_title"), el("i", {}, ` ${app.say("map_rows_more")}`)),
    );
  }
  const sheets = { overlay, rulers };
  return Object.assign(parts, { element, board, pane, frame, sheets, card, minimap, heading, legend, notes, colours, paint });
}
