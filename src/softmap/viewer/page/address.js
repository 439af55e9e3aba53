// The page's state in its address, after the #: a link opens the page as it was. What is as usual is left out, but not
// where one is, for where one begins may be another place when it is opened.

/** @typedef {import("./types").State} State */

/** @type {Record<string, readonly string[]>} */
const CHOICES = {
  mean: ["head", "layer", "picked"],
  view: ["text", "sentence", "steps", "picture"],
  how: ["max", "mean"],
  scale: ["linear", "log"],
  palette: ["viridis", "cividis", "ink"],
  sinks: ["shown", "hidden", "rescaled"],
  direction: ["gives", "receives"],
  form: ["columns", "arcs"],
  lines: ["head", "layer"],
  patchScale: ["linear", "log"],
  lang: ["en", "zh"],
  theme: ["auto", "light", "dark"],
};
const PLACE = /** @type {const} */ (["layer", "head", "query", "key"]);

/**
 * Where one is, and what differs from the usual, as in "layer=3&head=1&query=4&scale=log".
 * @param {State} state
 * @param {State} usual
 */
export function written(state, usual) {
  const parts = new URLSearchParams();
  for (const name of PLACE) if (name !== "key" || state.key >= 0) parts.set(name, String(state[name]));
  for (const name of /** @type {(keyof State)[]} */ (Object.keys(CHOICES))) {
    if (state[name] !== usual[name]) parts.set(name, String(state[name]));
  }
  if (state.words !== usual.words) parts.set("words", String(Number(state.words)));
  if (state.picked.length) parts.set("picked", state.picked.join(","));
  if (state.box) parts.set("box", state.box.map((value) => +value.toFixed(2)).join(","));
  return parts.toString();
}

/**
 * The state of an address. What it does not say, or says wrongly, is as usual.
 * @param {string} text with or without the #
 * @param {State} usual
 * @param {(layer: number, head: number) => boolean} exists
 * @returns {State}
 */
export function read(text, usual, exists) {
  const parts = new URLSearchParams(text.replace(/^#/, ""));
  /** @type {Record<string, any>} */
  const state = { ...usual };
  for (const name of PLACE) {
    const value = parts.get(name);
    if (value !== null && /^(-1|\d{1,9})$/.test(value)) state[name] = Number(value);
  }
  for (const [name, choices] of Object.entries(CHOICES)) {
    const value = parts.get(name);
    if (value !== null && choices.includes(value)) state[name] = value;
  }
  if (parts.has("words")) state.words = parts.get("words") !== "0";
  state.picked = (parts.get("picked") ?? "").split(",").filter((pair) => {
    const [layer, head] = pair.split(".").map(Number);
    return /^\d{1,5}\.\d{1,5}$/.test(pair) && exists(layer, head);
  });
  const box = (parts.get("box") ?? "").split(",").map(Number);
  state.box = box.length === 3 && box.every(Number.isFinite) && box[2] > 0 ? box : null;
  if (!exists(state.layer, state.head)) Object.assign(state, { layer: usual.layer, head: usual.head });
  return /** @type {State} */ (state);
}
