// A drawing as a file: SVG as it is, PNG as the browser paints it.

import { el } from "../dom.js";

const SHARPNESS = 2; // pixels of the PNG by pixel of the drawing

/**
 * @param {SVGElement} drawing with width and height, and nothing from outside
 * @param {string} name ends in .svg or .png
 */
export async function download(drawing, name) {
  const text = new XMLSerializer().serializeToString(drawing);
  const file = new Blob([text], { type: "image/svg+xml;charset=utf-8" });
  save(name.endsWith(".png") ? await painted(file, drawing) : file, name);
}

/**
 * @param {Blob} file an SVG
 * @param {SVGElement} drawing
 * @returns {Promise<Blob>}
 */
async function painted(file, drawing) {
  const address = URL.createObjectURL(file);
  try {
    const image = new Image();
    image.src = address;
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = Math.ceil(Number(drawing.getAttribute("width")) * SHARPNESS);
    canvas.height = Math.ceil(Number(drawing.getAttribute("height")) * SHARPNESS);
    context(canvas).drawImage(image, 0, 0, canvas.width, canvas.height);
    return await new Promise((resolve, reject) =>
      canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("The browser made no PNG."))), "image/png"),
    );
  } finally {
    URL.revokeObjectURL(address);
  }
}

/**
 * @param {Blob} file
 * @param {string} name
 */
function save(file, name) {
  const address = URL.createObjectURL(file);
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/** @param {HTMLCanvasElement} canvas */
export function context(canvas) {
  return /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
}
