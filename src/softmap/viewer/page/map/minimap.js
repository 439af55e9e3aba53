// The whole map, small, with a frame around what is seen: where one is in a long text.

import { el } from "../dom.js";

const LONGEST = 128; // pixels of its longer side

/**
 * @param {import("../types").App} app
 * @param {import("./frame.js").Frame} frame
 */
export function createMinimap(app, frame) {
  const canvas = el("canvas", { "aria-hidden": "true" });
  const here = el("i", { className: "here" });
  const element = el("div", { className: "minimap", hidden: true }, canvas, here);
  /** @type {import("../types").Numbers | null} */
  let numbers = null;
  /** @type {((signal: AbortSignal) => Promise<void>) | null} */
  let need = null; // asks for the picture, the first time that it is to be seen
  let asked = new AbortController();

  /** @param {Uint32Array} colours */
  function paint(colours) {
    if (!numbers) return;
    const { data, shape: [height, width] } = numbers;
    const image = new ImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let i = 0; i < pixels.length; i++) pixels[i] = colours[data[i]];
    Object.assign(canvas, { width, height });
    canvas.classList.toggle("few", Math.max(width, height) <= LONGEST);
    canvas.getContext("2d")?.putImageData(image, 0, 0);
  }

  function follow() {
    const { left, top, width, height, scale } = frame.view();
    const { rows, keys } = frame.size();
    const large = Math.max(keys - width, rows - height) > 0; // at zoom 0 the map is larger than the pane
    const wanted = large && !frame.whole() && Math.min(width, height) >= 2 * LONGEST;
    element.hidden = !wanted || !numbers;
    if (wanted) void need?.(asked.signal);
    if (element.hidden) return;
    const share = LONGEST / Math.max(rows, keys);
    Object.assign(element.style, { width: `${keys * share}px`, height: `${rows * share}px` });
    const place = { left: -left / scale, top: -top / scale, width: width / scale, height: height / scale };
    const side = (/** @type {number} */ from, /** @type {number} */ long, /** @type {number} */ all) => {
      const [start, end] = [Math.max(0, from), Math.min(all, from + long)];
      const wide = Math.max(6, (end - start) * share);
      return [Math.min(Math.max(0, start * share - (wide - (end - start) * share) / 2), all * share - wide), wide];
    };
    const [x, wide] = side(place.left, place.width, keys);
    const [y, high] = side(place.top, place.height, rows);
    Object.assign(here.style, { left: `${x}px`, top: `${y}px`, width: `${wide}px`, height: `${high}px` });
  }

  /** @param {PointerEvent} event */
  function jump(event) {
    event.stopPropagation();
    if (event.type === "pointerdown") element.setPointerCapture(event.pointerId);
    if (!(event.buttons & 1)) return;
    const box = canvas.getBoundingClientRect();
    const { rows, keys } = frame.size();
    const { width, height, scale } = frame.view(true);
    const x = ((event.clientX - box.left) / box.width) * keys - width / scale / 2;
    const y = ((event.clientY - box.top) / box.height) * rows - height / scale / 2;
    frame.go(x, y, scale, true);
  }
  for (const type of /** @type {const} */ (["pointerdown", "pointermove", "pointerup"])) element.addEventListener(type, jump);

  return {
    element,
    follow,
    paint,
    /**
     * @param {(tile: import("./geometry.js").Block, signal: AbortSignal) => Promise<import("../types").Numbers>} ask
     * @param {() => Uint32Array} colours
     * @param {number} finest the finest zoom that there is
     */
    open(ask, colours, finest) {
      asked.abort();
      asked = new AbortController();
      const { rows, keys } = frame.size();
      const zoom = Math.max(finest, Math.ceil(Math.log2(Math.max(rows, keys) / (2 * LONGEST))));
      numbers = null;
      need = async (signal) => {
        need = null;
        try {
          const answer = await ask({ zoom, row: 0, column: 0 }, signal);
          if (signal.aborted) return;
          numbers = answer;
        } catch {
          return; // the map itself says what went wrong
        }
        element.title = app.say("map_minimap");
        paint(colours());
        follow();
      };
      follow();
    },
  };
}
