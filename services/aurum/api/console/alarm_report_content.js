// @ts-check
// What the reports on alarms show: what a shift hands over, and whether operators can work with the alarms.

import { reasonText, remark } from "./alarms.js";
import { groupHeading } from "./alarm_groups.js";
import { h, headings, tableOf, wideRegion } from "./dom.js";
import { moment, number, percent } from "./format.js";
import { originalMachine, storedHint } from "./names.js";
import { authorText, ruleText, t } from "./text.js";

/** @import { AlarmFigures, Child, Frequency, Handover } from "./types.d.ts" */

/** @param {string} machineId */
const machineCell = (machineId) => h("th", { scope: "row", title: storedHint(machineId) }, originalMachine(machineId));

/**
 * Makes the heading of a row: the machine of an alarm, or the group for which it stands.
 * @param {{ machine_id: string, gateway: string | null, site: string | null }} alarm
 */
const alarmCell = (alarm) => (alarm.machine_id ? machineCell(alarm.machine_id) : groupHeading(alarm));

/** @param {{ machine_id: string, text: string }} alarm */
const alarmText = ({ machine_id: machine, text }) => (machine ? ruleText(text) : t("group.text"));

/** @param {...Child} children */
const cell = (...children) => h("td", { class: "what" }, children);

/**
 * Makes a part of a report with a table; without rows it says so.
 * @param {string} title
 * @param {string[]} head
 * @param {Child[]} rows
 */
const part = (title, head, rows) => [
  h("h3", {}, title),
  rows.length
    ? wideRegion(title, tableOf({ label: title, head: headings(head), rows }))
    : h("p", { class: "nothing" }, t("report.none")),
];

/**
 * Makes the head of a part: its title with the number of items, and how many of them are listed if not all.
 * @param {string} text
 * @param {number} total
 * @param {number} listed
 */
const counted = (text, total, listed) =>
  `${text} (${listed < total ? t("report.listed", { n: listed, total }) : number(total)})`;

/**
 * Makes the content of a handover report.
 * @param {Handover} report
 * @returns {Child}
 */
export function handoverContent(report) {
  const { open, shelved, comments, worst, raised_alarms: raised } = report;
  const totals = /** @type {const} */ (["raised", "cleared", "acknowledged", "open_count", "shelved_count"]);
  const [machine, what, priority] = [t("journal.machine"), t("journal.what"), t("alarm.priority")];
  return [
    h(
      "dl",
      { class: "totals" },
      totals.map((name) => h("div", {}, h("dt", {}, t(`report.${name}`)), h("dd", {}, number(report[name])))),
    ),
    part(
      counted(t("report.open"), report.open_count, open.length),
      [machine, what, priority, t("alarm.state"), t("report.since")],
      open.map((alarm) =>
        h(
          "tr",
          { "data-priority": alarm.priority },
          alarmCell(alarm),
          cell(alarmText(alarm)),
          h("td", { class: "priority" }, t(`priority.${alarm.priority}`)),
          h("td", {}, t(`alarm.state.${alarm.state}`)),
          h("td", {}, alarm.raised_at ? moment(alarm.raised_at) : t("report.before")),
        ),
      ),
    ),
    part(
      counted(t("report.shelved"), report.shelved_count, shelved.length),
      [machine, what, t("shelve.reason"), t("journal.by"), t("report.until")],
      shelved.map((alarm) =>
        h(
          "tr",
          {},
          alarmCell(alarm),
          cell(alarmText(alarm)),
          cell(reasonText(alarm.reason)),
          h("td", {}, authorText(alarm.by)),
          h("td", {}, moment(alarm.until)),
        ),
      ),
    ),
    part(
      counted(t("report.comments"), report.comment_count, comments.length),
      [t("journal.time"), machine, what, t("comment.text"), t("journal.by")],
      comments.map((entry) =>
        h(
          "tr",
          {},
          h("td", {}, moment(entry.at)),
          alarmCell(entry),
          cell(alarmText(entry)),
          cell(entry.comment),
          h("td", {}, authorText(entry.by)),
        ),
      ),
    ),
    part(
      t("report.worst"),
      [machine, t("report.raised"), t("report.open_count")],
      worst.map((each) =>
        h("tr", {}, machineCell(each.machine_id), h("td", {}, number(each.raised)), h("td", {}, number(each.open))),
      ),
    ),
    part(
      t("report.raised_alarms"),
      [machine, what, priority, t("report.raised")],
      raised.map((alarm) =>
        h(
          "tr",
          { "data-priority": alarm.priority },
          alarmCell(alarm),
          cell(alarmText(alarm)),
          h("td", { class: "priority" }, t(`priority.${alarm.priority}`)),
          h("td", {}, number(alarm.count)),
        ),
      ),
    ),
  ];
}

