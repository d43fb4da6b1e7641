// @ts-check
// The planned stops of a machine: how long until each of them, and the form that sets one.

import { messageOf, request } from "./api.js";
import { h, problemLine, showProblem } from "./dom.js";
import { duration, moment } from "./format.js";
import { setting } from "./settings.js";
import { t } from "./text.js";

/** @import { PlannedStop, PlannedStops } from "./types.d.ts" */

/**
 * Returns a planned stop in words, with the time until it.
 * @param {PlannedStop} stop
 */
export const stopText = ({ at, in_hours: hours, text }) =>
  [t("stops.item", { date: moment(at), time: duration(3600 * hours) }), text].filter(Boolean).join(" · ");

/**
 * Makes the content of the card.
 * @param {string} path Of the machine's planned stops.
 * @param {AbortSignal} signal
 * @param {() => void} onChanged
 */
export async function plannedStops(path, signal, onChanged) {
  /** @type {PlannedStops} */
  const { items } = await request(path, { signal });
  const problem = problemLine();
  /** @param {() => Promise<unknown>} change */
  async function perform(change) {
    showProblem(problem, "");
    try {
      await change();
      onChanged();
    } catch (error) {
      showProblem(problem, messageOf(error));
    }
  }
  const at = h("input", { type: "datetime-local", required: true });
  /** @param {SubmitEvent} event */
  function submit(event) {
    event.preventDefault();
    const body = { at: new Date(at.value).toISOString(), by: setting("operator") };
    perform(() => request(path, { method: "POST", body }));
  }
  /** @param {PlannedStop} stop */
  const cancel = (stop) => () => perform(() => request(`${path}/${encodeURIComponent(stop.id)}`, { method: "DELETE" }));
  const list = items.map((stop) =>
    h("li", {}, stopText(stop), " ", h("button", { type: "button", on: { click: cancel(stop) } }, t("stops.cancel"))),
  );
  return [
    items.length ? h("ul", { class: "plain" }, list) : h("p", { class: "nothing" }, t("stops.none")),
    h(
      "form",
      { class: "inline", on: { submit } },
      h("label", {}, t("stops.label"), " ", at),
      h("button", { type: "submit" }, t("stops.add")),
      problem,
    ),
  ];
}
