// @ts-check
// What the user has chosen on the page of alarms: a view, filters, order and range of time. It is in the address, so that
// a link or a saved view restores it.

import { originalMachine } from "./names.js";
import { remember, setting } from "./settings.js";

/** @import { Alarm } from "./types.d.ts" */

/** @typedef {"open" | "shelved" | "suppressed" | "journal" | "handover" | "figures" | "rules"} ViewName */
/** @typedef {"urgency" | "priority" | "machine" | "what" | "state" | "since" | "count"} SortKey */
/** @typedef {"" | "site" | "line" | "machine" | "rule"} GroupKey */

/**
 * @typedef {object} Choice
 * @property {ViewName} view
 * @property {string} search Words that an alarm has to contain, separated by spaces.
 * @property {string} priority Empty for all, as the other filters.
 * @property {string} state
 * @property {string} site
 * @property {string} line
 * @property {string} rule
 * @property {string} machine Only for views of the past; in lists of alarms the search finds machines.
 * @property {string} transition
 * @property {SortKey} sort
 * @property {"" | "descending"} order
 * @property {GroupKey} group
 * @property {string} range Hours up to now, `custom` for `start` and `end`, or empty for the usual one of the view.
 * @property {string} start ISO 8601.
 * @property {string} end ISO 8601.
 * @property {string} positions Operator positions, for the figures.
 */

/** @type {Choice} */
export const DEFAULT = {
  view: "open",
  search: "",
  priority: "",
  state: "",
  site: "",
  line: "",
  rule: "",
  machine: "",
  transition: "",
  sort: "urgency",
  order: "",
  group: "",
  range: "",
  start: "",
  end: "",
  positions: "1",
};

export const RANGES = ["1", "8", "12", "24", "168", "720"]; // hours

/** @type {{ [Key in keyof Choice]?: string[] }} */
const ALLOWED = {
  view: ["open", "shelved", "suppressed", "journal", "handover", "figures", "rules"],
  priority: ["", "urgent", "high", "medium", "low"],
  state: ["", "unacknowledged", "acknowledged", "returned"],
  sort: ["urgency", "priority", "machine", "what", "state", "since", "count"],
  order: ["", "descending"],
  group: ["", "site", "line", "machine", "rule"],
  range: ["", "custom", ...RANGES],
};
const KEYS = /** @type {(keyof Choice)[]} */ (Object.keys(DEFAULT));

/**
 * Returns the choice that an address states. What it does not state, or states wrongly, has its default.
 * @param {string} search The query of the address.
 * @returns {Choice}
 */
export function readChoice(search) {
  const stated = new URLSearchParams(search);
  const entries = KEYS.map((key) => {
    const value = stated.get(key);
    return [key, value === null || !(ALLOWED[key]?.includes(value) ?? true) ? DEFAULT[key] : value];
  });
  return Object.fromEntries(entries);
}

/**
 * Returns the query of the address for a choice; empty for the default.
 * @param {Choice} choice
 */
export function writeChoice(choice) {
  const stated = KEYS.filter((key) => choice[key] !== DEFAULT[key]).map((key) => [key, choice[key]]);
  return stated.length ? `?${new URLSearchParams(stated)}` : "";
}

/**
 * Returns the range of time of a choice, in ms since 1970; null for an end that is open.
 * @param {Choice} choice
 * @param {number} present The present time in ms since 1970.
 * @returns {{ start: number | null, end: number | null }}
 */
export function chosenRange({ range, start, end }, present) {
  /** @param {string} text */
  const parsed = (text) => (Number.isNaN(Date.parse(text)) ? null : Date.parse(text));
  if (range === "custom") return { start: parsed(start), end: parsed(end) };
  return { start: range ? present - Number(range) * 3_600_000 : null, end: null };
}

/** @typedef {(alarm: Alarm) => string} RuleText Returns the text of an alarm's rule in the user's language. */

