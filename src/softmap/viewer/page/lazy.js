// The attention of one head, computed where it is looked at, as softmap/matrix does: nothing of size queries x keys.
//
//   score = q · k      scaled = softcap(score · scale) + bias, −∞ where masked      weight = exp(scaled − logsumexp)

/** @typedef {import("./types").Sinks} Sinks */
/** @typedef {import("./types").How} How */

/**
 * The keys that each query sees: runs `first[i]` to `first[i + 1]` are query i's, and a run goes from `edges[2 * run]`
 * to before `edges[2 * run + 1]`.
 * @typedef {{first: Int32Array, edges: Int32Array}} Runs
 */

/**
 * What is added to the scaled scores: a number for each distance key − query from 1 − queries on, or for each place.
 * @typedef {{values: Float32Array, byDistance: boolean}} Bias
 */

/**
 * One head's ingredients. A row's logsumexp is `peak` + `above`, apart since huge scores would swallow the second; `peak`
 * is NaN where it is not known yet. `left` marks the keys that are left out where sinks are not shown.
 * @typedef {object} Head
 * @property {number} queries
 * @property {number} keys
 * @property {number} size of one query, and of one key
 * @property {Float32Array} q
 * @property {Float32Array} k
 * @property {number} scale
 * @property {number | null} softcap
 * @property {number | null} sink a learnt logit that takes a share of every row
 * @property {Runs} runs
 * @property {Bias | null} bias
 * @property {{all: Float64Array, rest: Float64Array}} peak of all keys, and of those that are not left out
 * @property {{all: Float64Array, rest: Float64Array}} above
 * @property {Uint8Array} left
 */

/**
 * A head of which only the weights are known: NaN where the query may not see the key.
 * @typedef {object} Weights
 * @property {number} queries
 * @property {number} keys
 * @property {Float64Array} weights of all queries, one row after the other
 * @property {Uint8Array} left
 */

/** @typedef {Head | Weights} Weighed */

/**
 * Words or tokens: unit u is made of the tokens `starts[u]` to before `starts[u + 1]`.
 * @typedef {{rows: Int32Array, keys: Int32Array}} Sides
 */

/**
 * A block of the map, in units: rows from `top` to before `bottom`, keys from `left` to before `right`.
 * @typedef {{top: number, bottom: number, left: number, right: number}} Block
 */

export const TILE = 256; // pixels of a side
const PAUSE = 12; // milliseconds of work before the page may do something else

/**
 * Step 1 of one place.
 * @param {Head} head
 * @param {number} query
 * @param {number} key
 */
export function scoreAt({ q, k, size }, query, key) {
  let sum = 0;
  for (let n = 0, a = query * size, b = key * size; n < size; n++) sum += q[a + n] * k[b + n];
  return sum;
}

/**
 * Step 2 of one place, as if the query saw the key.
 * @param {Head} head
 * @param {number} query
 * @param {number} key
 */
function scaledSeen(head, query, key) {
  const scaled = scoreAt(head, query, key) * head.scale;
  const capped = head.softcap === null ? scaled : head.softcap * Math.tanh(scaled / head.softcap);
  return head.bias === null ? capped : capped + biasAt(head, query, key);
}

/**
 * @param {Head} head
 * @param {number} query
 * @param {number} key
 */
function biasAt({ bias, queries, keys }, query, key) {
  if (!bias) return 0;
  return bias.values[bias.byDistance ? key - query + queries - 1 : query * keys + key];
}

/**
 * Step 2 of one place: −∞ where the query may not see the key.
 * @param {Head} head
 * @param {number} query
 * @param {number} key
 */
export function scaledAt(head, query, key) {
  return isSeen(head, query, key) ? scaledSeen(head, query, key) : -Infinity;
}

/**
 * Whether the mask lets a query see a key.
 * @param {Head} head
 * @param {number} query
 * @param {number} key
 */
export function isSeen({ runs: { first, edges } }, query, key) {
  for (let run = first[query]; run < first[query + 1]; run++) {
    if (key >= edges[2 * run] && key < edges[2 * run + 1]) return true;
  }
  return false;
}

/**
 * Step 2 of some keys of a row: NaN where the query may not see the key.
 * @param {Head} head
 * @param {number} query
 * @param {number} from
 * @param {number} to
 * @param {Float64Array} out
 */
function scaledRow(head, query, from, to, out) {
  out.fill(NaN, 0, to - from);
  const { first, edges } = head.runs;
  for (let run = first[query]; run < first[query + 1]; run++) {
    const stop = Math.min(edges[2 * run + 1], to);
    for (let key = Math.max(edges[2 * run], from); key < stop; key++) out[key - from] = scaledSeen(head, query, key);
  }
}

/**
 * A row's logsumexp: of all keys that the query sees, or of those that are not left out; a learnt sink included.
 * @param {Head} head
 * @param {number} query
 * @param {"all" | "rest"} of
 */
