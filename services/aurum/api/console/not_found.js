// @ts-check
// The page of an address that leads nowhere.

import { h } from "./dom.js";
import { t } from "./text.js";

/**
 * Opens the page.
 * @param {HTMLElement} main
 */
export function open(main) {
  main.append(
    h("h1", {}, t("nav.not_found")),
    h("p", {}, t("not_found.text", { path: location.pathname })),
    h("p", {}, h("a", { href: "/" }, t("not_found.plant"))),
  );
  return () => {};
}
