// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";

import { countMachines, totalContent } from "../../services/aurum/api/console/plant_tiles.js";
import { addressOf, matchingMachines, readView } from "../../services/aurum/api/console/plant_view.js";
import { machine, rul, speak } from "./browser.js";

/** @import { View } from "../../services/aurum/api/console/plant_view.js" */

const SEEN = { last_seen: new Date().toISOString() };
const PUMP = machine({ ...SEEN, machine_id: "pump-2", risk_score: 0.9, rul: rul(10, 5, 20) });
const OTHER_PUMP = machine({ ...SEEN, machine_id: "pump-1", risk_score: 0.2, rul: rul(90, 80, 99) });
const MILL = machine({ machine_id: "mill-1", machine_type: "cnc_mill", site: "plant-b", last_seen: null });
const MACHINES = [PUMP, OTHER_PUMP, MILL];

/** @type {View} */
const ALL = { search: "", state: "", type: "", site: "", sort: "machine", descending: false };

/** @param {Partial<View>} view */
const names = (view) => matchingMachines(MACHINES, { ...ALL, ...view }).map((each) => each.machine_id);

test("machines are sorted by each column in both directions", () => {
  assert.deepEqual(names({}), ["mill-1", "pump-1", "pump-2"]);
  assert.deepEqual(names({ descending: true }), ["pump-2", "pump-1", "mill-1"]);
  assert.deepEqual(names({ sort: "risk", descending: true }), ["pump-2", "pump-1", "mill-1"]);
  assert.deepEqual(names({ sort: "life" }), ["pump-2", "pump-1", "mill-1"]);
  assert.deepEqual(names({ sort: "seen" }), ["mill-1", "pump-1", "pump-2"]);
});

test("machines with equal keys are sorted by name", () => {
  assert.deepEqual(names({ sort: "type", descending: true }), ["pump-1", "pump-2", "mill-1"]);
  assert.deepEqual(names({ sort: "site" }), ["pump-1", "pump-2", "mill-1"]);
});

test("search finds machines by name, type and site", () => {
  assert.deepEqual(names({ search: " PUMP-1 " }), ["pump-1"]);
  assert.deepEqual(names({ search: "cnc" }), ["mill-1"]);
  assert.deepEqual(names({ search: "plant-a" }), ["pump-1", "pump-2"]);
  assert.deepEqual(names({ search: "nothing like it" }), []);
});

test("filters restrict machines by state, type and site", () => {
  assert.deepEqual(names({ state: "new" }), ["mill-1"]);
  assert.deepEqual(names({ type: "pump" }), ["pump-1", "pump-2"]);
  assert.deepEqual(names({ site: "plant-b" }), ["mill-1"]);
  assert.deepEqual(names({ site: "plant-b", type: "pump" }), []);
});

test("machines are counted by state and by risk", () => {
  const { states, atRisk, highest } = countMachines(MACHINES);
  assert.deepEqual(states, { running: 2, fault: 0, stale: 0, offline: 0, new: 1 });
  assert.equal(atRisk, 1);
  assert.deepEqual(highest, { machine: "pump-2", risk: 0.9 });
});

test("plant without predictions has no highest risk", () => {
  assert.equal(countMachines([MILL]).highest, null);
});

test("search finds a machine by its original and its stored name", () => {
  const press = machine({ machine_id: "Presse_x0020_7" });
  for (const search of ["presse 7", "x0020"])
    assert.deepEqual(matchingMachines([press, PUMP], { ...ALL, search }), [press]);
});

test("address restores the view that it was made of", () => {
  for (const view of [
    ALL,
    { ...ALL, search: "a & b=ü", state: "fault" },
    { ...ALL, site: "plant-a", type: "pump" },
    { ...ALL, sort: /** @type {const} */ ("life"), descending: true },
    { ...ALL, sort: /** @type {const} */ ("risk"), descending: true },
  ]) {
    assert.deepEqual(readView(new URL(addressOf(view), "http://plant").search), view);
  }
});

test("address of the usual view is that of the page", () => {
  assert.equal(addressOf({}), "/");
  assert.equal(readView("").sort, "risk");
});

test("address with a wrong order has the usual one", () => {
  assert.equal(addressOf(readView("?sort=nothing&site=a")), "/?site=a");
});

test("total is compared with the usual use of the same machines", async () => {
  await speak("en");
  const used = { amount: 500, usual: 100, compared: 108, left_out: 40, reason: null };
  assert.deepEqual(totalContent(used, "kWh"), {
    text: "500",
    unit: " kWh",
    note: "+8% vs. the usual 100 kWh by this hour, without 40 machines of which a day is missing",
    level: "low",
  });
  const { note } = totalContent({ ...used, compared: 150, left_out: 0 }, "kWh");
  assert.equal(note, "+50% vs. the usual 100 kWh by this hour");
});

test("total without a usual use tells why", async () => {
  await speak("en");
  const used = { amount: 500, usual: null };
  assert.equal(totalContent(used, "l").note, "no earlier days to compare with yet");
  assert.equal(totalContent({ ...used, reason: "no_readings_today" }, "l").note, "too few readings today to compare");
});
