// Arrays of numbers as they come over a channel: bytes, little-endian, C order.

/** @type {Record<import("../types").Numbers["dtype"], new (bytes: ArrayBuffer) => import("../types").Numbers["data"]>} */
const ARRAYS = { float16: Uint16Array, float32: Float32Array, int32: Int32Array };

/**
 * @param {import("../types").Numbers["dtype"]} dtype
 * @param {number[]} shape
 * @param {ArrayBuffer} bytes
 * @returns {import("../types").Numbers}
 */
export function numbersOf(dtype, shape, bytes) {
  return { dtype, shape, data: new ARRAYS[dtype](bytes) };
}

/**
 * The parameters of a question as they are sent.
 * @param {Record<string, string | number>} params
 * @returns {Record<string, string>}
 */
export function stringsOf(params) {
  return Object.fromEntries(Object.entries(params).map(([name, value]) => [name, String(value)]));
}
