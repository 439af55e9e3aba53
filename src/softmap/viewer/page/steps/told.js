// One cell's row as four steps, set like a page of a textbook.

import { el } from "../dom.js";
import { grouped, number, percent } from "../format.js";
import { shown } from "../labels.js";
import { chain, formulaOf, sinkWeight } from "./reading.js";
import { brief, equation, equations, formula, fraction, letter, marked, root, value } from "./setting.js";

/** @typedef {import("../types").App} App */
/** @typedef {import("../types").StepsAnswer} StepsAnswer */
/** @typedef {import("../dom.js").Child} Child */

/**
 * @param {App} app
 * @param {StepsAnswer} answer
 * @param {{query: number, key: number, chosen: boolean}} cell chosen: the key was taken for the reader
 */
export function told(app, answer, cell) {
  const { layer, head, sinks } = app.store.get();
  const labels = { query: shown(answer.query_label), key: shown(answer.key_label) };
  const weight = answer.sections.find(({ name }) => name === "weights")?.number ?? null;
  const steps = {
    scores: () => [scores(answer, labels)],
    scaled: () => [scaled(app, answer)],
    weights: () => [softmax(answer, weight), weights(app, answer, cell.key)],
    output: () =>
      answer.top.some(({ share }) => share !== null) ? [output(answer, labels), shares(app, answer, cell.key)] : [],
  };
  return el(
    "article",
    { className: "told" },
    el(
      "header",
      {},
      el(
        "h2",
        {},
        brief(labels.query, 60),
        el("span", { className: "arrow", "aria-label": app.say("looks_at") }, " → "),
        brief(labels.key, 60),
      ),
      el("span", { className: "total" }, weight === null ? "0%" : percent(weight)),
      el(
        "p",
        { className: "muted" },
        app.say("steps_place", { layer, head, query: grouped(cell.query), key: grouped(cell.key) }),
      ),
      sinks !== "shown" && el("p", { className: "muted" }, app.say("steps_sinks")),
      cell.chosen &&
        el(
          "p",
          { className: "chosen" },
          app.say(answer.top[0]?.scaled === null ? "steps_chosen_none" : "steps_chosen", { query: brief(labels.query, 60) }),
        ),
    ),
    el("ol", {}, ...answer.sections.map((section) => step(app, section, steps[section.name]()))),
    answer.agreement && el("footer", { className: "muted" }, ...marked(answer.agreement)),
  );
}

/**
 * @param {App} app
 * @param {StepsAnswer["sections"][number]} section
 * @param {Node[]} shows its equation, its bars; nothing where the values were not kept
 */
function step(app, section, [equation, ...bars]) {
  return el(
    "li",
    {},
    el(
      "h3",
      {},
      app.say(`step_${section.name}`),
      el("span", { className: "math formula" }, ...formula(formulaOf(section.title))),
    ),
    equation,
    ...section.sentences.map((sentence) => el("p", {}, ...marked(sentence))),
    ...bars,
  );
}

/**
 * @param {StepsAnswer} answer
 * @param {{query: string, key: string}} labels
 */
function scores({ sections }, labels) {
  const score = sections.find(({ name }) => name === "scores")?.number ?? null;
  return equations(equation([letter("q", brief(labels.query, 14)), " · ", letter("k", brief(labels.key, 14))], value(score)));
}

/**
 * Step 2, and what the model adds there, one line each.
 * @param {App} app
 * @param {StepsAnswer} answer
 */
function scaled(app, answer) {
  const { added, d_k, scale } = answer;
  const { divided, capped, bias, scaled, usual } = chain(answer);
  const score = value(answer.sections.find(({ name }) => name === "scores")?.number ?? null);
  const by = usual ? [fraction([score], ["√", root(d_k)])] : [score, " × ", value(scale)];
  const lines = [equation(by, value(divided))];
  if (added.softcap && capped !== null) {
    const { softcap } = added;
    lines.push(
      equation(
        [value(softcap), " tanh ", fraction([value(divided)], [value(softcap)])],
        value(capped),
        app.say("steps_softcap"),
      ),
    );
  }
  if (bias !== null)
    lines.push(
      equation(
        [value(capped ?? divided), ` ${bias < 0 ? "−" : "+"} `, value(Math.abs(bias))],
        value(scaled),
        app.say("steps_bias"),
      ),
    );
  if (scaled === null) lines.push(equation([app.say("steps_mask_hidden")], "−∞", app.say("steps_mask")));
  return equations(...lines);
}

/**
 * @param {StepsAnswer} answer
 * @param {number | null} weight
 */
function softmax({ sections, logsumexp }, weight) {
  const scaled = sections.find(({ name }) => name === "scaled")?.number ?? null;
  const power = (/** @type {Child[]} */ ...up) => [letter("e"), el("sup", {}, ...up)];
  const sum = [el("span", { className: "sum" }, "∑"), ...power(letter("scaled", "j"))];
  const result = weight === null ? "0%" : percent(weight);
  const lines = [equation([fraction(power(value(scaled)), sum)], result)];
  if (logsumexp !== null && scaled !== null) {
    lines[0] = equation(
      [fraction(power(value(scaled)), sum), " = ", fraction(power(value(scaled)), power(value(logsumexp)))],
      result,
    );
  }
  return equations(...lines);
}

