// The map's colours as the page is set now.

import { color, isBright, optionsOf, share, tableOf } from "../colors.js";

/** @param {import("../types").App} app */
export function createColours(app) {
  const options = () => optionsOf(app, app.data.layer(app.store.get().layer).keys);

  return {
    /** The colours of all 16-bit numbers: the same array for as long as they are the same. */
    table: () => tableOf(options()),
    /** Whether dark letters are read better on the colour of a weight. @param {number} weight */
    bright(weight) {
      const { palette, scale, floor, dark } = options();
      return isBright(color(palette, share(weight, scale, floor), dark));
    },
  };
}
