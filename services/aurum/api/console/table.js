// A table of any length: only the rows in view are in the page. Rows have one height, which the style sheet sets.

import { h } from "./dom.js";

const SPARE = 4; // rows above and below what is in view

/**
 * columns: { key, label, class, sort } in their order; sort: whether a click on the heading orders by it.
 * makeRow() gives { element, show(item) }: a row that can show one item after another.
 */
export function longTable({ label, columns, rowHeight, makeRow, onSort }) {
  const above = h("tr", { class: "space", "aria-hidden": "true" }, h("td", { colspan: columns.length }));
  const below = h("tr", { class: "space", "aria-hidden": "true" }, h("td", { colspan: columns.length }));
  const body = h("tbody", {}, above, below);
  const headings = columns.map((column) =>
    h(
      "th",
      { scope: "col", class: column.class },
      column.sort
        ? h("button", { type: "button", on: { click: () => onSort(column.key) } }, column.label)
        : column.label,
    ),
  );
  const table = h("table", { "aria-label": label }, h("thead", {}, h("tr", { "aria-rowindex": 1 }, headings)), body);
  const element = h("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": label }, table);
  const rows = [];
  let items = [];

  function draw() {
    const fitting = Math.ceil(element.clientHeight / rowHeight) + 2 * SPARE;
    const first = Math.max(0, Math.min(Math.floor(element.scrollTop / rowHeight) - SPARE, items.length - fitting));
    const part = items.slice(first, first + fitting);
    while (rows.length < part.length) {
      const row = makeRow();
      rows.push(row);
      below.before(row.element);
    }
    while (rows.length > part.length) rows.pop().element.remove();
    part.forEach((item, index) => {
      rows[index].element.setAttribute("aria-rowindex", first + index + 2);
      rows[index].show(item);
    });
    above.firstChild.style.height = `${first * rowHeight}px`;
    below.firstChild.style.height = `${Math.max(0, items.length - first - part.length) * rowHeight}px`;
  }

  element.addEventListener("scroll", draw, { passive: true });
  return {
    element,
    draw,
    setItems(list) {
      items = list;
      table.setAttribute("aria-rowcount", list.length + 1);
      draw();
    },
    markSorted(key, descending) {
      columns.forEach((column, index) => {
        if (column.key === key) headings[index].setAttribute("aria-sort", descending ? "descending" : "ascending");
        else headings[index].removeAttribute("aria-sort");
      });
    },
  };
}
