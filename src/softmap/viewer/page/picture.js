// The pictures that the model saw, shaded by how much the token that is pointed at looks at each patch, or is looked at.

import { createAloud } from "./aloud.js";
import { choice } from "./choice.js";
import { color } from "./colors.js";
import { el } from "./dom.js";
import { percent } from "./format.js";
import { createAsking } from "./picture/asking.js";
import { createChips, listOf } from "./picture/chips.js";
import { factsOf, marksOf, marksOfTokens, placeOf, scaleOf, tagOf } from "./picture/facts.js";
import { createPages } from "./picture/pages.js";

const COLOURS = 12; // of the legend

/** @typedef {import("./types").App} App */
/** @typedef {import("./picture/asking.js").Asked} Asked */
/** @typedef {import("./picture/asking.js").Side} Side */
/** @typedef {import("./picture/facts.js").Scale} Scale */
/** @typedef {ReturnType<typeof createChips>} Chips */

/** @param {App} app */
export function createPicture(app) {
  const controls = el(
    "div",
    { className: "controls", role: "group" },
    choice(app, "direction", ["gives", "receives"], "direction_"),
    choice(app, "mean", ["head", "layer", "picked"], "mean_"),
    choice(app, "patchScale", ["linear", "log"], "scale_"),
  );
  const line = createLine(app);
  const legend = el("p", { className: "ramp muted" });
  const others = el("div", { className: "others" });
  /** @type {Chips[]} */
  let chips = [];
  let made = "";
  /** @type {Asked | null} */
  let last = null;

  const told = {
    from: () => last?.from ?? /** @type {Side} */ ("query"),
    point: (/** @type {number} */ token, /** @type {Side} */ side) => app.pointer.set({ query: -1, key: -1, [side]: token }, "picture"),
    hold: (/** @type {number} */ token, /** @type {Side} */ side) => app.store.set({ [side]: app.store.get()[side] === token ? -1 : token }),
  };
  const pages = createPages(app, told);

  /** Make pictures and chips anew where others are to be seen. @param {Asked} asked */
  async function open(asked) {
    const wanted = nameOf(asked, app.store.get().lang);
    if (wanted === made) return;
    const sides = asked.one ? [asked.to] : /** @type {Side[]} */ (["query", "key"]);
    const lists = await Promise.all(sides.map((side) => listOf(app, asked, side)));
    if (wanted === made || last !== asked) return;
    made = wanted;
    const sideOf = (/** @type {Side} */ side) => (asked.one ? told.from() : side);
    chips = lists.map((list) =>
      createChips(app, list, { point: (token) => told.point(token, sideOf(list.side)), hold: (token) => told.hold(token, sideOf(list.side)) }),
    );
    others.replaceChildren(...chips.filter(({ list }) => list.tokens.length).map(({ element }) => element));
    pages.open(asked.pictures);
  }

  /** Shade all by what is asked. @param {Asked} asked */
  function show(asked) {
    const scale = scaleOf(asked, app.store.get().patchScale);
    const label = (/** @type {number} */ token, /** @type {Side} */ side) => labelOf(app, asked, chips, token, side);
    showPages(app, asked, pages.all(), scale, label);
    for (const { list, show } of chips) {
      const weights = asked.one || list.side === asked.to ? asked.weights : null;
      show(weights, (token) => scale.share(weights?.[token] || 0), marksOfTokens(asked, list.side));
    }
    line.show(asked, label);
    legend.replaceChildren(...legendOf(app, scale, asked.pictures.some(({ stretched }) => stretched)));
  }

  const redraw = () => last && show(last);
  const ask = createAsking(app, (asked) => {
    last = asked;
    open(asked).then(() => last === asked && show(asked), app.report);
  });
  const name = () => controls.setAttribute("aria-label", app.say("text_controls"));
  name();
  ask();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw, { signal: app.ended });
  app.store.subscribe((_, changed) => {
    if (changed.has("lang")) name();
    if (changed.has("theme") || changed.has("palette") || changed.has("patchScale")) redraw();
  });
  return el("div", { className: "picture" }, controls, line.element, pages.element, legend, others);
}

