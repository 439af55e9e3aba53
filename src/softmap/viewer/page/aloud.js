// What is shown, said to those who do not see it: when it has rested, so that a pointer on its way is not read aloud.

import { el } from "./dom.js";

const QUIET = 500; // ms

export function createAloud() {
  const element = el("p", { className: "aloud", "aria-live": "polite" });
  let waiting = 0;
  return {
    element,
    /** @param {string} text */
    say(text) {
      clearTimeout(waiting);
      waiting = setTimeout(() => {
        if (element.textContent !== text) element.textContent = text;
      }, QUIET);
    },
  };
}
