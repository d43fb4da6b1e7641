// @ts-check
// The page of alarms: its views, what is chosen in them, and what is done with the selected alarms.

import { mayActOnAll, openBulkDialog } from "./alarm_bulk.js";
import { matchingAlarms, readChoice, writeChoice } from "./alarm_choice.js";
import { alarmFilters } from "./alarm_filters.js";
import { alarmHistory } from "./alarm_history.js";
import { alarmList } from "./alarm_list.js";
import { figuresContent, handoverContent } from "./alarm_report_content.js";
import { alarmReport, USUAL_HOURS } from "./alarm_report.js";
import { alarmRules } from "./alarm_rules.js";
import { failures } from "./alarms.js";
import { messageOf, request } from "./api.js";
import { h, problemLine, setText, showProblem } from "./dom.js";
import { plant, subscribe } from "./live.js";
import { makeSelection } from "./selection.js";
import { remember, setting } from "./settings.js";
import { ruleText, t } from "./text.js";

/** @import { Choice, SortKey, ViewName } from "./alarm_choice.js" */
/** @import { BulkName } from "./alarm_bulk.js" */
/** @import { Alarm, Alarms, AlarmState } from "./types.d.ts" */

/**
 * A view that is no list of alarms.
 * @typedef {object} OtherView
 * @property {HTMLElement} element
 * @property {(choice: Choice) => unknown} choose Shows it for another choice.
 * @property {() => unknown} refresh Adds what is new.
 */

/** @type {Partial<Record<ViewName, AlarmState[]>>} */
const LISTS = {
  open: ["unacknowledged", "acknowledged", "returned"],
  shelved: ["shelved"],
  suppressed: ["suppressed"],
};
const VIEW_NAMES = /** @type {ViewName[]} */ ([
  "open",
  "shelved",
  "suppressed",
  "journal",
  "handover",
  "figures",
  "rules",
]);
const MOST_ALARMS = 1000;

/** @type {Record<ViewName, (keyof Choice)[]>} */
const CONTROLS = {
  open: ["search", "priority", "state", "site", "line", "rule", "group"],
  shelved: ["search", "priority", "site", "line", "rule", "group"],
  suppressed: ["search", "priority", "site", "line", "rule", "group"],
  journal: ["range", "start", "end", "machine", "priority", "site", "rule", "transition"],
  handover: ["range", "start", "end", "site"],
  figures: ["range", "start", "end", "site", "positions"],
  rules: [],
};

/** @type {Record<BulkName, (alarm: Alarm) => boolean>} */
const CONCERNED = {
  ack: ({ state }) => state === "unacknowledged" || state === "returned",
  shelve: ({ state }) => state !== "shelved" && state !== "suppressed",
};
const BULK = /** @type {BulkName[]} */ (["ack", "shelve"]);

/**
 * Returns the distinct values, sorted.
 * @param {string[]} values
 */
const distinct = (values) => [...new Set(values.filter(Boolean))].sort();

/**
 * Makes the bar with what can be done with the selected alarms.
 * @param {(action: BulkName) => unknown} onAct
 * @param {() => unknown} onClear
 */
function bulkBar(onAct, onClear) {
  const count = h("span", { role: "status" });
  const buttons = BULK.map((action) => ({
    action,
    button: h("button", { type: "button", class: action === "ack" ? "main" : "", "data-bulk": action }),
  }));
  for (const { action, button } of buttons) button.addEventListener("click", () => onAct(action));
  const clear = h("button", { type: "button", on: { click: onClear } }, t("select.none"));
  const element = h(
    "div",
    { class: "inline bulk", role: "group", "aria-label": t("bulk.label") },
    count,
    buttons.map(({ button }) => button),
    clear,
  );
  return {
    element,
    /** @param {Alarm[]} selected */
    show(selected) {
      setText(count, selected.length ? t("select.count", { n: selected.length }) : t("select.hint"));
      clear.hidden = !selected.length;
      for (const { action, button } of buttons) {
        const concerned = selected.filter(CONCERNED[action]).length;
        setText(button, `${t(`alarm.${action}`)} (${concerned})`);
        button.hidden = !concerned || !mayActOnAll(action);
      }
    },
  };
}

/**
 * Opens the page.
 * @param {HTMLElement} main
 */
