// Where weights are on the map: plain sums, no page. A *unit* is a row or column of the map (a word or a token), and so
// one pixel of zoom 0; a pixel of zoom z is a block of 2^z by 2^z of them.

export const TILE = 256; // pixels a side
const SMALLEST = 64; // pixels that the coarsest picture has at most, a side

/**
 * The coarsest zoom that is worth a picture.
 * @param {number} rows
 * @param {number} keys
 */
export function topZoom(rows, keys) {
  return Math.max(0, Math.ceil(Math.log2(Math.max(rows, keys, 1) / SMALLEST)));
}

/**
 * The finest zoom whose pixels are not smaller than those of the screen, so that none is left out when it is drawn.
 * @param {number} scale screen pixels (of the device) for a unit
 * @param {number} top
 */
export function zoomAt(scale, top) {
  return Math.min(top, Math.max(0, Math.ceil(-Math.log2(scale) - 1e-9)));
}

/**
 * The units that are seen, from one up to another.
 * @param {number} origin where unit 0 begins, in pixels from the pane's edge
 * @param {number} scale pixels for a unit
 * @param {number} length of the pane
 * @param {number} count units
 * @returns {[number, number]}
 */
export function seen(origin, scale, length, count) {
  const first = Math.min(count, Math.max(0, Math.floor(-origin / scale)));
  const stop = Math.min(count, Math.ceil((length - origin) / scale));
  return [first, Math.max(first, stop)];
}

/**
 * The smallest of 1, 2, 5, 10, 20, ... that takes up some room.
 * @param {number} scale pixels for one
 * @param {number} room pixels
 */
export function stepOf(scale, room) {
  const least = Math.max(1, room / scale);
  const power = 10 ** Math.floor(Math.log10(least));
  return /** @type {number} */ ([1, 2, 5, 10].find((times) => times * power >= least - 1e-9)) * power;
}

/**
 * Pixels for a unit at which the whole map fits into the pane.
 * @param {{width: number, height: number}} pane
 * @param {{rows: number, keys: number}} size
 * @param {number} margin pixels left free at the right and at the bottom
 */
export function wholeScale(pane, { rows, keys }, margin) {
  return Math.max(1e-6, Math.min((pane.width - margin) / keys, (pane.height - margin) / rows));
}

/**
 * Where a stretch may begin so that it stays with what there is: at 0 where all of it fits, else from edge to edge.
 * @param {number} start
 * @param {number} length of the stretch
 * @param {number} whole length of all there is
 * @param {number} margin that may be seen behind the end
 */
export function keptWithin(start, length, whole, margin) {
  return length >= whole + margin ? 0 : Math.min(Math.max(start, 0), whole + margin - length);
}

/**
 * Where a pane must begin to have a unit in it: as it is where the unit is seen, else with the unit in the middle.
 * @param {number} unit
 * @param {number} start the first unit seen, a fraction maybe
 * @param {number} length units that are seen
 */
export function startToSee(unit, start, length) {
  const seenWhole = unit >= start && unit + 1 <= start + length;
  return seenWhole || length < 1 ? start : unit + 0.5 - length / 2;
}

/**
 * The block under a point of the map.
 * @param {number} row a fraction of units
 * @param {number} key
 * @param {number} zoom
 * @param {{rows: number, keys: number}} size
 * @returns {Block | null} null beside the map
 * @typedef {{zoom: number, row: number, column: number}} Block
 */
export function blockAt(row, key, zoom, size) {
  if (row < 0 || key < 0 || row >= size.rows || key >= size.keys) return null;
  return { zoom, row: Math.floor(row / 2 ** zoom), column: Math.floor(key / 2 ** zoom) };
}

/**
 * The units of a block along one side, from one up to another.
 * @param {number} place of the block
 * @param {number} zoom
 * @param {number} count units
 * @returns {[number, number]}
 */
export function unitsOf(place, zoom, count) {
  return [place * 2 ** zoom, Math.min((place + 1) * 2 ** zoom, count)];
}

/** A tile of a level coarser than what is seen ranks behind all finer ones, by so much for each level. */
export const LEVEL = 1000;

/**
 * How soon a tile is wanted, the smaller the sooner: the finest that is shown first, from the middle outwards. null if
 * it is not seen at all.
 * @param {Block} tile its row and column in tiles
 * @param {{zoom: number, left: number, top: number, right: number, bottom: number}} view in units
 */
export function rankOf({ zoom, row, column }, view) {
  const side = TILE * 2 ** zoom;
  const [left, top] = [column * side, row * side];
  const beside = left >= view.right || top >= view.bottom || left + side <= view.left || top + side <= view.top;
  if (zoom < view.zoom || beside) return null;
  const far = Math.hypot(left + side / 2 - (view.left + view.right) / 2, top + side / 2 - (view.top + view.bottom) / 2);
  return (zoom - view.zoom) * LEVEL + far / side;
}