export function logsumexp(head, query, of) {
  const [peak, above] = partsOf(head, query, of);
  return peak + above;
}

/**
 * A row's peak, and what its logsumexp is above that.
 * @param {Head} head
 * @param {number} query
 * @param {"all" | "rest"} of
 */
function partsOf(head, query, of) {
  const [peaks, above] = [head.peak[of], head.above[of]];
  if (!Number.isNaN(peaks[query])) return [peaks[query], above[query]];
  const row = new Float64Array(head.keys);
  scaledRow(head, query, 0, head.keys, row);
  const seen = row.filter((value, key) => !Number.isNaN(value) && (of === "all" || head.left[key] === 0));
  const sink = head.sink ?? -Infinity;
  const peak = seen.reduce((largest, value) => Math.max(largest, value), sink);
  if (peak > -Infinity) above[query] = Math.log(seen.reduce((sum, value) => sum + Math.exp(value - peak), Math.exp(sink - peak)));
  return [(peaks[query] = peak), above[query]];
}

/**
 * Step 3 of some keys of a row: NaN where the query may not see the key, and where it is left out.
 * @param {Weighed} head
 * @param {number} query
 * @param {number} from
 * @param {number} to
 * @param {Sinks} sinks
 * @param {Float64Array} out
 */
export function weightsRow(head, query, from, to, sinks, out) {
  if ("weights" in head) return knownRow(head, query, from, to, sinks, out);
  scaledRow(head, query, from, to, out);
  const [peak, above] = partsOf(head, query, sinks === "rescaled" ? "rest" : "all");
  for (let key = from; key < to; key++) {
    const scaled = out[key - from];
    const hidden = Number.isNaN(scaled) || (sinks !== "shown" && head.left[key] === 1);
    out[key - from] = hidden ? NaN : scaled === -Infinity ? 0 : Math.exp(scaled - peak - above);
  }
}

/**
 * The same, where the weights are known; but not what they would be without the others.
 * @param {Weights} head
 * @param {number} query
 * @param {number} from
 * @param {number} to
 * @param {Sinks} sinks
 * @param {Float64Array} out
 */
function knownRow({ keys, weights, left }, query, from, to, sinks, out) {
  for (let key = from; key < to; key++) out[key - from] = sinks !== "shown" && left[key] ? NaN : weights[query * keys + key];
}

/**
 * Step 3 of one place: 0 where the query may not see the key.
 * @param {Head} head
 * @param {number} query
 * @param {number} key
 */
export function weightAt(head, query, key) {
  const scaled = scaledAt(head, query, key);
  const [peak, above] = partsOf(head, query, "all");
  return scaled === -Infinity ? 0 : Math.exp(scaled - peak - above);
}

/**
 * How a unit looks at some others: to a word the sum over its pieces, from a word the mean over its own. NaN where none
 * of its pieces may see any of the other's, or where those are left out.
 * @param {Weighed} head
 * @param {Sides} sides
 * @param {number} unit
 * @param {number} left
 * @param {number} right
 * @param {Sinks} sinks
 * @returns {Float64Array}
 */
export function unitRow(head, sides, unit, left, right, sinks) {
  const [from, to] = [sides.keys[left], sides.keys[right]];
  const found = new Float64Array(right - left).fill(NaN);
  const row = new Float64Array(to - from);
  const pieces = sides.rows[unit + 1] - sides.rows[unit];
  for (let query = sides.rows[unit]; query < sides.rows[unit + 1]; query++) {
    weightsRow(head, query, from, to, sinks, row);
    for (let other = left; other < right; other++) {
      for (let key = sides.keys[other]; key < sides.keys[other + 1]; key++) {
        const weight = row[key - from] / pieces;
        if (!Number.isNaN(weight)) found[other - left] = (found[other - left] || 0) + weight;
      }
    }
  }
  return found;
}

/**
 * How all units look at one: a column.
 * @param {Weighed} head
 * @param {Sides} sides
 * @param {number} unit
 * @param {Sinks} sinks
 * @param {() => Promise<void>} pause
 */
export async function unitColumn(head, sides, unit, sinks, pause) {
  const column = new Float64Array(sides.rows.length - 1);
  for (let row = 0; row < column.length; row++) {
    [column[row]] = unitRow(head, sides, row, unit, unit + 1, sinks);
    if (row % 64 === 0) await pause();
  }
  return column;
}

/**
 * Add what each key receives to what is there.
 * @param {Weighed} head
 * @param {Sinks} sinks
 * @param {Float64Array} total
 * @param {() => Promise<void>} pause
 */
export async function addRows(head, sinks, total, pause) {
  const row = new Float64Array(head.keys);
  for (let query = 0; query < head.queries; query++) {
    weightsRow(head, query, 0, head.keys, sinks, row);
    for (let key = 0; key < row.length; key++) total[key] += row[key] || 0;
    await pause();
  }
}

