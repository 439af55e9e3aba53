// The line over the text: the words with the largest weights, or what the text is shaded by.

import { createAloud } from "./aloud.js";
import { el } from "./dom.js";
import { percent } from "./format.js";

/**
 * @param {import("./types").App} app
 * @param {(unit: number) => void} jump
 */
export function createStrip(app, jump) {
  const line = el("p", { className: "strip" });
  const aloud = createAloud();
  new ResizeObserver(() => dropWrapped(line)).observe(line);

  /** @param {string} text */
  function remark(text) {
    line.replaceChildren(el("span", { className: "muted", title: text }, text));
    aloud.say(text);
  }

  return {
    element: el("div", { className: "stripes" }, line, aloud.element),
    remark,
    /** @param {import("./look.js").Look} look */
    show({ sides, unit, weights, top }) {
      const { say } = app;
      if (!weights) return remark(say("none_picked"));
      if (unit < 0) return remark(say(app.store.get().words ? "by_received_words" : "by_received_tokens"));
      const [asked, others] = sides.from === "query" ? [sides.rows, sides.keys] : [sides.keys, sides.rows];
      const label = asked.peek(unit)?.label ?? String(unit);
      const named = top.map((each) => ({ each, label: others.peek(each)?.label ?? String(each), share: percent(weights[each]) }));
      line.replaceChildren(
        el("b", {}, label),
        el("span", { className: "arrow", "aria-label": say(`strip_${sides.from}`) }, sides.from === "query" ? "→" : "←"),
        ...named.map(({ each, label, share }) =>
          el("button", { type: "button", title: say("strip_jump", { label, place: each }), onclick: () => jump(each) }, el("span", {}, label), el("i", {}, share)),
        ),
        top.length ? "" : el("span", { className: "muted" }, say("strip_nothing")),
      );
      dropWrapped(line);
      aloud.say(`${label} ${say(`strip_${sides.from}`)} ${named.slice(0, 3).map((word) => `${word.label} ${word.share}`).join(", ")}`);
    },
  };
}

/**
 * Show as many words as fit the line whole.
 * @param {HTMLElement} line
 */
function dropWrapped(line) {
  const buttons = [...line.querySelectorAll("button")];
  for (const button of buttons) button.hidden = false;
  const wrapped = buttons.slice(1).filter((button) => button.offsetTop > line.offsetTop + line.offsetHeight / 2);
  for (const button of wrapped) button.hidden = true;
}
