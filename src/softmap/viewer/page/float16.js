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
