// One picture with its patches over it, shaded; a patch is pointed at, held by a click, and walked to with the arrows.

import { el } from "../dom.js";

const COVER = [0.38, 0.85]; // how much the layer covers of the picture, where a patch has the least and the most weight
const COLOURLESS = "saturate(0.3)"; // so that colours are those of the weights
const SMALL = 96; // pixels a side up to which a picture is shown pixel by pixel
const LARGEST = 12; // times its own size, at most

/** @typedef {import("./asking.js").Side} Side */
/** @typedef {import("./asking.js").Grid} Grid */
/**
 * @typedef {object} Shown what is drawn over a picture
 * @property {Grid} grid of the side that is shaded, or pointed at
 * @property {boolean} shaded whether its patches have weights
 * @property {(share: number) => [number, number, number]} colour of a share from 0 to 1
 * @property {(patch: number) => number} share of a patch; NaN where nothing is to be seen
 * @property {{patch: number, kind: "held" | "over" | "met"}[]} marks
 */

/**
 * @param {import("./asking.js").Seen} picture
 * @param {{point: (patch: number) => void, hold: (patch: number) => void, key: (event: KeyboardEvent) => void}} told
 *   point: -1 where nothing is pointed at any more
 */
export function createFigure(picture, told) {
  const canvas = el("canvas");
  const tag = el("span", { className: "tag", hidden: true });
  const element = el("div", { className: "patches", tabIndex: 0, role: "application" }, canvas, tag);
  /** @type {CanvasImageSource | null} */
  let image = null;
  /** @type {Shown | null} */
  let shown = null;

  /** @param {PointerEvent | MouseEvent} event */
  function patchAt(event) {
    const box = canvas.getBoundingClientRect();
    if (!shown || !box.width) return -1;
    const { rows, columns } = shown.grid;
    const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
    const row = Math.floor(((event.clientY - box.top) / box.height) * rows);
    return row < 0 || column < 0 || row >= rows || column >= columns ? -1 : row * columns + column;
  }

  element.addEventListener("pointermove", (event) => {
    if (event.pointerType !== "touch") told.point(patchAt(event));
  });
  element.addEventListener("pointerleave", () => told.point(-1));
  element.addEventListener("click", (event) => {
    const patch = patchAt(event);
    if (patch >= 0) told.hold(patch);
  });
  element.addEventListener("keydown", told.key);

  function draw() {
    const pen = canvas.getContext("2d");
    if (!pen || !image || !shown) return;
    const dense = window.devicePixelRatio || 1;
    [canvas.width, canvas.height] = [canvas.clientWidth, canvas.clientHeight].map((size) => Math.max(1, Math.round(size * dense)));
    pen.imageSmoothingEnabled = Math.max(picture.width, picture.height) > SMALL;
    pen.imageSmoothingQuality = "high";
    if (shown.shaded) pen.filter = COLOURLESS;
    pen.drawImage(image, 0, 0, canvas.width, canvas.height);
    pen.filter = "none";
    if (shown.shaded) cover(pen, shown);
    rule(pen, shown.grid, dense);
    for (const { patch, kind } of shown.marks) mark(pen, boxOf(pen.canvas, shown.grid, patch), kind, dense);
  }

  return {
    element,
    draw,
    /** @param {Int32Array} pixels as 0xRRGGBB */
    use(pixels) {
      image = imageOf(pixels, picture);
      draw();
    },
    /** @param {Shown} what */
    show(what) {
      shown = what;
      draw();
    },
    /** Give it the room that there is. @param {number} width @param {number} height */
    fit(width, height) {
      const scale = Math.min(width / picture.width, height / picture.height, LARGEST * (SMALL / Math.max(SMALL, picture.width, picture.height)));
      element.style.width = `${Math.max(32, Math.floor(picture.width * scale))}px`;
      element.style.height = `${Math.max(32, Math.floor(picture.height * scale))}px`;
      draw();
    },
    /** A number beside a patch. @param {{patch: number, text: string} | null} said */
    tag(said) {
      tag.hidden = !said || !shown;
      if (!said || !shown) return;
      const { left, top, width, height } = boxOf({ width: 100, height: 100 }, shown.grid, said.patch);
      const [right, below] = [left > 55, top < 12];
      tag.textContent = said.text;
      tag.style.left = right ? "" : `${left}%`;
      tag.style.right = right ? `${100 - left - width}%` : "";
      tag.style.top = below ? `calc(${top + height}% + 5px)` : "";
      tag.style.bottom = below ? "" : `calc(${100 - top}% + 5px)`;
    },
  };
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {Shown} shown
 */
function cover(pen, { grid, colour, share }) {
  for (let patch = 0; patch < grid.rows * grid.columns; patch++) {
    const strength = share(patch);
    if (Number.isNaN(strength)) continue;
    const { left, top, width, height } = boxOf(pen.canvas, grid, patch);
    pen.fillStyle = `rgb(${colour(strength).join(" ")} / ${(COVER[0] + (COVER[1] - COVER[0]) * strength).toFixed(3)})`;
    pen.fillRect(left, top, width, height);
  }
}

/**
 * The lines between patches.
 * @param {CanvasRenderingContext2D} pen
 * @param {Grid} grid
 * @param {number} dense pixels for a CSS pixel
 */
function rule(pen, { rows, columns }, dense) {
  const { width, height } = pen.canvas;
  if (Math.min(width / columns, height / rows) < 5 * dense) return;
  pen.beginPath();
  for (let column = 1; column < columns; column++) line(pen, edge(column, columns, width), 0, 0, height);
  for (let row = 1; row < rows; row++) line(pen, 0, edge(row, rows, height), width, 0);
  pen.lineWidth = 1;
  pen.strokeStyle = "rgb(255 255 255 / 0.16)";
  pen.stroke();
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {number} x
 * @param {number} y
 * @param {number} across
 * @param {number} down
 */
function line(pen, x, y, across, down) {
  pen.moveTo(x + (down ? 0.5 : 0), y + (across ? 0.5 : 0));
  pen.lineTo(x + across + (down ? 0.5 : 0), y + down + (across ? 0.5 : 0));
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {{left: number, top: number, width: number, height: number}} box
 * @param {"held" | "over" | "met"} kind
 * @param {number} dense
 */
function mark(pen, { left, top, width, height }, kind, dense) {
  const style = getComputedStyle(pen.canvas);
  const thick = 2 * dense;
  pen.setLineDash(kind === "over" ? [3 * dense, 2 * dense] : []);
  for (const [colour, more] of /** @type {[string, number][]} */ ([["rgb(0 0 0 / 0.55)", 2 * dense], [style.getPropertyValue(kind === "met" ? "--met" : "--held"), 0]])) {
    pen.lineWidth = thick + more;
    pen.strokeStyle = colour;
    pen.strokeRect(left, top, width, height);
    if (kind === "over") break;
  }
  if (kind === "over") {
    pen.lineWidth = thick;
    pen.strokeStyle = "#fff";
    pen.setLineDash([]);
    pen.strokeRect(left, top, width, height);
  }
  pen.setLineDash([]);
}

/**
 * Where a patch is, on whole pixels.
 * @param {{width: number, height: number}} canvas
 * @param {Grid} grid
 * @param {number} patch
 */
function boxOf({ width, height }, { rows, columns }, patch) {
  const [row, column] = [Math.floor(patch / columns), patch % columns];
  const [left, top] = [edge(column, columns, width), edge(row, rows, height)];
  return { left, top, width: edge(column + 1, columns, width) - left, height: edge(row + 1, rows, height) - top };
}

/**
 * @param {number} at
 * @param {number} count
 * @param {number} size
 */
function edge(at, count, size) {
  return Math.round((at * size) / count);
}

/**
 * @param {Int32Array} pixels
 * @param {{width: number, height: number}} size
 */
function imageOf(pixels, { width, height }) {
  const canvas = el("canvas", { width, height });
  const data = new ImageData(width, height);
  pixels.forEach((rgb, i) => data.data.set([rgb >> 16, (rgb >> 8) & 255, rgb & 255, 255], 4 * i));
  canvas.getContext("2d")?.putImageData(data, 0, 0);
  return canvas;
}