/**
 * What pictures and chips are made of: where it is the same, they stay.
 * @param {Asked} asked
 * @param {string} lang
 */
function nameOf({ layer, pictures, one, from }, lang) {
  const grids = pictures.map(({ index, grids }) => `${index}:${grids.query?.tokens}:${grids.key?.tokens}`);
  return [layer.queries_of, layer.keys_of, layer.queries, layer.keys, one || from, lang, ...grids].join();
}

/**
 * @param {App} app
 * @param {Asked} asked
 * @param {import("./picture/pages.js").Page[]} pages
 * @param {Scale} scale
 * @param {(token: number, side: Side) => string} labelOf
 */
function showPages(app, asked, pages, scale, labelOf) {
  const { weights, from, to } = asked;
  const { palette } = app.store.get();
  for (const { picture, figure } of pages) {
    const grid = picture.grids[to] ?? picture.grids[from];
    if (!grid) continue;
    const shaded = picture.grids[to] ? weights : null;
    figure.show({
      grid,
      shaded: shaded !== null,
      share: (patch) => (shaded ? scale.share(shaded[grid.tokens[patch]]) : NaN),
      colour: (share) => color(palette, share, app.dark()),
      marks: marksOf(asked, picture),
    });
    figure.tag(tagOf(app, asked, picture, labelOf));
    const { rows, columns } = grid;
    figure.element.setAttribute("aria-label", app.say("picture_name", { number: picture.index + 1, rows, columns }));
  }
}

/**
 * What a token is called: a patch by its place, another as the text or the tower has it.
 * @param {App} app
 * @param {Asked} asked
 * @param {Chips[]} chips
 * @param {number} token
 * @param {Side} side
 */
function labelOf(app, { pictures, one }, chips, token, side) {
  for (const { index, grids } of pictures) {
    const grid = grids[side];
    const patch = grid?.tokens.indexOf(token) ?? -1;
    if (!grid || patch < 0) continue;
    const name = app.say("picture_patch", placeOf(grid, patch));
    return pictures.length > 1 ? `${app.say("picture_one", { number: index + 1 })}, ${name}` : name;
  }
  return chips.find(({ list }) => one || list.side === side)?.list.labels.get(token) ?? `:${token}`;
}

/**
 * The line above: how much goes to the patches, and to all else.
 * @param {App} app
 */
function createLine(app) {
  const line = el("p", { className: "strip" });
  const aloud = createAloud();
  return {
    element: el("div", { className: "stripes" }, line, aloud.element),
    /**
     * @param {Asked} asked
     * @param {(token: number, side: Side) => string} labelOf
     */
    show(asked, labelOf) {
      const { token, weights, from, absent } = asked;
      if (!weights || token < 0) {
        const remark = absent ?? app.say(weights ? "picture_received" : "none_picked");
        aloud.say(remark);
        return line.replaceChildren(el("span", { className: "muted" }, remark));
      }
      const facts = factsOf(app, asked);
      line.replaceChildren(
        el("b", {}, labelOf(token, from)),
        el("span", { className: "arrow", "aria-label": app.say(`strip_${from}`) }, from === "query" ? "→" : "←"),
        ...facts.map(({ name, text }) => el("span", {}, name, el("i", {}, text))),
        from === "key" ? el("span", { className: "muted" }, app.say("picture_mean")) : "",
      );
      const said = facts.map(({ name, text }) => `${name} ${text}`).join(", ");
      aloud.say(`${labelOf(token, from)} ${app.say(`strip_${from}`)} ${said}`);
    },
  };
}

/**
 * @param {App} app
 * @param {Scale} scale
 * @param {boolean} stretched whether a picture's colours are
 */
function legendOf(app, { least, most }, stretched) {
  const { palette } = app.store.get();
  const ramp = el("span", { className: "colours" });
  const colours = Array.from({ length: COLOURS }, (_, i) => `rgb(${color(palette, i / (COLOURS - 1), app.dark()).join(" ")})`);
  ramp.style.backgroundImage = `linear-gradient(to right, ${colours.join(", ")})`;
  const scale = [percent(least), ramp, percent(most)];
  return stretched ? [...scale, el("span", {}, app.say("picture_stretched"))] : scale;
}
