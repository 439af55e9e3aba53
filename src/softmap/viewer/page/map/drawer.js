// Draws tiles of weights: crisp, every edge on a whole pixel of the screen, so that tiles meet without seams and no
// weight is lost between two pixels; coloured as they are drawn, so that other colours need nothing but drawing again.

import OpenSeadragon from "openseadragon";
import { TILE } from "./geometry.js";

/** @typedef {import("./source.js").Weights} Weights */

export class MapDrawer extends OpenSeadragon.DrawerBase {
  static isSupported() {
    return true;
  }

  getType() {
    return "softmap";
  }

  getSupportedDataFormats() {
    return ["weights"];
  }

  canRotate() {
    return false;
  }

  setImageSmoothingEnabled() {
    // never smooth
  }

  _createDrawingElement() {
    return document.createElement("canvas");
  }

  destroy() {
    super.destroy();
    this.canvas.remove();
  }

  /** @param {OpenSeadragon.TiledImage[]} images */
  draw(images) {
    const { canvas, viewport } = this;
    const density = window.devicePixelRatio;
    const pane = viewport.getContainerSize();
    const [width, height] = [Math.round(pane.x * density), Math.round(pane.y * density)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    pen.clearRect(0, 0, width, height);
    pen.imageSmoothingEnabled = false;
    const corner = viewport.pixelFromPointNoRotate(new OpenSeadragon.Point(0, 0), true);
    for (const image of images) {
      const { x: keys, y: rows } = image.source.dimensions;
      const scale = (pane.x * viewport.getZoom(true) * density) / keys;
      const across = { origin: corner.x * density, scale, length: width, count: keys };
      const down = { origin: corner.y * density, scale, length: height, count: rows };
      for (const { tile } of image.getTilesToDraw()) this.#drawTile(pen, tile, across, down);
    }
    /** @type {any} */ (this.options).drawn();
  }

  /**
   * @param {CanvasRenderingContext2D} pen
   * @param {any} tile
   * @param {Axis} across
   * @param {Axis} down
   */
  #drawTile(pen, tile, across, down) {
    /** @type {Weights | undefined} */
    const weights = tile.loaded && this.getDataToDraw(tile);
    if (!weights) return;
    const block = 2 ** tile.tiledImage.source.zoomOf(tile.level);
    const x = stretch(tile.x, weights.width, block, across);
    const y = stretch(tile.y, weights.height, block, down);
    if (!x || !y) return;
    const picture = painted(weights, /** @type {any} */ (this.options).colours());
    pen.clearRect(x.at, y.at, x.long, y.long);
    pen.drawImage(picture, x.first, y.first, x.count, y.count, x.at, y.at, x.long, y.long);
  }
}

/**
 * One side of the pane, in pixels of the device: where unit 0 is, how long a unit is, the pane, how many units there are.
 * @typedef {{origin: number, scale: number, length: number, count: number}} Axis
 */

/**
 * Which pixels of a tile are seen along one side, and where.
 * @param {number} place of the tile
 * @param {number} size pixels of it
 * @param {number} block units in a pixel
 * @param {Axis} axis
 */
function stretch(place, size, block, { origin, scale, length, count }) {
  const start = place * TILE * block;
  const at = (/** @type {number} */ pixel) => origin + (start + pixel * block) * scale;
  const first = Math.max(0, Math.floor((0 - at(0)) / (block * scale)));
  const stop = Math.min(size, Math.ceil((length - at(0)) / (block * scale)));
  if (stop <= first) return null;
  const last = count - (start + (stop - 1) * block); // units in the last pixel, which the map's end may cut
  const part = Math.min(1, last / block);
  const begin = Math.round(at(first));
  const end = Math.max(begin + 1, Math.round(at(stop - 1 + part)));
  return { first, count: stop - 1 - first + part, at: begin, long: end - begin };
}

/**
 * @param {Weights} weights
 * @param {Uint32Array} colours
 */
function painted(weights, colours) {
  if (weights.picture && weights.colours === colours) return weights.picture;
  const { bits, width, height } = weights;
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = colours[bits[i]];
  const picture = weights.picture ?? Object.assign(document.createElement("canvas"), { width, height });
  picture.getContext("2d")?.putImageData(image, 0, 0);
  return Object.assign(weights, { picture, colours }).picture;
}
