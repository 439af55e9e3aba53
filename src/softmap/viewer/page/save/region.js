// Which part of the matrix a saved figure shows, and how. Numbers only: nothing here touches the page.

const WIDEST = 1024; // pixels of the matrix's picture
const SIDE = 720; // the drawing's longer side
const LARGEST_CELL = 72;

/**
 * What a figure shows, in units: whole blocks of the zoom.
 * @typedef {object} Region
 * @property {number} left
 * @property {number} right
 * @property {number} top
 * @property {number} bottom
 * @property {number} zoom
 * @property {number} cell the drawing's length of one unit
 */

/**
 * @param {[number, number, number] | null} box left, top and width of what the map shows; null for all of it
 * @param {number} aspect height of the map's pane by its width
 * @param {{rows: number, keys: number}} size of the matrix, in units
 * @param {number} [finest] the finest zoom that there is
 * @returns {Region}
 */
export function regionOf(box, aspect, { rows, keys }, finest = 0) {
  const [x, y, width] = box ?? [0, 0, keys];
  const height = box ? width * aspect : rows;
  const zoom = Math.max(finest, Math.ceil(Math.log2(Math.max(Math.min(width, keys), Math.min(height, rows), 1) / WIDEST)));
  const [left, right] = snapped(x, x + width, keys, 2 ** zoom);
  const [top, bottom] = snapped(y, y + height, rows, 2 ** zoom);
  const cell = Math.min(LARGEST_CELL, SIDE / Math.max(right - left, bottom - top));
  return { left, right, top, bottom, zoom, cell };
}

/**
 * The places of an axis that are named: every unit where there is room, round numbers otherwise.
 * @param {number} start
 * @param {number} stop
 * @param {number} cell
 * @returns {{places: number[], each: boolean}}
 */
export function ticksOf(start, stop, cell) {
  if (cell >= 12) return { places: Array.from({ length: stop - start }, (_, i) => start + i), each: true };
  const wanted = 60 / cell;
  const power = 10 ** Math.floor(Math.log10(wanted));
  const step = power * ([1, 2, 5].find((times) => times * power >= wanted) ?? 10);
  const first = Math.ceil(start / step) * step;
  return { places: Array.from({ length: Math.ceil((stop - first) / step) }, (_, i) => first + i * step), each: false };
}

/**
 * The tiles that hold a region, and where each one's pixels lie in its picture.
 * @param {Region} region
 * @param {number} tile pixels of a tile's side
 */
export function tilesOf({ left, right, top, bottom, zoom }, tile) {
  const span = tile * 2 ** zoom;
  const over = (/** @type {number} */ start, /** @type {number} */ stop) =>
    Array.from({ length: Math.ceil(stop / span) - Math.floor(start / span) }, (_, i) => Math.floor(start / span) + i);
  return over(top, bottom).flatMap((row) =>
    over(left, right).map((column) => ({
      row,
      column,
      x: (column * span - left) / 2 ** zoom,
      y: (row * span - top) / 2 ** zoom,
    })),
  );
}

/**
 * A name for a file: softmap-layer3-head1.png
 * @param {{layer: number, head: number | null, what?: string, kind: string}} parts head: null for all heads
 */
export function fileName({ layer, head, what, kind }) {
  return ["softmap", `layer${layer}`, head !== null && `head${head}`, what].filter(Boolean).join("-") + `.${kind}`;
}

/**
 * Text as lines no longer than `most` characters, broken between parts.
 * @param {string[]} parts
 * @param {number} most
 * @param {string} [between]
 */
export function lines(parts, most, between = " · ") {
  /** @type {string[]} */
  const made = [];
  for (const part of parts) {
    const last = made[made.length - 1];
    if (last !== undefined && last.length + between.length + part.length <= most)
      made[made.length - 1] = last + between + part;
    else made.push(part);
  }
  return made;
}

/**
 * @param {number} start
 * @param {number} stop
 * @param {number} count
 * @param {number} block
 */
function snapped(start, stop, count, block) {
  const first = Math.floor(Math.min(Math.max(start, 0), count - 1) / block) * block;
  return [first, Math.min(count, Math.max(Math.ceil(stop / block) * block, first + block))];
}
