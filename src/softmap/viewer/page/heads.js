// All layers and heads as small pictures, each with what the head does. One is on the map; several can be picked.

import { Absent, messageOf } from "./absent.js";
import { optionsOf, tableOf } from "./colors.js";
import { el, eachFrame } from "./dom.js";
import { drawLegend, labelOf, ROLES } from "./roles.js";
import { createCell, drawThumbs } from "./thumbs.js";

const TITLE = 28; // pixels that a layer's title covers at the top of the pane

/** @typedef {import("./types").App} App */
/** @typedef {import("./thumbs.js").Cell} Cell */

/**
 * A layer in the pane.
 * @typedef {object} Row
 * @property {import("./types").LayerInfo} layer
 * @property {HTMLElement} element
 * @property {Cell[]} cells
 * @property {import("./types").Numbers | null} thumbs
 * @property {boolean} seen
 * @property {boolean} named whether its roles are here or were asked for
 */

/** @param {App} app */
export function createHeads(app) {
  const rows = app.data.about.layers.map(createRow);
  const cells = rows.flatMap((row) => row.cells);
  const head = el("header", { className: "headsBar" });
  const legend = el("ul", { className: "legend" });
  const grid = el("div", { className: "grid", role: "grid" }, ...rows.map((row) => row.element));
  let picking = false;

  const label = () => {
    grid.setAttribute("aria-label", app.say("heads_title"));
    legend.setAttribute("aria-label", app.say("heads_roles"));
    for (const row of rows) nameRow(app, row);
    drawLegend(app, legend, cells);
  };
  const mark = () => {
    markCells(app, cells);
    drawBar(app, head, picking, () => setPicking(!picking));
  };
  const setPicking = (/** @type {boolean} */ on) => {
    picking = on;
    grid.classList.toggle("picking", on);
    mark();
  };
  const reveal = () => {
    const cell = chosenOf(app, cells)?.button;
    if (cell) scrollTo(grid, cell);
  };
  const draw = eachFrame(() => {
    for (const { seen, thumbs, cells: own, layer } of rows) {
      if (seen && thumbs) drawThumbs(thumbs, own.map((cell) => cell.canvas), tableOf(optionsOf(app, layer.keys)));
    }
  });

  fetchSeen(app, grid, rows, draw, () => {
    markCells(app, cells);
    drawLegend(app, legend, cells);
  }, (error) => {
    legend.hidden = false;
    legend.replaceChildren(el("li", {}, app.say("heads_no_roles", { message: messageOf(error, app.say) })));
  });
  follow(app, grid, cells, () => picking);
  label();
  mark();
  app.store.subscribe((_, changed) => {
    const some = (/** @type {(keyof import("./types").State)[]} */ ...names) => names.some((name) => changed.has(name));
    if (some("lang")) label();
    if (some("layer", "head", "picked", "mean", "lang")) mark();
    if (some("layer", "head")) reveal();
    if (some("palette", "scale", "theme")) draw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw, { signal: app.ended });
  requestAnimationFrame(reveal);
  const element = el("div", { className: "heads" }, head, grid, legend);
  element.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && picking) setPicking(false);
  });
  return element;
}

/**
 * @param {import("./types").LayerInfo} layer
 * @returns {Row}
 */
function createRow(layer) {
  const cells = Array.from({ length: layer.heads }, (_, head) => createCell(layer.number, head));
  const title = el("div", { className: "layerTitle", role: "rowheader", title: layer.path });
  const element = el("div", { className: "layer", role: "row" }, title, ...cells.map((cell) => cell.button));
  return { layer, element, cells, thumbs: null, seen: false, named: false };
}

/**
 * @param {App} app
 * @param {Row} row
 */
function nameRow({ say, data }, { layer, element }) {
  const both = new Set(data.about.layers.map((each) => each.part)).size > 1;
  element.children[0].replaceChildren(
    say("heads_layer", { layer: layer.number }),
    both ? el("small", {}, say(`heads_${layer.part}`)) : "",
    layer.kind === "cross" ? el("small", { className: "mark", title: say("heads_cross_title") }, say("heads_cross")) : "",
  );
}

/**
 * @param {App} app
 * @param {HTMLElement} bar
 * @param {boolean} picking
 * @param {() => void} toggle
 */
function drawBar({ say, store, data }, bar, picking, toggle) {
  const { picked } = store.get();
  const count = data.about.layers.length;
  const clear = () => store.set({ picked: [], mean: "head" });
  bar.replaceChildren(
    el("span", { className: "muted" }, count === 1 ? say("heads_one") : say("heads_count", { layers: count })),
    picked.length
      ? el("button", { type: "button", className: "button", title: say("heads_clear_title"), onclick: clear }, say("heads_clear", { count: picked.length }))
      : "",
    el(
      "button",
      { type: "button", className: "button", title: say("heads_pick_title"), "aria-pressed": picking, onclick: toggle },
      say("heads_pick"),
    ),
  );
}

/**
 * Which is chosen, which are picked, and what each does.
 * @param {App} app
 * @param {Cell[]} cells
 */
function markCells(app, cells) {
  const { layer, head, picked } = app.store.get();
  for (const cell of cells) {
    const chosen = cell.layer === layer && cell.head === head;
    const isPicked = picked.includes(`${cell.layer}.${cell.head}`);
    cell.button.setAttribute("aria-selected", String(chosen));
    cell.button.classList.toggle("picked", isPicked);
    cell.button.tabIndex = chosen ? 0 : -1;
    cell.dot.style.backgroundColor = cell.role?.role ? ROLES[cell.role.role] ?? "" : "";
    nameCell(app, cell, isPicked);
  }
}

