// @ts-check
// The pages of the console and their paths. The script of a page is loaded when the page is opened.

/** @import { PageModule } from "./types.d.ts" */
/** @typedef {{ name: string, pattern: RegExp, load: () => Promise<PageModule> }} Page */

/** @type {Page} */
export const PLANT = { name: "plant", pattern: /^\/$/, load: () => import("./plant.js") };

/** @type {Page} */
export const NOT_FOUND = { name: "not_found", pattern: /^$/, load: () => import("./not_found.js") };

const PAGES = [
  PLANT,
  { name: "machine", pattern: /^\/machines\/([^/]+)$/, load: () => import("./machine.js") },
  { name: "alarms", pattern: /^\/alarms$/, load: () => import("./alarm_desk.js") },
  { name: "platform", pattern: /^\/platform$/, load: () => import("./platform.js") },
  { name: "compare", pattern: /^\/compare$/, load: () => import("./compare.js") },
  { name: "connect", pattern: /^\/connect$/, load: () => import("./connect.js") },
];

/**
 * Returns the page at a path, and the id of the machine if it is a machine's page; null if there is no page.
 * @param {string} path
 * @returns {{ page: Page, id: string } | null}
 */
export function findPage(path) {
  for (const page of PAGES) {
    const match = page.pattern.exec(path);
    if (match) return { page, id: decode(match[1] ?? "") };
  }
  return null;
}

/** @param {string} part Of a path. */
function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // a percent sign that encodes nothing
  }
}
