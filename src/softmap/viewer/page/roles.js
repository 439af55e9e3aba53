// What heads do, as small colours and in words.

import { el } from "./dom.js";
import { percent } from "./format.js";

/**
 * The colours of softmap/render/heads.py. Okabe and Ito, 2008, https://jfly.uni-koeln.de/color/
 * @type {Record<string, string>}
 */
export const ROLES = {
  "previous token": "rgb(0 114 178)",
  "next token": "rgb(86 180 233)",
  itself: "rgb(240 228 66)",
  "same token": "rgb(204 121 167)",
  induction: "rgb(213 94 0)",
  sink: "rgb(120 124 132)",
  local: "rgb(0 158 115)",
  broad: "rgb(230 159 0)",
};

/**
 * A role's name in the page's language; one that has none there as it is.
 * @param {import("./types").App} app
 * @param {string} role
 */
function nameOf(app, role) {
  return role in ROLES ? app.say(`role_${role.replace(" ", "_")}`) : role;
}

/**
 * As in "head 1: previous token, 91%".
 * @param {import("./types").App} app
 * @param {number} head
 * @param {import("./types").Role | null} told
 */
export function labelOf(app, head, told) {
  const name = app.say("heads_head", { head });
  if (!told?.role) return name;
  return `${name}: ${nameOf(app, told.role)}${told.score === null ? "" : `, ${percent(told.score)}`}`;
}

/**
 * The roles that heads have, by how many have them.
 * @param {import("./types").App} app
 * @param {HTMLElement} list
 * @param {import("./thumbs.js").Cell[]} cells
 */
export function drawLegend(app, list, cells) {
  /** @type {Map<string, number>} */
  const counts = new Map();
  for (const { role } of cells) if (role?.role) counts.set(role.role, (counts.get(role.role) ?? 0) + 1);
  const ordered = [...counts].sort((one, other) => other[1] - one[1]);
  list.hidden = !ordered.length;
  list.replaceChildren(
    ...ordered.map(([role, count]) => {
      const dot = el("i", { className: "dot" });
      dot.style.backgroundColor = ROLES[role] ?? "";
      return el("li", { title: `${nameOf(app, role)}: ${count}` }, dot, nameOf(app, role));
    }),
  );
}
