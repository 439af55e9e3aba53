// The pane in which the map is moved and zoomed: OpenSeadragon, with the map kept at the rulers' corner.

import OpenSeadragon from "openseadragon";
import { fromHalf } from "../float16.js";
import { keptWithin, rankOf, startToSee, TILE, topZoom, wholeScale, zoomAt } from "./geometry.js";
import { MapSource } from "./source.js";
import { createViewer } from "./viewer.js";

const { Point, Rect } = OpenSeadragon;
const MARGIN = 14; // pixels free at the right and bottom of the whole map
const LARGEST = 96; // pixels for a unit, where zoom ends
const LINGERING = 350; // ms for which the map before is seen while the next one is on its way

/** @typedef {ReturnType<typeof createFrame>} Frame */
/** @typedef {{rows: number, keys: number}} Size */
/** @typedef {import("./geometry.js").Block} Block */

/**
 * @param {HTMLElement} element
 * @param {{colours: () => Uint32Array, drawn: () => void, moved: () => void, awaited: (some: boolean) => void}} told
 */
export function createFrame(element, { colours, drawn, moved, awaited }) {
  const viewer = createViewer(element, { colours, drawn });
  const place = createPlace(viewer, moved);
  const pictures = createPictures(viewer, { awaited, rank });
  place.onchange = () => pictures.update();

  /** @param {Block} tile */
  function rank(tile) {
    const { left, top, width, height, scale, zoom } = place.view(true);
    const [x, y] = [-left / scale, -top / scale];
    return rankOf(tile, { zoom, left: x, top: y, right: x + width / scale, bottom: y + height / scale });
  }

  return {
    viewer,
    ...place,
    ...pictures,
    /** Leave nothing behind. */
    close() {
      pictures.close();
      viewer.destroy();
    },
    /** Draw again, with other colours. */
    redraw: () => viewer.forceRedraw(),
    /**
     * Show a map. Where it is as large as the one before, what is seen of it stays.
     * @param {Size} size
     * @param {(tile: Block, signal: AbortSignal) => Promise<import("../types").Numbers>} ask
     * @param {(error: unknown) => void} failed
     * @param {number} finest the finest zoom that there is
     */
    open(size, ask, failed, finest) {
      const { rows, keys } = place.size();
      const same = pictures.some() && size.rows === rows && size.keys === keys;
      place.finest = finest;
      if (!same) place.reset(size);
      pictures.open(size, { ask, failed, finest }, same ? LINGERING : 0);
    },
  };
}

/**
 * What is seen of the map, and moving on.
 * @param {OpenSeadragon.Viewer} viewer
 * @param {() => void} moved
 */
