// @ts-check
// The search, the filters and, where there are no headings to click, the order of the plant's table.

import { h } from "./dom.js";
import { plant } from "./live.js";
import { SORT_KEYS, STATES } from "./plant_view.js";
import { t, textOr } from "./text.js";

/** @import { SortKey, View } from "./plant_view.js" */
/** @typedef {"state" | "type" | "site"} FilterKey */

/**
 * Makes a choice of values.
 * @param {string} label
 * @param {(value: string) => void} onChange
 */
function chooser(label, onChange) {
  const select = h("select");
  select.addEventListener("change", () => onChange(select.value));
  return {
    element: h("label", {}, label, " ", select),
    /**
     * Offers these values.
     * @param {string[]} values
     * @param {(value: string) => string} text
     * @param {string} chosen
     */
    show(values, text, chosen) {
      if (values.join("\n") !== [...select.options].map((option) => option.value).join("\n")) {
        select.replaceChildren(...values.map((value) => h("option", { value }, text(value))));
      }
      select.value = chosen;
    },
  };
}

/**
 * @param {"machine_type" | "site"} field
 * @param {string} chosen Offered too, although no machine may have it.
 */
const distinct = (field, chosen) =>
  [...new Set([...[...plant.machines.values()].map((each) => each[field]), chosen].filter(Boolean))].sort();

/** @param {(value: string) => string} text */
const orAll = (text) => (/** @type {string} */ value) => (value ? text(value) : t("filter.all"));

/**
 * Makes the form.
 * @param {View} view It is changed.
 * @param {(sort?: SortKey) => void} onChange Called after a change; with the column if the order has changed.
 */
export function plantFilters(view, onChange) {
  const search = h("input", { type: "search", value: view.search, placeholder: t("filter.search.hint") });
  search.addEventListener("input", () => {
    view.search = search.value;
    onChange();
  });
  /** @param {FilterKey} name */
  const filter = (name) =>
    chooser(t(`filter.${name}`), (value) => {
      view[name] = value;
      onChange();
    });
  const [state, type, site] = /** @type {const} */ (["state", "type", "site"]).map(filter);
  const sort = chooser(t("filter.sort"), (value) => onChange(/** @type {SortKey} */ (value)));
  sort.element.classList.add("sort");
  const more = h("div", { class: "more", id: "filters" }, state.element, type.element, site.element, sort.element);
  const toggle = h(
    "button",
    { type: "button", class: "toggle", "aria-controls": "filters", "aria-expanded": "false" },
    t("filter.more"),
  );
  toggle.addEventListener("click", () => {
    toggle.setAttribute("aria-expanded", String(more.classList.toggle("open")));
  });
  return {
    element: h(
      "form",
      { class: "filters", on: { submit: (event) => event.preventDefault() } },
      h("label", {}, t("filter.search"), " ", search),
      toggle,
      more,
    ),
    /** Offers what the machines have, and shows what is chosen. */
    show() {
      state.show(
        ["", ...STATES],
        orAll((value) => t(`state.${value}`)),
        view.state,
      );
      type.show(
        ["", ...distinct("machine_type", view.type)],
        orAll((value) => textOr(`type.${value}`, value)),
        view.type,
      );
      site.show(
        ["", ...distinct("site", view.site)],
        orAll((value) => value),
        view.site,
      );
      sort.show(SORT_KEYS, (key) => t(`column.${key}`), view.sort);
    },
  };
}