/**
 * Returns whether an alarm matches the filters of a choice.
 * @param {Alarm} alarm
 * @param {Choice} choice
 * @param {RuleText} ruleText
 */
function matches(alarm, choice, ruleText) {
  for (const key of /** @type {const} */ (["priority", "state", "site", "line", "rule"])) {
    if (choice[key] && alarm[key] !== choice[key]) return false;
  }
  const { machine_id: machine, site, line, comment } = alarm;
  const text = [machine, originalMachine(machine), ruleText(alarm), site, line, comment].join(" ").toLowerCase();
  return choice.search
    .toLowerCase()
    .split(/\s+/)
    .every((word) => text.includes(word));
}

const PRIORITY = ["urgent", "high", "medium", "low"];
const STATE = ["unacknowledged", "returned", "acknowledged", "shelved", "suppressed", "normal"];

/**
 * Returns the key by which an alarm is sorted.
 * @param {SortKey} sort
 * @param {Alarm} alarm
 * @param {RuleText} ruleText
 * @returns {string | number}
 */
function sortKey(sort, alarm, ruleText) {
  const keys = {
    urgency: () => STATE.indexOf(alarm.state) * PRIORITY.length + PRIORITY.indexOf(alarm.priority),
    priority: () => PRIORITY.indexOf(alarm.priority),
    machine: () => originalMachine(alarm.machine_id).toLowerCase(),
    what: () => ruleText(alarm).toLowerCase(),
    state: () => STATE.indexOf(alarm.state),
    since: () => Date.parse(alarm.raised_at ?? ""), // the oldest first
    count: () => -alarm.count,
  };
  return keys[sort]();
}

/**
 * Returns the alarms that match a choice, in its order; those with equal keys with the newest first.
 * @param {Alarm[]} alarms
 * @param {Choice} choice
 * @param {RuleText} ruleText
 */
export function matchingAlarms(alarms, choice, ruleText) {
  const sign = choice.order ? -1 : 1;
  return alarms
    .filter((alarm) => matches(alarm, choice, ruleText))
    .map((alarm) => /** @type {const} */ ([sortKey(choice.sort, alarm, ruleText), alarm]))
    .sort(([left, a], [right, b]) => {
      if (left !== right) return left < right ? -sign : sign;
      return Date.parse(b.raised_at ?? "") - Date.parse(a.raised_at ?? "") || (a.id < b.id ? -1 : 1);
    })
    .map(([, alarm]) => alarm);
}

/**
 * Returns the groups of alarms by a field, in the order of their first alarm; one group with an empty name without one.
 * @param {Alarm[]} alarms
 * @param {GroupKey} group
 * @returns {{ name: string, alarms: Alarm[] }[]}
 */
export function groupsOf(alarms, group) {
  /** @type {Map<string, Alarm[]>} */
  const groups = new Map();
  for (const alarm of alarms) {
    const name = group ? alarm[group === "machine" ? "machine_id" : group] : "";
    const members = groups.get(name);
    if (members) members.push(alarm);
    else groups.set(name, [alarm]);
  }
  return [...groups].map(([name, members]) => ({ name, alarms: members }));
}

const MOST_SAVED = 30;

/**
 * Returns the views that are saved in this browser: the query of the address by name.
 * @returns {Record<string, string>}
 */
export function savedViews() {
  try {
    const saved = JSON.parse(setting("alarm_views"));
    return Object.fromEntries(Object.entries(saved).filter(([, query]) => typeof query === "string"));
  } catch {
    return {}; // nothing is saved, or something else has written there
  }
}

/**
 * Saves a view under a name, in place of the one of the same name. The oldest one beyond MOST_SAVED is dropped.
 * @param {string} name
 * @param {string | null} query The query of the address; null to forget the view.
 */
export function saveView(name, query) {
  const others = Object.entries(savedViews()).filter(([each]) => each !== name);
  const views = query === null ? others : [...others, [name, query]];
  remember("alarm_views", JSON.stringify(Object.fromEntries(views.slice(-MOST_SAVED))));
}
