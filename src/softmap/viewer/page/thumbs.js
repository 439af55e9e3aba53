// The thumbnails of one layer's heads: asked for when they come on screen, coloured as the map is.

import { el } from "./dom.js";

const FEW = 40; // cells a side up to which each of them is drawn as a square

/**
 * Draw a layer's heads, each on its canvas.
 * @param {import("./types").Numbers} numbers float16 (heads, h, w)
 * @param {HTMLCanvasElement[]} canvases
 * @param {Uint32Array} table
 */
export function drawThumbs({ data, shape: [heads, height, width] }, canvases, table) {
  for (let head = 0; head < Math.min(heads, canvases.length); head++) {
    const canvas = canvases[head];
    const image = new ImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    const first = head * height * width;
    for (let i = 0; i < pixels.length; i++) pixels[i] = table[data[first + i]];
    Object.assign(canvas, { width, height });
    canvas.classList.toggle("few", Math.max(width, height) <= FEW);
    canvas.getContext("2d")?.putImageData(image, 0, 0);
  }
}

/**
 * The cell of one head: its picture, its number, and room for its role.
 * @param {number} layer
 * @param {number} head
 */
export function createCell(layer, head) {
  const canvas = el("canvas", { width: 1, height: 1, "aria-hidden": "true" });
  const dot = el("i", { className: "dot" });
  const button = el(
    "div",
    { className: "cell", role: "gridcell", tabIndex: -1, "data-layer": layer, "data-head": head },
    el("span", { className: "frame" }, canvas),
    el("span", { className: "caption" }, dot, String(head)),
  );
  return { layer, head, canvas, dot, button, role: /** @type {import("./types").Role | null} */ (null) };
}

/** @typedef {ReturnType<typeof createCell>} Cell */
