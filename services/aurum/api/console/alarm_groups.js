// @ts-check
// Alarms that stand for the machines of a gateway or site that are silent together.

import { request } from "./api.js";
import { h } from "./dom.js";
import { number, timeOrDate } from "./format.js";
import { plant } from "./live.js";
import { originalMachine, storedHint } from "./names.js";
import { t } from "./text.js";

/** @import { Alarm, AlarmGroup, Alarms, Transition } from "./types.d.ts" */

const MOST_GROUPS = 100; // on the page of the plant

/** @type {Set<string>} */
const opened = new Set(); // alarms whose machines are shown; kept while their rows are made again

/**
 * Returns the name of a group.
 * @param {{ gateway: string | null, site: string | null }} group
 */
export function groupName({ gateway, site }) {
  if (!gateway) return t("group.site", { site: site ?? "" });
  return site ? t("group.gateway_at", { gateway, site }) : t("group.gateway", { gateway });
}

/**
 * Returns the name of what an alarm or an entry of its history is about, if that is a group.
 * @param {Alarm} alarm
 */
export const groupOf = ({ group }) => (group ? groupName(group) : null);

/**
 * Returns how many machines are silent since when, and what is known of the cause.
 * @param {AlarmGroup} group
 */
export function groupText({ count, since, cause }) {
  if (!count) return t("group.returned");
  const silent = t("group.silent", { n: count, count: number(count), time: timeOrDate(since) });
  return cause ? `${silent} – ${t(`group.cause.${cause}`)}` : silent;
}

/**
 * Makes the heading of the row of a group's alarm, or of an entry of its history.
 * @param {{ gateway: string | null, site: string | null }} group
 */
export const groupHeading = (group) => h("th", { scope: "row" }, groupName(group));

/**
 * Makes what the row of a group's alarm says, with its machines to unfold.
 * @param {string} id The id of the alarm.
 * @param {AlarmGroup} group
 */
export const groupDetails = (id, group) => machineList(id, group, groupText(group));

/**
 * @param {string} id
 * @param {AlarmGroup} group
 * @param {string} summary
 */
function machineList(id, group, summary) {
  const items = group.machines.map(({ machine_id: machine, since }) =>
    h(
      "li",
      {},
      h(
        "a",
        { href: `/machines/${encodeURIComponent(machine)}`, title: storedHint(machine) },
        originalMachine(machine),
      ),
      " ",
      h("small", {}, t("state.no_data", { time: timeOrDate(since) })),
    ),
  );
  const details = h(
    "details",
    { class: "group", "data-group": id, open: opened.has(id) },
    h("summary", {}, summary),
    h("ul", {}, items),
  );
  details.addEventListener("toggle", () => {
    if (details.open) opened.add(id);
    else opened.delete(id);
  });
  return details;
}

/**
 * Returns what an entry of the history says of the group that it is about, or of the alarm that suppresses its own.
 * @param {Transition} item
 */
export function journalGroup(item) {
  if (item.cause) return t(`group.cause.${item.cause}`);
  return item.parent ? t("group.member") : null;
}

/** Makes the list of groups that are silent now, for the page of the plant. */
export function groupBoard() {
  const element = h("section", { class: "groups", "aria-label": t("group.title"), hidden: true });
  let turn = 0; // a late answer does not replace a later one
  return {
    element,
    /**
     * Shows the groups of this moment. Without any, nothing is asked for.
     * @param {AbortSignal} signal
     */
    async refresh(signal) {
      const mine = ++turn;
      let items = /** @type {Alarm[]} */ ([]);
      if (plant.alarms.groups) {
        try {
          /** @type {Alarms} */
          const answer = await request(`/api/alarms?groups=true&limit=${MOST_GROUPS}`, { signal });
          items = answer.items;
        } catch (error) {
          if (!signal.aborted) console.info("the groups of silent machines cannot be loaded:", error);
          return; // what is shown stays until the next change
        }
      }
      if (mine !== turn) return;
      const silent = items.flatMap(({ id, group }) => (group?.count ? [{ id, group }] : []));
      element.hidden = !silent.length;
      element.replaceChildren(
        ...silent.map(({ id, group }) => machineList(id, group, `${groupName(group)}: ${groupText(group)}`)),
      );
    },
  };
}
