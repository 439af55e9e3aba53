// The words or tokens of a text, fetched piece by piece as they are looked at.

const PIECE = 1024;

/**
 * @param {import("./types").Data["ask"]} ask
 * @param {import("./types").About} about
 * @param {import("./types").Of | null} of the text; null for what has none, whose units are numbers
 * @param {boolean} words
 * @param {number} count how many there are where there is no text
 * @returns {import("./types").Units}
 */
export function unitsOf(ask, about, of, words, count) {
  const text = of === null ? null : about.texts[of];
  if (of === null || !text) return numbers(count);
  /** @type {Map<number, import("./types").UnitsChunk>} */
  const pieces = new Map();
  /** @type {Map<number, Promise<void>>} */
  const coming = new Map();
  /** @type {Set<() => void>} */
  const listeners = new Set();
  const total = words ? text.words : text.tokens;
  /** @type {Promise<Int32Array> | null} */
  let starts = null;

  /** @param {number} piece */
  async function fetchPiece(piece) {
    const [start, stop] = [piece * PIECE, Math.min((piece + 1) * PIECE, total)];
    pieces.set(piece, await ask("units", { of: /** @type {string} */ (of), words: Number(words), start, stop }));
    coming.delete(piece);
    for (const listener of [...listeners]) listener();
  }

  /** @param {number} piece */
  function need(piece) {
    if (pieces.has(piece)) return Promise.resolve();
    let asked = coming.get(piece);
    if (!asked) {
      asked = fetchPiece(piece);
      asked.catch(() => coming.delete(piece)); // it may be asked for again
      coming.set(piece, asked);
    }
    return asked;
  }

  return {
    count: total,
    peek(i) {
      if (i < 0 || i >= total) return null;
      const chunk = pieces.get(Math.floor(i / PIECE));
      if (!chunk) {
        need(Math.floor(i / PIECE)).catch(() => {});
        return null;
      }
      const at = i % PIECE;
      return { label: chunk.labels[at], gap: chunk.gaps[at], start: chunk.starts[at], special: chunk.special[at] };
    },
    async load(start, stop) {
      const [first, last] = [Math.floor(start / PIECE), Math.floor(Math.max(start, stop - 1) / PIECE)];
      await Promise.all(Array.from({ length: last - first + 1 }, (_, i) => need(first + i)));
    },
    starts() {
      starts ??= ask("starts", { of: /** @type {string} */ (of), words: Number(words) }).then(
        ({ data }) => data,
        (error) => {
          starts = null; // they may be asked for again
          throw error;
        },
      );
      return starts;
    },
    whenCame(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/**
 * Queries or keys without a text: their numbers.
 * @param {number} count
 * @returns {import("./types").Units}
 */
function numbers(count) {
  return {
    count,
    peek: (i) => ({ label: String(i), gap: " ", start: i, special: false }),
    load: async () => {},
    starts: async () => Int32Array.from({ length: count + 1 }, (_, i) => i),
    whenCame: () => () => {},
  };
}

/**
 * The unit that holds a token.
 * @param {Int32Array} starts
 * @param {number} token
 */
export function unitAt(starts, token) {
  let [low, high] = [0, starts.length - 2];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (starts[middle] <= token) low = middle;
    else high = middle - 1;
  }
  return low;
}
