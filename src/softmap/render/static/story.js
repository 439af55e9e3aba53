// Points one word out everywhere on the page: its rows, its sentences, its lines.
"use strict";

/** @param {string} word the index of a word, as the page's data-word attributes have it */
function point(word) {
  for (const element of document.querySelectorAll("[data-word]")) {
    element.classList.toggle("pointed", element.getAttribute("data-word") === word);
  }
  for (const button of document.querySelectorAll("button[data-choose]")) {
    button.setAttribute("aria-pressed", String(button.getAttribute("data-choose") === word));
  }
}

document.addEventListener("click", (event) => {
  const target = event.target instanceof Element ? event.target.closest("[data-choose], tr[data-word]") : null;
  const word = target?.getAttribute("data-choose") ?? target?.getAttribute("data-word");
  if (word != null) point(word);
});

point(document.body.dataset.row ?? "0");
