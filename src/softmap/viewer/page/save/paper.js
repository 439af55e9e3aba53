// A drawing on white, with a title over it and a caption under it. All looks are attributes, so that it stands alone.

import { svg } from "../dom.js";
import { context } from "./files.js";
import { lines } from "./region.js";

export const INK = "#1a1d23";
export const MUTED = "#5b6270";
export const HELD = "#c2410c";
const FONT = "'Noto Sans', 'Noto Sans CJK SC', 'DejaVu Sans', 'Helvetica Neue', Arial, sans-serif";
const PAD = 24;

/**
 * @param {SVGElement} drawing
 * @param {{width: number, height: number, title: string, under: string[], caption: string[], between?: string}} about
 */
export function captioned(drawing, { width, height, title, under, caption, between }) {
  const most = Math.floor(width / 6.2);
  const over = lines(under, most);
  const below = lines(caption, most, between);
  const top = PAD + 26 + 17 * over.length + 8;
  const [whole, tall] = [Math.ceil(width + 2 * PAD), Math.ceil(top + height + 20 + 16 * below.length + PAD)];
  return svg(
    "svg",
    {
      xmlns: "http://www.w3.org/2000/svg",
      width: whole,
      height: tall,
      viewBox: `0 0 ${whole} ${tall}`,
      "font-family": FONT,
      "font-size": 12,
    },
    svg("title", {}, `${title}: ${under.join(", ")}`),
    svg("rect", { width: whole, height: tall, fill: "#ffffff" }),
    text(title, PAD, PAD + 14, { fill: INK, "font-size": 17, "font-weight": 700 }),
    ...over.map((line, i) => text(line, PAD, PAD + 36 + 17 * i, { fill: MUTED })),
    svg("g", { transform: `translate(${PAD} ${top})` }, drawing),
    ...below.map((line, i) => text(line, PAD, top + height + 24 + 16 * i, { fill: MUTED, "font-size": 11 })),
  );
}

/**
 * @param {string} content
 * @param {number} x
 * @param {number} y
 * @param {Record<string, string | number>} looks
 */
export function text(content, x, y, looks) {
  return svg("text", { x: +x.toFixed(2), y: +y.toFixed(2), ...looks }, content);
}

/**
 * The width of texts in the drawing's font.
 * @param {string} size
 * @returns {(text: string) => number}
 */
export function ruler(size) {
  const pen = context(document.createElement("canvas"));
  pen.font = `${size} ${FONT}`;
  return (content) => pen.measureText(content).width;
}
