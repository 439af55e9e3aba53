// Saving what is shown as a file, and the link that opens it.

import { el } from "./dom.js";
import { createMenu } from "./menu.js";
import { mapFigure } from "./save/figure.js";
import { download } from "./save/files.js";
import { fileName } from "./save/region.js";
import { sentenceFigure } from "./save/sentence.js";

/** @typedef {import("./types").App} App */

/** @param {App} app */
export function createSave(app) {
  const menu = createMenu(app.ended, "save");
  const show = () => {
    menu.name(app.say("save"), app.say("save_title"));
    menu.sheet.replaceChildren(...offers(app, menu.close));
  };
  show();
  menu.element.addEventListener("toggle", () => menu.element.open && show());
  app.store.subscribe((_, changed) => {
    if (changed.has("lang")) show();
  });
  return menu.element;
}

/**
 * What can be saved now, one line each.
 * @param {App} app
 * @param {() => void} close
 */
function offers(app, close) {
  const picture = /** @type {SVGElement | null} */ (app.root.querySelector(".panel .sentence .stage > svg"));
  const { layer, head } = app.store.get();
  const map = () => mapFigure(app, app.root.querySelector(".map .pane"));
  const files = (/** @type {(kind: string) => Promise<void>} */ save) =>
    ["png", "svg"].map((kind) => button(app, `save_${kind}`, () => save(kind).then(close).catch((error) => app.report(error, true))));
  const lines = [
    line(
      app.say("save_map"),
      files(async (kind) => download(await map(), fileName({ layer, head, kind }))),
    ),
  ];
  if (picture) {
    const all = picture.classList.contains("whole");
    const name = (/** @type {string} */ kind) => fileName({ layer, head: all ? null : head, what: "sentence", kind });
    lines.push(
      line(
        app.say("save_sentence"),
        files((kind) => download(sentenceFigure(app, picture), name(kind))),
      ),
    );
  }
  if (hasAddress(app)) lines.push(line(app.say("save_link"), [copyButton(app)]));
  return lines;
}

/**
 * @param {string} name
 * @param {HTMLElement[]} buttons
 */
function line(name, buttons) {
  return el(
    "span",
    { className: "choice", role: "group", "aria-label": name },
    el("i", { className: "choiceTitle" }, name),
    ...buttons,
  );
}

/**
 * @param {App} app
 * @param {string} name
 * @param {() => void} onclick
 */
function button(app, name, onclick) {
  return el("button", { type: "button", title: app.say(`${name}_title`), onclick }, app.say(name));
}

/** @param {App} app */
function copyButton(app) {
  const copy = button(app, "copy_link", async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      copy.textContent = app.say("copied");
    } catch {
      app.report(app.say("copy_failed", { address: location.href }), true);
    }
  });
  copy.setAttribute("aria-live", "polite");
  return copy;
}

/**
 * Whether the page has an address of its own: a notebook's cell and a file on disk have none to give away.
 * @param {App} app
 */
function hasAddress(app) {
  return location.protocol.startsWith("http") && app.root.parentElement?.classList.contains("softmap-page") === true;
}
