// Numbers of 16 bits, as tiles hold them (IEEE 754 binary16).

const TABLE = new Float32Array(1 << 16);
for (let bits = 0; bits < TABLE.length; bits++) TABLE[bits] = decode(bits);

/**
 * The number that 16 bits stand for.
 * @param {number} bits
 */
export function fromHalf(bits) {
  return TABLE[bits];
}

/** @param {number} bits */
function decode(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}

const FLOAT = new Float32Array(1);
const BITS = new Uint32Array(FLOAT.buffer);

/**
 * A number as 16 bits (IEEE 754 binary16), rounded to the nearest, ties to even. For weights: from 0 to 1, or NaN.
 * @param {number} value
 */
export function toHalf(value) {
  if (Number.isNaN(value)) return 0x7e00;
  FLOAT[0] = value;
  if (FLOAT[0] < 2 ** -14) return roundEven(FLOAT[0] * 2 ** 24); // subnormal: a multiple of 2^-24
  const bits = BITS[0] - (112 << 23); // the exponent's bias is 15, not 127
  return (bits + 0xfff + ((bits >> 13) & 1)) >> 13;
}

/** @param {number} value */
function roundEven(value) {
  const low = Math.floor(value);
  const rest = value - low;
  return rest < 0.5 || (rest === 0.5 && low % 2 === 0) ? low : low + 1;
}
