// What the map shows as a drawing on white: the matrix as a picture, all else as text and lines.

import { color, isBright, share, tableOf } from "../colors.js";
import { svg } from "../dom.js";
import { fromHalf } from "../float16.js";
import { grouped } from "../format.js";
import { unitAt } from "../units.js";
import { axis, floorFor, legend } from "./axes.js";
import { context } from "./files.js";
import { captioned, HELD, text } from "./paper.js";
import { regionOf, tilesOf } from "./region.js";

/** @typedef {import("../types").App} App */
/** @typedef {import("./region.js").Region} Region */

const NUMBERS_FROM = 30; // a cell's side that holds its number

/**
 * @param {App} app
 * @param {HTMLElement | null} pane in which the map lies
 * @returns {Promise<SVGElement>}
 */
export async function mapFigure(app, pane) {
  const state = app.store.get();
  const { rows, keys } = app.sides();
  const aspect = pane && pane.clientWidth ? pane.clientHeight / pane.clientWidth : 1;
  const region = regionOf(state.box, aspect, { rows: rows.count, keys: keys.count }, app.shown().finest);
  const pixels = await pixelsOf(app, region);
  const [row, key] = [await placeIn(rows, state.query), await placeIn(keys, state.key)];
  const [left, top] = [await axis(app, region, "rows", row), await axis(app, region, "keys", key)];
  const [width, height] = [region.cell * (region.right - region.left), region.cell * (region.bottom - region.top)];
  const matrix = svg(
    "g",
    { transform: `translate(${left.room} ${top.room})` },
    svg("rect", { width, height, fill: "#eef0f4" }),
    svg("image", {
      width,
      height,
      href: picture(app, pixels),
      "image-rendering": "pixelated",
      preserveAspectRatio: "none",
    }),
    ...numbers(app, region, pixels),
    frame(region, row, key),
    svg("rect", { width, height, fill: "none", stroke: "#c9ced8" }),
    left.group,
    top.group,
    legend(app, width + 24),
  );
  const { layer, head } = state;
  return captioned(matrix, {
    width: Math.max(left.room + width + 80, 380),
    height: Math.max(top.room + height, top.room + 190),
    title: app.say("figure_title", { layer, head }),
    under: [`“${app.data.about.title}”`, app.data.about.model],
    caption: captionOf(app, region, { rows: rows.count, keys: keys.count }),
  });
}

/**
 * The region's weights, pixel by pixel, as the bits of 16-bit numbers.
 * @param {App} app
 * @param {Region} region
 */
async function pixelsOf(app, region) {
  const [{ layer, head }, { how, sinks }] = [app.store.get(), app.shown()];
  const words = Number(app.sides().words);
  const block = 2 ** region.zoom;
  const width = Math.ceil((region.right - region.left) / block);
  const height = Math.ceil((region.bottom - region.top) / block);
  const bits = new Uint16Array(width * height).fill(0x7e00); // NaN
  const { tile } = app.data.about;
  for (const { row, column, x, y } of tilesOf(region, tile)) {
    const { shape, data } = await app.data.tile({ layer, head, zoom: region.zoom, row, column, how, sinks, words });
    for (let i = Math.max(0, -y); i < Math.min(shape[0], height - y); i++) {
      const [from, to] = [Math.max(0, -x), Math.min(shape[1], width - x)];
      bits.set(data.subarray(i * shape[1] + from, i * shape[1] + to), (y + i) * width + x + from);
    }
  }
  return { bits, width, height };
}

/**
 * As a PNG in a data address; small ones enlarged, for programs that would smooth them.
 * @param {App} app
 * @param {{bits: Uint16Array, width: number, height: number}} pixels
 */
function picture(app, { bits, width, height }) {
  const { palette, scale } = app.store.get();
  const table = tableOf({ palette, scale, floor: floorFor(app), dark: false });
  const small = document.createElement("canvas");
  [small.width, small.height] = [width, height];
  const image = new ImageData(width, height);
  const painted = new Uint32Array(image.data.buffer);
  bits.forEach((weight, i) => (painted[i] = table[weight]));
  context(small).putImageData(image, 0, 0);
  const times = Math.max(1, Math.floor(1024 / Math.max(width, height)));
  const large = document.createElement("canvas");
  [large.width, large.height] = [width * times, height * times];
  context(large).imageSmoothingEnabled = false;
  context(large).drawImage(small, 0, 0, large.width, large.height);
  return large.toDataURL("image/png");
}

/**
 * The weights in their cells, where these are large enough.
 * @param {App} app
 * @param {Region} region
 * @param {{bits: Uint16Array, width: number}} pixels
 */
function numbers(app, { cell, zoom }, { bits, width }) {
  if (cell < NUMBERS_FROM || zoom > 0) return [];
  const { palette, scale } = app.store.get();
  return [...bits].map((each, i) => {
    const weight = fromHalf(each);
    if (Number.isNaN(weight)) return null;
    const fill = isBright(color(palette, share(weight, scale, floorFor(app)), false)) ? "#111111" : "#ffffff";
    const [x, y] = [cell * ((i % width) + 0.5), cell * (Math.floor(i / width) + 0.5)];
    return text(weight.toFixed(2), x, y, {
      fill,
      "text-anchor": "middle",
      dy: "0.35em",
      "font-size": Math.min(13, cell / 3),
    });
  });
}

/**
 * A frame around the held cell.
 * @param {Region} region
 * @param {number} row
 * @param {number} key
 */
function frame({ left, right, top, bottom, cell }, row, key) {
  if (cell < 6 || row < top || row >= bottom || key < left || key >= right) return null;
  const at = { x: cell * (key - left), y: cell * (row - top), width: cell, height: cell };
  return svg("rect", { ...at, fill: "none", stroke: HELD, "stroke-width": 2.5 });
}

/**
 * @param {App} app
 * @param {Region} region
 * @param {{rows: number, keys: number}} size
 */
function captionOf(app, { left, right, top, bottom, zoom }, { rows, keys }) {
  const [{ scale }, { how, sinks }] = [app.store.get(), app.shown()];
  const part = { top, bottom: bottom - 1, left, right: right - 1, rows: grouped(rows), keys: grouped(keys) };
  const whole = right - left === keys && bottom - top === rows;
  return [
    app.say(`figure_scale_${scale}`),
    zoom > 0 && app.say(`figure_how_${how}`, { block: 2 ** zoom }),
    sinks !== "shown" && app.say(`figure_sinks_${sinks}`),
    !whole && app.say("figure_part", part),
  ].filter((each) => typeof each === "string");
}

/**
 * The unit that holds a token; -1 for none.
 * @param {import("../types").Units} units
 * @param {number} token
 */
async function placeIn(units, token) {
  return token < 0 ? -1 : unitAt(await units.starts(), token);
}
