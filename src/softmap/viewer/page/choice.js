// A few values of the page's state, of which one is chosen.

import { el } from "./dom.js";

/** @typedef {import("./types").App} App */

/**
 * One thing of a few, as buttons beside each other: a radio group, which follows the state and the language.
 * @template {keyof import("./types").State} Name
 * @param {App} app
 * @param {Name} name of the state
 * @param {readonly import("./types").State[Name][]} values
 * @param {string} prefix of their names in strings.js; the group is called prefix + "title"
 * @param {() => Partial<import("./types").State>} [besides] what else becomes of the state where another is chosen
 */
export function choice(app, name, values, prefix, besides = () => ({})) {
  const title = el("i", { className: "choiceTitle" });
  const radios = values.map((value) => {
    const onclick = () => choose(value);
    return { value, button: el("button", { type: "button", role: "radio", onclick }) };
  });
  const buttons = radios.map(({ button }) => button);
  const group = el("span", { className: "choice", role: "radiogroup", onkeydown: walk }, title, ...buttons);

  function show() {
    const chosen = app.store.get()[name];
    title.textContent = app.say(`${prefix}title`);
    group.setAttribute("aria-label", title.textContent);
    for (const { value, button } of radios) {
      button.textContent = app.say(`${prefix}${value}`);
      button.title = app.say(`${prefix}${value}_title`);
      button.setAttribute("aria-checked", String(value === chosen));
      button.tabIndex = value === chosen ? 0 : -1;
    }
  }

  /** @param {KeyboardEvent} event */
  function walk(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const at = radios.findIndex(({ value }) => value === app.store.get()[name]);
    const next = radios[(at + step + radios.length) % radios.length];
    choose(next.value);
    next.button.focus();
  }

  /** @param {import("./types").State[Name]} value */
  function choose(value) {
    if (value !== app.store.get()[name]) app.store.set({ ...besides(), [name]: value });
  }

  show();
  app.store.subscribe((_, changed) => {
    if (changed.has(name) || changed.has("lang")) show();
  });
  return group;
}
