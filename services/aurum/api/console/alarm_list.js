// @ts-check
// The list of alarms: sorted, grouped, selected by mouse and keyboard. By keyboard it is one stop: the arrow keys move
// between its rows, space selects, with shift a range, and Ctrl+A all.

import { groupsOf } from "./alarm_choice.js";
import { alarmRow, title } from "./alarms.js";
import { h } from "./dom.js";
import { originalMachine } from "./names.js";
import { ruleText, t } from "./text.js";

/** @import { Choice, SortKey } from "./alarm_choice.js" */
/** @import { OnDone } from "./alarms.js" */
/** @import { makeSelection } from "./selection.js" */
/** @import { Alarm } from "./types.d.ts" */

const COLUMNS = /** @type {const} */ (["priority", "machine", "what", "state", "since"]);
const CONTROLS = "a, button, input";
const PAGE = 15; // rows by page up and page down

/**
 * Makes the list.
 * @param {object} options
 * @param {ReturnType<typeof makeSelection>} options.selection
 * @param {() => unknown} options.onSelect Called after a change of the selection.
 * @param {(key: SortKey) => unknown} options.onSort
 * @param {OnDone} options.onDone
 */
export function alarmList({ selection, onSelect, onSort, onDone }) {
  const element = h("div", { class: "wide alarms", id: "alarm-list" });
  /** @type {string[]} */
  let order = []; // ids in the order of the rows
  let current = ""; // the alarm whose row is the stop of the keyboard

  const rows = () => /** @type {HTMLTableRowElement[]} */ ([...element.querySelectorAll("tr.alarm")]);
  /** @param {HTMLElement} row */
  const boxOf = (row) => /** @type {HTMLInputElement} */ (row.querySelector("input"));

  /** Shows which rows are selected. */
  function showSelection() {
    for (const row of rows()) {
      const on = selection.has(row.dataset.alarm ?? "");
      row.setAttribute("aria-selected", String(on));
      boxOf(row).checked = on;
    }
    for (const box of element.querySelectorAll("input[data-all]")) {
      const ids = idsUnder(/** @type {HTMLElement} */ (box));
      const count = ids.filter((id) => selection.has(id)).length;
      /** @type {HTMLInputElement} */ (box).checked = count > 0 && count === ids.length;
      /** @type {HTMLInputElement} */ (box).indeterminate = count > 0 && count < ids.length;
    }
  }

  function changed() {
    showSelection();
    onSelect();
  }

  /**
   * Returns the alarms that the box of a group, or of the whole list, stands for.
   * @param {HTMLElement} box
   */
  function idsUnder(box) {
    const body = box.closest("tbody");
    if (!body) return order;
    return [...body.querySelectorAll("tr.alarm")].map((row) => row.getAttribute("data-alarm") ?? "");
  }

  /**
   * Makes a row the stop of the keyboard.
   * @param {string} id
   */
  function makeCurrent(id) {
    current = order.includes(id) ? id : (order[0] ?? "");
    for (const row of rows()) {
      const index = row.dataset.alarm === current ? 0 : -1;
      for (const control of row.querySelectorAll(CONTROLS)) control.setAttribute("tabindex", String(index));
    }
  }

  /** @param {number} index */
  function goTo(index) {
    const row = rows()[Math.max(0, Math.min(order.length - 1, index))];
    if (!row) return;
    makeCurrent(row.dataset.alarm ?? "");
    boxOf(row).focus();
    row.scrollIntoView({ block: "nearest" });
  }

  /**
   * Moves the keyboard by rows, and extends the selection.
   * @param {string} id The alarm of the present row.
   * @param {number} step
   * @param {boolean} extend
   */
  function move(id, step, extend) {
    goTo(order.indexOf(id) + step);
    if (!extend) return;
    if (!selection.size) selection.set(id, true);
    selection.extendTo(current, order);
    changed();
  }

  /**
   * Handles a key in a row. Returns whether it means something there.
   * @param {KeyboardEvent} event
   * @param {string} id The alarm of the row.
   */
  function onRowKey({ key, shiftKey }, id) {
    const all = order.length;
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: PAGE, PageUp: -PAGE, Home: -all, End: all };
    const step = steps[/** @type {keyof typeof steps} */ (key)];
    if (step) move(id, step, shiftKey);
    else if (key === " " && shiftKey) {
      selection.extendTo(id, order);
      changed();
    } else return false;
    return true;
  }

  /**
   * Handles a key anywhere in the list. Returns whether it means something there.
   * @param {KeyboardEvent} event
   */
  function onListKey({ key, ctrlKey, metaKey }) {
    if (key === "a" && (ctrlKey || metaKey)) selection.add(order);
    else if (key === "Escape" && selection.size) selection.clear();
    else return false;
    changed();
    return true;
  }

  /** @param {KeyboardEvent} event */
  function onKey(event) {
    const row = event.target instanceof Element ? event.target.closest("tr.alarm") : null;
    const id = row?.getAttribute("data-alarm");
    if (onListKey(event) || (id && onRowKey(event, id))) event.preventDefault();
  }

  /** @param {Event} event */
  function onClick(event) {
    const box = event.target;
    if (!(box instanceof HTMLInputElement) || !(event instanceof MouseEvent)) return;
    const id = box.closest("tr.alarm")?.getAttribute("data-alarm");
    if (id && event.shiftKey) selection.extendTo(id, order);
    else if (id) selection.set(id, box.checked);
    else if (box.checked) selection.add(idsUnder(box));
    else selection.remove(idsUnder(box));
    changed();
  }

  element.addEventListener("keydown", onKey);
  element.addEventListener("keyup", (event) => {
    if (event.key === " " && event.shiftKey) event.preventDefault(); // else some browsers also toggle the box
  });
  element.addEventListener("click", onClick);
  element.addEventListener("focusin", (event) => {
    const id = event.target instanceof Element && event.target.closest("tr.alarm")?.getAttribute("data-alarm");
    if (id && id !== current) makeCurrent(id);
  });

  /** @param {Alarm} alarm */
  function makeRow(alarm) {
    const label = t("select.alarm", { alarm: title(alarm) });
    const box = h("td", { class: "select" }, h("input", { type: "checkbox", "aria-label": label }));
    return alarmRow(alarm, { withMachine: true, onDone, first: box });
  }

  /**
   * @param {string} name
   * @param {Alarm[]} alarms
   * @param {Choice} choice
   */
  function groupRow(name, alarms, { group }) {
    const text = groupText(name, alarms[0], group);
    const label = t("select.group", { group: text, n: alarms.length });
    return h(
      "tr",
      { class: "group" },
      h("td", { class: "select" }, h("input", { type: "checkbox", "data-all": "group", "aria-label": label })),
      h("th", { scope: "rowgroup", colspan: COLUMNS.length + 1 }, `${text} (${alarms.length})`),
    );
  }

  /** @param {Choice} choice */
  function headRow({ sort, order: direction }) {
    const cells = COLUMNS.map((key) =>
      h(
        "th",
        { scope: "col", class: key, "aria-sort": sort === key ? direction || "ascending" : null },
        h("button", { type: "button", "data-sort": key, on: { click: () => onSort(key) } }, t(`alarm.${key}`)),
      ),
    );
    const all = h("input", {
      type: "checkbox",
      "data-all": "list",
      "aria-label": t("select.all", { n: order.length }),
    });
    return h("tr", {}, h("td", { class: "select" }, all), cells, h("th", { scope: "col" }, t("alarm.actions")));
  }

  /** Notes where the focus is. Returns what puts it there again: on the same control, or else on the same row. */
  function keepFocus() {
    const focused = element.contains(document.activeElement) ? document.activeElement : null;
    const name = focused && nameOf(focused);
    const place = order.indexOf(focused?.closest("tr.alarm")?.getAttribute("data-alarm") ?? "");
    return () => {
      if (!focused) return;
      const same = [...element.querySelectorAll(CONTROLS)].find((each) => name && nameOf(each) === name);
      if (same instanceof HTMLElement) same.focus();
      else if (place >= 0) goTo(place);
    };
  }

  return {
    element,
    /** Puts the keyboard on the row that is its stop. */
    focus: () => goTo(Math.max(0, order.indexOf(current))),
    showSelection,
    /**
     * Shows alarms. The keyboard stays where it is; at its place, if its alarm is gone.
     * @param {Alarm[]} alarms
     * @param {Choice} choice
     */
    show(alarms, choice) {
      const restoreFocus = keepFocus();
      const groups = groupsOf(alarms, choice.group);
      order = groups.flatMap((each) => each.alarms.map((alarm) => alarm.id));
      selection.keepOnly(order);
      const bodies = groups.map(({ name, alarms: members }) =>
        h("tbody", {}, choice.group ? groupRow(name, members, choice) : null, members.map(makeRow)),
      );
      const table = h(
        "table",
        { role: "grid", "aria-multiselectable": "true", "aria-label": t("nav.alarms") },
        h("thead", {}, headRow(choice)),
        bodies,
      );
      element.replaceChildren(table);
      makeCurrent(current);
      showSelection();
      restoreFocus();
    },
  };
}

/**
 * Returns what a control is recognised by when the list is made again.
 * @param {Element} control
 */
const nameOf = (control) => control.getAttribute("aria-label") ?? control.getAttribute("data-sort");

/**
 * Returns the name of a group of alarms.
 * @param {string} name
 * @param {Alarm} first Its first alarm.
 * @param {Choice["group"]} group
 */
function groupText(name, first, group) {
  if (group === "rule") return ruleText(first.text);
  if (group === "machine") return originalMachine(name);
  return name || t(`group_by.none.${group}`);
}
