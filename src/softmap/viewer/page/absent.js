// What an exported file does not hold: said where it would be seen, so that no notice is needed.

import { Refusal } from "./channel/http.js";
import { el } from "./dom.js";
import { say as sayIn } from "./strings.js";

/** @typedef {import("./types").App["say"]} Say */

export class Absent extends Refusal {
  /** @param {(say: Say) => string} told what is not held, in the language that the page has when it is said */
  constructor(told) {
    /** @type {Say} */
    const english = (name, values) => sayIn("en", name, values);
    super({ message: told(english), hint: english("file_hint") });
    this.told = told;
  }
}

/**
 * What an error says, in the page's language where it is the page's own.
 * @param {Error} error
 * @param {Say} say
 */
export const messageOf = (error, say) => (error instanceof Absent ? `${error.told(say)} ${say("file_hint")}` : error.message);

/**
 * What a view shows in place of what is absent, and how a file is made that holds it.
 * @param {Absent} absent
 * @param {Say} say
 */
export function noteOf(absent, say) {
  return el("div", { className: "note" }, el("p", {}, absent.told(say)), el("p", { className: "muted" }, say("file_hint")));
}
