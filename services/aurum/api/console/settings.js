// @ts-check
// The user's choices, kept in this browser.

/** @typedef {"theme" | "language" | "sound" | "operator" | "alarm_views" | "screen"} Name */

/** @type {Record<Name, string>} */
const values = { theme: "auto", language: "", sound: "off", operator: "", alarm_views: "", screen: "" };

/**
 * Returns a choice, or its default.
 * @param {Name} name
 */
export function setting(name) {
  try {
    return localStorage.getItem(`aurum.${name}`) ?? values[name];
  } catch {
    return values[name]; // storage may be forbidden; then a choice lasts as long as the page
  }
}

/**
 * Keeps a choice.
 * @param {Name} name
 * @param {string} value
 */
export function remember(name, value) {
  values[name] = value;
  try {
    localStorage.setItem(`aurum.${name}`, value);
  } catch (error) {
    console.info(`the choice of ${name} is kept only until the page is closed:`, error);
  }
}