/**
 * @param {StepsAnswer} answer
 * @param {{query: string, key: string}} labels
 */
function output({ sections }, { key }) {
  const share = sections.find(({ name }) => name === "output")?.number ?? 0;
  const length = (/** @type {string} */ index) => ["‖", letter("w", index), " ", letter("v", index), "‖"];
  return equations(
    equation([fraction(length(brief(key, 14)), [el("span", { className: "sum" }, "∑"), ...length("j")])], percent(share)),
  );
}

/**
 * The largest weights of the row as bars, and what the others have together.
 * @param {App} app
 * @param {StepsAnswer} answer
 * @param {number} asked
 */
function weights(app, answer, asked) {
  const { top, rest } = answer;
  const largest = Math.max(...top.map(({ weight }) => weight), 1e-12);
  const sink = sinkWeight(answer);
  const rows = top.map((each) =>
    el(
      "tr",
      { className: each.key === asked ? "asked" : "" },
      el("th", { scope: "row" }, keyButton(app, each, asked)),
      el("td", { className: "gauge" }, bar(each.weight / largest)),
      el("td", {}, each.scaled === null ? "−∞" : number(each.scaled)),
      el("td", {}, percent(each.weight)),
    ),
  );
  const line = (/** @type {string} */ name, /** @type {number} */ weight, className = "rest") =>
    el(
      "tr",
      { className },
      el("th", { scope: "row", colSpan: 3 }, name),
      el("td", {}, Math.abs(weight - 1) < 5e-4 ? "100%" : percent(weight)),
    );
  const others = rest.count === 1 ? app.say("steps_rest_one") : app.say("steps_rest", { count: grouped(rest.count) });
  return el(
    "table",
    { "aria-label": app.say("steps_bars") },
    el(
      "thead",
      {},
      el("tr", {}, head(app.say("steps_key")), el("td"), head(app.say("steps_scaled")), head(app.say("steps_weight"))),
    ),
    el(
      "tbody",
      {},
      ...rows,
      rest.count > 0 && line(others, rest.weight),
      sink !== null && line(app.say("steps_sink"), sink),
      line(
        app.say("steps_sum"),
        top.reduce((sum, { weight }) => sum + weight, rest.weight + (sink ?? 0)),
        "sum",
      ),
    ),
  );
}

/**
 * Each key's share of the output as bars, its weight as a mark on them.
 * @param {App} app
 * @param {StepsAnswer} answer
 * @param {number} asked
 */
function shares(app, { top }, asked) {
  const largest = Math.max(...top.map(({ weight, share }) => Math.max(weight, share ?? 0)), 1e-12);
  const shownOnes = top.filter(({ key, share }, i) => key === asked || (i < 8 && (share ?? 0) >= 0.001));
  const rows = shownOnes.map((each) =>
    el(
      "tr",
      { className: each.key === asked ? "asked" : "" },
      el("th", { scope: "row" }, keyButton(app, each, asked)),
      el("td", { className: "gauge" }, bar((each.share ?? 0) / largest, each.weight / largest)),
      el("td", {}, percent(each.share ?? 0)),
    ),
  );
  return el(
    "div",
    {},
    el(
      "table",
      { "aria-label": app.say("steps_shares") },
      el("thead", {}, el("tr", {}, head(app.say("steps_key")), el("td"), head(app.say("steps_share")))),
      el("tbody", {}, ...rows),
    ),
    el("p", { className: "small muted" }, app.say("steps_shares_read")),
  );
}

/**
 * @param {App} app
 * @param {{key: number, label: string}} each
 * @param {number} asked
 */
function keyButton(app, { key, label }, asked) {
  const text = shown(label);
  return el(
    "button",
    {
      type: "button",
      title: app.say("hold_key", { key: text, place: key }),
      "aria-pressed": key === asked,
      onclick: () => app.store.set({ key }),
      onpointerenter: () => app.pointer.set({ query: app.store.get().query, key }, "steps"),
      onpointerleave: () => app.pointer.set({ query: -1, key: -1 }, "steps"),
    },
    el("span", {}, text),
    el("small", {}, ` :${key}`),
  );
}

/**
 * @param {number} share of the bar's whole length
 * @param {number} [mark] where a mark stands on it
 */
function bar(share, mark) {
  const inner = el("i");
  inner.style.width = `${100 * share}%`;
  const tick = mark === undefined ? null : el("b");
  if (tick && mark !== undefined) tick.style.left = `${100 * mark}%`;
  return el("span", { "aria-hidden": "true" }, inner, tick);
}

/** @param {string} name */
function head(name) {
  return el("th", { scope: "col" }, name);
}