/**
 * The keys that any query may see, and that are not left out.
 * @param {Weighed} head
 * @param {Sinks} sinks
 */
export function seenKeys(head, sinks) {
  const { left } = head;
  const seen = "weights" in head ? keysOfWeights(head) : keysOfRuns(head);
  return seen.map((some, key) => Number(some && (sinks === "shown" || left[key] === 0)));
}

/** @param {Weights} head */
function keysOfWeights({ weights, queries, keys }) {
  return Uint8Array.from({ length: keys }, (_, key) => {
    for (let query = 0; query < queries; query++) if (!Number.isNaN(weights[query * keys + key])) return 1;
    return 0;
  });
}

/** @param {Head} head */
function keysOfRuns({ runs: { edges }, keys }) {
  const turns = new Int32Array(keys + 1);
  for (let run = 0; run < edges.length; run += 2) {
    turns[edges[run]]++;
    turns[edges[run + 1]]--;
  }
  let open = 0;
  return Uint8Array.from({ length: keys }, (_, key) => {
    open += turns[key];
    return Number(open > 0);
  });
}

/**
 * A block of weights as fewer numbers: the maximum or the mean of each 2^zoom x 2^zoom of them. A mean counts what may
 * not be seen as 0; where nothing may be seen there is NaN.
 * @param {Weighed} head
 * @param {Sides} sides
 * @param {Block} block
 * @param {{zoom: number, how: How, sinks: Sinks}} options
 * @param {() => Promise<void>} pause
 * @returns {Promise<{shape: [number, number], data: Float64Array}>}
 */
export async function reduced(head, sides, { top, bottom, left, right }, { zoom, how, sinks }, pause) {
  const cell = 2 ** zoom;
  const [height, width] = [Math.ceil((bottom - top) / cell), Math.ceil((right - left) / cell)];
  const data = new Float64Array(height * width).fill(NaN);
  for (let y = 0; y < height; y++) {
    const line = data.subarray(y * width, (y + 1) * width);
    const [first, last] = [top + y * cell, Math.min(top + (y + 1) * cell, bottom)];
    for (let unit = first; unit < last; unit++) {
      gather(line, unitRow(head, sides, unit, left, right, sinks), cell, how);
      await pause();
    }
    if (how === "mean") line.forEach((_, x) => (line[x] /= (last - first) * Math.min(cell, right - left - x * cell)));
  }
  return { shape: [height, width], data };
}

/**
 * Add a row to the pixels that it lies in, or take its largest numbers.
 * @param {Float64Array} line
 * @param {Float64Array} row
 * @param {number} cell
 * @param {How} how
 */
function gather(line, row, cell, how) {
  for (let i = 0; i < row.length; i++) {
    if (Number.isNaN(row[i])) continue;
    const x = Math.floor(i / cell);
    if (how === "mean") line[x] = (line[x] || 0) + row[i];
    else if (!(line[x] >= row[i])) line[x] = row[i];
  }
}

/**
 * What can be said of one block: its mean, its largest weight, and where that is, in units; null where nothing may be
 * seen.
 * @param {Weighed} head
 * @param {Sides} sides
 * @param {Block} block
 * @param {Sinks} sinks
 * @param {() => Promise<void>} pause
 */
export async function summed(head, sides, { top, bottom, left, right }, sinks, pause) {
  let [total, max, at] = [0, -1, /** @type {[number, number] | null} */ (null)];
  for (let unit = top; unit < bottom; unit++) {
    unitRow(head, sides, unit, left, right, sinks).forEach((weight, i) => {
      if (Number.isNaN(weight)) return;
      total += weight;
      if (weight > max) [max, at] = [weight, [unit, left + i]];
    });
    await pause();
  }
  return at ? { mean: total / ((bottom - top) * (right - left)), max, at } : { mean: null, max: null, at };
}

/**
 * The units under a tile, or under one pixel.
 * @param {{row: number, column: number, zoom: number}} place
 * @param {Sides} sides
 * @param {number} [pixels] of a side
 * @returns {Block}
 */
export function blockUnder({ row, column, zoom }, sides, pixels = TILE) {
  const cell = pixels * 2 ** zoom;
  const [rows, keys] = [sides.rows.length - 1, sides.keys.length - 1];
  return {
    top: Math.min(row * cell, rows),
    bottom: Math.min((row + 1) * cell, rows),
    left: Math.min(column * cell, keys),
    right: Math.min((column + 1) * cell, keys),
  };
}

/**
 * Lets the page do something else where work takes long, and ends it where nobody waits for it any more.
 * @param {AbortSignal} [signal]
 * @returns {() => Promise<void>}
 */
export function pauses(signal) {
  let since = performance.now();
  return async () => {
    if (performance.now() - since > PAUSE) {
      await new Promise((resolve) => setTimeout(resolve));
      since = performance.now();
    }
    signal?.throwIfAborted();
  };
}
