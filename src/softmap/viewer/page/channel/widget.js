// Asking the notebook's kernel, through the widget's own messages: {id, name, params} goes there, {cancel: id} where
// nobody waits any more; {id, ok, json} or {id, ok, dtype, shape} and a buffer comes back.

import { Refusal } from "./http.js";
import { numbersOf, stringsOf } from "./numbers.js";

/**
 * The part of anywidget's model that is used.
 * @typedef {object} Model
 * @property {(event: string, listener: (message: any, buffers: DataView[]) => void) => void} on
 * @property {(event: string, listener: (message: any, buffers: DataView[]) => void) => void} off
 * @property {(message: any) => void} send
 */
/** @typedef {{resolve: (answer: any) => void, reject: (reason: any) => void}} Waiting */

/**
 * @param {Model} model
 * @returns {import("../types").Channel & {close: () => void}}
 */
export function widgetChannel(model) {
  const own = Math.random().toString(36).slice(2); // the same widget may be shown in several places
  let count = 0;
  /** @type {Map<string, Waiting>} */
  const waiting = new Map();

  /** @type {(message: any, buffers: DataView[]) => void} */
  function heard(message, buffers) {
    const asked = waiting.get(message.id);
    if (!asked) return;
    waiting.delete(message.id);
    if (!message.ok) asked.reject(new Refusal(message.json.error));
    else asked.resolve(message.dtype ? numbers(message, buffers[0]) : message.json);
  }

  model.on("msg:custom", heard);
  return {
    ask(name, params, signal) {
      return new Promise((resolve, reject) => {
        if (signal?.aborted) return reject(signal.reason);
        const id = `${own}.${count++}`;
        waiting.set(id, { resolve, reject });
        signal?.addEventListener("abort", () => {
          if (!waiting.delete(id)) return;
          model.send({ cancel: id });
          reject(signal.reason);
        });
        model.send({ id, name, params: stringsOf(params) });
      });
    },
    close() {
      model.off("msg:custom", heard);
      for (const [id, { reject }] of waiting) {
        model.send({ cancel: id });
        reject(new DOMException("The widget is shown no more.", "AbortError"));
      }
      waiting.clear();
    },
  };
}

/**
 * @param {{dtype: import("../types").Numbers["dtype"], shape: number[]}} message
 * @param {DataView} view of bytes that may begin anywhere
 * @returns {import("../types").Numbers}
 */
function numbers({ dtype, shape }, view) {
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength).slice();
  return numbersOf(dtype, shape, bytes.buffer);
}
