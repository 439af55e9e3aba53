// Over the map: what one must know to read the picture right.

import { el } from "../dom.js";
import { grouped } from "../format.js";

/** @typedef {import("../types").App} App */

/**
 * @param {App} app
 * @param {object} of
 * @param {boolean} of.words whether the map is one of words
 * @param {number} of.zoom that is shown
 * @param {boolean} of.missing whether some of it could not be had
 */
export function notesOf(app, { words, zoom, missing }) {
  const [{ store, say, data }, { preview, sinks }] = [app, app.shown()];
  return [
    missing && el("p", {}, say("map_missing")),
    preview && previewNote(app, zoom),
    sinks !== "shown" && el("p", {}, say(`map_sinks_${sinks}`)),
    store.get().words && !words && !preview && el("p", {}, say("map_no_words", { limit: grouped(data.about.words_limit) })),
  ].filter((note) => note instanceof Node);
}

/**
 * What is shown in place of a head that a file does not hold, and how to get it.
 * @param {App} app
 * @param {number} zoom
 */
function previewNote({ store, say, shown }, zoom) {
  const { layer, head, sinks } = store.get();
  const { how, sinks: shownSinks, able } = shown();
  const told = [
    say("map_preview"),
    zoom > 0 ? say(`map_preview_${how}`, { side: 2 ** zoom }) : "",
    sinks === shownSinks ? "" : say("map_preview_sinks"),
    able ? say("map_preview_get") : "",
  ];
  return el("p", { className: "preview" }, told.filter(Boolean).join(" "), able && el("code", {}, `softmap export RECORDING --html FILE --heads ${layer}.${head}`));
}