function createPlace(viewer, moved) {
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const viewport = /** @type {any} */ (viewer.viewport);
  const told = { onchange: () => {}, finest: 0 };
  /** @type {Size} */
  let size = { rows: 1, keys: 1 };
  let whole = true; // all of the map is shown, and stays so when the pane changes
  let box = { left: 0, top: 0, width: 1 }; // else this stays, in units
  let known = ""; // the pane that the map was last fitted to

  const pane = () => {
    const { x: width, y: height } = viewport.getContainerSize();
    return { width, height, name: `${width} ${height}` };
  };
  const scaleOf = (/** @type {boolean} */ current) => (pane().width * viewport.getZoom(current)) / size.keys;
  const wholeNow = () => wholeScale(pane(), size, MARGIN);
  const isWhole = (/** @type {number} */ scale) => scale <= 1.001 * wholeNow();

  /** Where unit 0 is in the pane, and the pixels of a unit. @param {boolean} [target] where a movement will end */
  function view(target = false) {
    const { width, height } = pane();
    const corner = viewport.pixelFromPointNoRotate(new Point(0, 0), !target);
    const scale = scaleOf(!target);
    const zoom = Math.max(told.finest, zoomAt(scale * window.devicePixelRatio, topZoom(size.rows, size.keys)));
    return { width, height, left: corner.x, top: corner.y, scale, zoom };
  }

  function limits() {
    viewport.minZoomLevel = (wholeNow() * size.keys) / pane().width;
    viewport.maxZoomLevel = (Math.max(wholeNow(), LARGEST) * size.keys) / pane().width;
  }

  /**
   * Show what begins at a place, so large.
   * @param {number} left in units
   * @param {number} top
   * @param {number} scale
   * @param {boolean} [now]
   */
  function go(left, top, scale, now = false) {
    const { width, height } = pane();
    if (width < 2 || height < 2) return;
    whole = isWhole(scale);
    box = { left, top, width: width / scale };
    limits();
    const [wide, high] = [width / scale / size.keys, height / scale / size.keys];
    viewport.fitBounds(new Rect(left / size.keys, top / size.keys, wide, high), now || still.matches);
    viewport.applyConstraints(now || still.matches);
  }

  function remember() {
    const { left, top, width, scale } = view(true);
    whole = isWhole(scale);
    box = { left: -left / scale, top: -top / scale, width: width / scale };
  }

  function settle() {
    known = pane().name;
    if (whole) go(0, 0, wholeNow(), true);
    else go(box.left, box.top, pane().width / box.width, true);
    moved();
  }

  keepAtRulers(viewport, () => size);
  viewer.addHandler("viewport-change", () => {
    if (pane().name === known) remember();
    told.onchange();
    moved();
  });
  viewer.addHandler("resize", () => queueMicrotask(settle));

  return Object.assign(told, createMoves(viewport, { view, limits, go, still: () => still.matches }), {
    view,
    go,
    size: () => size,
    whole: () => whole,
    /** All of another map. @param {Size} next */
    reset(next) {
      size = next;
      whole = true;
      settle();
    },
    /**
     * Show what begins at a place, so wide, in units; as soon as the pane is there.
     * @param {number} left
     * @param {number} top
     * @param {number} width
     * @param {boolean} now
     */
    showBox(left, top, width, now) {
      whole = false;
      box = { left, top, width };
      go(left, top, pane().width / width, now);
    },
    wholeView() {
      whole = true;
      go(0, 0, wholeNow());
    },
  });
}

/**
 * Going on from what is seen.
 * @param {any} viewport
 * @param {object} place
 * @param {(target?: boolean) => {left: number, top: number, width: number, height: number, scale: number}} place.view
 * @param {() => void} place.limits
 * @param {(left: number, top: number, scale: number) => void} place.go
 * @param {() => boolean} place.still whether nothing should move by itself
 */
function createMoves(viewport, { view, limits, go, still }) {
  return {
    /**
     * Around a cell where that is seen, else around the middle.
     * @param {number} factor
     * @param {{row: number, key: number}} cell -1 for none
     */
    zoomBy(factor, { row, key }) {
      const { left, top, width, height, scale } = view(true);
      const [x, y] = [left + (key + 0.5) * scale, top + (row + 0.5) * scale];
      const isSeen = row >= 0 && key >= 0 && x > 0 && y > 0 && x < width && y < height;
      limits();
      viewport.zoomBy(factor, isSeen ? viewport.pointFromPixel(new Point(x, y), false) : viewport.getCenter(false), still());
      viewport.applyConstraints(still());
    },
    /** @param {number} x pixels @param {number} y */
    panBy(x, y) {
      viewport.panBy(viewport.deltaPointsFromPixels(new Point(x, y)), still());
      viewport.applyConstraints(still());
    },
    /** Have a row and a key on screen; -1 for none. @param {number} row @param {number} key */
    show(row, key) {
      const { left, top, width, height, scale } = view(true);
      const [x, y] = [-left / scale, -top / scale];
      const nextX = key < 0 ? x : startToSee(key, x, width / scale);
      const nextY = row < 0 ? y : startToSee(row, y, height / scale);
      if (nextX !== x || nextY !== y) go(nextX, nextY, scale);
    },
  };
}

