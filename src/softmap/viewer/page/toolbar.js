// The bar over the page: what is looked at, the search, and how it is shown.

import { el } from "./dom.js";
import { PALETTES } from "./colors.js";

/** @typedef {import("./types").App} App */

/**
 * @param {App} app
 * @param {{search: HTMLElement, save: HTMLElement}} parts
 */
export function createToolbar(app, { search, save }) {
  const { about } = app.data;
  const menu = el("details", { className: "menu" });
  const draw = () => {
    const { say } = app;
    menu.replaceChildren(
      el("summary", { className: "button", title: say("options_title") }, say("options")),
      el(
        "div",
        { className: "sheet" },
        choice(app, "how", ["max", "mean"], "how_"),
        choice(app, "scale", ["linear", "log"], "scale_"),
        choice(app, "palette", PALETTES, "palette_"),
        choice(app, "sinks", ["shown", "hidden", "rescaled"], "sinks_"),
        choice(app, "theme", ["auto", "light", "dark"], "theme_"),
        choice(app, "lang", ["en", "zh"], "lang_"),
      ),
    );
  };
  const units = el("span", { className: "slot" });
  const drawUnits = () => units.replaceChildren(choice(app, "words", [true, false], "words_"));
  const bar = el(
    "header",
    { className: "bar" },
    el("h1", { className: "brand" }, "softmap"),
    el("span", { className: "title", title: `${about.title} · ${about.model}` }, el("q", {}, about.title), ` ${about.model}`),
    search,
    units,
    menu,
    save,
  );
  const redraw = () => {
    draw();
    drawUnits();
  };
  redraw();
  app.store.subscribe((_, changed) => {
    if (!changed.has("lang")) return;
    const { activeElement } = /** @type {Document | ShadowRoot} */ (menu.getRootNode());
    const inside = menu.contains(activeElement);
    redraw();
    if (inside) chosenOf(menu, app.say("lang_title"))?.focus(); // the one before is gone
  });
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !menu.open) return;
    event.stopPropagation();
    menu.open = false;
    menu.querySelector("summary")?.focus();
  });
  document.addEventListener("pointerdown", (event) => {
    if (menu.open && !event.composedPath().includes(menu)) menu.open = false;
  }, { signal: app.ended });
  return bar;
}

/**
 * @param {HTMLElement} menu
 * @param {string} title of a choice
 * @returns {HTMLElement | null}
 */
function chosenOf(menu, title) {
  return menu.querySelector(`[aria-label="${title}"] [aria-checked="true"]`);
}

/**
 * One thing of a few, as buttons beside each other: a radio group.
 * @template {keyof import("./types").State} Name
 * @param {App} app
 * @param {Name} name of the state
 * @param {readonly import("./types").State[Name][]} values
 * @param {string} prefix of their names in strings.js; the group is called prefix + "title"
 */
export function choice(app, name, values, prefix) {
  const radios = values.map((value) => {
    const button = el(
      "button",
      {
        type: "button",
        role: "radio",
        title: app.say(`${prefix}${value}_title`),
        onclick: () => app.store.set({ [name]: value }),
      },
      app.say(`${prefix}${value}`),
    );
    return { value, button };
  });
  const show = () => {
    for (const { value, button } of radios) {
      const chosen = app.store.get()[name] === value;
      button.setAttribute("aria-checked", String(chosen));
      button.tabIndex = chosen ? 0 : -1;
    }
  };
  const group = el(
    "span",
    { className: "choice", role: "radiogroup", "aria-label": app.say(`${prefix}title`), onkeydown: walk },
    el("i", { className: "choiceTitle" }, app.say(`${prefix}title`)),
    ...radios.map(({ button }) => button),
  );
  /** @param {KeyboardEvent} event */
  function walk(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const at = radios.findIndex(({ value }) => value === app.store.get()[name]);
    const next = radios[(at + step + radios.length) % radios.length];
    app.store.set(/** @type {any} */ ({ [name]: next.value }));
    next.button.focus();
  }
  show();
  const stop = app.store.subscribe((_, changed) => {
    if (!changed.has(name)) return;
    if (group.isConnected) show();
    else stop(); // it was drawn anew in another language
  });
  return group;
}
