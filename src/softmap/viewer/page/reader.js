// A text of any length, of which only the lines on screen are in the document. It shades words and marks some.

import { el, eachFrame } from "./dom.js";
import { createLayout } from "./layout.js";
import { endsLine, indent, lineOf } from "./lines.js";

const SPARE = 6; // lines drawn above and below what is seen
const EDGE = 14; // left and right of the lines, in pixels, as in text.css
const STRONGEST = 0.62; // how opaque the shade of the largest weight is: the word on it stays easy to read

/** @typedef {ReturnType<typeof createReader>} Reader */

/**
 * @param {import("./types").Units} units
 * @param {{drawn: () => void, laid: () => void, failed: (error: unknown) => void}} told
 */
export function createReader(units, told) {
  const sheet = el("div", { className: "lines" });
  const element = el("div", { className: "reader", tabIndex: 0, role: "region" }, sheet);
  const layout = createLayout(units, { changed: eachFrame(lay), failed: told.failed });
  const paper = createPaper(units, layout, element, sheet);
  let width = 0;
  let place = 0; // how far it is scrolled, which an element forgets while it is not in the document
  let away = false;
  let moves = 0; // a later one ends what was on its way: the reader's own hand is not worked against

  /** Break the text anew, and keep in place what is at the top. */
  function lay() {
    const [before, tall] = [layout.lines(), paper.height()];
    const line = Math.min(Math.floor(element.scrollTop / tall), before.length - 1);
    const rest = element.scrollTop - line * tall;
    layout.breakAt(width);
    sheet.style.height = `${(layout.lines().length - 1) * tall}px`;
    if (line > 0) element.scrollTop = lineOf(layout.lines(), before[line]) * tall + rest;
    paper.clear();
    draw();
    told.laid();
  }

  function resize() {
    const next = element.clientWidth - 2 * EDGE;
    const tall = parseFloat(getComputedStyle(sheet).lineHeight);
    if (next <= 0) away = true;
    if (next > 0 && away) {
      away = false;
      element.scrollTop = place;
      draw();
    }
    if (next <= 0 || (next === width && tall === paper.height())) return;
    if (tall !== paper.height()) layout.useFontOf(sheet);
    paper.setHeight(tall);
    width = next;
    lay();
  }

  function draw() {
    if (width <= 0 || away) return;
    place = element.scrollTop;
    const [first, last] = paper.draw();
    void layout.need(layout.lines()[first], Math.max(0, layout.lines()[last] - 1));
    told.drawn();
  }

  element.addEventListener("scroll", eachFrame(() => element.isConnected && draw()), { passive: true });
  for (const type of ["wheel", "pointerdown"]) element.addEventListener(type, () => void moves++, { passive: true });
  new ResizeObserver(eachFrame(resize)).observe(element);

  return {
    element,
    units,
    lines: layout.lines,
    shade: paper.shade,
    mark: paper.mark,
    /**
     * Scroll so that a unit is seen; not at all if it is.
     * @param {number | Promise<number>} wanted
     */
    async show(wanted) {
      const mine = ++moves;
      const unit = await wanted;
      resize();
      if (width <= 0) return;
      await layout.need(unit, unit);
      if (mine !== moves) return;
      lay();
      const top = lineOf(layout.lines(), unit) * paper.height();
      const room = element.clientHeight;
      const seen = top >= element.scrollTop && top + 1.5 * paper.height() <= element.scrollTop + room;
      if (!seen) element.scrollTop = top - 0.4 * room;
      draw();
    },
    /** @param {number} share of the text, from 0 to 1, to have in the middle */
    jump(share) {
      moves++;
      element.scrollTop = share * sheet.offsetHeight - element.clientHeight / 2;
    },
    /**
     * The unit in the line above or below that is nearest to straight so.
     * @param {number} unit
     * @param {1 | -1} step
     */
    beside(unit, step) {
      const lines = layout.lines();
      let line = lineOf(lines, unit) + step;
      while (line >= 0 && line < lines.length - 1 && lines[line] === lines[line + 1]) line += step;
      if (line < 0 || line >= lines.length - 1) return unit;
      const [here, others] = [paper.left(unit), Array.from({ length: lines[line + 1] - lines[line] }, (_, i) => lines[line] + i)];
      const far = (/** @type {number} */ other) => Math.abs(paper.left(other) - here);
      return others.reduce((best, other) => (far(other) < far(best) ? other : best));
    },
    /** What part of the text is seen. @returns {[number, number]} */
    seen() {
      const all = Math.max(1, sheet.offsetHeight);
      return [element.scrollTop / all, Math.min(1, (element.scrollTop + element.clientHeight) / all)];
    },
  };
}

