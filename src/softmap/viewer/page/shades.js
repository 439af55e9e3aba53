// From weights to how strongly words are shaded, and which are named.

import { floorOf, share } from "./colors.js";

/**
 * How strongly each unit is shaded, from 0 to 1, by the weights of a row or a column. On the linear scale the strongest
 * is the largest weight on another unit than the one asked about, whose own may be much larger.
 * @param {Float32Array} weights
 * @param {{scale: import("./types").Scale, keys: number, self: number}} how self: the unit asked about, -1 for none
 */
export function shadesOf(weights, { scale, keys, self }) {
  if (scale === "log") {
    const floor = floorOf(keys);
    return Float32Array.from(weights, (weight) => (weight > 0 ? share(weight, scale, floor) ** 2 : 0)); // squared: equal weights stay pale
  }
  let largest = 0;
  for (let i = 0; i < weights.length; i++) if (i !== self && weights[i] > largest) largest = weights[i];
  return Float32Array.from(weights, (weight) => (weight > 0 ? Math.min(1, weight / (largest || weight)) : 0));
}

/**
 * How strongly each unit is shaded by what it receives in all. A few receive most; on the linear scale the hundredth
 * part that receives most, and at least two, is as strong as can be.
 * @param {Float32Array} received sums over the queries
 * @param {{scale: import("./types").Scale, queries: number}} how
 */
export function shadesOfReceived(received, { scale, queries }) {
  const means = received.map((sum) => sum / Math.max(1, queries));
  if (scale === "log") return shadesOf(means, { scale, keys: received.length, self: -1 });
  const ordered = means.filter((mean) => mean > 0).sort();
  const strongest = ordered[Math.max(0, ordered.length - 1 - Math.max(2, Math.floor(ordered.length / 100)))] || 1;
  return means.map((mean) => (mean > 0 ? Math.min(1, mean / strongest) : 0));
}

/**
 * The units with the largest weights, the largest first.
 * @param {Float32Array} weights
 * @param {number} count at most
 */
export function topOf(weights, count) {
  /** @type {number[]} */
  const top = [];
  for (let unit = 0; unit < weights.length; unit++) {
    const weight = weights[unit];
    if (!(weight > 0) || (top.length === count && weight <= weights[top[count - 1]])) continue;
    let at = top.length;
    while (at > 0 && weights[top[at - 1]] < weight) at--;
    top.splice(at, 0, unit);
    if (top.length > count) top.pop();
  }
  return top;
}
