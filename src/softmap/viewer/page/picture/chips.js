// The tokens that are no patches: what leads a tower's (CLS, registers), and the text around a picture.

import { el } from "../dom.js";
import { percent } from "../format.js";

const MOST = 400; // that are listed
const STRONGEST = 0.62; // how opaque a shade is, as in the text
const FEW = 24; // of which each is shown with its weight

/** @typedef {import("../types").App} App */
/** @typedef {import("./asking.js").Side} Side */
/** @typedef {{side: Side, tokens: number[], count: number, labels: Map<number, string>, named: boolean}} List */

/**
 * The tokens of one side that are no patches, with their labels.
 * @param {App} app
 * @param {import("./asking.js").Asked} asked
 * @param {Side} side
 * @returns {Promise<List>}
 */
export async function listOf(app, { layer, pictures }, side) {
  const [of, count] = side === "query" ? [layer.queries_of, layer.queries] : [layer.keys_of, layer.keys];
  const patches = new Set(pictures.flatMap((picture) => picture.grids[side]?.tokens ?? []));
  const others = Array.from({ length: count }, (_, token) => token).filter((token) => !patches.has(token));
  const tokens = others.slice(0, MOST);
  const units = app.data.units(of, false, count);
  if (tokens.length) await units.load(tokens[0], tokens[tokens.length - 1] + 1);
  const labels = new Map(tokens.map((token) => [token, units.peek(token)?.label ?? String(token)]));
  if (of === null) for (const token of tokens) labels.set(token, leads(token, patches) ? "CLS" : `:${token}`);
  return { side, tokens, count: others.length, labels, named: of !== null };
}

/**
 * Whether a token is the first of those before a picture's patches.
 * @param {number} token
 * @param {Set<number>} patches
 */
function leads(token, patches) {
  if (token > 0 && !patches.has(token - 1)) return false;
  for (let next = token + 1; next < token + 64; next++) if (patches.has(next)) return true;
  return false;
}

/**
 * @param {App} app
 * @param {List} list
 * @param {{point: (token: number) => void, hold: (token: number) => void}} told
 */
export function createChips(app, list, told) {
  const chips = new Map(list.tokens.map((token) => [token, chipOf(token)]));
  const more = list.count - list.tokens.length;
  const element = el(
    "div",
    { className: "chips", role: "group", "aria-label": app.say(`picture_others_${list.named ? "text" : "tower"}`), onkeydown: walk },
    ...[...chips.values()].map(({ button }) => button),
    more > 0 && el("span", { className: "muted" }, app.say("picture_more", { count: more })),
  );
  element.addEventListener("pointerleave", () => told.point(-1));

  /** @param {number} token */
  function chipOf(token) {
    const share = el("i");
    const button = el(
      "button",
      {
        type: "button",
        className: "chip",
        tabIndex: token === list.tokens[0] ? 0 : -1,
        onpointerenter: (/** @type {PointerEvent} */ event) => event.pointerType !== "touch" && told.point(token),
        onclick: () => told.hold(token),
      },
      list.labels.get(token),
      share,
    );
    return { button, share };
  }

  /** @param {KeyboardEvent} event */
  function walk(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const buttons = [...chips.values()].map(({ button }) => button);
    const at = buttons.indexOf(/** @type {HTMLButtonElement} */ (event.target));
    if (!step || at < 0) return;
    event.preventDefault();
    const next = buttons[Math.max(0, Math.min(at + step, buttons.length - 1))];
    buttons[at].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  return {
    list,
    element,
    /**
     * @param {Float32Array | null} weights null where this side is not shaded
     * @param {(token: number) => number} share from 0 to 1
     * @param {Map<number, string>} marks
     */
    show(weights, share, marks) {
      for (const [token, { button, share: number }] of chips) {
        const weight = weights ? weights[token] : NaN;
        const known = !Number.isNaN(weight);
        button.style.backgroundColor = known ? `rgb(var(--shade) / ${(STRONGEST * share(token)).toFixed(3)})` : "";
        button.title = known ? `:${token} ${percent(weight)}` : `:${token}`;
        number.textContent = known && list.tokens.length <= FEW && !list.named ? percent(weight) : "";
        button.dataset.mark = marks.get(token) ?? "";
        button.setAttribute("aria-pressed", String(/held|met/.test(button.dataset.mark)));
      }
    },
  };
}
