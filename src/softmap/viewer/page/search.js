// Finding a word, a token by its number, or a cell by its row and column.

import { el } from "./dom.js";
import { grouped } from "./format.js";

const PAUSE = 220; // ms without typing after which what was typed is looked for

/** @typedef {import("./types").App} App */
/** @typedef {{text: string} | {token: number} | {query: number, key: number} | null} Wanted */

/**
 * What was typed: ":12" is a token, "12,34" or ":12 :34" a cell, all else text.
 * @param {string} typed
 * @returns {Wanted}
 */
export function read(typed) {
  const text = typed.trim();
  if (!text) return null;
  const cell = /^(?::?(\d{1,9})\s*[,，;]\s*:?(\d{1,9})|:(\d{1,9})\s+:(\d{1,9}))$/.exec(text);
  if (cell) return { query: Number(cell[1] ?? cell[3]), key: Number(cell[2] ?? cell[4]) };
  const token = /^[:：](\d{1,9})$/.exec(text);
  return token ? { token: Number(token[1]) } : { text };
}

/**
 * The place of the next found, from the last back to the first.
 * @param {number} at -1 before the first
 * @param {number} total
 * @param {1 | -1} step
 */
export function stepped(at, total, step) {
  if (total === 0) return -1;
  return at < 0 ? (step > 0 ? 0 : total - 1) : (at + step + total) % total;
}

/**
 * A row by itself, or a key of the row that is held.
 * @param {number} token
 * @param {"query" | "key"} side
 * @returns {{query?: number, key: number}}
 */
function held(token, side) {
  return side === "key" ? { key: token } : { query: token, key: -1 };
}

/** @param {App} app */
export function createSearch(app) {
  const input = el("input", { type: "search", autocomplete: "off", spellcheck: false, enterKeyHint: "search" });
  const count = el("output", { "aria-live": "polite" });
  const side = el("button", { type: "button", className: "button" });
  const previous = el("button", { type: "button", className: "button", onclick: () => void go(-1) }, "‹");
  const next = el("button", { type: "button", className: "button", onclick: () => void go(1) }, "›");
  const more = el("span", { className: "found", hidden: true }, count, previous, next, side);
  const finder = createFinder(app);
  let asKey = false;
  let waiting = 0;

  function name() {
    const { say } = app;
    input.placeholder = say("search_hint");
    input.title = say("search_title");
    input.setAttribute("aria-label", say("search"));
    side.textContent = say(asKey ? "search_keys" : "search_rows");
    side.title = say(asKey ? "search_keys_title" : "search_rows_title");
    for (const [button, text] of /** @type {const} */ ([[previous, "search_previous"], [next, "search_next"]])) {
      button.title = say(text);
      button.setAttribute("aria-label", say(text));
    }
  }

  /**
   * @param {string} text
   * @param {boolean} [wrong]
   */
  function tell(text, wrong = false) {
    count.textContent = text;
    count.classList.toggle("wrong", wrong);
    more.hidden = !input.value;
    for (const button of [previous, next]) button.hidden = finder.total() < 2;
  }

  /** @returns {"query" | "key"} */
  const sideName = () => (asKey ? "key" : "query");

  async function look() {
    clearTimeout(waiting);
    const wanted = read(input.value);
    try {
      const total = await finder.find(wanted && "text" in wanted ? wanted.text : "", sideName());
      if (total === null) return;
      if (!wanted || !("text" in wanted)) tell("");
      else tell(total ? app.say("search_total", { total: grouped(total) }) : app.say("search_none"), !total);
    } catch (error) {
      tell(/** @type {Error} */ (error).message, true);
    }
  }

  /** @param {1 | -1} step */
  async function go(step) {
    clearTimeout(waiting);
    const wanted = read(input.value);
    if (!wanted) return;
    if ("token" in wanted) return hold(held(wanted.token, sideName()));
    if ("query" in wanted) return hold(wanted);
    if (!finder.isFor(wanted.text, sideName())) await look();
    if (!finder.total()) return;
    const found = await finder.step(step);
    if (!found) return;
    tell(app.say("search_count", { at: grouped(found.at + 1), total: grouped(finder.total()) }));
    app.store.set(held(found.token, sideName()));
  }

  /** @param {{query?: number, key?: number}} cell */
  function hold(cell) {
    const wrong = outside(app, cell);
    tell(wrong, Boolean(wrong));
    if (!wrong) app.store.set(cell);
  }

  side.addEventListener("click", () => {
    asKey = !asKey;
    name();
    void look();
    input.focus();
  });
  input.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(look, PAUSE);
    if (!input.value) void look();
  });
  input.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "Escape") {
      event.stopPropagation();
      if (!input.value) input.blur();
      input.value = "";
      void look();
    } else if (event.key === "Enter") {
      event.preventDefault();
      go(event.shiftKey ? -1 : 1).catch(app.report);
    }
  });
  focusBySlash(app, input);
  name();
  app.store.subscribe((_, changed) => {
    if (changed.has("lang")) name();
    if (input.value && ["words", "layer", "lang"].some((each) => changed.has(/** @type {any} */ (each)))) void look();
  });
  return el("div", { className: "search", role: "search" }, input, more);
}

