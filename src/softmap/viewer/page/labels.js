// What words and tokens are called where they are shown.

/**
 * A label as it can be seen, in one line: white space by its signs.
 * @param {string} label
 */
export function shown(label) {
  const signs = label.replaceAll("\n", "⏎").replaceAll("\t", "⇥");
  return signs.trim() || "␣".repeat(signs.length) || "∅";
}

/**
 * A text cut so that it is no wider than `most`, with … where something is missing.
 * @param {string} text
 * @param {number} most
 * @param {(text: string) => number} measure
 */
export function fitted(text, most, measure) {
  const letters = [...text];
  if (letters.length < 2 || measure(text) <= most) return text;
  const shortened = (/** @type {number} */ count) => `${letters.slice(0, count).join("")}…`;
  let [low, high] = [1, letters.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (measure(shortened(middle)) <= most) low = middle;
    else high = middle - 1;
  }
  return shortened(low);
}
