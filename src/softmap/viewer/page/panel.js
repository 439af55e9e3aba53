// The pane beside the map: the text, the sentence, the steps of a cell; the pictures, where the layer has any.

import { el } from "./dom.js";
import { viewOf } from "./look.js";
import { createPicture } from "./picture.js";
import { createSentence } from "./sentence.js";
import { createSteps } from "./steps.js";
import { createText } from "./text.js";

/** @typedef {import("./types").View} View */

/** @type {[View, (app: import("./types").App) => HTMLElement][]} */
const VIEWS = [
  ["text", createText],
  ["sentence", createSentence],
  ["steps", createSteps],
  ["picture", createPicture],
];

/** @param {import("./types").App} app */
export function createPanel(app) {
  const tabs = VIEWS.map(([name]) =>
    el("button", { type: "button", role: "tab", onclick: () => app.store.set({ view: name }) }),
  );
  const body = el("div", { className: "view", role: "tabpanel", tabIndex: -1 });
  /** @type {Map<View, HTMLElement>} */
  const made = new Map();

  function show() {
    const seen = app.data.about.pictures?.includes(app.store.get().layer) ?? false;
    const at = VIEWS.findIndex(([name]) => name === viewOf(app));
    const [name, create] = VIEWS[at];
    if (!made.has(name)) made.set(name, create(app));
    const shown = /** @type {HTMLElement} */ (made.get(name));
    if (body.firstChild !== shown) body.replaceChildren(shown); // put there again, it would lose its focus
    body.setAttribute("aria-label", app.say(`view_${name}`));
    tabs.forEach((tab, i) => {
      tab.textContent = app.say(`view_${VIEWS[i][0]}`);
      tab.setAttribute("aria-selected", String(i === at));
      tab.tabIndex = i === at ? 0 : -1;
      tab.hidden = VIEWS[i][0] === "picture" && !seen;
    });
  }

  /** @param {KeyboardEvent} event */
  function walk(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const there = tabs.filter((tab) => !tab.hidden);
    const at = there.findIndex((tab) => tab.tabIndex === 0);
    const next = there[(at + step + there.length) % there.length];
    app.store.set({ view: VIEWS[tabs.indexOf(next)][0] });
    next.focus();
  }

  show();
  app.store.subscribe((_, changed) => {
    if (changed.has("view") || changed.has("layer") || changed.has("lang")) show();
  });
  return el("section", { className: "panel" }, el("div", { className: "tabs", role: "tablist", onkeydown: walk }, ...tabs), body);
}
