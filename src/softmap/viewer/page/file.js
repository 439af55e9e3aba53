// What an exported file holds: pieces of data inside the page itself, read when they are first looked at.
//
// A piece is a script element that no browser runs, and that holds base64 of deflated bytes. Numbers are put into planes
// before that, all their first bytes, then all their second ones, for so they are smaller.

/** @typedef {Uint16Array | Int32Array | Float32Array | Float64Array} Array */
/** @typedef {{data: any, shape: number[], dtype: string}} Piece */

const ARRAYS = { float16: Uint16Array, int32: Int32Array, float32: Float32Array, float64: Float64Array };

/**
 * @param {ParentNode} place where the elements are
 */
export function createPieces(place) {
  /** @type {Map<string, HTMLElement>} */
  const elements = new Map();
  for (const element of /** @type {Iterable<HTMLElement>} */ (place.querySelectorAll("script[data-piece]"))) {
    elements.set(/** @type {string} */ (element.dataset.piece), element);
  }
  /** @type {Map<string, Promise<Piece>>} */
  const read = new Map();
  return {
    /** @param {string} name */
    has: (name) => elements.has(name),
    names: () => [...elements.keys()],
    /**
     * A piece: numbers of a shape, or JSON.
     * @param {string} name
     * @returns {Promise<Piece>}
     */
    read(name) {
      const known = read.get(name);
      if (known) return known;
      const element = elements.get(name);
      if (!element) return Promise.reject(new Error(`This file has no piece called ${name}.`));
      const reading = unpack(element);
      read.set(name, reading);
      return reading;
    },
  };
}

/**
 * @param {HTMLElement} element
 * @returns {Promise<Piece>}
 */
async function unpack(element) {
  const { dtype = "json", shape = "" } = element.dataset;
  const bytes = await inflate(fromBase64(element.textContent ?? ""));
  element.textContent = ""; // what was read need not be held twice
  if (dtype === "json") return { dtype, shape: [], data: JSON.parse(new TextDecoder().decode(bytes)) };
  const make = ARRAYS[/** @type {keyof typeof ARRAYS} */ (dtype)];
  const data = new make(fromPlanes(bytes, make.BYTES_PER_ELEMENT).buffer);
  return { dtype, shape: shape.split(",").map(Number), data };
}

/** @param {string} text */
function fromBase64(text) {
  const chars = atob(text);
  const bytes = new Uint8Array(chars.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = chars.charCodeAt(i);
  return bytes;
}

/** @param {Uint8Array<ArrayBuffer>} bytes */
async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/**
 * The bytes of numbers, from their planes.
 * @param {Uint8Array} planes
 * @param {number} size bytes of a number
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function fromPlanes(planes, size) {
  const bytes = new Uint8Array(planes.length);
  const count = planes.length / size;
  for (let plane = 0; plane < size; plane++) {
    for (let i = 0, from = plane * count, to = plane; i < count; i++, from++, to += size) bytes[to] = planes[from];
  }
  return bytes;
}
