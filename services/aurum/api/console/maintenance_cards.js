// @ts-check
// The records of a machine's maintenance and failures, and what became of predictions.

import { messageOf, request } from "./api.js";
import { h, problemLine, showProblem } from "./dom.js";
import { moment, number, percent, unitName } from "./format.js";
import { setting } from "./settings.js";
import { authorText, t } from "./text.js";

/** @import { Maintenance, OutcomeMonth } from "./types.d.ts" */

const RECORDS = 10; // of maintenance, the newest
const KINDS = /** @type {const} */ (["overhaul", "replacement", "repair", "inspection", "failure"]);

/**
 * Makes the form that records maintenance and failures.
 * @param {string} path Of the machine's records.
 * @param {() => void} onRecorded
 */
export function maintenanceForm(path, onRecorded) {
  const text = h("input", { required: true, maxlength: 500, placeholder: t("maintenance.hint") });
  const kind = h(
    "select",
    {},
    h("option", { value: "" }, t("maintenance.kind.note")),
    KINDS.map((each) => h("option", { value: each }, t(`maintenance.kind.${each}`))),
  );
  const mode = h("input", { maxlength: 100, placeholder: t("maintenance.mode_hint") });
  const from = h("input", { type: "datetime-local" });
  const to = h("input", { type: "datetime-local" });
  const problem = problemLine();
  /** @param {SubmitEvent} event */
  const submit = async (event) => {
    event.preventDefault();
    showProblem(problem, "");
    const body = {
      text: text.value,
      by: setting("operator"),
      kind: kind.value || null,
      failure_mode: mode.value,
      from: instantOf(from.value),
      to: instantOf(to.value),
    };
    try {
      await request(path, { method: "POST", body });
      for (const input of [text, mode, from, to]) input.value = "";
      kind.value = "";
      onRecorded();
    } catch (error) {
      showProblem(problem, messageOf(error));
    }
  };
  return h(
    "form",
    { class: "inline", on: { submit } },
    h("label", {}, t("maintenance.label"), " ", text),
    h("label", {}, t("maintenance.kind"), " ", kind),
    h("label", {}, t("maintenance.mode"), " ", mode),
    h("label", {}, t("maintenance.from"), " ", from),
    h("label", {}, t("maintenance.to"), " ", to),
    h("button", { type: "submit" }, t("maintenance.record")),
    problem,
  );
}

/**
 * Returns the instant of a local time in a form, or null without one.
 * @param {string} local
 */
function instantOf(local) {
  return local ? new Date(local).toISOString() : null;
}

/**
 * @param {Maintenance[]} items
 * @param {string} path Of the machine's records.
 * @param {(() => void) | null} onDeleted Null if the user may not delete records.
 */
export function maintenanceList(items, path, onDeleted) {
  if (!items.length) return h("p", { class: "nothing" }, t("maintenance.none"));
  const shown = items.slice(0, RECORDS);
  const problem = problemLine();
  /** @param {string} id */
  const remove = async (id) => {
    try {
      await request(`${path}/${encodeURIComponent(id)}`, { method: "DELETE" });
      onDeleted?.();
    } catch (error) {
      showProblem(problem, messageOf(error));
    }
  };
  return h(
    "div",
    {},
    h(
      "ul",
      { class: "plain" },
      shown.map(({ id, at, text, by, kind, failure_mode: mode }) =>
        h(
          "li",
          {},
          h("time", {}, moment(at)),
          " ",
          kind ? h("strong", {}, t(`maintenance.kind.${kind}`), " ") : null,
          text,
          mode ? h("em", {}, ` ${mode}`) : null,
          by ? h("small", {}, ` ${authorText(by)}`) : null,
          " ",
          onDeleted &&
            h(
              "button",
              { type: "button", "aria-label": `${t("maintenance.delete")}: ${text}`, on: { click: () => remove(id) } },
              t("maintenance.delete"),
            ),
        ),
      ),
    ),
    problem,
  );
}

/**
 * Shows what became of the predictions for a machine type in the latest months.
 * @param {OutcomeMonth[]} items
 */
export function outcomeList(items) {
  if (!items.length) return h("p", { class: "nothing" }, t("outcomes.none"));
  return h(
    "ul",
    { class: "plain" },
    items.map((each) =>
      h(
        "li",
        {},
        h("strong", {}, each.month),
        " ",
        t("outcomes.failures", { predicted: each.predicted_failures, failures: each.failures }),
        "; ",
        t("outcomes.false", { count: each.false_warnings }),
        each.lead_time === null
          ? null
          : `; ${t("outcomes.lead", { time: number(each.lead_time), unit: unitName(each.unit) })}`,
        each.mean_risk === null || each.failure_rate === null
          ? null
          : h(
              "small",
              {},
              ` ${t("outcomes.calibration", { told: percent(each.mean_risk), true: percent(each.failure_rate) })}`,
            ),
      ),
    ),
  );
}
