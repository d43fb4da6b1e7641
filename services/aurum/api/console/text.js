// The words of the page in the reader's language: text/en.json and text/es.json have the same keys.

import { setting } from "./settings.js";

export const LANGUAGES = { en: "English", es: "Español" };

let texts = {};
export let language = "en";

export async function loadTexts() {
  const wished = [setting("language"), ...navigator.languages].map((each) => each.slice(0, 2));
  language = wished.find((each) => each in LANGUAGES) ?? "en";
  const answer = await fetch(`/console/text/${language}.json`);
  texts = await answer.json();
  document.documentElement.lang = language;
}

/** The text of a key with its {placeholders} filled; `key|one` is taken where n is 1 and there is one. */
export function t(key, values = {}) {
  const text = (values.n === 1 && texts[`${key}|one`]) || texts[key] || key;
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

/** The text of a key, or what stands for it where it has none, such as the name of somebody's own rule. */
export const known = (key, otherwise) => texts[key] ?? otherwise;