/**
 * The lines that are drawn, and the words on them.
 * @param {import("./types").Units} units
 * @param {ReturnType<typeof createLayout>} layout
 * @param {HTMLElement} element that scrolls
 * @param {HTMLElement} sheet that the lines lie on
 */
function createPaper(units, layout, element, sheet) {
  const tag = el("span", { className: "tag", "aria-hidden": "true", hidden: true });
  /** @type {Map<number, HTMLElement>} */
  const shown = new Map();
  /** @type {Map<number, HTMLElement>} */
  const spans = new Map();
  let height = 0;
  /** @type {Float32Array | null} */
  let shades = null;
  /** @type {{classes: Map<number, string>, tag: {unit: number, text: string} | null}} */
  let marks = { classes: new Map(), tag: null };
  sheet.append(tag);

  /** @param {number} line */
  function drawLine(line) {
    const made = el("div", { className: "line" });
    const [first, stop] = layout.lines().slice(line, line + 2);
    made.style.top = `${line * height}px`;
    made.classList.toggle("long", stop === first + 1);
    for (let unit = first; unit < stop; unit++) {
      const word = layout.has(unit) ? units.peek(unit) : null;
      if (!word) continue;
      if (unit > first || unit === 0 || endsLine(word.gap)) made.append(indent(word.gap));
      const span = el("span", { className: "unit", "data-unit": unit }, word.label);
      span.classList.toggle("chip", word.special);
      span.classList.toggle("left", unit === first || apart(word, units.peek(unit - 1)));
      span.classList.toggle("right", unit === stop - 1 || apart(units.peek(unit + 1), word));
      spans.set(unit, span);
      paint(unit, span);
      made.append(span);
    }
    shown.set(line, made);
    sheet.append(made);
  }

  /**
   * @param {number} unit
   * @param {HTMLElement} span
   */
  function paint(unit, span) {
    const shade = shades?.[unit] ?? 0;
    span.style.backgroundColor = shade > 0.004 ? `rgb(var(--shade) / ${(STRONGEST * shade).toFixed(3)})` : "";
    span.classList.toggle("strong", shade > 0.3);
    span.dataset.mark = marks.classes.get(unit) ?? "";
  }

  /** Put the number beside its word. */
  function place() {
    const at = marks.tag && spans.get(marks.tag.unit);
    tag.hidden = !at;
    if (!at || !marks.tag) return;
    tag.textContent = marks.tag.text;
    const top = /** @type {HTMLElement} */ (at.parentElement).offsetTop;
    tag.style.top = `${top > element.scrollTop + height ? top - 0.7 * height : top + height}px`;
    tag.style.left = `${Math.max(4, Math.min(at.offsetLeft + EDGE, element.clientWidth - tag.offsetWidth - 6))}px`;
  }

  const repaint = eachFrame(() => {
    for (const [unit, span] of spans) paint(unit, span);
    place();
  });

  return {
    height: () => height,
    /** @param {number} next */
    setHeight: (next) => void (height = next),
    /** @param {number} unit */
    left: (unit) => spans.get(unit)?.offsetLeft ?? 0,
    clear() {
      for (const each of shown.values()) each.remove();
      shown.clear();
      spans.clear();
    },
    /** Draw what is seen, drop what is not. @returns {[number, number]} the first line drawn, and one past the last */
    draw() {
      const lines = layout.lines();
      const first = Math.max(0, Math.floor(element.scrollTop / height) - SPARE);
      const last = Math.min(lines.length - 1, Math.ceil((element.scrollTop + element.clientHeight) / height) + SPARE);
      for (const [line, each] of shown) {
        if (line >= first && line < last) continue;
        for (let unit = lines[line]; unit < lines[line + 1]; unit++) spans.delete(unit);
        each.remove();
        shown.delete(line);
      }
      for (let line = first; line < last; line++) if (!shown.has(line)) drawLine(line);
      place();
      return [first, Math.max(first, last)];
    },
    /** @param {Float32Array | null} next from 0 to 1, of all units */
    shade(next) {
      shades = next;
      repaint();
    },
    /** @param {typeof marks} next words by their marks, and a number beside one */
    mark(next) {
      marks = next;
      repaint();
    },
  };
}

/**
 * Whether there is room for shades between a unit and the one before.
 * @param {import("./types").Unit | null} word
 * @param {import("./types").Unit | null} before
 */
function apart(word, before) {
  return !word || !before || word.gap !== "" || word.special || before.special;
}

/**
 * The unit that an event is about; -1 for none.
 * @param {Event} event
 */
export function unitOf(event) {
  const at = event.target instanceof HTMLElement ? event.target.closest("[data-unit]") : null;
  return at ? Number(at.getAttribute("data-unit")) : -1;
}
