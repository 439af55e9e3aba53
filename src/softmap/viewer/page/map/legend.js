// Under the map: what a colour means.

import { color, floorOf } from "../colors.js";
import { el } from "../dom.js";
import { superscript } from "../format.js";

const STEPS = 24; // colours of which the bar is made

/** @param {import("../types").App} app */
export function createLegend(app) {
  const bar = el("div", { className: "ramp" });
  const ticks = el("div", { className: "ticks" });
  const caption = el("p", { className: "caption" });
  const element = el("div", { className: "mapLegend" }, caption, el("div", { className: "scale", "aria-hidden": "true" }, bar, ticks));

  return {
    element,
    /**
     * @param {number} zoom that is shown
     */
    draw(zoom) {
      const { palette, scale, layer } = app.store.get();
      const floor = floorOf(app.data.layer(layer).keys);
      const stops = Array.from({ length: STEPS + 1 }, (_, i) => `rgb(${color(palette, i / STEPS, app.dark()).join(" ")})`);
      bar.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
      const marks = ticksOf(scale, floor);
      ticks.classList.toggle("many", marks.length > 5);
      ticks.replaceChildren(
        ...marks.map(({ text, at }) => {
          const tick = el("span", {}, text);
          tick.style.left = `${100 * at}%`;
          return tick;
        }),
      );
      const side = 2 ** zoom;
      caption.textContent = zoom === 0 ? app.say("map_weight") : app.say(app.shown().how === "max" ? "map_max_of" : "map_mean_of", { side });
    },
  };
}

/**
 * Where numbers stand along the bar, from 0 to 1.
 * @param {import("../types").Scale} scale
 * @param {number} floor
 */
export function ticksOf(scale, floor) {
  if (scale === "linear") return [0, 0.25, 0.5, 0.75, 1].map((value) => ({ text: `${100 * value}%`, at: value }));
  const powers = Math.round(-Math.log10(floor));
  return Array.from({ length: powers + 1 }, (_, i) => powers - i).map((power) => ({
    text: power === powers ? `≤${named(power)}` : named(power),
    at: 1 - power / powers,
  }));
}

/**
 * 10 to the minus so much, in percent as far as that is short.
 * @param {number} power
 */
function named(power) {
  return power <= 4 ? `${+(100 * 10 ** -power).toFixed(2)}%` : `10${superscript(2 - power)}%`;
}
