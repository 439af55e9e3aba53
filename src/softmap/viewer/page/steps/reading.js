// What the steps of a cell say, taken apart for setting: marked words, formulas, the numbers on the way. No page here.

/** @typedef {import("../types").StepsAnswer} StepsAnswer */

/**
 * A sentence in parts: what stands between backticks, one or two, is a word.
 * @param {string} sentence
 * @returns {{text: string, word: boolean}[]}
 */
export function emphasized(sentence) {
  const words = /(?<!`)(`{1,2})(?!`)( ?)(.+?)\2(?<!`)\1(?!`)/g;
  const parts = [];
  let from = 0;
  for (const found of sentence.matchAll(words)) {
    parts.push({ text: sentence.slice(from, found.index), word: false }, { text: found[3], word: true });
    from = found.index + found[0].length;
  }
  parts.push({ text: sentence.slice(from), word: false });
  return parts.filter(({ text }) => text);
}

/**
 * A formula in parts: letters stand slanted, what follows _ as an index: "√d_k" is √, d and the index k.
 * @param {string} formula
 * @returns {{text: string, as: "sign" | "letter" | "index"}[]}
 */
export function typeset(formula) {
  return [...formula.matchAll(/_(\w+)|([A-Za-z]+[ᵀ]?)|([^A-Za-z_]+)/g)].map(([, index, letter, sign]) =>
    index ? { text: index, as: "index" } : letter ? { text: letter, as: "letter" } : { text: sign, as: "sign" },
  );
}

/**
 * The formula of a section's title: what follows the gap in "Step 1   scores = q kᵀ".
 * @param {string} title
 */
export function formulaOf(title) {
  const [, ...rest] = title.split(/\s{2,}|:\s/);
  return rest.join("  ");
}

/**
 * From the score to the scaled number: what each of the model's additions makes of it. The bias is what is left to
 * explain, so that the chain ends at the model's own number.
 * @param {StepsAnswer} answer
 * @returns {{divided: number, capped: number | null, bias: number | null, scaled: number | null, usual: boolean}}
 */
export function chain({ sections, added, scale, d_k }) {
  const number = (/** @type {string} */ name) => sections.find((section) => section.name === name)?.number ?? null;
  const [score, scaled] = [number("scores") ?? NaN, number("scaled")];
  const divided = score * scale;
  const capped = added.softcap ? added.softcap * Math.tanh(divided / added.softcap) : null;
  const bias = added.bias !== null && scaled !== null ? scaled - (capped ?? divided) : null;
  return { divided, capped, bias, scaled, usual: Math.abs(scale * Math.sqrt(d_k) - 1) < 1e-6 };
}

/**
 * What a learned sink takes of the row, where the model has one: what the keys leave.
 * @param {StepsAnswer} answer
 */
export function sinkWeight({ added, top, rest }) {
  if (added.sink === null) return null;
  return Math.max(0, 1 - rest.weight - top.reduce((sum, { weight }) => sum + weight, 0));
}
