// A slim strip beside a long text: all of it from top to bottom, shaded where the weights are.

import { el, eachFrame } from "./dom.js";
import { heatOf } from "./lines.js";

const NEAR = 4; // pixels around the pointer in which the strongest place is gone to

/** @param {import("./reader.js").Reader} reader */
export function createHeat(reader) {
  const canvas = el("canvas", { "aria-hidden": "true" });
  const seen = el("div", { className: "seen" });
  const element = el("div", { className: "heat", hidden: true }, canvas, seen);
  /** @type {Float32Array} */
  let shades = new Float32Array(0);
  /** @type {Float32Array} */
  let heat = new Float32Array(0);

  const draw = eachFrame(() => {
    frame();
    const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((each) => Math.round(each * window.devicePixelRatio));
    const pen = canvas.getContext("2d");
    if (!pen || !width || !height) return;
    Object.assign(canvas, { width, height });
    heat = heatOf(reader.lines(), shades, height);
    const colour = getComputedStyle(element).getPropertyValue("--shade");
    heat.forEach((shade, row) => {
      if (shade < 0.02) return;
      pen.fillStyle = `rgb(${colour} / ${shade.toFixed(3)})`;
      pen.fillRect(0, row, width, Math.max(1, window.devicePixelRatio));
    });
  });

  /** What part of the text is on screen. */
  function frame() {
    const [from, to] = reader.seen();
    element.hidden = to - from > 0.99 || to - from <= 0;
    seen.style.top = `${100 * from}%`;
    seen.style.height = `${100 * (to - from)}%`;
  }

  /** @param {PointerEvent} event */
  function jump(event) {
    if (!(event.buttons & 1)) return;
    if (event.type === "pointerdown") element.setPointerCapture(event.pointerId);
    const box = canvas.getBoundingClientRect();
    const at = ((event.clientY - box.top) / box.height) * heat.length;
    let row = Math.round(at);
    const near = NEAR * window.devicePixelRatio;
    for (let other = Math.floor(at - near); other <= at + near; other++) if (heat[other] > (heat[row] ?? 0)) row = other;
    reader.jump(row / Math.max(1, heat.length));
  }
  element.addEventListener("pointerdown", jump);
  element.addEventListener("pointermove", jump);
  new ResizeObserver(draw).observe(element);

  return {
    element,
    frame,
    draw,
    /** @param {Float32Array} next */
    shade(next) {
      shades = next;
      draw();
    },
  };
}
