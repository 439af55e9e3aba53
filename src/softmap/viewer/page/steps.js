// The row of the held cell in four steps, with the model's own numbers.

import { Absent, noteOf } from "./absent.js";
import { el, eachFrame } from "./dom.js";
import { told } from "./steps/told.js";

/** @typedef {import("./types").App} App */
/** @typedef {import("./types").StepsAnswer} StepsAnswer */
/** @typedef {{answer: StepsAnswer, cell: {query: number, key: number, chosen: boolean}}} Told */

const TOLD_BY = new Set(["layer", "head", "query", "key", "words", "sinks", "lang", "view"]);

/** @param {App} app */
export function createSteps(app) {
  const view = el("div", { className: "steps", tabIndex: 0 });
  let asked = new AbortController();
  let wanted = "";

  async function show() {
    if (!view.isConnected) return;
    const state = app.store.get();
    const place = [...TOLD_BY].map((name) => state[/** @type {keyof typeof state} */ (name)]).join();
    if (place === wanted) return;
    wanted = place;
    asked.abort();
    asked = new AbortController();
    const { signal } = asked;
    view.setAttribute("aria-busy", "true");
    try {
      const found = state.query < 0 ? null : await fetchSteps(app, signal);
      if (signal.aborted) return;
      view.setAttribute("aria-label", app.say("view_steps"));
      view.replaceChildren(found ? told(app, found.answer, found.cell) : hint(app));
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Absent) return view.replaceChildren(noteOf(error, app.say));
      wanted = "";
      view.replaceChildren(); // what is there is of another cell
      app.report(error);
    } finally {
      if (!signal.aborted) view.removeAttribute("aria-busy");
    }
  }

  app.store.subscribe((_, changed) => {
    if ([...changed].some((name) => TOLD_BY.has(name))) void show();
  });
  new ResizeObserver(eachFrame(() => void show())).observe(view); // when the pane shows it again
  return view;
}

/**
 * The steps of the held cell; where no key is held, of the row's largest, which any answer about the row tells.
 * @param {App} app
 * @param {AbortSignal} signal
 * @returns {Promise<Told>}
 */
async function fetchSteps(app, signal) {
  const { layer, head, query, key, lang } = app.store.get();
  const { keys } = app.data.layer(layer);
  const ask = (/** @type {number} */ key) =>
    app.data.ask("steps", { layer, head, query, key, words: Number(app.sides().words), lang }, signal);
  const chosen = key < 0;
  const asked = chosen ? Math.min(query, keys - 1) : key;
  const answer = /** @type {StepsAnswer} */ (await ask(asked));
  const largest = chosen ? (answer.top[0]?.key ?? asked) : asked;
  if (largest === asked) return { answer, cell: { query, key: asked, chosen } };
  return { answer: await ask(largest), cell: { query, key: largest, chosen } };
}

/** @param {App} app */
function hint(app) {
  return el(
    "div",
    { className: "note" },
    el("p", {}, app.say("steps_hint")),
    el("p", { className: "muted" }, app.say("steps_hint_more")),
  );
}
