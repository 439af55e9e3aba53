// The lines of a text whose words come piece by piece: guessed for what is not here yet, exact for what is.

import { breakLines } from "./lines.js";
import { createMeasure } from "./measure.js";

const SIZE = 512; // units in a piece
const USUAL = 45; // pixels of a word and the space before it, where it is not here yet

/**
 * @param {import("./types").Units} units
 * @param {{changed: () => void, failed: (error: unknown) => void}} told changed: words have come; break again
 */
export function createLayout(units, told) {
  /** @type {Map<number, import("./lines.js").Piece>} */
  const pieces = new Map();
  /** @type {Map<number, Promise<void>>} */
  const coming = new Map();
  /** @type {ReturnType<typeof createMeasure> | null} */
  let measure = null;
  /** @type {Int32Array} */
  let lines = Int32Array.of(0, units.count);

  /** @param {number} piece */
  async function fetchPiece(piece) {
    const [start, stop] = [piece * SIZE, Math.min((piece + 1) * SIZE, units.count)];
    try {
      await units.load(Math.max(0, start - 1), stop);
      const words = Array.from({ length: stop - start }, (_, i) => units.peek(start + i)).filter((word) => word !== null);
      if (measure) pieces.set(piece, measure(words, start ? units.peek(start - 1) : null));
      told.changed();
    } catch (error) {
      told.failed(error);
    } finally {
      coming.delete(piece);
    }
  }

  return {
    lines: () => lines,
    /** @param {number} unit */
    has: (unit) => pieces.has(Math.floor(unit / SIZE)),
    /** @param {number} width of a line, in pixels */
    breakAt(width) {
      const text = { count: units.count, size: SIZE, piece: (/** @type {number} */ i) => pieces.get(i) };
      lines = breakLines(text, width, Math.max(1, Math.round(width / USUAL)));
    },
    /**
     * Measure everything anew.
     * @param {Element} element in whose font
     */
    useFontOf(element) {
      measure = createMeasure(element);
      pieces.clear();
    },
    /**
     * Fetch the words from one unit to another, and a piece before and after, so that lines are exact where they are seen.
     * @param {number} first
     * @param {number} last
     */
    async need(first, last) {
      const [from, to] = [first, last].map((unit) => Math.floor(unit / SIZE));
      const wanted = [];
      for (let piece = Math.max(0, from - 1); piece <= to + 1 && piece * SIZE < units.count; piece++) {
        if (pieces.has(piece)) continue;
        const asked = coming.get(piece) ?? fetchPiece(piece);
        coming.set(piece, asked);
        wanted.push(asked);
      }
      await Promise.all(wanted);
    },
  };
}
