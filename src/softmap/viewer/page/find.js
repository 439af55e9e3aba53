// Looking for words in a text that is here, as softmap/viewer/texts.py does.

/**
 * The units with which some text begins, in any case, and those whose labels have it in them.
 * @param {string} wanted
 * @param {{text: string, places: [number, number][], labels: string[]}} units where each stands in the text, and how it
 *   is called
 * @param {boolean} words
 */
export function find(wanted, { text, places, labels }, words) {
  const plainly = plain(wanted);
  /** @type {Set<number>} */
  const found = new Set();
  if (!plainly) return [];
  if (!words) labels.forEach((label, i) => label.toLowerCase().includes(plainly) && found.add(i));
  const { searched, starts } = joined(text, places, labels);
  for (let at = searched.indexOf(plainly), unit = 0; at >= 0; at = searched.indexOf(plainly, starts[unit + 1] ?? searched.length + 1)) {
    while (unit + 1 < starts.length && starts[unit + 1] <= at) unit++;
    found.add(unit);
    if (unit + 1 >= starts.length) break;
  }
  return [...found].sort((a, b) => a - b);
}

/**
 * The text in one case with single spaces, and where in it each unit begins.
 * @param {string} text
 * @param {[number, number][]} places
 * @param {string[]} labels
 */
function joined(text, places, labels) {
  let [searched, end, special] = ["", 0, false];
  const starts = places.map(([start, stop], i) => {
    const apart = special || start === stop || text.slice(end, start) !== "";
    // a piece of a character that has been there already adds nothing to the text
    const shown = plain(start < stop ? text.slice(Math.max(start, end), stop) : labels[i]);
    const begins = searched.length + Number(apart);
    searched += apart ? ` ${shown}` : shown;
    [special, end] = [start === stop, Math.max(stop, end)];
    return begins;
  });
  return { searched, starts };
}

/** @param {string} text */
function plain(text) {
  return text.split(/\s+/u).filter(Boolean).join(" ").toLowerCase();
}
