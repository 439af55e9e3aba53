// The rulers: the tokens of the rows along the left edge, those of the columns along the top; where they are too small
// for that, the numbers of some. What is pointed at or held is named at every zoom.

import { grouped } from "../format.js";
import { fitted } from "../labels.js";
import { seen, stepOf } from "./geometry.js";
import { createSheet } from "./pen.js";

const LINE = 14; // pixels that a label needs beside the next one
const WIDE = 64; // pixels for a column from which its label lies flat
const SIZE = 12; // of letters, in pixels
const GAP = 6; // between a label and the map
const ROOM = { left: [46, 148], top: [34, 104] }; // the least and the most that the rulers take, in pixels
const LONG = { left: 84, top: 56 }; // what they take where numbers stand, unless one zooms in
const LOW = 340; // pixels of a pane that has no room for more
const FEW = 96; // units whose labels are all measured

/**
 * @typedef {object} Marks units that are pointed at or held, -1 for none
 * @property {[number, number]} pointed row and key
 * @property {[number, number]} held
 */

/**
 * @param {{get: () => import("./pen.js").Paint}} paint
 */
export function createRulers(paint) {
  const left = createSheet("ruler leftRuler");
  const top = createSheet("ruler topRuler");

  /**
   * @param {import("./sides.js").Sides} sides
   * @param {ReturnType<import("./frame.js").Frame["view"]>} view
   * @param {Marks} marks
   */
  function draw(sides, view, { pointed, held }) {
    const down = { ...axisOf(sides.row, view.top, view.scale, view.height), pointed: pointed[0], held: held[0] };
    const across = { ...axisOf(sides.key, view.left, view.scale, view.width), pointed: pointed[1], held: held[1] };
    drawLeft(left, down, paint.get());
    drawTop(top, across, paint.get());
  }

  return { left: left.canvas, top: top.canvas, draw, roomFor: (/** @type {Room} */ room) => roomFor(left.pen, paint.get(), room) };
}

/** @typedef {ReturnType<typeof axisOf> & {pointed: number, held: number}} Axis */
/** @typedef {{sides: import("./sides.js").Sides, width: number, height: number}} Room */

/**
 * @param {import("./sides.js").Sides["row"]} side
 * @param {number} origin
 * @param {number} scale
 * @param {number} length
 */
function axisOf(side, origin, scale, length) {
  const [first, stop] = seen(origin, scale, length, side.units.count);
  return { side, origin, scale, length, first, stop, middle: (/** @type {number} */ unit) => origin + (unit + 0.5) * scale };
}

/**
 * The numbers of some tokens, round ones, and the units they are in.
 * @param {Axis} axis
 * @param {number} room pixels between two of them
 */
function ticks({ side, scale, first, stop }, room) {
  const [from, to] = [side.token(first), side.token(stop - 1)];
  const step = stepOf((scale * (stop - first)) / Math.max(1, to - from + 1), room);
  const tokens = [];
  for (let token = Math.ceil(from / step) * step; token <= to; token += step) tokens.push(token);
  return tokens.map((token) => ({ token, unit: side.unit(token) }));
}

/**
 * @param {Axis} axis
 * @param {number} unit
 * @param {import("./pen.js").Paint} paint
 */
function colourOf({ pointed, held, side }, unit, paint) {
  if (unit === pointed || unit === held) return paint.accent;
  return side.label(unit)?.special ? paint.muted : paint.ink;
}

/** What is named at every zoom: what is pointed at, else what is held. @param {Axis} axis */
const marked = ({ pointed, held }) => [pointed >= 0 ? pointed : held].filter((unit) => unit >= 0);

/** @param {Axis} axis @param {number} unit */
const nameOf = ({ side }, unit) => side.label(unit)?.text ?? "…";

/**
 * @param {ReturnType<typeof createSheet>} sheet
 * @param {Axis} axis
 * @param {import("./pen.js").Paint} paint
 */
function drawLeft({ pen, clear }, axis, paint) {
  const { width, height } = clear();
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  const write = (/** @type {string} */ text, /** @type {number} */ at) => pen.fillText(cut(pen, text, width - GAP - 4), width - GAP, at);
  pen.font = `${SIZE}px ${paint.font}`;
  if (axis.scale >= LINE) {
    for (let unit = axis.first; unit < axis.stop; unit++) {
      pen.font = fontOf(axis, unit, paint);
      pen.fillStyle = colourOf(axis, unit, paint);
      write(nameOf(axis, unit), axis.middle(unit));
    }
    return;
  }
  const names = marked(axis).map((unit) => ({ unit, at: axis.middle(unit) })).filter(({ at }) => at >= 0 && at <= height);
  pen.font = `${SIZE - 1}px ${paint.font}`;
  pen.fillStyle = paint.muted;
  for (const { token, unit } of ticks(axis, 34)) {
    const at = axis.middle(unit);
    pen.fillRect(width - 4, Math.round(at), 4, 1);
    const free = names.every((name) => Math.abs(name.at - at) > 15);
    if (free && at > 6 && at < height - 6) write(grouped(token), at);
  }
  pen.fillStyle = paint.accent;
  for (const { unit, at } of names) {
    pen.font = fontOf(axis, unit, paint);
    pen.fillRect(width - 4, Math.round(at) - 1, 4, 2);
    write(nameOf(axis, unit), inside(at, 8, height));
  }
}

