// The sentence's drawing as it stands in the page, on white and by itself.

import { el, svg } from "../dom.js";
import { captioned, INK, text } from "./paper.js";

/** Of each kind of element, the looks that the page's style gives it. */
const LOOKS = {
  text: ["fill", "font-size", "font-weight", "text-decoration-line"],
  path: ["stroke"],
  g: ["opacity", "stroke", "stroke-dasharray"],
};

/**
 * @param {import("../types").App} app
 * @param {SVGElement} picture
 */
export function sentenceFigure(app, picture) {
  const { layer, head } = app.store.get();
  const whole = picture.classList.contains("whole");
  const [width, height] = [Number(picture.getAttribute("width")), Number(picture.getAttribute("height"))];
  const copy = alone(app, picture);
  const heads = whole ? swatches(copy, width) : null;
  strip(copy);
  copy.setAttribute("y", String(heads?.height ?? 0));
  return captioned(svg("g", {}, heads?.group, copy), {
    width,
    height: height + (heads?.height ?? 0),
    title: app.say(whole ? "figure_layer" : "figure_title", { layer, head }),
    under: [`“${app.data.about.title}”`, app.data.about.model],
    caption: (app.root.querySelector(".sentence .caption")?.textContent ?? "").split(/(?<=[.。])\s*/).filter(Boolean),
    between: " ",
  });
}

/**
 * The heads that are drawn, each in its colour.
 * @param {SVGElement} copy
 * @param {number} width
 */
function swatches(copy, width) {
  const wide = 44;
  const across = Math.floor(width / wide);
  const groups = [...copy.querySelectorAll(".lines > g")];
  const marks = groups.map((group, i) => {
    const [x, y] = [wide * (i % across), 20 * Math.floor(i / across)];
    const { stroke, dash } = {
      stroke: group.getAttribute("stroke") ?? INK,
      dash: group.getAttribute("stroke-dasharray") ?? "none",
    };
    const line = svg("path", { d: `M${x} ${y + 6}h16`, stroke, "stroke-width": 4, "stroke-dasharray": dash });
    return svg("g", {}, line, text(group.getAttribute("data-head") ?? "", x + 21, y + 6, { fill: INK, dy: "0.35em" }));
  });
  return { group: svg("g", {}, ...marks), height: 20 * Math.ceil(groups.length / across) + 12 };
}

/**
 * A copy whose looks are attributes, in the colours of the light page.
 * @param {import("../types").App} app
 * @param {SVGElement} picture
 */
function alone(app, picture) {
  const copy = /** @type {SVGElement} */ (picture.cloneNode(true));
  const light = el("div", { className: "sentence" }, copy);
  Object.assign(light.style, { colorScheme: "light", position: "absolute", visibility: "hidden" });
  app.root.append(light);
  for (const [tag, names] of Object.entries(LOOKS)) {
    for (const element of copy.querySelectorAll(tag)) {
      const style = getComputedStyle(element);
      for (const name of names) element.setAttribute(...look(name, style.getPropertyValue(name)));
    }
  }
  light.remove();
  return copy;
}

/**
 * Leave only what is drawn.
 * @param {SVGElement} copy
 */
function strip(copy) {
  copy.querySelectorAll(".hit, .word > title").forEach((element) => element.remove());
  for (const element of [copy, ...copy.querySelectorAll("*")]) {
    const own = [...element.attributes].map(({ name }) => name);
    own
      .filter((name) => /^(class|role|tabindex|aria-.*|data-.*)$/.test(name))
      .forEach((name) => element.removeAttribute(name));
  }
}

/**
 * @param {string} name
 * @param {string} value
 * @returns {[string, string]}
 */
function look(name, value) {
  return [name === "text-decoration-line" ? "text-decoration" : name, value];
}
