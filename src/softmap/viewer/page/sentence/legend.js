// The heads of a layer as small buttons, each in its colour: which are drawn.

import { el } from "../dom.js";

/**
 * @param {import("../types").App} app
 * @param {{changed: () => void, isolate: (head: number) => void}} told isolate: the head pointed at, -1 for none
 */
export function createLegend(app, { changed, isolate }) {
  const element = el("div", { className: "hues", role: "group", hidden: true });
  /** @type {Set<number>} */
  let off = new Set();
  let [count, layer, lang] = [0, -1, ""];

  function draw() {
    const every = (/** @type {string} */ name, /** @type {number[]} */ hidden) =>
      el("button", { type: "button", className: "every", onclick: () => turn(new Set(hidden)) }, app.say(name));
    element.setAttribute("aria-label", app.say("heads_legend", { layer }));
    const all = Array.from({ length: count }, (_, head) => head);
    element.replaceChildren(...all.map(toggle), every("heads_all", []), every("heads_none", all));
  }

  /** @param {number} head */
  function toggle(head) {
    return el(
      "button",
      {
        type: "button",
        className: `toggle ${hueOf(head)}`,
        "aria-pressed": !off.has(head),
        "aria-label": app.say("head_toggle", { head }),
        onclick: () => {
          const next = new Set(off);
          if (!next.delete(head)) next.add(head);
          turn(next);
        },
        onpointerenter: () => isolate(off.has(head) ? -1 : head),
        onpointerleave: () => isolate(-1),
      },
      el("span", {}, head),
    );
  }

  /** @param {Set<number>} next */
  function turn(next) {
    off = next;
    const buttons = element.querySelectorAll(".toggle");
    buttons.forEach((button, head) => button.setAttribute("aria-pressed", String(!off.has(head))));
    changed();
  }

  return {
    element,
    /** @param {number} heads how many; 0 hides the legend */
    show(heads) {
      const state = app.store.get();
      element.hidden = !heads;
      if (!heads || (heads === count && state.layer === layer && state.lang === lang)) return;
      if (state.layer !== layer) off = new Set();
      [count, layer, lang] = [heads, state.layer, state.lang];
      draw();
    },
    shown: () => Array.from({ length: count }, (_, head) => head).filter((head) => !off.has(head)),
  };
}

/**
 * The classes that give a head its colour; a second dozen is dashed, a third dotted.
 * @param {number} head
 */
export function hueOf(head) {
  return `hue${head % 12} dash${Math.floor(head / 12) % 3}`;
}
