// @ts-check
// Makes elements. Text is always set as text, never as markup.

/** @import { Child, Properties } from "./types.d.ts" */

const SVG = "http://www.w3.org/2000/svg";

/**
 * @param {Element} element
 * @param {string} name
 * @param {unknown} value
 */
function setProperty(element, name, value) {
  if (value === undefined || value === null || value === false) return;
  if (name === "on") {
    for (const [event, handler] of Object.entries(value)) element.addEventListener(event, handler);
  } else if (name === "value" && "value" in element) element.value = value;
  else element.setAttribute(name, value === true ? "" : String(value));
}

/**
 * @param {Element} element
 * @param {Child} child
 */
function appendChild(element, child) {
  if (Array.isArray(child)) child.forEach((each) => appendChild(element, each));
  else if (child !== null && child !== undefined) element.append(child instanceof Node ? child : String(child));
}

/**
 * @param {Element} element
 * @param {Properties} properties
 * @param {Child[]} children
 */
function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) setProperty(element, name, value);
  appendChild(element, children);
}

/**
 * Makes an HTML element.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Properties} [properties] Attributes by name, and event handlers by event in `on`. An attribute that is false,
 *   null or undefined is left out.
 * @param {...Child} children Nodes and texts, also in nested arrays. Null and undefined are left out.
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  fill(element, properties, children);
  return element;
}

/**
 * Makes an SVG element from the same arguments as `h`.
 * @template {keyof SVGElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Properties} [properties]
 * @param {...Child} children
 * @returns {SVGElementTagNameMap[Tag]}
 */
export function svg(tag, properties = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  fill(element, properties, children);
  return element;
}

/**
 * Sets the text of an element only if it differs, since screen readers and the layout react to every change.
 * @param {Element} element
 * @param {string} text
 */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Shows an error message in an element that is hidden otherwise.
 * @param {HTMLElement} element
 * @param {string} message Empty to hide it.
 */
export function showProblem(element, message) {
  setText(element, message);
  element.hidden = !message;
}

/** Makes the hidden element for `showProblem`. Screen readers read it when it is shown. */
export const problemLine = () => h("p", { class: "problem", role: "alert", hidden: true });

/**
 * Makes a table.
 * @param {{ label?: string, head?: Child[], rows: Child[], class?: string }} parts head: The cells of the heading.
 */
export function tableOf({ label, head, rows, class: name }) {
  return h(
    "table",
    { class: name, "aria-label": label },
    head ? h("thead", {}, h("tr", {}, head)) : null,
    h("tbody", {}, rows),
  );
}

/**
 * Makes the column headings of a table.
 * @param {string[]} labels
 */
export const headings = (labels) => labels.map((label) => h("th", { scope: "col" }, label));

/**
 * Makes a region that scrolls sideways, also by keyboard.
 * @param {string} label
 * @param {...Child} children
 */
export const wideRegion = (label, ...children) =>
  h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": label }, children);

/**
 * Returns a function that runs `draw` before the next frame, once for any number of calls. In a hidden page, which has
 * no frames, it runs after a second.
 * @param {() => void} draw
 */
export function onceAFrame(draw) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    const run = () => {
      waiting = false;
      draw();
    };
    if (document.hidden) setTimeout(run, 1000);
    else requestAnimationFrame(run);
  };
}
