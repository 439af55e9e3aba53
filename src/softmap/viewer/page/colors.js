// Weights -> colours. Both scales and all palettes are tables over the 65,536 bit patterns of a 16-bit number, so that
// a tile is coloured by looking each pixel up, and changing palette or scale needs no request.

import { fromHalf } from "./float16.js";

/** @typedef {import("./types").Palette} Palette */

// 64 anchors each, as in matplotlib. Nuñez, Anderton and Renslow, 2018, https://doi.org/10.1371/journal.pone.0199239
const ANCHORS = {
  viridis:
    "44015446075a470d6047136548186a481d6f482374482878472d7b46327e453781443b844240864045883e49893d4e8a" +
    "3a538b38588c365c8d34608d32648e31688e2f6c8e2d708e2c738e2a778e297b8e277f8e26828e24868e238a8d218e8d" +
    "20928c1f968b1f9a8a1f9e891fa18721a58523a98326ad812ab07f2fb47c35b7793bbb7542be714ac16d52c5695ac864" +
    "65cb5e6ece5877d15381d34d8bd64695d840a0da39aadc32b5de2bc0df25cae11fd5e21adfe318eae51af4e61efde725",
  cividis:
    "00224e00255400285b002b62002e6a0030700533711235701a386f213b6e273e6e2d416d32436d36466c3b496c3f4c6c" +
    "444f6c48526c4c556c50576c545a6d575d6d5b606e5e636f62656f656870696b716c6e727071737374757777767a7a78" +
    "7e7d788280798683798a86788e8978928c78958f779992779d9576a19975a59c74a99f73ada272b1a570b6a96fbaac6d" +
    "bfb06bc3b369c7b767ccba64d0be62d4c15fd9c55cddc858e1cc55e6d051ead34cefd748f3db42f8df3cfde334fee838",
};
const INK = { light: ["ffffff", "a9c9f5", "2563eb", "13225e"], dark: ["14161a", "1e3a6e", "4f8df5", "f1f6ff"] };

/** @type {readonly Palette[]} */
export const PALETTES = ["viridis", "cividis", "ink"];

/**
 * The colour of a share from 0 to 1.
 * @param {Palette} palette
 * @param {number} share
 * @param {boolean} dark
 * @returns {[number, number, number]}
 */
export function color(palette, share, dark) {
  const anchors = anchorsOf(palette, dark);
  const place = Math.min(Math.max(share, 0), 1) * (anchors.length - 1);
  const before = Math.min(Math.floor(place), anchors.length - 2);
  const [from, to] = [anchors[before], anchors[before + 1]];
  const part = place - before;
  return /** @type {[number, number, number]} */ (from.map((value, i) => Math.round(value + (to[i] - value) * part)));
}

/**
 * Whether dark letters are read better on a colour.
 * @param {[number, number, number]} rgb
 */
export function isBright([red, green, blue]) {
  return 0.299 * red + 0.587 * green + 0.114 * blue > 140;
}

/**
 * Where a weight stands between the ends of the scale, 0 to 1.
 * @param {number} weight
 * @param {import("./types").Scale} scale
 * @param {number} floor the weight at the low end of the log scale
 */
export function share(weight, scale, floor) {
  if (scale === "linear") return Math.min(weight, 1);
  return weight <= floor ? 0 : Math.min(1, 1 - Math.log(weight) / Math.log(floor));
}

/**
 * The low end of the log scale for so many keys: a tenth of equal weights, as a power of ten.
 * @param {number} keys
 */
export function floorOf(keys) {
  return 10 ** -Math.min(7, Math.ceil(Math.log10(Math.max(keys, 2))) + 1);
}

/** @typedef {{palette: Palette, scale: import("./types").Scale, floor: number, dark: boolean}} Options */

const KEPT = 8; // tables, 0.25 MB each
/** @type {Map<string, Uint32Array>} */
const tables = new Map();

/**
 * Colours of all bit patterns, as pixels of an ImageData; the same array for as long as it is kept. What no query may
 * see is transparent.
 * @param {Options} options
 * @returns {Uint32Array}
 */
export function tableOf({ palette, scale, floor, dark }) {
  const name = [palette, scale, floor, dark].join();
  const known = tables.get(name);
  if (known) return known;
  if (tables.size === KEPT) tables.clear();
  const made = makeTable({ palette, scale, floor, dark });
  tables.set(name, made);
  return made;
}

/**
 * How the weights on so many keys are coloured, as the page is set now.
 * @param {import("./types").App} app
 * @param {number} keys
 * @returns {Options}
 */
export function optionsOf(app, keys) {
  const { palette, scale } = app.store.get();
  return { palette, scale, floor: floorOf(keys), dark: app.dark() };
}

/** @param {Options} options */
function makeTable({ palette, scale, floor, dark }) {
  const table = new Uint32Array(1 << 16);
  const ramp = Array.from({ length: 1024 }, (_, i) => pixel(color(palette, i / 1023, dark)));
  for (let bits = 0; bits < table.length; bits++) {
    const weight = fromHalf(bits);
    table[bits] = Number.isNaN(weight) ? 0 : ramp[Math.round(1023 * Math.max(0, share(weight, scale, floor)))];
  }
  return table;
}

/**
 * @param {Palette} palette
 * @param {boolean} dark
 */
function anchorsOf(palette, dark) {
  const hex = palette === "ink" ? INK[dark ? "dark" : "light"].join("") : ANCHORS[palette];
  return Array.from({ length: hex.length / 6 }, (_, i) =>
    [0, 2, 4].map((at) => parseInt(hex.slice(6 * i + at, 6 * i + at + 2), 16)),
  );
}

/** @param {[number, number, number]} rgb */
function pixel([red, green, blue]) {
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}
