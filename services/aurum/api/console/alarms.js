// @ts-check
// An alarm by ISA-18.2 as a row of a table, with what an operator can do with it.

import { groupDetails, groupHeading, groupOf } from "./alarm_groups.js";
import { valueLine } from "./alarm_values.js";
import { messageOf, request } from "./api.js";
import { h, problemLine, showProblem } from "./dom.js";
import { openFormDialog } from "./form_dialog.js";
import { duration, moment, now } from "./format.js";
import { originalMachine, storedHint } from "./names.js";
import { mayMake } from "./session.js";
import { setting } from "./settings.js";
import { authorText, ruleText, t, textOr } from "./text.js";

/** @import { Alarm, AlarmState, Child } from "./types.d.ts" */

const SHELVE_MINUTES = [15, 60, 480, 1440, 10_080]; // at most a week
const DEFAULT_MINUTES = 60;
const SIGNS = { urgent: "▲▲", high: "▲", medium: "■", low: "●" }; // priorities differ in shape, not only in colour
const MOST_COMMENT = 1000; // characters

/** @type {Map<string, string>} */
export const failures = new Map(); // by alarm: why the last action on it failed; kept while its row is made again

/**
 * Returns why an alarm was shelved, or why the platform cleared it.
 * @param {string | null} reason
 */
export const reasonText = (reason) => (reason === null ? null : textOr(`reason.${reason}`, reason));

/** @param {string | null} isoTime */
const elapsed = (isoTime) => (isoTime ? duration(Math.max(1, (now() - Date.parse(isoTime)) / 1000)) : "–");

/** @param {string} machineId */
export const machineLink = (machineId) =>
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
export const remark = (text) => (text ? h("small", {}, ` ${text}`) : null);

/** @param {string | null} isoTime */
export const untilRemark = (isoTime) => (isoTime ? remark(t("alarm.until", { time: moment(isoTime) })) : null);

/** @typedef {"ack" | "shelve" | "unshelve" | "comments"} Action */
/** @typedef {(done: string) => unknown} OnDone Called with what was done; empty after a failure, which the alarm's next row shows. */

/** @param {Action} action */
const mayPerform = (action) => mayMake(`POST /api/alarms/{alarm_id}/${action}`);

/** @param {Alarm} alarm */
export const title = (alarm) => `${groupOf(alarm) ?? originalMachine(alarm.machine_id)}, ${ruleText(alarm.text)}`;

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

/** Makes the choice of how long alarms are shelved. */
export const shelvingMinutes = () =>
  h(
    "select",
    {},
    SHELVE_MINUTES.map((each) => h("option", { value: each, selected: each === DEFAULT_MINUTES }, duration(each * 60))),
  );

/**
 * @param {Alarm} alarm
 * @param {OnDone} onDone
 */
function openCommentDialog(alarm, onDone) {
  const text = h("textarea", { maxlength: MOST_COMMENT, rows: 4, required: true });
  openFormDialog({
    title: t("comment.title", { alarm: title(alarm) }),
    fields: [lastComment(alarm), h("label", {}, t("comment.text"), " ", text)],
    confirm: t("alarm.comments"),
    onConfirm: () => act(alarm, "comments", { text: text.value.trim() }, onDone),
  });
}

/**
 * Returns the last comment on an alarm with its author and time; null without one.
 * @param {Alarm} alarm
 * @returns {Child}
 */
function lastComment({ comment, commented_by: by, commented_at: at }) {
  if (!comment || !at) return null;
  const author = [by, moment(at)].filter(Boolean).join(", ");
  return h("p", { class: "comment" }, comment, remark(`(${author})`));
}

/**
 * @param {Alarm} alarm
 * @param {OnDone} onDone
 */
function openShelveDialog(alarm, onDone) {
  const minutes = shelvingMinutes();
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
  unacknowledged: ["ack", "shelve", "comments"],
  returned: ["ack", "shelve", "comments"],
  acknowledged: ["shelve", "comments"],
  shelved: ["unshelve", "comments"],
  suppressed: ["comments"],
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
    comments: () => button("alarm.comments", () => openCommentDialog(alarm, onDone)),
  };
  return (ACTIONS[alarm.state] ?? []).filter(mayPerform).map((action) => make[action]());
}

/**
 * Makes the cell that says what an alarm is about.
 * @param {Alarm} alarm
 */
const descriptionCell = (alarm) =>
  h(
    "td",
    { class: "what" },
    alarm.group ? groupDetails(alarm.id, alarm.group) : [ruleText(alarm.text), valueLine(alarm)],
    alarm.parent ? remark(t("group.member")) : null,
    remark(alarm.count > 1 ? `×${alarm.count}` : null),
    alarm.chatters ? h("span", { class: "badge", title: t("alarm.chatters.hint") }, t("alarm.chatters")) : null,
    lastComment(alarm),
  );

/**
 * Makes a row for an alarm with the buttons for it.
 * @param {Alarm} alarm
 * @param {{ withMachine: boolean, onDone: OnDone, first?: Child }} options first: A cell before the others.
 */
export function alarmRow(alarm, { withMachine, onDone, first = null }) {
  const problem = problemLine();
  showProblem(problem, failures.get(alarm.id) ?? "");
  return h(
    "tr",
    { class: "alarm", "data-alarm": alarm.id, "data-state": alarm.state, "data-priority": alarm.priority },
    first,
    h(
      "td",
      { class: "priority" },
      h("span", { "aria-hidden": "true" }, SIGNS[alarm.priority]),
      " ",
      t(`priority.${alarm.priority}`),
    ),
    withMachine ? (alarm.group ? groupHeading(alarm.group) : machineLink(alarm.machine_id)) : null,
    descriptionCell(alarm),
    h(
      "td",
      { class: "state" },
      h("span", { class: "badge", "data-state": alarm.state }, t(`alarm.state.${alarm.state}`)),
      untilRemark(alarm.shelved_until),
      alarm.shelved_until ? remark(alarm.reason) : null,
      alarm.state === "acknowledged" ? remark(authorText(alarm.acknowledged_by)) : null,
    ),
    h("td", { class: "since" }, elapsed(alarm.raised_at)),
    h("td", { class: "actions" }, actionButtons(alarm, onDone), problem),
  );
}
