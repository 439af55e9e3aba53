// The pictures beside each other, as large as there is room for; what is done to a patch is done to its token.

import { el } from "../dom.js";
import { createFigure } from "./figure.js";

const GAP = 12; // pixels between pictures, and around them
const STEPS = /** @type {Record<string, [number, number]>} */ ({ ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] });

/** @typedef {import("../types").App} App */
/** @typedef {import("./asking.js").Seen} Seen */
/** @typedef {import("./asking.js").Side} Side */
/** @typedef {{picture: Seen, figure: ReturnType<typeof createFigure>}} Page */

/**
 * @param {App} app
 * @param {{from: () => Side, point: (token: number, side: Side) => void, hold: (token: number, side: Side) => void}} told
 *   from: the side that is asked about
 */
export function createPages(app, { from, point, hold }) {
  const stage = el("div", { className: "stage" });
  /** @type {Page[]} */
  let pages = [];

  /** The side that patches stand for: the one that is asked about, where they are there. @param {Seen} picture @returns {Side} */
  function sideOf({ grids }) {
    if (grids[from()]) return from();
    return from() === "query" ? "key" : "query";
  }

  /** @param {Seen} picture @returns {Page} */
  function createPage(picture) {
    const token = (/** @type {number} */ patch) => picture.grids[sideOf(picture)]?.tokens[patch] ?? -1;
    const figure = createFigure(picture, {
      point: (patch) => point(token(patch), sideOf(picture)),
      hold: (patch) => hold(token(patch), sideOf(picture)),
      key: (event) => walk(app, event, picture, sideOf(picture)),
    });
    app.data.ask("pixels", { index: picture.index }).then(({ data }) => figure.use(data), app.report);
    return { picture, figure };
  }

  function fit() {
    const room = { width: stage.clientWidth - 2 * GAP, height: stage.clientHeight - 2 * GAP };
    if (!pages.length || room.width < 40) return;
    const across = columnsFor(pages.map(({ picture }) => picture), room);
    const { width, height } = cellOf(pages.length, across, room);
    for (const { figure } of pages) figure.fit(width, height);
  }

  new ResizeObserver(fit).observe(stage);
  return {
    element: stage,
    all: () => pages,
    /** @param {Seen[]} pictures */
    open(pictures) {
      pages = pictures.map(createPage);
      stage.replaceChildren(...pages.map(({ figure }) => figure.element));
      fit();
    },
  };
}

/**
 * Hold the patch beside the held one.
 * @param {App} app
 * @param {KeyboardEvent} event
 * @param {Seen} picture
 * @param {Side} side
 */
function walk(app, event, { grids }, side) {
  const grid = grids[side];
  if (!grid || event.altKey || event.ctrlKey || event.metaKey) return;
  if (!["Enter", "Escape", ...Object.keys(STEPS)].includes(event.key)) return;
  event.preventDefault();
  if (event.key === "Enter") return app.store.set({ view: "steps" });
  if (event.key === "Escape") return app.store.set({ [side]: -1 });
  const at = grid.tokens.indexOf(app.store.get()[side]);
  const [down, across] = at < 0 ? [0, 0] : STEPS[event.key];
  const [row, column] = at < 0 ? [0, 0] : [Math.floor(at / grid.columns), at % grid.columns];
  const next = Math.min(Math.max(row + down, 0), grid.rows - 1) * grid.columns + Math.min(Math.max(column + across, 0), grid.columns - 1);
  app.store.set({ [side]: grid.tokens[next] });
}

/**
 * How many pictures beside each other leave each the most room.
 * @param {Seen[]} pictures
 * @param {{width: number, height: number}} room
 */
function columnsFor(pictures, room) {
  const size = (/** @type {number} */ across) => {
    const { width, height } = cellOf(pictures.length, across, room);
    return Math.min(...pictures.map((each) => Math.min(width / each.width, height / each.height)));
  };
  return pictures.reduce((best, _, i) => (size(i + 1) > size(best) + 1e-9 ? i + 1 : best), 1);
}

/**
 * @param {number} count
 * @param {number} across
 * @param {{width: number, height: number}} room
 */
function cellOf(count, across, { width, height }) {
  const down = Math.ceil(count / across);
  return { width: (width - GAP * (across - 1)) / across, height: (height - GAP * (down - 1)) / down };
}
