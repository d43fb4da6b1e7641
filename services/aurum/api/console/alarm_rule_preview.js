// @ts-check
// What a rule would have raised in the last week.

import { h } from "./dom.js";
import { moment, number } from "./format.js";
import { originalMachine } from "./names.js";
import { t } from "./text.js";

/** @import { RulePreview } from "./types.d.ts" */

/**
 * Makes the text of a preview: how many alarms, what it covers, and the machines with most alarms.
 * @param {RulePreview} preview
 */
export function previewText(preview) {
  const { machines, machines_in_all: all, machines_with_data: withData, data_from: from, most } = preview;
  const covered = from
    ? t("rules.preview.covered", {
        n: withData,
        from: moment(from),
        to: moment(preview.end),
        readings: number(preview.readings),
      })
    : t("rules.preview.no_data");
  return [
    h("p", {}, h("strong", {}, t("rules.preview.raised", { n: preview.raised }))),
    h("p", { class: "hint" }, covered),
    ...(machines < all
      ? [h("p", { class: "problem" }, t(`rules.preview.stopped.${preview.stopped_by}`, { n: machines, all }))]
      : []),
    ...(most.length
      ? [
          h(
            "ol",
            {},
            most.map(({ machine_id: machine, raised, last_at: last }) =>
              h(
                "li",
                {},
                t("rules.preview.machine", { machine: originalMachine(machine), n: raised, time: moment(last) }),
              ),
            ),
          ),
        ]
      : []),
    h("p", { class: "hint" }, t("rules.preview.hint")),
  ];
}
