// The page's state: one object, changed by `set`, and told to who subscribed. What is pointed at is apart from it.

/** @typedef {import("./types").State} State */

/**
 * @param {State} initial
 * @param {(state: State) => State} [possible] makes of a state one all of which is there
 * @returns {import("./types").Store}
 */
export function createStore(initial, possible = (state) => state) {
  let state = possible({ ...initial });
  /** @type {Set<(state: State, changed: Set<keyof State>) => void>} */
  const listeners = new Set();
  return {
    get: () => state,
    set(patch) {
      const next = possible({ ...state, ...patch });
      const names = /** @type {(keyof State)[]} */ (Object.keys(next));
      const changed = new Set(names.filter((name) => !same(state[name], next[name])));
      if (!changed.size) return;
      state = next;
      for (const listener of [...listeners]) listener(state, changed);
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/** @returns {import("./types").Pointer} */
export function createPointer() {
  let pointed = { query: -1, key: -1 };
  /** @type {Set<(pointed: import("./types").Pointed, from: string) => void>} */
  const listeners = new Set();
  return {
    get: () => pointed,
    set(next, from) {
      if (next.query === pointed.query && next.key === pointed.key) return;
      pointed = { ...next };
      for (const listener of [...listeners]) listener(pointed, from);
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/**
 * @param {unknown} one
 * @param {unknown} other
 */
function same(one, other) {
  return one === other || (Array.isArray(one) && Array.isArray(other) && one.join() === other.join());
}
