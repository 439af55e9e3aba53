// A head's attention matrix as OpenSeadragon sees it: a pyramid of tiles, which are asked for as they come on screen.

import OpenSeadragon from "openseadragon";
import { LEVEL, TILE, topZoom } from "./geometry.js";
import { createQueue } from "./queue.js";

const LIMIT = 4; // requests at a time: a browser has six for a server, and the text asks too
const REST = 3000; // ms after which a tile that failed is tried again with the next movement
const PATIENCE = 120; // ms after which coarser tiles stand in for finer ones that are still on their way

/**
 * A tile's weights, and its picture in the colours it was last drawn with.
 * @typedef {object} Weights
 * @property {Uint16Array} bits float16 (height, width)
 * @property {number} width
 * @property {number} height
 * @property {HTMLCanvasElement | null} picture
 * @property {Uint32Array | null} colours
 */

/** @typedef {import("./geometry.js").Block} Block */
/** @typedef {{job: any, tile: Block, since: number}} Wanted */

export class MapSource extends OpenSeadragon.TileSource {
  /**
   * @param {{rows: number, keys: number}} size units
   * @param {object} how
   * @param {(tile: Block, signal: AbortSignal) => Promise<import("../types").Numbers>} how.ask
   * @param {(tile: Block) => number | null} how.rank
   * @param {number} how.finest the finest zoom that there is
   * @param {(error: unknown) => void} how.failed
   * @param {() => void} how.changed what is awaited
   */
  constructor(size, { ask, rank, finest, failed, changed }) {
    const top = Math.max(finest, topZoom(size.rows, size.keys));
    super({ width: size.keys, height: size.rows, tileSize: TILE, tileOverlap: 0, minLevel: 0, maxLevel: top - finest });
    this.top = top;
    const isFinest = (/** @type {Wanted} */ { tile }) => Number(rank(tile) ?? LEVEL) < LEVEL;
    /** @type {(wanted: Wanted) => boolean} */
    const standsIn = ({ since }) =>
      this.queue.lacks() || (performance.now() - since >= PATIENCE && this.queue.some(isFinest));
    /** @type {ReturnType<typeof createQueue<Wanted, import("../types").Numbers>>} */
    this.queue = createQueue({
      limit: LIMIT,
      rest: REST,
      run: (/** @type {Wanted} */ { tile }, signal) => ask(tile, signal),
      rank: (wanted) => (isFinest(wanted) || standsIn(wanted) ? rank(wanted.tile) : null),
      done({ job }, { data, shape: [height, width] }) {
        /** @type {Weights} */
        const weights = { bits: /** @type {Uint16Array} */ (data), width, height, picture: null, colours: null };
        job.finish(weights, null, "weights");
      },
      failed,
      changed,
    });
  }

  /**
   * @param {number} level
   * @param {number} x
   * @param {number} y
   */
  getTileUrl(level, x, y) {
    return `${/** @type {any} */ (this)._uniqueIdentifier}/${level}/${y}/${x}`; // a name for the cache, never asked for
  }

  /** The zoom of a level. @param {number} level */
  zoomOf(level) {
    return this.top - level;
  }

  /** @param {number} level */
  getLevelScale(level) {
    return 2 ** -this.zoomOf(level);
  }

  hasTransparency() {
    return true;
  }

  /** @param {any} job */
  downloadTileStart(job) {
    const { level, x, y } = job.tile;
    const tile = { zoom: this.zoomOf(level), row: y, column: x };
    job.userData.wanted = { job, tile, since: performance.now() };
    this.queue.add(job.userData.wanted);
    setTimeout(() => this.queue.update(), PATIENCE + 1);
  }

  /** @param {any} job */
  downloadTileAbort(job) {
    this.queue.drop(job.userData.wanted);
  }

  /** Ask no more: another map is shown. */
  close() {
    for (const { job } of this.queue.close()) clearTimeout(job.jobId);
  }
}
