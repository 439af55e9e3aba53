// Breaks a text into lines without laying it out: from the widths of its words, and a guess for what is not here yet.
// A line is given by its first unit; one that holds none (a blank line, or the rest of a very long word) begins with
// the same unit as the line after it. So the line of a unit is the last that begins at it or before.

/**
 * A stretch of units, measured.
 * @typedef {object} Piece
 * @property {Float32Array} widths of the units
 * @property {Float32Array} gaps widths of the white space before them, after its last line break
 * @property {Uint16Array} breaks 0: no line may end before the unit; 1: one may; 1 + n: n lines do
 */

const GLUED_BEFORE = /^[\p{Pe}\p{Pf},.;:!?%'’…、。，！？；：]/u;
const WIDE = /\p{Script=Han}|\p{Script=Hiragana}|\p{Script=Katakana}|\p{Script=Thai}/u;
const SPACE_OF_TOKEN = /^[␣⏎␍⇥▁Ġ\s]/u;
const LINE_ENDS = /\r\n|[\n\r\u2028\u2029\v\f]/g;

/**
 * Whether a line may end, or ends, before a unit: see Piece.breaks.
 * @param {import("./types").Unit | null} before
 * @param {import("./types").Unit} here
 */
export function breakBefore(before, here) {
  const ends = here.gap.match(LINE_ENDS)?.length ?? 0;
  if (ends) return 1 + Math.min(ends, 1000);
  if (!before) return 1;
  if (here.gap || before.special || here.special || SPACE_OF_TOKEN.test(here.label)) return 1;
  if (GLUED_BEFORE.test(here.label)) return 0;
  return WIDE.test(here.label[0]) || WIDE.test(before.label.slice(-1)) ? 1 : 0;
}

/**
 * The white space shown before a unit: of a gap with line breaks, what comes after the last.
 * @param {string} gap
 */
export function indent(gap) {
  return (gap.split(LINE_ENDS).pop() ?? "").replace(/\t/g, "    ");
}

/**
 * Whether a line ends in the white space before a unit.
 * @param {string} gap
 */
export function endsLine(gap) {
  return gap.search(LINE_ENDS) >= 0;
}

/**
 * The first unit of each line, and at the end the number of units.
 * @param {object} text
 * @param {number} text.count units
 * @param {number} text.size units in a piece
 * @param {(piece: number) => Piece | undefined} text.piece those that are here
 * @param {number} width of a line
 * @param {number} guessed units in a line of a piece that is not here
 * @returns {Int32Array}
 */
export function breakLines({ count, size, piece }, width, guessed) {
  const lines = [0];
  let x = 0;
  for (let start = 0; start < count; start += size) {
    const stop = Math.min(start + size, count);
    const measured = piece(start / size);
    if (measured) {
      if (x < 0) lines.push(start);
      x = breakPiece(lines, measured, start, Math.max(x, 0), width);
    } else {
      for (let unit = start; unit < stop; unit += Math.max(1, guessed)) if (unit) lines.push(unit);
      x = -1;
    }
  }
  lines.push(count);
  return Int32Array.from(lines);
}

/**
 * @param {number[]} lines to which those of the piece are added
 * @param {Piece} piece
 * @param {number} first its first unit
 * @param {number} x where the line so far ends
 * @param {number} width
 */
function breakPiece(lines, { widths, gaps, breaks }, first, x, width) {
  for (let i = 0; i < widths.length; i++) {
    if (breaks[i] > 1) {
      for (let n = 1; n < breaks[i]; n++) lines.push(first + i);
      x = gaps[i];
    } else if (x > 0 && x + gaps[i] + together(widths, breaks, i, width) > width) {
      lines.push(first + i);
      x = 0;
    } else {
      x += gaps[i];
    }
    for (let more = linesOf(widths[i], width); more > 1; more--) lines.push(first + i + 1);
    x += widths[i];
  }
  return x;
}

/**
 * How wide a unit is with those that may not be parted from it; alone where they would not fit a line anyway.
 * @param {Float32Array} widths
 * @param {Uint16Array} breaks
 * @param {number} i
 * @param {number} width of a line
 */
function together(widths, breaks, i, width) {
  if (breaks[i] === 0) return widths[i];
  let all = widths[i];
  for (let j = i + 1; j < widths.length && breaks[j] === 0; j++) all += widths[j];
  return all > width ? widths[i] : all;
}

/**
 * Lines that one very long word takes, with room for the character that does not fit at each end.
 * @param {number} wide
 * @param {number} width
 */
function linesOf(wide, width) {
  return wide <= width ? 1 : Math.ceil(wide / Math.max(width - 24, 24));
}

/**
 * The line that a unit is in.
 * @param {Int32Array} lines
 * @param {number} unit
 */
export function lineOf(lines, unit) {
  let [low, high] = [0, lines.length - 2];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (lines[middle] <= unit) low = middle;
    else high = middle - 1;
  }
  return low;
}

/**
 * The largest of the values of each of so many equal parts of a text, by its lines.
 * @param {Int32Array} lines
 * @param {Float32Array} values of all units
 * @param {number} rows
 */
export function heatOf(lines, values, rows) {
  const heat = new Float32Array(rows);
  const all = lines.length - 1;
  for (let line = 0; line < all; line++) {
    const from = Math.floor((line / all) * rows);
    const to = Math.max(from + 1, Math.floor(((line + 1) / all) * rows));
    let largest = 0;
    for (let unit = lines[line]; unit < lines[line + 1]; unit++) if (values[unit] > largest) largest = values[unit];
    for (let row = from; row < to; row++) if (largest > heat[row]) heat[row] = largest;
  }
  return heat;
}
