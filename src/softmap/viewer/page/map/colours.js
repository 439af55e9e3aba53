// The map's colours as the page is set now.

import { color, floorOf, share, tableOf } from "../colors.js";

/** @param {import("../types").App} app */
export function createColours(app) {
  let name = "";
  /** @type {Uint32Array} */
  let table = new Uint32Array(0);

  function options() {
    const { palette, scale, layer } = app.store.get();
    return { palette, scale, floor: floorOf(app.data.layer(layer).keys), dark: app.dark() };
  }

  return {
    /** The colours of all 16-bit numbers: the same array for as long as they are the same. */
    table() {
      const wanted = options();
      const next = Object.values(wanted).join();
      if (next !== name) [name, table] = [next, tableOf(wanted)];
      return table;
    },
    /** Whether dark letters are read better on the colour of a weight. @param {number} weight */
    bright(weight) {
      const { palette, scale, floor, dark } = options();
      const [red, green, blue] = color(palette, share(weight, scale, floor), dark);
      return 0.299 * red + 0.587 * green + 0.114 * blue > 140;
    },
  };
}
