// @ts-check
// The parts of a browser that the console's modules need and Node.js lacks, and builders of test data.

import { readFile } from "node:fs/promises";

import { loadTexts } from "../../services/aurum/api/console/text.js";

/** @import { Machine, Rul } from "../../services/aurum/api/console/types.d.ts" */

const CONSOLE = new URL("../../services/aurum/api/", import.meta.url);

/**
 * Sets a global of the browser.
 * @param {string} name
 * @param {unknown} value
 */
export const setGlobal = (name, value) =>
  Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });

/**
 * Gives the browser an empty storage.
 * @returns {Map<string, string>} What it stores.
 */
export function storage() {
  /** @type {Map<string, string>} */
  const stored = new Map();
  setGlobal("localStorage", {
    getItem: (/** @type {string} */ key) => stored.get(key) ?? null,
    setItem: (/** @type {string} */ key, /** @type {string} */ value) => stored.set(key, value),
  });
  return stored;
}

/** Serves the files of the console as the API does. */
export function serveConsole() {
  setGlobal("fetch", async (/** @type {string} */ path) => new Response(await readFile(new URL(`.${path}`, CONSOLE))));
}

/**
 * Loads the texts of the console in a browser with these languages.
 * @param {...string} languages
 */
export async function speak(...languages) {
  setGlobal("document", Object.assign(new EventTarget(), { documentElement: {} }));
  setGlobal("navigator", { languages });
  serveConsole();
  await loadTexts();
}

/**
 * Returns a machine of the event stream.
 * @param {Partial<Machine>} [fields]
 * @returns {Machine}
 */
export const machine = (fields = {}) => ({
  machine_id: "pump-1",
  machine_type: "pump",
  site: "plant-a",
  status: "running",
  last_seen: new Date().toISOString(),
  risk_score: null,
  rul: null,
  values: {},
  ...fields,
});

/**
 * @param {number} estimate
 * @param {number} lower
 * @param {number} upper
 * @returns {Rul} In hours.
 */
export const rul = (estimate, lower, upper) => ({ estimate, lower, upper, unit: "hours" });
