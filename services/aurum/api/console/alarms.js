// @ts-check
// Alarms by ISA-18.2: open, shelved and suppressed ones, what an operator can do with each, and their history.

import { groupDetails, groupHeading, groupOf, journalGroup } from "./alarm_groups.js";
import { valueLine } from "./alarm_values.js";
import { messageOf, request } from "./api.js";
import { h, headings, problemLine, setText, showProblem, tableOf } from "./dom.js";
import { duration, moment, now, number } from "./format.js";
import { plant, subscribe } from "./live.js";
import { originalMachine, storedHint } from "./names.js";
import { mayMake } from "./session.js";
import { remember, setting } from "./settings.js";
import { ruleText, t, textOr } from "./text.js";

/** @import { Alarm, Alarms, AlarmState, Journal, Transition } from "./types.d.ts" */
/** @typedef {"open" | "shelved" | "suppressed" | "journal"} ViewName */

/** @type {Record<ViewName, AlarmState[]>} */
const VIEWS = {
  open: ["unacknowledged", "acknowledged", "returned"],
  shelved: ["shelved"],
  suppressed: ["suppressed"],
  journal: [],
};
const VIEW_NAMES = /** @type {ViewName[]} */ (Object.keys(VIEWS));
const SHELVE_MINUTES = [15, 60, 480, 1440, 10_080]; // at most a week
const DEFAULT_MINUTES = 60;
const SIGNS = { urgent: "▲▲", high: "▲", medium: "■", low: "●" }; // priorities differ in shape, not only in colour
const MOST_ITEMS = 500;

/** @type {Map<string, string>} */
const failures = new Map(); // by alarm: why the last action on it failed; kept while its row is made again

/**
 * Returns why an alarm was shelved, or why the platform cleared it.
 * @param {string | null} reason
 */
const reasonText = (reason) => (reason === null ? null : textOr(`reason.${reason}`, reason));

/** @param {string | null} isoTime */
const elapsed = (isoTime) => (isoTime ? duration(Math.max(1, (now() - Date.parse(isoTime)) / 1000)) : "–");

/** @param {string} machineId */
const machineLink = (machineId) =>
  h(
    "th",
    { scope: "row" },
    h(
      "a",
      { href: `/machines/${encodeURIComponent(machineId)}`, title: storedHint(machineId) },
      originalMachine(machineId),
    ),
  );

/** @param {string | null} text */
const remark = (text) => (text ? h("small", {}, ` ${text}`) : null);

/** @param {number | null} value */
const valueRemark = (value) => (value === null ? null : remark(number(value)));

/** @param {string | null} isoTime */
const untilRemark = (isoTime) => (isoTime ? remark(t("alarm.until", { time: moment(isoTime) })) : null);

/** @typedef {"ack" | "shelve" | "unshelve"} Action */
/** @typedef {(done: string) => unknown} OnDone Called with what was done; empty after a failure, which the alarm's next row shows. */

/** @param {Action} action */
const mayPerform = (action) => mayMake(`POST /api/alarms/{alarm_id}/${action}`);

/** @param {Alarm} alarm */
const title = (alarm) => `${groupOf(alarm) ?? originalMachine(alarm.machine_id)}, ${ruleText(alarm.text)}`;

/**
 * Acknowledges, shelves or unshelves an alarm.
 * @param {Alarm} alarm
 * @param {Action} action
 * @param {object} body
 * @param {OnDone} onDone
 */
async function act(alarm, action, body, onDone) {
  try {
    const path = `/api/alarms/${encodeURIComponent(alarm.id)}/${action}`;
    await request(path, { method: "POST", body: { by: setting("operator"), ...body } });
    failures.delete(alarm.id);
    onDone(t(`alarm.done.${action}`, { alarm: title(alarm) }));
  } catch (error) {
    failures.set(alarm.id, messageOf(error));
    onDone("");
  }
}

/**
 * @param {Alarm} alarm
 * @param {OnDone} onDone
 */
