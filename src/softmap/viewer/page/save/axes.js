// What stands around a saved matrix: names of queries and keys, the scale.

import { color, floorOf } from "../colors.js";
import { svg } from "../dom.js";
import { grouped } from "../format.js";
import { fitted, shown } from "../labels.js";
import { ticksOf as ticksOfScale } from "../map/legend.js";
import { HELD, INK, MUTED, ruler, text } from "./paper.js";
import { ticksOf } from "./region.js";

/** @typedef {import("../types").App} App */

/**
 * Labels of queries or keys: each unit's, or round numbers.
 * @param {App} app
 * @param {import("./region.js").Region} region
 * @param {"rows" | "keys"} side
 * @param {number} held the unit that is held, -1 for none
 */
export async function axis(app, { left, right, top, bottom, cell }, side, held) {
  const down = side === "rows";
  const units = app.sides()[side];
  const [start, stop] = down ? [top, bottom] : [left, right];
  const { places, each } = ticksOf(start, stop, cell);
  if (each) await units.load(start, stop);
  const measure = ruler("12px");
  const names = places.map((place) =>
    fitted(each ? shown(units.peek(place)?.label ?? "") : grouped(place), 110, measure),
  );
  const longest = Math.max(...names.map(measure), 20);
  const turned = !down && each && longest > cell - 8;
  const marks = places.map((place, i) => {
    const at = cell * (place - start + (each ? 0.5 : 0));
    const [x, y] = down ? [-8, at] : [at, -8];
    const chosen = place === held && each;
    const anchor = down ? "end" : turned ? "start" : "middle";
    /** @type {Record<string, string | number>} */
    const turn = turned ? { transform: `rotate(-90 ${x} ${y})` } : {};
    return text(names[i], x, y, {
      fill: chosen ? HELD : INK,
      "font-weight": chosen ? 700 : 400,
      ...turn,
      "text-anchor": anchor,
      dy: down || turned ? "0.35em" : "0",
    });
  });
  const depth = (down || turned ? longest : 12) + 16;
  const middle = (cell * (stop - start)) / 2;
  const name = app.say(down ? "figure_queries" : "figure_keys");
  /** @type {Record<string, string | number>} */
  const turn = down ? { transform: `rotate(-90 ${-depth - 8} ${middle})` } : {};
  const title = text(name, down ? -depth - 8 : middle, down ? middle : -depth - 6, {
    fill: MUTED,
    "text-anchor": "middle",
    ...turn,
  });
  return { room: depth + 24, group: svg("g", {}, title, ...marks) };
}

/**
 * The scale: a ramp with the weights of its ends and between.
 * @param {App} app
 * @param {number} x
 */
export function legend(app, x) {
  const { palette, scale } = app.store.get();
  const floor = floorFor(app);
  const height = 160;
  const steps = 64;
  const bands = Array.from({ length: steps }, (_, i) => {
    const rgb = color(palette, 1 - i / (steps - 1), false).join(",");
    return svg("rect", { x, y: (i * height) / steps, width: 12, height: height / steps + 0.5, fill: `rgb(${rgb})` });
  });
  const marks = ticksOfScale(scale, floor).map(({ text: weight, at }) =>
    text(weight, x + 18, height * (1 - at), { fill: MUTED, dy: "0.35em", "font-size": 11 }),
  );
  return svg("g", {}, ...bands, ...marks);
}

/** @param {App} app */
export function floorFor(app) {
  return floorOf(app.data.layer(app.store.get().layer).keys);
}
