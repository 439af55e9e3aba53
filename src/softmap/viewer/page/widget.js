// The page in a notebook's cell: anywidget calls `render` at each place where the widget is shown.

import { widgetChannel } from "./channel/widget.js";
import { el as make } from "./dom.js";
import { mount } from "./main.js";

const HEIGHT = 560; // pixels

/**
 * @param {{model: import("./channel/widget").Model, el: HTMLElement}} place
 * @returns {() => void} what takes it away again
 */
export function render({ model, el }) {
  const channel = widgetChannel(model);
  const ended = new AbortController();
  const root = make("div", { "data-lm-suppress-shortcuts": "true" }); // keys pressed in it are not the notebook's
  Object.assign(root.style, { height: `${HEIGHT}px`, border: "1px solid var(--rule)", borderRadius: "8px" });
  el.append(root);
  const lang = navigator.language.startsWith("zh") ? "zh" : "en";
  mount(root, channel, { lang, signal: ended.signal }).catch((error) => {
    if (!ended.signal.aborted) root.textContent = error.message;
  });
  return () => {
    ended.abort();
    channel.close();
    root.remove();
  };
}
