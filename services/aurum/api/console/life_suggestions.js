// @ts-check
// The stops after which a machine reads as new. A person tells by a maintenance record whether a new life began.

import { messageOf, request } from "./api.js";
import { h, problemLine, showProblem } from "./dom.js";
import { moment, number, sensorName } from "./format.js";
import { setting } from "./settings.js";
import { t } from "./text.js";

/** @import { LifeSuggestion, LifeSuggestions } from "./types.d.ts" */

const SENSORS = 3; // of a suggestion, as examples

/**
 * Returns which sensors read as at the beginning, in words.
 * @param {LifeSuggestion} suggestion
 */
export function levelsText({ levels }) {
  const shown = levels.slice(0, SENSORS).map(({ sensor, before, after, begin }) => {
    const { name, unit } = sensorName(sensor);
    const back = [number(after), unit].filter(Boolean).join(" ");
    return t("lives.level", { sensor: name, before: number(before), after: back, begin: number(begin) });
  });
  const more = levels.length - SENSORS;
  return [...shown, ...(more > 0 ? [t("lives.more", { n: more })] : [])].join("; ");
}

/**
 * Makes the content of the card.
 * @param {string} path Of the machine.
 * @param {AbortSignal} signal
 * @param {(() => void) | null} onRecorded Null if the user may not record maintenance.
 */
export async function lifeSuggestions(path, signal, onRecorded) {
  /** @type {LifeSuggestions} */
  const { items, sensors_left_out: leftOut } = await request(`${path}/life-suggestions`, { signal });
  const problem = problemLine();
  /**
   * @param {LifeSuggestion} suggestion
   * @param {"overhaul" | "inspection"} kind
   */
  const record = (suggestion, kind) => async () => {
    showProblem(problem, "");
    const body = {
      text: t(kind === "overhaul" ? "lives.confirmed" : "lives.rejected"),
      by: setting("operator"),
      kind,
      from: suggestion.stopped_at,
      to: suggestion.resumed_at,
    };
    try {
      await request(`${path}/maintenance`, { method: "POST", body });
      onRecorded?.();
    } catch (error) {
      showProblem(problem, messageOf(error));
    }
  };
  const list = items.map((each) =>
    h(
      "li",
      {},
      t("lives.stop", { from: moment(each.stopped_at), to: moment(each.resumed_at) }),
      " ",
      levelsText(each),
      " ",
      onRecorded && h("button", { type: "button", on: { click: record(each, "overhaul") } }, t("lives.confirm")),
      " ",
      onRecorded && h("button", { type: "button", on: { click: record(each, "inspection") } }, t("lives.reject")),
    ),
  );
  return [
    items.length ? h("p", {}, t("lives.question")) : h("p", { class: "nothing" }, t("lives.none")),
    items.length ? h("ul", { class: "plain" }, list) : null,
    leftOut ? h("p", { class: "hint" }, t("lives.left_out", { n: leftOut })) : null,
    problem,
  ].filter((each) => each !== null);
}
