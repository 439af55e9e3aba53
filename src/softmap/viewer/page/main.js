// Puts the page together: state, data, and the views that show them.

import { messageOf } from "./absent.js";
import * as address from "./address.js";
import { Gone } from "./channel/http.js";
import { createData } from "./data.js";
import { el } from "./dom.js";
import { createHeads } from "./heads.js";
import { createMap } from "./map/map.js";
import { createPanel } from "./panel.js";
import { createSave } from "./save.js";
import { createSearch } from "./search.js";
import { createStatus } from "./status.js";
import { createPointer, createStore } from "./store.js";
import { say } from "./strings.js";
import { createToolbar } from "./toolbar.js";

const RESTING = 10_000; // ms for which a notice that was dismissed does not come back

/** @typedef {import("./types").State} State */

/**
 * Build the page inside an element.
 * @param {HTMLElement} root
 * @param {import("./types").Channel} channel
 * @param {{hash?: string, lang?: import("./types").Lang, onaddress?: (hash: string) => void, signal?: AbortSignal}} [options]
 *   signal: aborted where the page is taken away, so that it leaves nothing behind
 * @returns {Promise<{app: import("./types").App, open: (hash: string) => void}>}
 */
export async function mount(root, channel, options = {}) {
  root.classList.add("softmap");
  root.setAttribute("aria-busy", "true");
  const about = /** @type {import("./types").About} */ (await channel.ask("about", {}));
  options.signal?.throwIfAborted();
  const exists = (/** @type {number} */ layer, /** @type {number} */ head) =>
    about.layers.some((each) => each.number === layer && head < each.heads);
  const usual = usualState(about, options.lang ?? "en");
  const store = createStore(address.read(options.hash ?? "", usual, exists), (state) => possible(about, state));
  const app = createApp(root, store, createData(channel, about), options.signal ?? new AbortController().signal);

  const search = createSearch(app);
  root.replaceChildren(
    createToolbar(app, { search, save: createSave(app) }),
    el("main", { className: "panes" }, createHeads(app), createMap(app), createPanel(app)),
    createStatus(app),
    app.notice,
  );
  if (about.partial) app.report(new Error(about.partial));
  if (channel.holds) app.notice.before(createHolds(app, channel.holds));
  if (!channel.holds && about.verified && about.verified[0] < about.verified[1]) app.notice.before(createVerified(app, about.verified));
  follow(app, (state) => options.onaddress?.(address.written(state, usual)));
  root.removeAttribute("aria-busy");
  return { app, open: (hash) => store.set(address.read(hash, usual, exists)) };
}

/**
 * How many of a large recording's files were compared with their checksums when the page was opened.
 * @param {import("./types").App} app
 * @param {[number, number]} verified
 */
function createVerified(app, [done, total]) {
  const told = () => app.say("file_verified", { done, total });
  const line = el("p", { className: "holds" }, told());
  app.store.subscribe((_, changed) => {
    if (changed.has("lang")) line.textContent = told();
  });
  return line;
}

/**
 * What is said of a page that does not hold everything.
 * @param {import("./types").App} app
 * @param {NonNullable<import("./types").Channel["holds"]>} holds
 */
function createHolds(app, holds) {
  const line = el("p", { className: "holds" }, holds(app.say));
  app.store.subscribe((_, changed) => {
    if (changed.has("lang")) line.textContent = holds(app.say);
  });
  return line;
}

/**
 * Without a held query or key that the layer does not have: of an address, or of the layer before.
 * @param {import("./types").About} about
 * @param {State} state
 * @returns {State}
 */
function possible(about, state) {
  const layer = about.layers.find(({ number }) => number === state.layer);
  const within = (/** @type {number} */ token, /** @type {number} */ count) => (token < count ? token : -1);
  return { ...state, query: within(state.query, layer?.queries ?? 0), key: within(state.key, layer?.keys ?? 0) };
}

/**
 * @param {import("./types").About} about
 * @param {import("./types").Lang} lang
 * @returns {State}
 */
function usualState(about, lang) {
  const { layer, head, query } = about.start;
  const largest = Math.max(...about.layers.map((each) => each.keys), 1);
  const ofText = about.layers.some((each) => each.number === layer && each.queries_of);
  return {
    layer,
    head,
    mean: "head",
    picked: [],
    query,
    key: -1,
    view: !ofText && about.pictures?.includes(layer) ? "picture" : "text",
    how: "max",
    scale: largest <= 64 ? "linear" : "log",
    palette: "viridis",
    sinks: "shown",
    words: true,
    direction: "gives",
    form: "columns",
    lines: "head",
    patchScale: "linear",
    lang,
    theme: "auto",
    box: null,
  };
}

/**
 * @param {HTMLElement} root
 * @param {import("./types").Store} store
 * @param {import("./types").Data} data
 * @param {AbortSignal} ended
 */
function createApp(root, store, data, ended) {
  const notice = el("p", { className: "notice", role: "alert", hidden: true });
  const system = matchMedia("(prefers-color-scheme: dark)");
  let told = { message: "", dismissed: -Infinity };
  const dismiss = () => {
    notice.hidden = true;
    told.dismissed = performance.now();
  };
  const app = {
    root,
    store,
    data,
    ended,
    notice,
    pointer: createPointer(),
    /** @type {import("./types").App["say"]} */
    say: (name, values) => say(store.get().lang, name, values),
    /** @param {unknown} error @param {boolean} [always] */
    report(error, always = false) {
      if (error instanceof DOMException && error.name === "AbortError") return;
      const message = error instanceof Gone ? app.say("gone") : error instanceof Error ? messageOf(error, app.say) : String(error);
      if (!always && message === told.message && performance.now() - told.dismissed < RESTING) return;
      told = { message, dismissed: Infinity };
      notice.hidden = false;
      notice.replaceChildren(
        message,
        el("button", { type: "button", className: "button", onclick: dismiss }, app.say("dismiss")),
      );
    },
    sides() {
      const { layer, words } = store.get();
      const { queries_of, keys_of, queries, keys } = data.layer(layer);
      const inWords = words && Math.max(queries, keys) <= data.about.words_limit && !app.shown().preview;
      return { rows: data.units(queries_of, inWords, queries), keys: data.units(keys_of, inWords, keys), words: inWords };
    },
    /** @returns {import("./types").Shown} */
    shown() {
      const { layer, head, how, sinks } = store.get();
      return data.preview(layer, head, how, sinks) ?? { how, sinks, finest: 0, preview: false, able: true };
    },
    dark() {
      const { theme } = store.get();
      return theme === "dark" || (theme === "auto" && system.matches);
    },
  };
  store.subscribe((_, changed) => {
    if (!changed.has("layer") && !changed.has("head")) return; // what was said of another head is over
    notice.hidden = true;
    told = { message: "", dismissed: -Infinity };
  });
  return app;
}

/**
 * What follows the state all over the page: theme, language, address.
 * @param {import("./types").App} app
 * @param {(state: State) => void} remember
 */
function follow(app, remember) {
  /** @param {State} state */
  const show = ({ theme, lang }) => {
    app.root.dataset.theme = theme;
    app.root.lang = lang;
  };
  let waiting = 0;
  show(app.store.get());
  remember(app.store.get());
  app.store.subscribe((state) => {
    show(state);
    clearTimeout(waiting);
    waiting = setTimeout(() => remember(app.store.get()), 200);
  });
}
