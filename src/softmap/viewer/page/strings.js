// The texts of the page, in English and Chinese. {names} are filled in. Each part of the page has a table of its own.

import { en as mapEn, zh as mapZh } from "./strings/map.js";
import { en as textEn, zh as textZh } from "./strings/text.js";
import { en as stepsEn, zh as stepsZh } from "./strings/steps.js";
import { en as barEn, zh as barZh } from "./strings/bar.js";
import { en as fileEn, zh as fileZh } from "./strings/file.js";
import { en as pictureEn, zh as pictureZh } from "./strings/picture.js";

/** @type {Record<import("./types").Lang, Record<string, string>>} */
export const STRINGS = {
  en: { ...barEn, ...mapEn, ...textEn, ...stepsEn, ...fileEn, ...pictureEn },
  zh: { ...barZh, ...mapZh, ...textZh, ...stepsZh, ...fileZh, ...pictureZh },
};

/**
 * @param {import("./types").Lang} lang
 * @param {string} name
 * @param {Record<string, string | number>} [values]
 */
export function say(lang, name, values = {}) {
  const text = STRINGS[lang][name];
  if (text === undefined) throw new Error(`The page has no text called ${name}.`);
  return text.replace(/\{(\w+)\}/g, (_, key) => String(values[key]));
}
