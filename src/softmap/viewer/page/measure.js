// Measures words, for lines.js, in the font that they are shown in.

import { breakBefore, indent } from "./lines.js";

const CHIP = { font: 0.74, space: 18 }; // of a special token, as .chip in text.css: its font's part of the text's; padding and margins

/** @typedef {import("./lines.js").Piece} Piece */

/**
 * @param {Element} element whose font counts
 * @returns {(units: (import("./types").Unit)[], before: import("./types").Unit | null) => Piece}
 */
export function createMeasure(element) {
  const pen = /** @type {CanvasRenderingContext2D} */ (document.createElement("canvas").getContext("2d"));
  const { fontStyle, fontWeight, fontSize, fontFamily, wordSpacing } = getComputedStyle(element);
  const spacing = parseFloat(wordSpacing) || 0;
  pen.font = `${fontStyle} ${fontWeight} ${fontSize} ${fontFamily}`;
  /** @type {Map<string, number>} */
  const known = new Map();

  /** @param {string} text */
  function widthOf(text) {
    if (!text) return 0;
    let width = known.get(text);
    if (width === undefined) known.set(text, (width = pen.measureText(text).width));
    return width;
  }

  return (units, before) => {
    const widths = new Float32Array(units.length);
    const gaps = new Float32Array(units.length);
    const breaks = new Uint16Array(units.length);
    units.forEach((unit, i) => {
      const width = widthOf(unit.label);
      widths[i] = unit.special ? width * CHIP.font + CHIP.space : width;
      const space = indent(unit.gap);
      gaps[i] = widthOf(space) + spacing * space.length;
      breaks[i] = breakBefore(i ? units[i - 1] : before, unit);
    });
    return { widths, gaps, breaks };
  };
}
