// The line at the bottom: what is under the pointer, or held, with its exact numbers.

import { el } from "./dom.js";
import { shown } from "./labels.js";
import { unitAt } from "./units.js";
import { nameOfWeight, scoresOf, weightOf } from "./weight.js";

const PATIENCE = 30; // ms that the pointer rests before its cell is asked about

/** @param {import("./types").App} app */
export function createStatus(app) {
  const line = el("div", { className: "status", role: "status" });
  let asked = new AbortController();

  const remark = (/** @type {string} */ name) => line.replaceChildren(el("span", { className: "muted" }, app.say(name)));

  async function show() {
    asked.abort();
    asked = new AbortController();
    const { signal } = asked;
    const [{ layer, head, ...held }, { sinks }] = [app.store.get(), app.shown()];
    const pointed = app.pointer.get();
    const isPointed = pointed.query >= 0 && pointed.key >= 0;
    const { query, key } = isPointed ? pointed : held;
    line.setAttribute("aria-live", isPointed ? "off" : "polite"); // a pointer that sweeps the map is not read aloud
    if (query < 0 || key < 0) return remark("status_idle");
    const { rows, keys, words } = app.sides();
    try {
      if (isPointed) await new Promise((resolve) => setTimeout(resolve, PATIENCE));
      if (signal.aborted) return;
      const [row, column] = words ? [unitAt(await rows.starts(), query), unitAt(await keys.starts(), key)] : [query, key];
      await keys.load(column, column + 1);
      const question = { layer, head, zoom: 0, row, column, sinks, words: Number(words) };
      const { at, partial } = /** @type {import("./types").Pixel} */ (await app.data.ask("pixel", question, signal));
      if (signal.aborted) return;
      if (at) line.replaceChildren(...told(app, at));
      else if (partial) remark("file_no_weights");
      else remark("status_idle");
    } catch (error) {
      if (signal.aborted) return;
      remark("status_idle");
      app.report(error);
    }
  }

  app.pointer.subscribe(() => void show());
  app.store.subscribe((_, changed) => {
    if (["layer", "head", "query", "key", "sinks", "words", "lang"].some((name) => changed.has(/** @type {any} */ (name)))) void show();
  });
  void show();
  return line;
}

/**
 * @param {import("./types").App} app
 * @param {NonNullable<import("./types").Pixel["at"]>} cell
 */
function told(app, cell) {
  const label = (/** @type {string} */ text, /** @type {number} */ place) =>
    el("span", {}, el("b", {}, shown(text)), el("small", {}, ` :${place}`));
  const numbers = [
    [cell.hidden ? "" : nameOfWeight(app), weightOf(app, cell)],
    ...scoresOf(app, cell),
  ];
  return [
    label(cell.query_label, cell.query),
    el("span", { className: "arrow", "aria-label": app.say("looks_at") }, "→"),
    label(cell.key_label, cell.key),
    ...numbers.map(([name, value]) => el("span", { className: "fact" }, name && el("i", {}, `${name} `), value)),
  ];
}
