// Asking the server that gave the page.

const ARRAYS = { float16: Uint16Array, float32: Float32Array, int32: Int32Array };

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
      const query = new URLSearchParams(Object.entries(params).map(([key, value]) => [key, String(value)]));
      const response = await fetch(`${base}${name}?${query}`, { signal, credentials: "same-origin" }).catch((error) => {
        throw error instanceof TypeError ? new Gone() : error;
      });
      if (!response.ok) throw await refusal(response);
      if (response.headers.get("content-type")?.startsWith("application/json")) return response.json();
      const dtype = /** @type {keyof typeof ARRAYS} */ (response.headers.get("softmap-dtype"));
      const shape = (response.headers.get("softmap-shape") ?? "").split(",").map(Number);
      return { dtype, shape, data: new ARRAYS[dtype](await response.arrayBuffer()) };
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
