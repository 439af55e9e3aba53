// Where the words of the sentence view stand, and how its lines run. Numbers only: nothing here touches the page.

/**
 * A word's place. Turned words read upwards. Lines start at `start` and end at `end`.
 * @typedef {object} Place
 * @property {number} x of the word
 * @property {number} y
 * @property {"start" | "middle" | "end"} anchor
 * @property {boolean} turned
 * @property {{x: number, y: number, anchor: "start" | "middle" | "end"}} number where its percentage stands
 * @property {{x: number, y: number, width: number, height: number}} box what may be pointed at
 */

/**
 * @typedef {object} Layout
 * @property {number} width
 * @property {number} height
 * @property {Place[]} rows
 * @property {Place[]} keys
 * @property {number} thickest the width of a line of weight 1
 * @property {number} longest the most width for a word
 * @property {(row: number, key: number, shift: number) => string} path shift: from -1 to 1, beside other heads' lines
 */

const PAD = 12;
const HEADING = 26; // over the columns
const NUMBER = 58; // room for a percentage

/**
 * Two columns of words.
 * @param {number[]} rows widths of the words
 * @param {number[]} keys
 * @param {{width: number, height: number}} room
 * @returns {Layout}
 */
export function columns(rows, keys, room) {
  const most = Math.max(rows.length, keys.length);
  const pitch = Math.min(Math.max((room.height - HEADING) / most, 18), 66);
  const longest = Math.max(40, (room.width - 2 * (PAD + NUMBER)) * 0.32);
  const left = PAD + NUMBER + Math.min(Math.max(...rows), longest);
  const right = room.width - PAD - NUMBER - Math.min(Math.max(...keys), longest);
  const y = (/** @type {number} */ i, /** @type {number} */ count) => HEADING + pitch * (i + 0.5 + (most - count) / 2);
  /** @returns {Place} */
  const place = (/** @type {number} */ i, /** @type {boolean} */ looks) => {
    const at = y(i, looks ? rows.length : keys.length);
    return {
      x: looks ? left : right,
      y: at,
      anchor: looks ? "end" : "start",
      turned: false,
      number: { x: looks ? PAD : room.width - PAD, y: at, anchor: looks ? "start" : "end" },
      box: {
        x: looks ? 3 : right - 6,
        y: at - pitch / 2 + 1,
        width: looks ? left + 3 : room.width - right + 3,
        height: pitch - 2,
      },
    };
  };
  const spread = Math.min(pitch * 0.3, 10);
  return {
    width: room.width,
    height: HEADING + pitch * most,
    rows: rows.map((_, i) => place(i, true)),
    keys: keys.map((_, j) => place(j, false)),
    thickest: Math.min(pitch * 0.6, 12),
    longest,
    path(row, key, shift) {
      const [from, to] = [y(row, rows.length) + shift * spread, y(key, keys.length) + shift * spread];
      const [x1, x2] = [left + 9, right - 9];
      const middle = (x1 + x2) / 2;
      return `M${round(x1)} ${round(from)}C${round(middle)} ${round(from)} ${round(middle)} ${round(to)} ${round(x2)} ${round(to)}`;
    },
  };
}

/**
 * One line of words, arcs over it for what lies before a word, under it for what lies after. Words that do not fit
 * beside each other are turned.
 * @param {number[]} words their widths
 * @param {boolean} ahead whether anything is looked at ahead
 * @param {{width: number, height: number}} room
 * @returns {Layout}
 */
