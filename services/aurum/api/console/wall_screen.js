// @ts-check
// The mode for a screen on a wall: large text, and only what tells the state of the plant. This browser remembers it.

import { h } from "./dom.js";
import { remember, setting } from "./settings.js";
import { t } from "./text.js";

const WALL = "wall";

/** @param {boolean} on */
function switchWall(on) {
  remember("screen", on ? WALL : "");
  applyScreen();
  dispatchEvent(new Event("resize")); // rows have another height
}

/** Shows the page as the browser remembers. */
export function applyScreen() {
  if (setting("screen") === WALL) document.documentElement.dataset.screen = WALL;
  else delete document.documentElement.dataset.screen;
}

/** Makes the button that begins the mode. */
export function wallButton() {
  const click = () => switchWall(true);
  return h("button", { type: "button", class: "quiet", "data-choice": "screen", on: { click } }, t("wall.begin"));
}

/** Makes the button that ends the mode, which is seen in it only. The Escape key does the same. */
export function leaveWallButton() {
  const click = () => switchWall(false);
  return h("button", { type: "button", class: "leave-wall", on: { click } }, t("wall.end"));
}

addEventListener("keydown", (event) => {
  if (event.key === "Escape" && setting("screen") === WALL && !document.querySelector("dialog[open]"))
    switchWall(false);
});
