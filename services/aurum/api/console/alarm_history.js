// @ts-check
// The history of alarms: the journal with the chosen filters, page after page.

import { chosenRange } from "./alarm_choice.js";
import { groupHeading, journalGroup } from "./alarm_groups.js";
import { machineLink, reasonText, remark, untilRemark } from "./alarms.js";
import { messageOf, request } from "./api.js";
import { h, headings, problemLine, setText, showProblem, tableOf } from "./dom.js";
import { moment, now, number } from "./format.js";
import { authorText, ruleText, t } from "./text.js";

/** @import { Choice } from "./alarm_choice.js" */
/** @import { Journal, Transition } from "./types.d.ts" */

const PAGE = 200; // entries

/** @param {Transition} item */
const keyOf = (item) => [item.at, item.id, item.transition, item.comment].join(" ");

/** @param {Transition} item */
const row = (item) =>
  h(
    "tr",
    {},
    h("td", {}, moment(item.at)),
    item.machine_id ? machineLink(item.machine_id) : groupHeading(item),
    h(
      "td",
      { class: "what" },
      item.machine_id ? ruleText(item.text) : t("group.text"),
      remark(journalGroup(item)),
      item.value === null ? null : remark(number(item.value)),
    ),
    h(
      "td",
      { class: "what" },
      t(`transition.${item.transition}`),
      untilRemark(item.until),
      remark(reasonText(item.reason)),
      item.comment ? h("p", { class: "comment" }, item.comment) : null,
    ),
    h("td", {}, item.by ? authorText(item.by) : t("journal.platform")),
  );

/**
 * Returns the query of the journal for a choice.
 * @param {Choice} choice
 */
function queryOf(choice) {
  const { start, end } = chosenRange(choice, now());
  /** @type {[string, string][]} */
  const filters = [
    ["machine_id", choice.machine.trim()],
    ["site", choice.site],
    ["rule", choice.rule],
    ["priority", choice.priority],
    ["transition", choice.transition],
    ["start", start === null ? "" : new Date(start).toISOString()],
    ["end", end === null ? "" : new Date(end).toISOString()],
  ];
  return new URLSearchParams([["limit", String(PAGE)], ...filters.filter(([, value]) => value)]).toString();
}

/**
 * Joins a new first page with the entries that are shown.
 * @param {Transition[]} shown The newest first.
 * @param {Transition[]} newest The first page.
 * @returns {Transition[] | null} Null if there may be entries between both.
 */
export function joinPages(shown, newest) {
  const keys = new Set(newest.map(keyOf));
  const older = shown.filter((item) => !keys.has(keyOf(item)));
  if (shown.length && newest.length && older.length === shown.length) return null;
  return [...newest, ...older];
}

/**
 * Makes the history.
 * @param {AbortSignal} signal Ends the requests.
 */
export function alarmHistory(signal) {
  const table = h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": t("alarms.journal") });
  const state = h("p", { class: "count-line", role: "status" });
  const problem = problemLine();
  const more = h("button", { type: "button", hidden: true, on: { click: () => load(cursor) } }, t("history.more"));
  const element = h("section", {}, state, problem, table, more);
  /** @type {Transition[]} */
  let items = [];
  /** @type {string | null} */
  let cursor = null;
  let query = "";
  let turn = 0; // a late answer does not replace a later one

  function draw() {
    const head = headings(["time", "machine", "what", "transition", "by"].map((key) => t(`journal.${key}`)));
    if (items.length) table.replaceChildren(tableOf({ label: t("alarms.journal"), head, rows: items.map(row) }));
    else table.replaceChildren(h("p", { class: "nothing" }, t(cursor ? "history.none_yet" : "history.none")));
    more.hidden = cursor === null;
    setText(state, t(cursor ? "history.shown" : "history.all", { n: items.length }));
  }

  /**
   * Loads a page.
   * @param {string | null} from The cursor of an older page; null for the newest.
   */
  async function load(from) {
    const mine = ++turn;
    try {
      const rest = from === null ? "" : `&cursor=${encodeURIComponent(from)}`;
      /** @type {Journal} */
      const page = await request(`/api/alarms/journal?${query}${rest}`, { signal });
      if (mine !== turn) return;
      showProblem(problem, "");
      if (from !== null) [items, cursor] = [[...items, ...page.items], page.next_cursor];
      else {
        const joined = joinPages(items, page.items);
        if (!items.length || joined === null) cursor = page.next_cursor;
        items = joined ?? page.items;
      }
      draw();
    } catch (error) {
      if (!signal.aborted && mine === turn) showProblem(problem, messageOf(error));
    }
  }

  return {
    element,
    /**
     * Shows the history with other filters.
     * @param {Choice} choice
     */
    choose(choice) {
      query = queryOf(choice);
      items = [];
      cursor = null;
      return load(null);
    },
    /** Adds what is new. Pages that are shown stay. */
    refresh: () => load(null),
  };
}
