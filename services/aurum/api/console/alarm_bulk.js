// @ts-check
// Acknowledging and shelving many alarms with one reason.

import { failures, shelvingMinutes } from "./alarms.js";
import { kindText, messageOf, request } from "./api.js";
import { h } from "./dom.js";
import { field, openFormDialog } from "./form_dialog.js";
import { now } from "./format.js";
import { mayMake } from "./session.js";
import { setting } from "./settings.js";
import { t } from "./text.js";

/** @import { BulkItem } from "./types.d.ts" */

/** @typedef {"ack" | "shelve"} BulkName */

const MOST_AT_ONCE = 300; // alarms in one request
const MOST_REASON = 500; // characters

/** @param {BulkName} action */
export const mayActOnAll = (action) => mayMake(`POST /api/alarms/${action}`);

/**
 * Acknowledges or shelves alarms. Why an alarm was not, is shown in its row.
 * @param {BulkName} action
 * @param {string[]} ids
 * @param {object} body
 * @returns {Promise<string>} What was done, for the user.
 */
async function actOnAll(action, ids, body) {
  let done = 0;
  for (let first = 0; first < ids.length; first += MOST_AT_ONCE) {
    const part = ids.slice(first, first + MOST_AT_ONCE);
    try {
      /** @type {{ items: BulkItem[] }} */
      const { items } = await request(`/api/alarms/${action}`, {
        method: "POST",
        body: { by: setting("operator"), ids: part, ...body },
      });
      for (const item of items) {
        if (item.done) failures.delete(item.id);
        else failures.set(item.id, kindText(item.problem, item.detail));
      }
      done += items.filter((item) => item.done).length;
    } catch (error) {
      for (const id of part) failures.set(id, messageOf(error));
    }
  }
  const failed = ids.length - done;
  const texts = [
    done || !failed ? t(`bulk.done.${action}`, { n: done }) : "",
    failed ? t("bulk.failed", { n: failed }) : "",
  ];
  return texts.filter(Boolean).join(" ");
}

/**
 * Asks for a reason, and then acknowledges or shelves alarms.
 * @param {BulkName} action
 * @param {string[]} ids
 * @param {{ onDone: (done: string) => unknown, onClose: () => unknown }} handlers onDone: Called with what was done.
 */
export function openBulkDialog(action, ids, { onDone, onClose }) {
  const reason = h("input", { maxlength: MOST_REASON });
  const minutes = action === "shelve" ? shelvingMinutes() : null;
  openFormDialog({
    title: t(`bulk.title.${action}`, { n: ids.length }),
    fields: [field(t("shelve.reason"), reason), minutes ? field(t("shelve.for"), minutes) : null],
    confirm: t(`alarm.${action}`),
    onClose,
    onConfirm: async () => {
      // An end, not a duration, so that a request that is sent again changes nothing more
      const until = minutes && new Date(now() + Number(minutes.value) * 60_000).toISOString();
      onDone(await actOnAll(action, ids, { reason: reason.value.trim(), ...(until ? { until } : {}) }));
    },
  });
}
