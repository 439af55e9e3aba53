// What is under the pointer: told to the other views, shown in a card, held by a click.

import { isModifier } from "../dom.js";
import { blockAt, unitsOf } from "./geometry.js";

const WAIT = 90; // ms of rest before a block is asked about
const NOTHING = { query: -1, key: -1 };

/** @typedef {import("./geometry.js").Block} Block */
/** @typedef {import("../types").Pixel} Pixel */

/**
 * @param {import("../types").App} app
 * @param {HTMLElement} pane
 * @param {import("./frame.js").Frame} frame
 * @param {() => import("./sides.js").Sides | null} sidesNow
 * @param {ReturnType<typeof import("./card.js").createCard>} card
 * @param {() => void} changed
 */
export function followPointer(app, pane, frame, sidesNow, card, changed) {
  /** @type {Block | null} */
  let block = null;
  const asking = createAsking(app, sidesNow);
  const holding = createAsking(app, sidesNow); // goes on where the pointer leaves what was clicked
  let waiting = 0;
  let place = { x: 0, y: 0 };

  /** @param {{x: number, y: number}} at */
  function blockUnder({ x, y }) {
    const { left, top, scale, zoom } = frame.view();
    return blockAt((y - top) / scale, (x - left) / scale, zoom, frame.size());
  }

  /** @param {Block} of */
  async function tell(of) {
    try {
      const pixel = await asking.ask(of);
      if (named(block) !== named(of)) return;
      card.fill(pixel, of.zoom > 0);
      card.place(place);
      if (of.zoom > 0 && pixel.at) app.pointer.set({ query: pixel.at.query, key: pixel.at.key }, "map");
    } catch (error) {
      app.report(error);
    }
  }

  function leave() {
    clearTimeout(waiting);
    asking.stop();
    card.hide();
    if (!block) return;
    block = null;
    app.pointer.set(NOTHING, "map");
    changed();
  }

  /** @param {{x: number, y: number}} at */
  function point(at) {
    const sides = sidesNow();
    const next = sides && blockUnder(at);
    place = at;
    if (!next) return leave();
    if (named(next) === named(block)) return card.place(at);
    block = next;
    card.hide();
    clearTimeout(waiting);
    waiting = setTimeout(() => void tell(next), WAIT);
    if (next.zoom === 0) app.pointer.set({ query: sides.row.token(next.row), key: sides.key.token(next.column) }, "map");
    changed();
  }

  /** @param {{x: number, y: number}} at */
  async function hold(at) {
    const sides = sidesNow();
    const of = sides && blockUnder(at);
    if (!of) return;
    if (of.zoom === 0) return app.store.set({ query: sides.row.token(of.row), key: sides.key.token(of.column) });
    try {
      const pixel = asking.known(of) ?? (await holding.ask(of));
      if (pixel.at) app.store.set({ query: pixel.at.query, key: pixel.at.key });
    } catch (error) {
      app.report(error);
    }
  }

  const inPane = (/** @type {PointerEvent} */ { clientX, clientY }) => {
    const box = pane.getBoundingClientRect();
    return { x: clientX - box.left, y: clientY - box.top };
  };
  pane.addEventListener("pointermove", (event) => {
    if (event.pointerType === "touch") return;
    if (event.buttons) card.hide();
    else point(inPane(event));
  });
  pane.addEventListener("pointerleave", leave);
  app.root.addEventListener("keydown", (event) => void (isModifier(event) || leave()), { capture: true, signal: app.ended });
  frame.viewer.addHandler("canvas-click", (event) => {
    const { quick, position, pointerType } = /** @type {any} */ (event);
    if (!quick) return;
    if (pointerType === "touch") point(position);
    void hold(position);
  });

  return {
    /** What was known is of another map. */
    forget() {
      asking.forget();
      holding.forget();
      leave();
    },
    /** The map was moved under the pointer. */
    moved() {
      if (block && named(blockUnder(place)) !== named(block)) point(place);
    },
    /** Rows and keys under the pointer, from one up to another. @returns {[number, number, number, number] | null} */
    units() {
      if (!block) return null;
      const { rows, keys } = frame.size();
      return [...unitsOf(block.row, block.zoom, rows), ...unitsOf(block.column, block.zoom, keys)];
    },
  };
}

/** @param {Block | null} block */
const named = (block) => (block ? `${block.zoom}/${block.row}/${block.column}` : "");

/**
 * Asks what is under a pixel, one question at a time; the last answer is kept.
 * @param {import("../types").App} app
 * @param {() => import("./sides.js").Sides | null} sidesNow
 */
function createAsking(app, sidesNow) {
  /** @type {{block: string, pixel: Pixel} | null} */
  let known = null;
  let asked = new AbortController();
  const knownOf = (/** @type {Block} */ block) => (known?.block === named(block) ? known.pixel : null);
  return {
    known: knownOf,
    /** @param {Block} block */
    async ask(block) {
      const before = knownOf(block);
      if (before) return before;
      asked.abort();
      const { signal } = (asked = new AbortController());
      const [{ layer, head }, { sinks }] = [app.store.get(), app.shown()];
      const question = { layer, head, ...block, sinks, words: Number(sidesNow()?.words ?? false) };
      const pixel = /** @type {Pixel} */ (await app.data.ask("pixel", question, signal));
      signal.throwIfAborted();
      known = { block: named(block), pixel };
      return pixel;
    },
    stop: () => asked.abort(),
    forget() {
      known = null;
      asked.abort();
    },
  };
}
