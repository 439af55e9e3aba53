// What an exported file does not hold: said where it would be seen, so that no notice is needed.

import { Refusal } from "./channel/http.js";
import { el } from "./dom.js";

export class Absent extends Refusal {
  /**
   * @param {string} text what is not held
   * @param {string} hint how a file is made that holds it
   */
  constructor(text, hint) {
    super({ message: `${text} ${hint}`, hint });
    this.text = text;
  }
}

/**
 * What a view shows in place of what is absent.
 * @param {Absent} absent
 */
export function noteOf({ text, hint }) {
  return el("div", { className: "note" }, el("p", {}, text), el("p", { className: "muted" }, hint));
}