export function arcs(words, ahead, room) {
  const total = words.reduce((sum, width) => sum + width, 0);
  const gap = (room.width - 2 * PAD - total) / words.length;
  const turned = gap < 14;
  const xs = turned
    ? evenly(words.length, Math.max(16, (room.width - 2 * PAD) / words.length))
    : spaced(words, Math.min(gap, 44), room.width);
  const width = turned ? Math.max(room.width, 2 * PAD + 16 * words.length) : room.width;
  const longest = turned ? 120 : Infinity;
  const band = turned ? Math.min(Math.max(...words), longest) + 16 + NUMBER : 44;
  const reach = Math.max(xs[xs.length - 1] - xs[0], 1);
  const free = Math.max(60, room.height - band - 2 * PAD) / (ahead ? 2 : 1);
  const tallest = Math.min(free, reach / 2 + 8, 260);
  const top = PAD + 18 + tallest;
  const bottom = top + band;
  /** @type {Place[]} */
  const places = xs.map((x, i) => ({
    x,
    y: turned ? top + 6 : top + 15,
    anchor: turned ? "end" : "middle",
    turned,
    number: { x, y: turned ? bottom - 6 : top + 33, anchor: turned ? "start" : "middle" },
    box: boxOf(x, turned ? (xs[1] ?? 30) - xs[0] || 30 : words[i] + 12, top, band),
  }));
  return {
    width,
    height: bottom + (ahead ? tallest : 0) + PAD,
    rows: places,
    keys: places,
    thickest: turned ? 7 : 10,
    longest,
    path(row, key, shift) {
      const aside = shift * Math.min(4, turned ? 3 : 6);
      const [from, to] = [xs[row] + aside, xs[key] + aside];
      if (row === key) return `M${round(from - 5)} ${round(top)}c-11 -26 21 -26 10 0`;
      const under = key > row;
      const y = under ? bottom : top;
      const high = Math.max(12, (tallest * Math.abs(to - from)) / reach) * (4 / 3) * (under ? 1 : -1);
      return `M${round(from)} ${round(y)}C${round(from)} ${round(y + high)} ${round(to)} ${round(y + high)} ${round(to)} ${round(y)}`;
    },
  };
}

/**
 * The lines of a head whose weights are at least `least`, those of about the same weight as one path: a drawing of
 * some hundred paths where there are many thousand lines.
 * @param {ArrayLike<number>} weights rows x keys, NaN where there is none
 * @param {Layout} layout
 * @param {{shift: number, least: number}} options
 * @returns {{weight: number, d: string}[]} the lightest first
 */
export function bundles(weights, layout, { shift, least }) {
  const steps = 24;
  /** @type {string[][]} */
  const paths = Array.from({ length: steps + 1 }, () => []);
  const keys = layout.keys.length;
  for (let row = 0; row < layout.rows.length; row++) {
    for (let key = 0; key < keys; key++) {
      const weight = weights[row * keys + key];
      if (weight >= least) paths[Math.round(Math.min(weight, 1) * steps)].push(layout.path(row, key, shift));
    }
  }
  return paths.map((lines, i) => ({ weight: Math.max(i, 0.5) / steps, d: lines.join("") })).filter(({ d }) => d);
}

/**
 * How a line of some weight is drawn.
 * @param {number} weight
 * @param {Layout} layout
 */
export function stroke(weight, layout) {
  return {
    "stroke-width": round(0.5 + layout.thickest * weight),
    "stroke-opacity": round(0.06 + 0.8 * Math.sqrt(weight)),
  };
}

/**
 * @param {number} x
 * @param {number} width
 * @param {number} y
 * @param {number} height
 */
function boxOf(x, width, y, height) {
  return { x: x - width / 2, y, width, height };
}

/**
 * @param {number} count
 * @param {number} pitch
 */
function evenly(count, pitch) {
  return Array.from({ length: count }, (_, i) => PAD + pitch * (i + 0.5));
}

/**
 * Middles of words beside each other, in the middle of the room.
 * @param {number[]} words
 * @param {number} gap
 * @param {number} width
 */
function spaced(words, gap, width) {
  const total = words.reduce((sum, each) => sum + each + gap, 0);
  let x = (width - total) / 2;
  return words.map((each) => {
    const middle = x + (each + gap) / 2;
    x += each + gap;
    return middle;
  });
}

/** @param {number} value */
function round(value) {
  return Math.round(value * 100) / 100;
}
