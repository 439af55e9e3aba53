// What lies over the map: the ground on which nobody may look, lines to the row and column that are pointed at, a frame
// around the held cell, and the numbers of cells that are large enough.

import { el } from "../dom.js";
import { seen } from "./geometry.js";
import { createSheet } from "./pen.js";

const NUMBERED = 24; // pixels of a cell from which its number is in it
const ROOMY = 44; // pixels from which a number has its sign and a decimal
const GRIDDED = 16; // pixels of a cell from which thin lines part them
const FAINT = 0.0005; // weights that are said to be less than 0.1%
const LEAST = 9; // pixels of a frame, however small the cell

/** @typedef {ReturnType<import("./frame.js").Frame["view"]>} View */
/** @typedef {{left: number, top: number, width: number, height: number}} Box */

/**
 * @param {{get: () => import("./pen.js").Paint}} paint
 */
export function createOverlay(paint) {
  const sheet = createSheet("overlay");
  const ground = el("div", { className: "hatch" });

  /**
   * @param {object} shown
   * @param {View} shown.view
   * @param {{rows: number, keys: number}} shown.size
   * @param {[number, number]} shown.held row and key in units, -1 for none
   * @param {[number, number, number, number] | null} shown.pointed rows and keys from one up to another; -1 for none
   * @param {(row: number, key: number) => number | null} shown.weightAt
   * @param {(weight: number) => boolean} shown.bright whether a weight's colour is
   */
  function draw({ view, size, held, pointed, weightAt, bright }) {
    sheet.clear();
    layGround(view, size);
    const cells = view.zoom === 0; // what is shown is single weights
    if (cells && view.scale >= GRIDDED) drawGrid(sheet.pen, view, size, mapOf(view, size));
    if (cells && view.scale >= NUMBERED) drawNumbers(sheet.pen, view, size, weightAt, bright, paint.get().font);
    if (pointed) drawLines(sheet.pen, boxOf(view, pointed), view, mapOf(view, size), paint.get());
    const [row, key] = held;
    if (row >= 0 && key >= 0) drawFrame(sheet.pen, boxOf(view, [row, row + 1, key, key + 1]), paint.get());
    else if (row >= 0) drawBand(sheet.pen, boxOf(view, [row, row + 1, 0, size.keys]), paint.get());
  }

  /** @param {View} view @param {{rows: number, keys: number}} size */
  function layGround(view, size) {
    const { left, top, width, height } = mapOf(view, size);
    Object.assign(ground.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });
  }

  return { canvas: sheet.canvas, ground, draw };
}

/**
 * The part of the map that is in the pane.
 * @param {View} view
 * @param {{rows: number, keys: number}} size
 * @returns {Box}
 */
function mapOf(view, size) {
  const [left, top] = [Math.max(0, view.left), Math.max(0, view.top)];
  const right = Math.min(view.width, view.left + size.keys * view.scale);
  const bottom = Math.min(view.height, view.top + size.rows * view.scale);
  return { left, top, width: Math.max(0, right - left), height: Math.max(0, bottom - top) };
}

/**
 * @param {View} view
 * @param {[number, number, number, number]} units rows and keys, from one up to another
 * @returns {Box}
 */
function boxOf({ left, top, scale }, [row, rowStop, key, keyStop]) {
  const [x, y] = [Math.round(left + key * scale), Math.round(top + row * scale)];
  return { left: x, top: y, width: Math.round(left + keyStop * scale) - x, height: Math.round(top + rowStop * scale) - y };
}

/**
 * Two lines along the row and two along the column; where they are thin, one.
 * @param {CanvasRenderingContext2D} pen
 * @param {Box} box
 * @param {View} view
 * @param {Box} map
 * @param {import("./pen.js").Paint} paint
 */