/**
 * @param {Frequency[]} frequencies
 * @param {(frequency: Frequency) => string} nameOf
 */
const frequencyRows = (frequencies, nameOf) =>
  frequencies.map((each) =>
    h(
      "tr",
      {},
      h("th", { scope: "row", class: "what" }, nameOf(each)),
      h("td", {}, number(each.count)),
      h("td", {}, percent(each.share, 1)),
    ),
  );

/**
 * Returns the name of an alarm by its id.
 * @param {string} id
 */
function alarmName(id) {
  const [machine, rule] = id.split("~");
  return `${originalMachine(machine)}, ${rule}`;
}

/**
 * @param {string[]} ids
 * @param {number} total
 * @param {string} title
 */
const alarmNames = (ids, total, title) => [
  h("h3", {}, counted(title, total, ids.length)),
  ids.length
    ? h(
        "ul",
        {},
        ids.map((id) => h("li", {}, alarmName(id))),
      )
    : h("p", { class: "nothing" }, t("report.none")),
];

/**
 * Makes the content of the figures. Each has the target of the standards beside it.
 * @param {AlarmFigures} figures
 * @returns {Child}
 */
export function figuresContent(figures) {
  const { by_priority: shares } = figures;
  const urgent = shares.high + shares.urgent;
  const priorities = [shares.low, shares.medium, urgent].map((share) => percent(share)).join(" / ");
  /** @type {[name: string, value: string, good: boolean | null][]} */
  const rows = [
    ["average", number(figures.average_rate), met(figures.average_rate, 1)],
    ["peak", number(figures.peak_rate), met(figures.peak_rate, 10)],
    ["busy", percent(figures.busy_share, 1), met(figures.busy_share, 0.01)],
    ["flood", percent(figures.flood_share, 1), met(figures.flood_share, 0.01)],
    ["top", percent(figures.top_alarms_share, 1), figures.raised ? met(figures.top_alarms_share, 0.05) : null],
    ["chattering", number(figures.chattering_count), met(figures.chattering_count, 0)],
    ["stale", number(figures.stale_count), met(figures.stale_count, 4)],
    ["priorities", priorities, figures.raised ? met(urgent, 0.05) : null],
  ];
  const raised = t("report.raised");
  return [
    h("p", {}, t("figures.raised", { n: figures.raised, intervals: figures.intervals })),
    part(
      t("figures.title", { n: figures.positions }),
      [t("figures.figure"), t("figures.value"), t("figures.target"), t("figures.met")],
      rows.map(([name, value, good]) =>
        h(
          "tr",
          { "data-figure": name },
          h("th", { scope: "row", class: "what" }, t(`figures.${name}`), remark(t(`figures.${name}.hint`))),
          h("td", {}, value),
          h("td", {}, t(`figures.${name}.target`)),
          h("td", {}, good === null ? "–" : t(good ? "figures.yes" : "figures.no")),
        ),
      ),
    ),
    part(
      `${t("figures.rules")}: ${percent(figures.top_rules_share)}`,
      [t("journal.what"), raised, t("figures.share")],
      frequencyRows(figures.top_rules, ({ name, text }) => ruleText(text ?? name)),
    ),
    part(
      `${t("figures.machines")}: ${percent(figures.top_machines_share)}`,
      [t("journal.machine"), raised, t("figures.share")],
      frequencyRows(figures.top_machines, ({ name }) => originalMachine(name)),
    ),
    alarmNames(figures.chattering, figures.chattering_count, t("figures.chattering")),
    alarmNames(figures.stale, figures.stale_count, t("figures.stale")),
  ];
}

/**
 * Returns whether a figure meets its target; null if it is unknown.
 * @param {number | null} value
 * @param {number} most
 */
const met = (value, most) => (value === null ? null : value <= most);