function openShelveDialog(alarm, onDone) {
  const minutes = h(
    "select",
    {},
    SHELVE_MINUTES.map((each) => h("option", { value: each, selected: each === DEFAULT_MINUTES }, duration(each * 60))),
  );
  const reason = h("input", { maxlength: 200 });
  /** @param {SubmitEvent} event */
  const submit = (event) => {
    event.preventDefault();
    act(alarm, "shelve", { minutes: Number(minutes.value), reason: reason.value }, onDone);
    dialog.close();
  };
  const cancel = () => dialog.close();
  const dialog = h("dialog", { "aria-labelledby": "shelve-title" });
  dialog.addEventListener("close", () => dialog.remove());
  const form = h(
    "form",
    { method: "dialog", on: { submit } },
    h(
      "h2",
      { id: "shelve-title" },
      t("shelve.title", { machine: groupOf(alarm) ?? originalMachine(alarm.machine_id) }),
    ),
    h("p", {}, ruleText(alarm.text)),
    h("label", {}, t("shelve.for"), " ", minutes),
    h("label", {}, t("shelve.reason"), " ", reason),
    h(
      "div",
      { class: "actions" },
      h("button", { type: "button", on: { click: cancel } }, t("cancel")),
      h("button", { type: "submit", class: "main" }, t("alarm.shelve")),
    ),
  );
  dialog.append(form);
  document.body.append(dialog);
  dialog.showModal();
}

/** @type {Partial<Record<AlarmState, Action[]>>} */
const ACTIONS = {
  unacknowledged: ["ack", "shelve"],
  returned: ["ack", "shelve"],
  acknowledged: ["shelve"],
  shelved: ["unshelve"],
};

/**
 * Makes the buttons that the state of an alarm and the user's role allow.
 * @param {Alarm} alarm
 * @param {OnDone} onDone
 */
function actionButtons(alarm, onDone) {
  /**
   * @param {string} key
   * @param {() => unknown} click
   * @param {string} [style]
   */
  const button = (key, click, style = "") =>
    h("button", { type: "button", class: style, "aria-label": `${t(key)}: ${title(alarm)}`, on: { click } }, t(key));
  const make = {
    ack: () => button("alarm.ack", () => act(alarm, "ack", {}, onDone), "main"),
    shelve: () => button("alarm.shelve", () => openShelveDialog(alarm, onDone)),
    unshelve: () => button("alarm.unshelve", () => act(alarm, "unshelve", {}, onDone)),
  };
  return (ACTIONS[alarm.state] ?? []).filter(mayPerform).map((action) => make[action]());
}

/**
 * Makes a row for an alarm with the buttons for it.
 * @param {Alarm} alarm
 * @param {{ withMachine: boolean, onDone: OnDone }} options
 */
export function alarmRow(alarm, { withMachine, onDone }) {
  const problem = problemLine();
  showProblem(problem, failures.get(alarm.id) ?? "");
  return h(
    "tr",
    { class: "alarm", "data-alarm": alarm.id, "data-state": alarm.state, "data-priority": alarm.priority },
    h(
      "td",
      { class: "priority" },
      h("span", { "aria-hidden": "true" }, SIGNS[alarm.priority]),
      " ",
      t(`priority.${alarm.priority}`),
    ),
    withMachine ? (alarm.group ? groupHeading(alarm.group) : machineLink(alarm.machine_id)) : null,
    h(
      "td",
      { class: "what" },
      alarm.group ? groupDetails(alarm.id, alarm.group) : [ruleText(alarm.text), valueLine(alarm)],
      alarm.parent ? remark(t("group.member")) : null,
      remark(alarm.count > 1 ? `×${alarm.count}` : null),
      alarm.chatters ? h("span", { class: "badge", title: t("alarm.chatters.hint") }, t("alarm.chatters")) : null,
    ),
    h(
      "td",
      {},
      h("span", { class: "badge", "data-state": alarm.state }, t(`alarm.state.${alarm.state}`)),
      untilRemark(alarm.shelved_until),
      alarm.shelved_until ? remark(alarm.reason) : null,
      alarm.state === "acknowledged" ? remark(alarm.acknowledged_by) : null,
    ),
    h("td", { class: "since" }, elapsed(alarm.raised_at)),
    h("td", { class: "actions" }, actionButtons(alarm, onDone), problem),
  );
}

