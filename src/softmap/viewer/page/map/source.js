// A head's attention matrix as OpenSeadragon sees it: a pyramid of tiles, which are asked for as they come on screen.

import OpenSeadragon from "openseadragon";
import { TILE, topZoom } from "./geometry.js";
import { createQueue } from "./queue.js";

const LIMIT = 4; // requests at a time: a browser has six for a server, and the text asks too

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
/** @typedef {{job: any, tile: Block}} Wanted */

export class MapSource extends OpenSeadragon.TileSource {
  /**
   * @param {{rows: number, keys: number}} size units
   * @param {object} how
   * @param {(tile: Block, signal: AbortSignal) => Promise<import("../types").Numbers>} how.ask
   * @param {(tile: Block) => number | null} how.rank
   * @param {(error: unknown) => void} how.failed
   * @param {() => void} how.changed what is awaited
   */
  constructor(size, { ask, rank, failed, changed }) {
    const top = topZoom(size.rows, size.keys);
    super({ width: size.keys, height: size.rows, tileSize: TILE, tileOverlap: 0, minLevel: 0, maxLevel: top });
    this.changed = changed;
    this.queue = createQueue({
      limit: LIMIT,
      run: (/** @type {Wanted} */ { tile }, signal) => ask(tile, signal),
      rank: ({ tile }) => rank(tile),
      done({ job }, { data, shape: [height, width] }) {
        /** @type {Weights} */
        const weights = { bits: /** @type {Uint16Array} */ (data), width, height, picture: null, colours: null };
        job.finish(weights, null, "weights");
        changed();
      },
      failed({ job }, error) {
        job.fail(error instanceof Error ? error.message : String(error), null);
        failed(error);
        changed();
      },
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

  hasTransparency() {
    return true;
  }

  /** @param {any} job */
  downloadTileStart(job) {
    const { level, x, y } = job.tile;
    job.userData.wanted = { job, tile: { zoom: this.maxLevel - level, row: y, column: x } };
    this.queue.add(job.userData.wanted);
    this.changed();
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