export function open(main) {
  const leaving = new AbortController();
  const { signal } = leaving;
  const choice = readChoice(location.search);
  const selection = makeSelection();
  /** @type {Alarm[]} */
  let alarms = [];
  /** @type {Alarm[]} */
  let shown = [];
  let loadedView = ""; // the view whose alarms are loaded
  let turn = 0; // a late answer does not replace a later one

  const tabs = VIEW_NAMES.map((name) => {
    const click = () => choose({ view: name }, true);
    return { name, button: h("button", { type: "button", "data-view": name, on: { click } }) };
  });
  const filters = alarmFilters({ choice, onChoose: (change) => choose(change), onOpen: openView });
  const bulk = bulkBar(actOnSelected, () => {
    selection.clear();
    list.showSelection();
    list.focus();
    showBulk();
  });
  const list = alarmList({ selection, onSelect: showBulk, onSort: sortBy, onDone });
  /** @type {{ [Name in ViewName]?: OtherView }} */
  const others = {
    journal: alarmHistory(signal),
    handover: alarmReport("handover", handoverContent, signal),
    figures: alarmReport("figures", figuresContent, signal),
    rules: alarmRules(signal),
  };
  const count = h("p", { class: "count-line", role: "status" });
  const nothing = h("p", { class: "nothing", hidden: true });
  const listed = h("section", { hidden: true }, count, bulk.element, nothing, list.element);
  const problem = problemLine();
  const happened = h("p", { role: "status", class: "happened" });
  const operator = h("input", { value: setting("operator"), autocomplete: "name", maxlength: 100 });
  operator.addEventListener("change", () => remember("operator", operator.value.trim()));
  const skip = h("a", { class: "skip", href: "#alarm-list" }, t("desk.skip"));
  skip.addEventListener("click", (event) => {
    event.preventDefault();
    list.focus();
  });
  main.append(
    skip,
    h("h1", {}, t("nav.alarms")),
    h(
      "div",
      { class: "bar-line" },
      h(
        "div",
        { class: "tabs", role: "group", "aria-label": t("alarms.views") },
        tabs.map((tab) => tab.button),
      ),
      h("label", {}, t("alarms.operator"), " ", operator),
    ),
    filters.element,
    problem,
    happened,
    listed,
    ...Object.values(others).map((each) => each.element),
  );

  const selected = () => shown.filter((alarm) => selection.has(alarm.id));

  function showBulk() {
    bulk.show(selected());
  }

  /** @param {string} done */
  function onDone(done) {
    setText(happened, done);
    refresh();
  }

  /** @param {BulkName} action */
  function actOnSelected(action) {
    const ids = selected()
      .filter(CONCERNED[action])
      .map((alarm) => alarm.id);
    openBulkDialog(action, ids, {
      onClose: () => list.focus(),
      onDone: (done) => {
        selection.remove(ids.filter((id) => !failures.has(id)));
        onDone(done);
      },
    });
  }

  /** @param {SortKey} key */
  function sortBy(key) {
    // A third click returns to the order by urgency
    if (choice.sort !== key) choose({ sort: key, order: "" });
    else if (!choice.order) choose({ order: "descending" });
    else choose({ sort: "urgency", order: "" });
  }

  /** @param {string} query Of a saved view. */
  function openView(query) {
    choose(readChoice(query), true);
  }

  /**
   * Takes over what the user has chosen, also into the address.
   * @param {Partial<Choice>} change
   * @param {boolean} [asStep] Whether the browser's button "back" undoes it.
   */
  function choose(change, asStep = false) {
    Object.assign(choice, change);
    const address = `${location.pathname}${writeChoice(choice)}`;
    if (asStep) history.pushState(null, "", address);
    else history.replaceState(null, "", address);
    showChoice();
  }

  /** Shows the chosen view with its controls. */
  function showChoice() {
    const { view } = choice;
    const states = LISTS[view];
    listed.hidden = !states;
    for (const [name, each] of Object.entries(others)) each.element.hidden = name !== view;
    if (!states) {
      showControls();
      others[view]?.choose(choice);
    } else if (loadedView === view) draw();
    else {
      selection.clear();
      refresh();
    }
    showTabs();
  }

  function showTabs() {
    for (const { name, button } of tabs) {
      const states = LISTS[name];
      const number = (states ?? []).reduce((sum, state) => sum + (plant.alarms.counts[state] ?? 0), 0);
      setText(button, states ? `${t(`alarms.${name}`)} (${number})` : t(`alarms.${name}`));
      button.setAttribute("aria-pressed", String(name === choice.view));
    }
  }

  function showControls() {
    const machines = [...plant.machines.values()];
    /** @type {Map<string, string>} */
    const rules = new Map(alarms.map((alarm) => [alarm.rule, ruleText(alarm.text)]));
    filters.show({
      sites: distinct([...machines.map(({ site }) => site), ...alarms.map(({ site }) => site)]),
      lines: distinct(alarms.map(({ line }) => line)),
      rules: [...rules].sort(([, a], [, b]) => (a < b ? -1 : 1)),
      shown: CONTROLS[choice.view],
      hours: USUAL_HOURS[choice.view] ?? "",
    });
  }

  /** Shows the loaded alarms that match. */
  function draw() {
    showControls();
    shown = matchingAlarms(alarms, choice, (alarm) => ruleText(alarm.text));
    list.show(shown, choice);
    list.element.hidden = !shown.length;
    bulk.element.hidden = !shown.length;
    nothing.hidden = shown.length > 0;
    setText(nothing, alarms.length ? t("desk.no_match") : t(`alarms.none.${choice.view}`));
    setText(count, t("desk.shown", { n: shown.length, total: alarms.length }));
    showBulk();
  }

  /** Loads the alarms, or what is new in the history. */
  async function refresh() {
    const mine = ++turn;
    showTabs();
    const states = LISTS[choice.view];
    if (!states) return others[choice.view]?.refresh();
    const { view } = choice;
    try {
      const query = states.map((state) => `state=${state}`).join("&");
      /** @type {Alarms} */
      const { items } = await request(`/api/alarms?limit=${MOST_ALARMS}&${query}`, { signal });
      if (mine !== turn) return;
      showProblem(problem, "");
      alarms = items;
      loadedView = view;
      draw();
    } catch (error) {
      if (!signal.aborted && mine === turn) showProblem(problem, messageOf(error));
    }
  }

  const stops = [
    subscribe("alarms", refresh),
    subscribe("connection", () => {
      if (plant.connection === "live") refresh();
    }),
  ];
  showChoice();
  return () => {
    stops.forEach((stop) => stop());
    leaving.abort();
  };
}
