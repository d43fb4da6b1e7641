// @ts-check
// A report on the alarms of a period, as a page to read, to print, or to save as CSV.

import { chosenRange, DEFAULT } from "./alarm_choice.js";
import { messageOf, request } from "./api.js";
import { h, problemLine, showProblem } from "./dom.js";
import { moment, now } from "./format.js";
import { t } from "./text.js";

/** @import { Choice } from "./alarm_choice.js" */
/** @import { AlarmFigures, Child, Handover } from "./types.d.ts" */

/** @typedef {{ handover: Handover, figures: AlarmFigures }} Reports */

const PATHS = { handover: "/api/reports/handover", figures: "/api/reports/alarms" };

/**
 * How many hours a report covers, unless the user chooses a period.
 * @type {Record<string, string>}
 */
export const USUAL_HOURS = { handover: "8", figures: "168" };

/**
 * Returns the query of a report for a choice.
 * @param {Choice} choice
 * @param {keyof Reports} kind
 */
function queryOf(choice, kind) {
  const present = now();
  const hours = USUAL_HOURS[kind];
  const { start, end } = chosenRange(choice.range ? choice : { ...choice, range: hours }, present);
  return new URLSearchParams({
    start: new Date(start ?? present - Number(hours) * 3_600_000).toISOString(),
    ...(end === null ? {} : { end: new Date(end).toISOString() }), // else the API's present, which is the right one
    ...(choice.site ? { site: choice.site } : {}),
    ...(kind === "figures" ? { positions: choice.positions } : {}),
  });
}

/**
 * Makes the view of a report. It stays as it is until the user chooses another period, or loads it anew.
 * @template {keyof Reports} Kind
 * @param {Kind} kind
 * @param {(report: Reports[Kind]) => Child} content Makes the content of a report.
 * @param {AbortSignal} signal Ends the requests.
 */
export function alarmReport(kind, content, signal) {
  const path = PATHS[kind];
  const problem = problemLine();
  const body = h("div", { class: "report" });
  const save = kind === "handover" ? h("a", { class: "button", download: "" }, t("report.csv")) : null;
  const bar = h(
    "div",
    { class: "inline report-bar" },
    h("button", { type: "button", on: { click: () => load() } }, t("report.reload")),
    h("button", { type: "button", on: { click: () => print() } }, t("report.print")),
    save,
  );
  const element = h("section", {}, bar, problem, body);
  let chosen = DEFAULT;
  let turn = 0; // a late answer does not replace a later one

  /**
   * Shows a report.
   * @param {Reports[Kind]} report
   */
  function show(report) {
    const { start, end, site, complete_from: complete } = report;
    // The file is of the same period, also if it is saved later
    const saved = new URLSearchParams({ start, end, ...(site ? { site } : {}), format: "csv" });
    save?.setAttribute("href", `${path}?${saved}`);
    const isComplete = Date.parse(complete) <= Date.parse(start);
    body.replaceChildren(
      h("h2", {}, t(`alarms.${kind}`), site ? ` · ${site}` : ""),
      h("p", { class: "hint" }, t("report.period", { start: moment(start), end: moment(end) })),
      isComplete ? "" : h("p", { class: "problem" }, t("report.incomplete", { time: moment(complete) })),
      h("div", {}, content(report)),
    );
  }

  async function load() {
    const mine = ++turn;
    const query = queryOf(chosen, kind);
    try {
      /** @type {Reports[Kind]} */
      const report = await request(`${path}?${query}`, { signal });
      if (mine !== turn) return;
      showProblem(problem, "");
      show(report);
    } catch (error) {
      if (!signal.aborted && mine === turn) showProblem(problem, messageOf(error));
    }
  }

  return {
    element,
    /** @param {Choice} choice */
    choose(choice) {
      chosen = choice;
      return load();
    },
    refresh() {}, // a report that is being read does not change
  };
}
