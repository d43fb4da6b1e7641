// @ts-check
// The texts in the user's language. text/en.json and text/es.json have the same keys.

import { setting } from "./settings.js";

export const LANGUAGES = { en: "English", es: "Español" };

/** @type {Record<string, string>} */
let texts = {};
export let language = "en";
/** The locale for numbers and times: the browser's region for the language that is shown. */
export let locale = "en";
/** @type {Intl.DateTimeFormatOptions["hourCycle"]} The clock of the browser's region, such as "h23" for 24 hours. */
export let hourCycle = "h23";

/**
 * Loads the texts of the chosen language, or else of the browser's first language that there is.
 * @throws {TypeError} The texts cannot be loaded. The texts and the language stay as they were.
 */
export async function loadTexts() {
  const wanted = [setting("language"), ...navigator.languages].map((each) => each.slice(0, 2));
  const chosen = wanted.find((each) => Object.hasOwn(LANGUAGES, each)) ?? "en";
  const answer = await fetch(`/console/text/${chosen}.json`);
  if (!answer.ok) throw new TypeError(`/console/text/${chosen}.json: status ${answer.status}`);
  texts = await answer.json();
  language = chosen;
  locale = navigator.languages.find((each) => each.slice(0, 2) === chosen) ?? chosen;
  hourCycle = new Intl.DateTimeFormat([...navigator.languages], { hour: "numeric" }).resolvedOptions().hourCycle;
  document.documentElement.lang = chosen;
}

/**
 * Returns the text of a key, or the key if there is no text. If `n` is 1 and there is a text for `key|one`, it is used.
 * @param {string} key
 * @param {Record<string, unknown>} [values] Replace the {placeholders}.
 */
export function t(key, values = {}) {
  return filled((values.n === 1 && texts[`${key}|one`]) || texts[key] || key, values);
}

/**
 * Returns a text with its {placeholders} replaced.
 * @param {string} text
 * @param {Record<string, unknown>} values
 */
export const filled = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));

/**
 * Returns the text of a key, or the fallback if there is none, as for the name of a site's own alarm rule.
 * @param {string} key
 * @param {string} fallback
 */
export const textOr = (key, fallback) => texts[key] ?? fallback;

/**
 * Returns the text of a built-in alarm rule in the user's language, or the text of a site's own rule.
 * @param {string} text
 */
export const ruleText = (text) => textOr(`rule.${text}`, text);

/**
 * Returns the name of an author; the authors of the simulated past have names in the user's language.
 * @param {string | null | undefined} name
 */
export const authorText = (name) => textOr(`author.${name}`, name ?? "");