/**
 * The map stays at the rulers: it begins in the pane's corner where it fits, and no edge comes further in.
 * @param {any} viewport
 * @param {() => Size} size
 */
function keepAtRulers(viewport, size) {
  viewport.getConstrainedBounds = (/** @type {boolean} */ current) => {
    const { rows, keys } = size();
    const bounds = viewport.getBoundsNoRotate(current);
    const margin = (MARGIN * bounds.width) / viewport.getContainerSize().x;
    const x = keptWithin(bounds.x, bounds.width, 1, margin);
    const y = keptWithin(bounds.y, bounds.height, rows / keys, margin);
    const far = (/** @type {number} */ one, /** @type {number} */ other) => Math.abs(one - other) > 1e-6 * bounds.width;
    const flags = { xConstrained: far(x, bounds.x), yConstrained: far(y, bounds.y) };
    const kept = new Rect(x, y, bounds.width, bounds.height);
    return Object.assign(kept, flags, { constraintApplied: flags.xConstrained || flags.yConstrained });
  };
}

/**
 * The map's tiles: of one head at a time, the one before staying until the next one is there.
 * @param {OpenSeadragon.Viewer} viewer
 * @param {{awaited: (some: boolean) => void, rank: (tile: Block) => number | null}} told
 */
function createPictures(viewer, { awaited, rank }) {
  /** @type {MapSource | null} */
  let source = null;
  const { world } = viewer;
  const all = () => Array.from({ length: world.getItemCount() }, (_, i) => world.getItemAt(i));
  const shown = () => all().find((item) => item.source === source);

  return {
    some: () => source !== null,
    close: () => source?.close(),
    /** The map was moved: other tiles are wanted. */
    update() {
      source?.queue.update();
    },
    /** Whether tiles are on their way that are wanted. */
    awaits() {
      if (!source || source.queue.awaited() > 0) return true;
      return !(source.queue.lacks() || shown()?.getFullyLoaded()) || /** @type {any} */ (viewer).isAnimating();
    },
    /**
     * @param {Size} size
     * @param {object} how
     * @param {(tile: Block, signal: AbortSignal) => Promise<import("../types").Numbers>} how.ask
     * @param {(error: unknown) => void} how.failed
     * @param {number} how.finest
     * @param {number} lingering ms for which the one before is still seen
     */
    open(size, how, lingering) {
      source?.close();
      const made = (source = new MapSource(size, { ...how, rank, changed }));
      function changed() {
        if (source === made) awaited(made.queue.awaited() > 0);
      }
      const leave = () => all().forEach((item) => item.source !== source && world.removeItem(item));
      if (lingering) setTimeout(leave, lingering);
      else leave();
      awaited(true);
      viewer.addTiledImage({
        tileSource: made,
        success() {
          if (source !== made) return leave(); // another one was opened meanwhile
          shown()?.whenFullyLoaded(leave);
        },
      });
    },
    /**
     * The weight of the pixel that is shown at a place, as its tile holds it; null if no tile is there yet.
     * @param {number} row in units
     * @param {number} key
     */
    weightAt(row, key) {
      const item = shown();
      const tiles = (item?.getTilesToDraw() ?? []).map(({ tile }) => /** @type {any} */ (tile));
      for (const tile of tiles.sort((one, other) => other.level - one.level)) {
        const block = 2 ** tile.tiledImage.source.zoomOf(tile.level);
        const [x, y] = [Math.floor(key / block) - tile.x * TILE, Math.floor(row / block) - tile.y * TILE];
        if (x < 0 || y < 0 || x >= TILE || y >= TILE || !tile.loaded) continue;
        const weights = viewer.drawer.getDataToDraw(tile);
        return weights ? fromHalf(weights.bits[y * weights.width + x]) : null;
      }
      return null;
    },
  };
}