/**
 * What a head does, and how much of it is there.
 * @param {App} app
 * @param {Cell} cell
 * @param {boolean} isPicked
 */
function nameCell(app, { layer, head, role, button }, isPicked) {
  const extent = app.data.extent(layer, head);
  const lacks = extent === "whole" ? "" : app.say(`file_${extent}`);
  const words = labelOf(app, head, role);
  const does = words.slice(app.say("heads_head", { head }).length);
  const said = [`${app.say("heads_cell", { layer, head })}${does}`, isPicked && app.say("heads_picked"), lacks];
  button.classList.toggle("absent", extent !== "whole");
  button.title = lacks ? `${words}\n${lacks}` : words;
  button.setAttribute("aria-label", said.filter(Boolean).join(", "));
}

/**
 * @param {App} app
 * @param {Cell[]} cells
 */
function chosenOf(app, cells) {
  const { layer, head } = app.store.get();
  return cells.find((cell) => cell.layer === layer && cell.head === head);
}

/**
 * Have a cell on screen, without moving what the page lies in, such as a notebook.
 * @param {HTMLElement} grid
 * @param {HTMLElement} cell
 */
function scrollTo(grid, cell) {
  const [room, box] = [grid.getBoundingClientRect(), cell.getBoundingClientRect()];
  if (box.top >= room.top + TITLE && box.bottom <= room.bottom) return;
  grid.scrollTop += (box.top + box.bottom - room.top - room.bottom) / 2;
}

/**
 * Ask for what is on screen: the pictures at once, then what the heads do, one layer after the other.
 * @param {App} app
 * @param {HTMLElement} grid
 * @param {Row[]} rows
 * @param {() => void} draw
 * @param {() => void} named
 * @param {(error: Error) => void} failed
 */
function fetchSeen(app, grid, rows, draw, named, failed) {
  let naming = false;

  /** @param {Row} row */
  async function picture(row) {
    try {
      row.thumbs = await app.data.ask("thumbs", { layer: row.layer.number });
      draw();
      void name();
    } catch (error) {
      if (!(error instanceof Absent)) app.report(error); // of which its heads say so
    }
  }

  async function name() {
    const row = rows.find((each) => each.seen && each.thumbs && !each.named);
    if (naming || !row) return;
    naming = row.named = true;
    try {
      const { heads } = await app.data.ask("roles", { layer: row.layer.number });
      for (const role of /** @type {import("./types").Role[]} */ (heads)) if (row.cells[role.head]) row.cells[role.head].role = role;
      naming = false;
      named();
      void name();
    } catch (error) {
      failed(/** @type {Error} */ (error)); // naming stays: the next would end the same way
    }
  }

  const observer = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        const row = rows.find((each) => each.element === entry.target);
        if (!row) continue;
        row.seen = entry.isIntersecting;
        if (row.seen && !row.thumbs) void picture(row);
      }
      draw();
      void name();
    },
    { root: grid, rootMargin: "80px" },
  );
  for (const row of rows) observer.observe(row.element);
}

/**
 * Pointer and keys: choosing, picking, walking.
 * @param {App} app
 * @param {HTMLElement} grid
 * @param {Cell[]} cells
 * @param {() => boolean} picking
 */
function follow({ store }, grid, cells, picking) {
  const cellOf = (/** @type {Event} */ event) => {
    const at = event.target instanceof HTMLElement ? event.target.closest(".cell") : null;
    return cells.find((cell) => cell.button === at);
  };
  /** @param {Cell} cell */
  const pick = ({ layer, head }) => {
    const name = `${layer}.${head}`;
    const { picked } = store.get();
    const next = picked.includes(name) ? picked.filter((each) => each !== name) : [...picked, name];
    store.set({ picked: next, mean: next.length ? "picked" : "head" });
  };
  grid.addEventListener("click", (event) => {
    const cell = cellOf(event);
    if (!cell) return;
    if (picking() || event.ctrlKey || event.metaKey || event.shiftKey) pick(cell);
    else store.set({ layer: cell.layer, head: cell.head });
  });
  grid.addEventListener("keydown", (event) => {
    const cell = cellOf(event);
    if (!cell || event.altKey) return;
    if (event.key === "x") return pick(cell);
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      if (picking() || event.ctrlKey || event.metaKey) return pick(cell);
      return store.set({ layer: cell.layer, head: cell.head });
    }
    const next = walked(cells, cell, event.key);
    if (!next) return;
    event.preventDefault();
    cell.button.tabIndex = -1;
    next.button.tabIndex = 0;
    next.button.focus();
  });
}

/**
 * The cell that an arrow leads to.
 * @param {Cell[]} cells
 * @param {Cell} from
 * @param {string} key
 */
export function walked(cells, from, key) {
  const at = cells.indexOf(from);
  if (key === "ArrowRight") return cells[at + 1];
  if (key === "ArrowLeft") return cells[at - 1];
  const layers = [...new Set(cells.map((cell) => cell.layer))];
  const own = (/** @type {number} */ layer) => cells.filter((cell) => cell.layer === layer);
  if (key === "Home") return own(from.layer)[0];
  if (key === "End") return own(from.layer).at(-1);
  const step = { ArrowDown: 1, ArrowUp: -1 }[key];
  if (!step) return undefined;
  const row = own(layers[layers.indexOf(from.layer) + step]);
  return row[Math.min(from.head, row.length - 1)];
}
