// Asking the server that gave the page.

import { numbersOf, stringsOf } from "./numbers.js";

/** What the server says went wrong, in its four parts. */
export class Refusal extends Error {
  /** @param {{message: string, subject?: string, expected?: string, got?: string, hint?: string}} told */
  constructor(told) {
    super(told.message);
    this.name = "Refusal";
    this.hint = told.hint ?? "";
  }
}

/** Nobody answers: the server has ended. */
export class Gone extends Error {
  constructor() {
    super("The server does not answer any more.");
    this.name = "Gone";
  }
}

/**
 * @param {string} [base] the address under which questions are asked
 * @returns {import("../types").Channel}
 */
export function httpChannel(base = "ask/") {
  return {
    async ask(name, params, signal) {
      const query = new URLSearchParams(stringsOf(params));
      const response = await fetch(`${base}${name}?${query}`, { signal, credentials: "same-origin" }).catch((error) => {
        throw error instanceof TypeError ? new Gone() : error;
      });
      if (!response.ok) throw await refusal(response);
      if (response.headers.get("content-type")?.startsWith("application/json")) return response.json();
      const dtype = /** @type {import("../types").Numbers["dtype"]} */ (response.headers.get("softmap-dtype"));
      const shape = (response.headers.get("softmap-shape") ?? "").split(",").map(Number);
      return numbersOf(dtype, shape, await response.arrayBuffer());
    },
  };
}

/** @param {Response} response */
async function refusal(response) {
  try {
    return new Refusal((await response.json()).error);
  } catch {
    return new Refusal({ message: `The server answered ${response.status} ${response.statusText}.` });
  }
}
