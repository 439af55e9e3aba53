// The map by keyboard: the held cell walks where cells are large enough, else the map is moved.

import { stepHead } from "./heading.js";

const WALKED = 8; // pixels of a cell from which the arrows move the held one
const PANNED = 0.2; // of the pane, with each press

/** @type {Record<string, [number, number]>} */
const ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

/**
 * @param {import("../types").App} app
 * @param {HTMLElement} element
 * @param {import("./frame.js").Frame} frame
 * @param {() => import("./sides.js").Sides | null} sidesNow
 * @param {(factor: number) => void} zoomBy
 */
export function followKeyboard(app, element, frame, sidesNow, zoomBy) {
  /** @type {Record<string, () => void>} */
  const keys = {
    "+": () => zoomBy(2),
    "=": () => zoomBy(2),
    "-": () => zoomBy(1 / 2),
    0: () => frame.wholeView(),
    "[": () => stepHead(app, -1),
    "]": () => stepHead(app, 1),
    Enter: () => app.store.set({ view: "steps" }),
    Escape: () => app.store.set({ query: -1, key: -1 }),
    Home: () => hold((row) => [row, 0]),
    End: () => hold((row) => [row, frame.size().keys - 1]),
  };

  element.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target !== element) return;
    const arrow = ARROWS[event.key];
    const act = arrow ? () => move(arrow, event.shiftKey) : keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });

  /**
   * @param {[number, number]} step
   * @param {boolean} pan
   */
  function move([down, right], pan) {
    const { width, height, scale } = frame.view(true);
    if (pan || scale < WALKED) return frame.panBy(right * PANNED * width, down * PANNED * height);
    hold((row, key) => [row + down, key + right]);
  }

  /**
   * Hold the cell that a step leads to; from nowhere, the one in the middle.
   * @param {(row: number, key: number) => [number, number]} step
   */
  function hold(step) {
    const sides = sidesNow();
    if (!sides) return;
    const { query, key } = app.store.get();
    const { left, top, width, height, scale } = frame.view(true);
    const middle = (/** @type {number} */ from, /** @type {number} */ long, /** @type {number} */ count) => {
      const centre = (Math.max(0, from) + Math.min(long, from + count * scale)) / 2; // of the part that is seen
      return Math.floor((centre - from) / scale);
    };
    const { rows, keys: columns } = frame.size();
    const row = query >= 0 ? sides.row.unit(query) : middle(top, height, rows);
    const [nextRow, nextKey] = key >= 0 ? step(row, sides.key.unit(key)) : [row, middle(left, width, columns)];
    app.store.set({ query: sides.row.token(nextRow), key: sides.key.token(nextKey) });
  }
}
