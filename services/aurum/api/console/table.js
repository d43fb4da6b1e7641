// @ts-check
// A table of any length, of which only the visible rows are in the page. All rows have the same height. It scrolls in
// itself, or with the page on narrow screens, where the style sheet shows each row as a card.

import { h } from "./dom.js";

const SPARE = 4; // rows above and below the visible part
const NARROW = "(max-width: 760px)"; // as in style.css

/**
 * Returns the part of a long list to put into the page.
 * @param {{ scrollTop: number, height: number, rowHeight: number, count: number }} view Sizes in px; count: all rows.
 * @returns {[number, number]} The index of the first row, and the one after the last.
 */
export function visibleRows({ scrollTop, height, rowHeight, count }) {
  const fitting = Math.ceil(height / rowHeight) + 2 * SPARE;
  const first = Math.max(0, Math.min(Math.floor(scrollTop / rowHeight) - SPARE, count - fitting));
  return [first, Math.min(count, first + fitting)];
}

/**
 * Makes a row in place of those that are not in the page.
 * @param {number} columns
 */
function spacer(columns) {
  const cell = h("td", { colspan: columns });
  const element = h("tr", { class: "space", "aria-hidden": "true" }, cell);
  return {
    element,
    /** @param {number} height In px. */
    setHeight(height) {
      cell.style.height = `${height}px`;
    },
  };
}

/**
 * Makes a table.
 * @template Item
 * @param {object} options
 * @param {string} options.label
 * @param {{ key: string, label: string, class: string, sort: boolean }[]} options.columns In their order. `sort`: whether
 *   a click on the heading sorts by the column.
 * @param {{ wide: number, narrow: number }} options.rowHeights Of wide and narrow screens in rem, as in the style sheet.
 * @param {() => { element: HTMLElement, show: (item: Item) => void }} options.makeRow Makes a row, which shows one item
 *   after another.
 * @param {(key: string) => void} options.onSort
 */
export function longTable({ label, columns, rowHeights, makeRow, onSort }) {
  const above = spacer(columns.length);
  const below = spacer(columns.length);
  const headings = columns.map((column) => {
    const sort = () => onSort(column.key);
    return h(
      "th",
      { scope: "col", class: column.class },
      column.sort ? h("button", { type: "button", on: { click: sort } }, column.label) : column.label,
    );
  });
  const table = h(
    "table",
    { "aria-label": label },
    h("thead", {}, h("tr", { "aria-rowindex": 1 }, headings)),
    h("tbody", {}, above.element, below.element),
  );
  const element = h("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": label }, table);
  /** @type {ReturnType<typeof makeRow>[]} */
  const rows = [];
  /** @type {Item[]} */
  let items = [];
  const narrow = matchMedia(NARROW);

  /** Returns how far the table is scrolled, and the height of its part that is visible, in px. */
  function visiblePart() {
    if (!narrow.matches) return { scrollTop: element.scrollTop, height: element.clientHeight };
    return { scrollTop: Math.max(0, -element.getBoundingClientRect().top), height: innerHeight };
  }

  function draw() {
    const { scrollTop, height } = visiblePart();
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const rowHeight = rem * (narrow.matches ? rowHeights.narrow : rowHeights.wide);
    const [first, end] = visibleRows({ scrollTop, height, rowHeight, count: items.length });
    while (rows.length < end - first) {
      const row = makeRow();
      rows.push(row);
      below.element.before(row.element);
    }
    while (rows.length > end - first) rows.pop()?.element.remove();
    rows.forEach((row, index) => {
      row.element.setAttribute("aria-rowindex", String(first + index + 2));
      row.show(items[first + index]);
    });
    above.setHeight(first * rowHeight);
    below.setHeight((items.length - end) * rowHeight);
  }

  element.addEventListener("scroll", draw, { passive: true });
  addEventListener("scroll", draw, { passive: true });
  narrow.addEventListener("change", draw);
  return {
    element,
    /** Shows the first rows. */
    scrollToStart() {
      element.scrollTop = 0;
      if (narrow.matches && element.getBoundingClientRect().top < 0) element.scrollIntoView();
    },
    close() {
      removeEventListener("scroll", draw);
      narrow.removeEventListener("change", draw);
    },
    /** @param {Item[]} list */
    setItems(list) {
      items = list;
      table.setAttribute("aria-rowcount", String(list.length + 1));
      draw();
    },
    /**
     * Marks the column by which the items are sorted.
     * @param {string} key
     * @param {boolean} descending
     */
    markSorted(key, descending) {
      columns.forEach((column, index) => {
        if (column.key === key) headings[index].setAttribute("aria-sort", descending ? "descending" : "ascending");
        else headings[index].removeAttribute("aria-sort");
      });
    },
  };
}
