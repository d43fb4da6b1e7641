// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";

import {
  chosenRange,
  DEFAULT,
  groupsOf,
  matchingAlarms,
  readChoice,
  savedViews,
  saveView,
  writeChoice,
} from "../../services/aurum/api/console/alarm_choice.js";
import { storage } from "./browser.js";

/** @import { Choice } from "../../services/aurum/api/console/alarm_choice.js" */
/** @import { Alarm } from "../../services/aurum/api/console/types.d.ts" */

/**
 * @param {Partial<Alarm>} fields
 * @returns {Alarm}
 */
const alarm = (fields) => ({
  id: `${fields.machine_id ?? "pump-1"}~${fields.rule ?? "hot"}`,
  machine_id: "pump-1",
  rule: "hot",
  text: "Too hot",
  priority: "high",
  state: "unacknowledged",
  value: 1,
  quantity: "sensor",
  sensor: "heat",
  limit: 1,
  present_value: null,
  chatters: false,
  raised_at: "2026-01-01T00:00:00Z",
  acknowledged_by: null,
  shelved_until: null,
  reason: null,
  count: 1,
  parent: null,
  group: null,
  site: "north",
  line: "",
  comment: null,
  commented_by: null,
  commented_at: null,
  ...fields,
});

const ALARMS = [
  alarm({ machine_id: "pump-2", raised_at: "2026-01-01T00:00:00Z", count: 5 }),
  alarm({ machine_id: "pump-1", raised_at: "2026-01-02T00:00:00Z", state: "acknowledged", comment: "Fan is loose" }),
  alarm({ machine_id: "mill-1", rule: "stopped", text: "Stopped", priority: "urgent", site: "south", line: "L1" }),
  alarm({
    machine_id: "mill-1",
    rule: "silent",
    text: "No readings",
    priority: "low",
    state: "returned",
    site: "south",
  }),
];

/** @param {Partial<Choice>} choice */
const ids = (choice) => matchingAlarms(ALARMS, { ...DEFAULT, ...choice }, ({ text }) => text).map(({ id }) => id);

test("alarms are sorted by urgency, and by each column in both directions", () => {
  assert.deepEqual(ids({}), ["mill-1~stopped", "pump-2~hot", "mill-1~silent", "pump-1~hot"]);
  assert.deepEqual(ids({ sort: "machine" }), ["mill-1~silent", "mill-1~stopped", "pump-1~hot", "pump-2~hot"]);
  assert.deepEqual(ids({ sort: "what", order: "descending" }).slice(0, 2), ["pump-1~hot", "pump-2~hot"]);
  assert.deepEqual(ids({ sort: "since", order: "descending" })[0], "pump-1~hot");
  assert.deepEqual(ids({ sort: "count" })[0], "pump-2~hot");
  assert.deepEqual(ids({ sort: "priority", order: "descending" })[0], "mill-1~silent");
  assert.deepEqual(ids({ sort: "state" }).at(-1), "pump-1~hot");
});

test("filters and search combine; each word of a search has to occur", () => {
  assert.deepEqual(ids({ site: "south", priority: "low" }), ["mill-1~silent"]);
  assert.deepEqual(ids({ search: "fan PUMP" }), ["pump-1~hot"]);
  assert.deepEqual(ids({ search: "fan mill" }), []);
  assert.deepEqual(ids({ line: "L1", rule: "stopped", state: "unacknowledged" }), ["mill-1~stopped"]);
});

test("groups are in the order of their first alarm and contain all", () => {
  const groups = groupsOf(ALARMS, "site").map(({ name, alarms }) => [name, alarms.length]);
  assert.deepEqual(groups, [
    ["north", 2],
    ["south", 2],
  ]);
  assert.deepEqual(
    groupsOf(ALARMS, "line").map(({ name }) => name),
    ["", "L1"],
  );
  assert.equal(groupsOf(ALARMS, "").length, 1);
  assert.deepEqual(groupsOf([], "rule"), []);
});

test("an address restores what is chosen, and only that is in it", () => {
  assert.equal(writeChoice(DEFAULT), "");
  /** @type {Choice} */
  const choice = { ...DEFAULT, view: "journal", search: "é &x=1", range: "custom", start: "2026-01-01T00:00:00.000Z" };
  assert.deepEqual(readChoice(writeChoice(choice)), choice);
  assert.deepEqual(readChoice("?view=nothing&sort=x&priority=huge&unknown=1&site=a"), { ...DEFAULT, site: "a" });
});

test("a range of hours ends now, and dates that are none are left open", () => {
  assert.deepEqual(chosenRange({ ...DEFAULT, range: "8" }, 8 * 3_600_000), { start: 0, end: null });
  assert.deepEqual(chosenRange(DEFAULT, 5), { start: null, end: null });
  const custom = { ...DEFAULT, range: "custom", start: "1970-01-01T00:00:01Z", end: "soon" };
  assert.deepEqual(chosenRange(custom, 5), { start: 1000, end: null });
});

test("saved views are replaced and forgotten by name; damaged ones count as none", () => {
  const stored = storage();
  saveView("mine", "?site=a");
  saveView("other", "");
  saveView("mine", "?site=b");
  assert.deepEqual(savedViews(), { other: "", mine: "?site=b" });
  saveView("other", null);
  assert.deepEqual(savedViews(), { mine: "?site=b" });
  for (let number = 0; number < 40; number += 1) saveView(`view ${number}`, "");
  assert.equal(Object.keys(savedViews()).length, 30);
  stored.set("aurum.alarm_views", "{");
  assert.deepEqual(savedViews(), {});
});
