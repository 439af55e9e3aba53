// The page that the server gives, or an exported file. The same bundle is a notebook's widget.

import { httpChannel } from "./channel/http.js";
import { mount } from "./main.js";

const root = document.getElementById("map");
if (root && document.body.classList.contains("softmap-page")) {
  const lang = navigator.language.startsWith("zh") ? "zh" : "en";
  mount(root, httpChannel(), { hash: location.hash, lang, onaddress: remember })
    .then(({ app, open }) => {
      document.title = `${app.data.about.title} · softmap`;
      window.addEventListener("hashchange", () => open(location.hash));
    })
    .catch((error) => {
      root.textContent = error.message;
    });
}

/** @param {string} hash */
function remember(hash) {
  history.replaceState(null, "", hash ? `#${hash}` : location.pathname);
}
