// Numbers as they are shown.

/**
 * A weight in percent, with the digits that tell it apart from 0.
 * @param {number} weight
 */
export function percent(weight) {
  if (weight === 0) return "0%";
  const share = 100 * weight;
  if (share >= 0.1) return `${share.toFixed(share >= 9.95 ? 1 : 2)}%`;
  if (share >= 0.001) return `${share.toPrecision(2)}%`;
  const [digits, exponent] = share.toExponential(1).split("e");
  return `${digits}·10${superscript(Number(exponent))}%`;
}

/**
 * A score: four digits or so.
 * @param {number} value
 */
export function number(value) {
  const text = Math.abs(value) >= 1000 || value === 0 ? value.toFixed(0) : value.toPrecision(4);
  return text.replaceAll("-", "−");
}

/**
 * With thin spaces between thousands.
 * @param {number} count
 */
export function grouped(count) {
  return String(count).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

/**
 * A whole number, raised.
 * @param {number} value
 */
export function superscript(value) {
  return [...String(value)].map((digit) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(digit)]).join("");
}
