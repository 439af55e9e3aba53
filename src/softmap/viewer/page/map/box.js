// What the map shows is part of the page's address: the box is written there when the map is moved, and followed when
// it is changed from there.

const QUIET = 250; // ms without a movement

/**
 * @param {import("../types").App} app
 * @param {import("./frame.js").Frame} frame
 */
export function followBox(app, frame) {
  let waiting = 0;
  let written = "";
  const named = (/** @type {import("../types").State["box"]} */ box) => (box ? box.map((value) => value.toFixed(2)).join() : "");

  function write() {
    const { left, top, width, scale } = frame.view(true);
    if (!(scale > 0) || width < 2) return;
    /** @type {import("../types").State["box"]} */
    const box = frame.whole() ? null : [-left / scale, -top / scale, width / scale];
    if (box) box.forEach((value, i) => (box[i] = Number(value.toFixed(2)) + 0));
    written = named(box);
    app.store.set({ box });
  }

  return {
    moved() {
      clearTimeout(waiting);
      waiting = setTimeout(write, QUIET);
    },
    /** Show what the address says. @param {boolean} now without a movement */
    read(now) {
      const { box } = app.store.get();
      if (!now && named(box) === written) return;
      clearTimeout(waiting);
      written = named(box);
      if (box) frame.showBox(...box, now);
      else frame.wholeView();
    },
  };
}
