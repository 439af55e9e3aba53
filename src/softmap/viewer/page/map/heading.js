// The line over the map: which head it is of, how large it is, and buttons to move on and to zoom.

import { el } from "../dom.js";
import { grouped } from "../format.js";

/**
 * @param {import("../types").App} app
 * @param {{zoomBy: (factor: number) => void, whole: () => void}} act
 */
export function createHeading(app, { zoomBy, whole }) {
  const title = el("b", {});
  const facts = el("span", { className: "muted" });
  const button = (/** @type {string} */ text, /** @type {() => void} */ onclick) => el("button", { type: "button", className: "button", onclick }, text);
  const buttons = {
    map_previous: button("‹", () => stepHead(app, -1)),
    map_next: button("›", () => stepHead(app, 1)),
    map_out: button("−", () => zoomBy(1 / 2)),
    map_in: button("+", () => zoomBy(2)),
    map_whole: button("⤢", whole),
  };
  const element = el(
    "div",
    { className: "mapHeading" },
    el("span", { className: "group" }, buttons.map_previous, buttons.map_next),
    title,
    facts,
    el("span", { className: "group" }, buttons.map_out, buttons.map_in, buttons.map_whole),
  );

  return {
    element,
    /**
     * @param {{rows: number, keys: number}} size
     * @param {number} zoom
     */
    draw(size, zoom) {
      const { layer, head } = app.store.get();
      title.textContent = app.say("map_title", { layer, head });
      const sized = `${grouped(size.rows)} × ${grouped(size.keys)}`;
      facts.textContent = zoom > 0 ? `${sized} · ${app.say("map_pixel", { side: 2 ** zoom })}` : sized;
      facts.title = facts.textContent;
      for (const [name, each] of Object.entries(buttons)) {
        each.title = app.say(name);
        each.setAttribute("aria-label", app.say(name));
      }
    },
  };
}

/**
 * Go on to the next head, of this layer or the one beside it.
 * @param {import("../types").App} app
 * @param {1 | -1} step
 */
export function stepHead(app, step) {
  const { layer, head } = app.store.get();
  const heads = app.data.about.layers.flatMap(({ number, heads }) => Array.from({ length: heads }, (_, i) => ({ layer: number, head: i })));
  const at = heads.findIndex((each) => each.layer === layer && each.head === head);
  const next = heads[at + step];
  if (next) app.store.set(next);
}
