// A button that opens a sheet: closed by Escape, and by a press anywhere else.

import { el } from "./dom.js";

/** @typedef {ReturnType<typeof createMenu>} Menu */

/**
 * @param {AbortSignal} ended
 * @param {string} className
 */
export function createMenu(ended, className) {
  const summary = el("summary", { className: "button" });
  const sheet = el("div", { className: "sheet" });
  const element = el("details", { className: `menu ${className}`.trim() }, summary, sheet);

  function close() {
    element.open = false;
    summary.focus(); // what was in the sheet has it no more
  }

  element.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !element.open) return;
    event.stopPropagation();
    close();
  });
  document.addEventListener(
    "pointerdown",
    (event) => {
      if (element.open && !event.composedPath().includes(element)) element.open = false;
    },
    { signal: ended },
  );

  return {
    element,
    sheet,
    close,
    /** @param {string} text @param {string} title */
    name(text, title) {
      summary.textContent = text;
      summary.title = title;
    },
  };
}
