// A canvas over a part of the page, sharp on every screen, and its colours.

import { el } from "../dom.js";

/**
 * @param {string} className
 */
export function createSheet(className) {
  const canvas = el("canvas", { className, "aria-hidden": "true" });
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  return {
    canvas,
    pen,
    /** Clear it, as large as it is shown. @returns {{width: number, height: number}} in pixels of the page */
    clear() {
      const [width, height] = [canvas.clientWidth, canvas.clientHeight];
      const density = window.devicePixelRatio;
      const [wide, high] = [Math.round(width * density), Math.round(height * density)];
      if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
      pen.setTransform(density, 0, 0, density, 0, 0);
      pen.clearRect(0, 0, width, height);
      return { width, height };
    },
  };
}

/** @typedef {Record<"ground" | "ink" | "muted" | "rule" | "accent" | "font", string>} Paint */

/**
 * The page's colours and font as a canvas takes them. Read when the theme changes, for reading them takes a while.
 * @param {HTMLElement} element
 */
export function createPaint(element) {
  /** @type {Paint | null} */
  let known = null;
  const probe = el("i", { hidden: true });
  element.append(probe);
  const read = (/** @type {string} */ name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  return {
    /** @returns {Paint} */
    get() {
      if (known) return known;
      const names = /** @type {const} */ (["ground", "ink", "muted", "rule", "accent"]);
      const colours = Object.fromEntries(names.map((name) => [name, read(name)]));
      known = /** @type {Paint} */ ({ ...colours, font: getComputedStyle(element).fontFamily });
      return known;
    },
    forget: () => void (known = null),
  };
}
