// The page that the server gives, and an exported file; in a notebook, where there is neither, a widget's `render`.

import { fileChannel } from "./channel/file.js";
import { httpChannel } from "./channel/http.js";
import { createPieces } from "./file.js";
import { mount } from "./main.js";
import { render } from "./widget.js";

export default { render };

const root = document.getElementById("map");
if (root && document.body.classList.contains("softmap-page")) {
  show(root).catch((error) => {
    root.textContent = error.message;
  });
}

/** @param {HTMLElement} root */
async function show(root) {
  const lang = navigator.language.startsWith("zh") ? "zh" : "en";
  const pieces = createPieces(document);
  const channel = pieces.has("index") ? await fileChannel(pieces) : httpChannel();
  const { app, open } = await mount(root, channel, { hash: location.hash, lang, onaddress: remember });
  document.title = `${app.data.about.title} · softmap`;
  window.addEventListener("hashchange", () => open(location.hash));
}

/** @param {string} hash */
function remember(hash) {
  history.replaceState(null, "", `#${hash}`);
}