function drawLines(pen, box, view, map, paint) {
  const line = (/** @type {number} */ x, /** @type {number} */ y, /** @type {number} */ width, /** @type {number} */ height) => {
    pen.globalAlpha = 0.35;
    pen.fillStyle = "#000";
    pen.fillRect(x, y, Math.max(width, 1), Math.max(height, 1));
    pen.globalAlpha = 0.85;
    pen.fillStyle = paint.accent;
    pen.fillRect(x, y, Math.max(width, 1), Math.max(height, 1));
  };
  if (box.height > 0 && box.top < view.height && box.top + box.height >= 0) {
    line(map.left, box.top, map.width, 1);
    if (box.height > 3) line(map.left, box.top + box.height - 1, map.width, 1);
  }
  if (box.width > 0 && box.left < view.width && box.left + box.width >= 0) {
    line(box.left, map.top, 1, map.height);
    if (box.width > 3) line(box.left + box.width - 1, map.top, 1, map.height);
  }
  pen.globalAlpha = 1;
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {Box} box
 * @param {import("./pen.js").Paint} paint
 */
function drawFrame(pen, { left, top, width, height }, paint) {
  const [wide, high] = [Math.max(width, LEAST), Math.max(height, LEAST)];
  const [x, y] = [left - (wide - width) / 2, top - (high - height) / 2];
  pen.lineJoin = "round";
  pen.lineWidth = 4;
  pen.strokeStyle = paint.ground;
  pen.strokeRect(x, y, wide, high);
  pen.lineWidth = 2;
  pen.strokeStyle = paint.accent;
  pen.strokeRect(x, y, wide, high);
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {View} view
 * @param {{rows: number, keys: number}} size
 * @param {Box} map
 */
function drawGrid(pen, { left, top, scale, width, height }, size, map) {
  pen.fillStyle = `rgb(128 128 128 / ${Math.min(0.3, scale / 160).toFixed(3)})`;
  const [firstRow, lastRow] = seen(top, scale, height, size.rows);
  const [firstKey, lastKey] = seen(left, scale, width, size.keys);
  for (let row = firstRow + 1; row < lastRow; row++) pen.fillRect(map.left, Math.round(top + row * scale), map.width, 1);
  for (let key = firstKey + 1; key < lastKey; key++) pen.fillRect(Math.round(left + key * scale), map.top, 1, map.height);
}

/**
 * A row that is held without a key: a small mark at its ends.
 * @param {CanvasRenderingContext2D} pen
 * @param {Box} box
 * @param {import("./pen.js").Paint} paint
 */
function drawBand(pen, { left, top, width, height }, paint) {
  pen.fillStyle = paint.accent;
  const high = Math.max(height, 3);
  const y = top - (high - height) / 2;
  pen.fillRect(Math.max(left, 0), y, 3, high);
  pen.fillRect(left + width + 1, y, 3, high);
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {View} view
 * @param {{rows: number, keys: number}} size
 * @param {(row: number, key: number) => number | null} weightAt
 * @param {(weight: number) => boolean} bright
 * @param {string} font
 */
function drawNumbers(pen, view, size, weightAt, bright, font) {
  const [firstRow, lastRow] = seen(view.top, view.scale, view.height, size.rows);
  const [firstKey, lastKey] = seen(view.left, view.scale, view.width, size.keys);
  const say = view.scale < ROOMY ? brief : short;
  pen.font = `${Math.min(13, Math.max(view.scale < ROOMY ? 10 : 11, view.scale / 6)).toFixed(1)}px ${font}`;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  for (let row = firstRow; row < lastRow; row++) {
    for (let key = firstKey; key < lastKey; key++) {
      const weight = weightAt(row, key);
      if (weight === null || Number.isNaN(weight)) continue;
      const strength = weight < FAINT ? 0.5 : 0.88; // so that the eye finds those that matter
      pen.fillStyle = bright(weight) ? `rgb(0 0 0 / ${strength})` : `rgb(255 255 255 / ${strength})`;
      pen.fillText(say(weight), view.left + (key + 0.5) * view.scale, view.top + (row + 0.5) * view.scale + 0.5);
    }
  }
}

/**
 * A weight in percent, in few characters.
 * @param {number} weight
 */
export function short(weight) {
  const share = 100 * weight;
  if (weight < FAINT) return "<0.1%";
  return share >= 9.95 ? `${share.toFixed(0)}%` : `${share.toFixed(1)}%`;
}

/**
 * A weight in percent, in two or three characters.
 * @param {number} weight
 */
export function brief(weight) {
  const share = 100 * weight;
  if (weight < FAINT) return "<.1";
  return share >= 0.95 ? share.toFixed(0) : share.toFixed(1).slice(1);
}