/**
 * What is wrong with a cell of the chosen layer; nothing where it is there.
 * @param {App} app
 * @param {{query?: number, key?: number}} cell
 */
function outside(app, cell) {
  const { queries, keys } = app.data.layer(app.store.get().layer);
  const size = (cell.query ?? 0) >= queries ? queries : (cell.key ?? 0) >= keys ? keys : 0;
  return size ? app.say("search_outside", { last: grouped(size - 1) }) : "";
}

/**
 * What was found: asked for by the thousand, from a unit on, and gone through one by one.
 * @param {App} app
 */
function createFinder(app) {
  let asked = new AbortController();
  let question = "";
  let [at, total] = [-1, 0];
  /** @type {number[]} */
  let found = [];
  /** @type {{of: import("./types").Of | null, words: number, text: string, units: import("./types").Units} | null} */
  let about = null;

  /**
   * @param {string} text
   * @param {"query" | "key"} side
   */
  function placeOf(text, side) {
    const { layer, words } = app.store.get();
    const { queries_of, keys_of, queries, keys } = app.data.layer(layer);
    const [of, size] = side === "query" ? [queries_of, queries] : [keys_of, keys];
    return { of, words: Number(words), text, units: app.data.units(of, words, size) };
  }

  /**
   * What was found, as far as to one of its places.
   * @param {number} place
   */
  async function fetchTo(place) {
    const { signal } = asked;
    while (about && found.length <= place) {
      const { of, words, text } = about;
      const start = found.length ? found[found.length - 1] + 1 : 0;
      const answer = await app.data.ask("find", { of: of ?? "", words, text, start }, signal);
      if (signal.aborted) return;
      total = answer.total;
      found.push(...answer.units);
      if (!answer.units.length) return;
    }
  }

  return {
    total: () => total,
    /** Whether this was found. @type {(text: string, side: "query" | "key") => boolean} */
    isFor: (text, side) => question === JSON.stringify([placeOf(text, side), side]),
    /**
     * How many there are; null where something else was looked for meanwhile.
     * @param {string} text
     * @param {"query" | "key"} side
     */
    async find(text, side) {
      asked.abort();
      const { signal } = (asked = new AbortController());
      about = placeOf(text, side);
      question = ""; // until it is answered: who goes on before that looks anew
      [found, at, total] = [[], -1, 0];
      if (!text) return 0;
      if (!about.of) throw new Error(app.say("search_textless"));
      try {
        await fetchTo(0);
      } catch (error) {
        if (signal.aborted) return null;
        throw error;
      }
      if (signal.aborted) return null;
      question = JSON.stringify([about, side]);
      return total;
    },
    /** @param {1 | -1} step */
    async step(step) {
      at = stepped(at, total, step);
      await fetchTo(at);
      const unit = found[at];
      if (unit === undefined || !about) return null;
      await about.units.load(unit, unit + 1);
      return { at, token: about.units.peek(unit)?.start ?? -1 };
    },
  };
}

/**
 * "/" leads to the search from wherever nothing is typed.
 * @param {import("./types").App} app
 * @param {HTMLInputElement} input
 */
function focusBySlash({ root, ended }, input) {
  document.addEventListener("keydown", (event) => {
    const path = event.composedPath();
    const [target] = path;
    const own = path.includes(root) || (target === document.body && root.parentElement === document.body);
    const typing = target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || !own || typing) return;
    event.preventDefault();
    input.focus();
    input.select();
  }, { signal: ended });
}
