// The card beside the pointer: what is under it, in numbers and words.

import { el } from "../dom.js";
import { grouped, percent } from "../format.js";
import { shown as printed } from "../labels.js";
import { nameOfWeight, scoresOf, weightOf } from "../weight.js";

const AWAY = 14; // pixels from the pointer
const SHORT = 64; // units of a text that is seen whole beside the map, so that the card need not quote it

/** @param {import("../types").App} app */
export function createCard(app) {
  const element = el("div", { className: "mapCard", hidden: true, "aria-hidden": "true" });

  return {
    element,
    hide: () => void (element.hidden = true),
    /**
     * @param {import("../types").Pixel} pixel
     * @param {boolean} block whether it stands for more than one weight
     */
    fill(pixel, block) {
      element.replaceChildren(...(block || !pixel.at ? tellBlock(app, pixel) : tellCell(app, pixel.at)));
      element.hidden = false;
    },
    /**
     * Put it near a point of the pane, and inside.
     * @param {{x: number, y: number}} at
     */
    place({ x, y }) {
      const room = /** @type {HTMLElement} */ (element.offsetParent);
      if (!room) return;
      const { offsetWidth: wide, offsetHeight: high } = element;
      const left = x + AWAY + wide <= room.clientWidth ? x + AWAY : x - AWAY - wide;
      const top = y + AWAY + high <= room.clientHeight ? y + AWAY : y - AWAY - high;
      element.style.left = `${Math.max(4, Math.min(left, room.clientWidth - wide - 4))}px`;
      element.style.top = `${Math.max(4, Math.min(top, room.clientHeight - high - 4))}px`;
    },
  };
}

/**
 * @param {import("../types").App} app
 * @param {NonNullable<import("../types").Pixel["at"]>} at
 */
function tellCell(app, at) {
  const facts = [[nameOfWeight(app), weightOf(app, at)], ...scoresOf(app, at)];
  return [
    pair(at),
    el("p", { className: "facts" }, ...facts.map(([name, value]) => el("span", {}, el("i", {}, name), value))),
    ...contexts(app, at),
  ];
}

/**
 * What is known of a block: where its largest weight stands too, but for a file that does not hold the weights.
 * @param {import("../types").App} app
 * @param {import("../types").Pixel} pixel
 */
function tellBlock(app, { rows, keys, at, max, mean, partial }) {
  const { say, shown } = app;
  const title = el("p", { className: "muted" }, say("map_block", { rows: range(rows), keys: range(keys) }));
  const facts = [{ name: "map_largest", value: max }, { name: "map_mean", value: mean }];
  const known = facts.flatMap(({ name, value }) => (value === null ? [] : [el("span", {}, el("i", {}, say(name)), percent(value))]));
  const none = partial ? "file_no_weights" : shown().sinks === "shown" ? "masked" : "unseen_or_left_out";
  if (!known.length) return [title, el("p", { className: "muted" }, say(none))];
  return [title, at ? pair(at) : "", el("p", { className: "facts" }, ...known), ...(at ? contexts(app, at) : [])];
}

/** @param {NonNullable<import("../types").Pixel["at"]>} at */
function pair(at) {
  return el("p", { className: "pair" }, el("b", {}, printed(at.query_label)), el("i", {}, "→"), el("b", {}, printed(at.key_label)));
}

/**
 * Both words with what stands beside them in their text, where that is longer than one sees.
 * @param {import("../types").App} app
 * @param {NonNullable<import("../types").Pixel["at"]>} at
 */
function contexts({ say, sides }, at) {
  const { rows, keys } = sides();
  if (rows.count <= SHORT && keys.count <= SHORT) return [];
  const line = (/** @type {string} */ name, /** @type {[string, string, string]} */ [before, word, after], /** @type {number} */ place) =>
    before || after
      ? [el("p", { className: "context", title: say(name) }, el("small", {}, `:${place} `), el("span", {}, tail(before)), el("b", {}, printed(word)), el("span", {}, flat(after)))]
      : [];
  const [one, other] = [line("map_query", at.query_context, at.query), line("map_key", at.key_context, at.key)];
  return at.query === at.key ? one : [...one, ...other];
}

/** @param {string} text */
const flat = (text) => text.replace(/\s+/g, " ");

/** @param {string} text */
const tail = (text) => (text.length > 22 ? `…${flat(text).slice(-21)}` : flat(text));

/** @param {[number, number]} stretch from one up to another */
function range([from, stop]) {
  return stop - from > 1 ? `${grouped(from)}–${grouped(stop - 1)}` : grouped(from);
}