/**
 * @param {ReturnType<typeof createSheet>} sheet
 * @param {Axis} axis
 * @param {import("./pen.js").Paint} paint
 */
function drawTop({ pen, clear }, axis, paint) {
  const { width, height } = clear();
  pen.textBaseline = "middle";
  if (axis.scale >= LINE) {
    const flat = axis.scale >= WIDE;
    for (let unit = axis.first; unit < axis.stop; unit++) {
      pen.font = fontOf(axis, unit, paint);
      pen.fillStyle = colourOf(axis, unit, paint);
      const name = nameOf(axis, unit);
      if (flat) writeFlat(pen, cut(pen, name, axis.scale - 6), axis.middle(unit), height - 11);
      else writeTurned(pen, name, axis.middle(unit), height);
    }
    return;
  }
  const names = marked(axis)
    .map((unit) => namedAt(pen, axis, unit, paint, width))
    .filter(({ at }) => at >= 0 && at <= width);
  pen.font = `${SIZE - 1}px ${paint.font}`;
  pen.fillStyle = paint.muted;
  for (const { token, unit } of ticks(axis, 62)) {
    const at = axis.middle(unit);
    pen.fillRect(Math.round(at), height - 4, 1, 4);
    const half = pen.measureText(grouped(token)).width / 2;
    const place = inside(at, half, width);
    if (names.every((name) => Math.abs(name.place - place) > name.half + half + 4)) writeFlat(pen, grouped(token), place, height - 13);
  }
  pen.fillStyle = paint.accent;
  for (const { unit, at, text, place } of names) {
    pen.font = fontOf(axis, unit, paint);
    pen.fillRect(Math.round(at) - 1, height - 4, 2, 4);
    writeFlat(pen, text, place, height - 13);
  }
}

/**
 * Where the name of a column that is pointed at or held stands.
 * @param {CanvasRenderingContext2D} pen
 * @param {Axis} axis
 * @param {number} unit
 * @param {import("./pen.js").Paint} paint
 * @param {number} width
 */
function namedAt(pen, axis, unit, paint, width) {
  pen.font = fontOf(axis, unit, paint);
  const text = cut(pen, nameOf(axis, unit), 160);
  const half = pen.measureText(text).width / 2;
  return { unit, text, half, at: axis.middle(unit), place: inside(axis.middle(unit), half, width) };
}

/**
 * @param {number} at the middle of what is so long
 * @param {number} half
 * @param {number} length of all
 */
function inside(at, half, length) {
  return Math.min(Math.max(at, half), Math.max(half, length - half));
}

/**
 * @param {Axis} axis
 * @param {number} unit
 * @param {import("./pen.js").Paint} paint
 */
function fontOf({ pointed, held }, unit, paint) {
  return `${unit === pointed || unit === held ? "600 " : ""}${SIZE}px ${paint.font}`;
}

/**
 * @param {CanvasRenderingContext2D} pen whose font counts
 * @param {string} text
 * @param {number} most pixels
 */
function cut(pen, text, most) {
  return fitted(text, most, (part) => pen.measureText(part).width);
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {string} text
 * @param {number} x
 * @param {number} y
 */
function writeFlat(pen, text, x, y) {
  pen.textAlign = "center";
  pen.fillText(text, x, y);
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {string} text
 * @param {number} x
 * @param {number} height
 */
function writeTurned(pen, text, x, height) {
  pen.save();
  pen.translate(x + 1, height - GAP);
  pen.rotate(-Math.PI / 4);
  pen.textAlign = "left";
  pen.fillText(cut(pen, text, (height - GAP - 10) * Math.SQRT2), 0, 0);
  pen.restore();
}

/**
 * How much room the rulers take: as much as the labels want, within bounds.
 * @param {CanvasRenderingContext2D} pen
 * @param {import("./pen.js").Paint} paint
 * @param {Room} room what there is for the map and its rulers
 */
function roomFor(pen, paint, { sides, width, height }) {
  pen.font = `600 ${SIZE}px ${paint.font}`;
  const narrow = { left: Math.min(ROOM.left[1], 0.26 * width), top: Math.min(ROOM.top[1], 0.28 * height) };
  const scale = Math.min((width - narrow.left) / sides.size.keys, (height - narrow.top) / sides.size.rows);
  const wants = (/** @type {"row" | "key"} */ side, /** @type {number} */ otherwise) => {
    const { units, label } = sides[side];
    if (units.count > FEW || scale < LINE) return otherwise;
    const widths = Array.from({ length: units.count }, (_, i) => pen.measureText(label(i)?.text ?? "").width);
    return Math.max(...widths) + GAP + 6;
  };
  const top = scale >= WIDE ? ROOM.top[0] : wants("key", (height < LOW ? ROOM.top[0] : LONG.top) / Math.SQRT1_2) * Math.SQRT1_2 + 4;
  const within = (/** @type {number} */ value, /** @type {number} */ least, /** @type {number} */ most) =>
    Math.round(Math.max(Math.min(value, most), Math.min(least, most)));
  return {
    left: within(wants("row", LONG.left), ROOM.left[0], narrow.left),
    top: within(top, ROOM.top[0], narrow.top),
  };
}