/** @param {Transition} item */
const journalRow = (item) =>
  h(
    "tr",
    {},
    h("td", {}, moment(item.at)),
    item.machine_id ? machineLink(item.machine_id) : groupHeading(item),
    h(
      "td",
      {},
      item.machine_id ? ruleText(item.text) : t("group.text"),
      remark(journalGroup(item)),
      valueRemark(item.value),
    ),
    h("td", {}, t(`transition.${item.transition}`), untilRemark(item.until), remark(reasonText(item.reason))),
    h("td", {}, item.by ?? t("journal.platform")),
  );

/** @param {Transition[]} items */
const journalTable = (items) =>
  tableOf({
    label: t("alarms.journal"),
    head: headings(["time", "machine", "what", "transition", "by"].map((key) => t(`journal.${key}`))),
    rows: items.map(journalRow),
  });

/**
 * @param {Alarm[]} items
 * @param {OnDone} onDone
 */
const alarmTable = (items, onDone) =>
  tableOf({
    label: t("nav.alarms"),
    head: headings(["priority", "machine", "what", "state", "since", "actions"].map((key) => t(`alarm.${key}`))),
    rows: items.map((alarm) => alarmRow(alarm, { withMachine: true, onDone })),
  });

/**
 * Opens the page.
 * @param {HTMLElement} main
 */
export function open(main) {
  const leaving = new AbortController();
  const { signal } = leaving;
  /** @type {ViewName} */
  let view = "open";
  let turn = 0; // a late answer does not replace a later one
  const tabs = VIEW_NAMES.map((name) => {
    const click = () => {
      view = name;
      refresh();
    };
    return { name, button: h("button", { type: "button", "data-view": name, on: { click } }) };
  });
  const list = h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": t("nav.alarms") });
  const problem = problemLine();
  const happened = h("p", { role: "status", class: "happened" });
  const operator = h("input", { value: setting("operator"), autocomplete: "name", maxlength: 100 });
  operator.addEventListener("change", () => remember("operator", operator.value.trim()));
  main.append(
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
    problem,
    happened,
    list,
  );

  /** @param {string} done */
  function onDone(done) {
    setText(happened, done);
    refresh();
  }

  function showTabs() {
    for (const { name, button } of tabs) {
      const count = VIEWS[name].reduce((sum, state) => sum + (plant.alarms.counts[state] ?? 0), 0);
      setText(button, name === "journal" ? t("alarms.journal") : `${t(`alarms.${name}`)} (${count})`);
      button.setAttribute("aria-pressed", String(name === view));
    }
  }

  /** Returns the content of the chosen view. */
  async function load() {
    if (view === "journal") {
      /** @type {Journal} */
      const journal = await request(`/api/alarms/journal?limit=${MOST_ITEMS}`, { signal });
      return journalTable(journal.items);
    }
    const states = VIEWS[view].map((state) => `state=${state}`).join("&");
    const none = t(`alarms.none.${view}`);
    /** @type {Alarms} */
    const { items } = await request(`/api/alarms?limit=${MOST_ITEMS}&${states}`, { signal });
    return items.length ? alarmTable(items, onDone) : h("p", { class: "nothing" }, none);
  }

  /**
   * Replaces the list. The keyboard's focus stays on the same button.
   * @param {HTMLElement} content
   */
  function replaceList(content) {
    const focused = list.contains(document.activeElement) && document.activeElement?.getAttribute("aria-label");
    list.replaceChildren(content);
    if (!focused) return;
    [...list.querySelectorAll("button")].find((each) => each.getAttribute("aria-label") === focused)?.focus();
  }

  async function refresh() {
    const mine = ++turn;
    showTabs();
    try {
      const content = await load();
      if (mine !== turn) return;
      showProblem(problem, "");
      replaceList(content);
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
  refresh();
  return () => {
    stops.forEach((stop) => stop());
    leaving.abort();
  };
}
