// The bar over the page: what is looked at, the search, and how it is shown.

import { choice } from "./choice.js";
import { PALETTES } from "./colors.js";
import { el } from "./dom.js";
import { createMenu } from "./menu.js";

/** @typedef {import("./types").App} App */

/**
 * @param {App} app
 * @param {{search: HTMLElement, save: HTMLElement}} parts
 */
export function createToolbar(app, { search, save }) {
  const { about } = app.data;
  const options = createMenu(app.ended, "options");
  const name = () => options.name(app.say("options"), app.say("options_title"));
  options.sheet.append(
    choice(app, "how", ["max", "mean"], "how_"),
    choice(app, "scale", ["linear", "log"], "scale_"),
    choice(app, "palette", PALETTES, "palette_"),
    choice(app, "sinks", ["shown", "hidden", "rescaled"], "sinks_"),
    choice(app, "theme", ["auto", "light", "dark"], "theme_"),
    choice(app, "lang", ["en", "zh"], "lang_"),
  );
  name();
  app.store.subscribe((_, changed) => {
    if (changed.has("lang")) name();
  });
  return el(
    "header",
    { className: "bar" },
    el("h1", { className: "brand" }, "softmap"),
    el("span", { className: "title", title: `${about.title} · ${about.model}` }, el("q", {}, about.title), ` ${about.model}`),
    search,
    el("span", { className: "slot" }, choice(app, "words", [true, false], "words_")),
    options.element,
    save,
  );
}
