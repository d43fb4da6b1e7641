// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";

import { lines, mainSensor } from "../../services/aurum/api/console/plant_trends.js";
import { machine } from "./browser.js";

/** @param {string | null} sensor */
const limit = (sensor) => ({
  ...{ rule: "r", text: "t", limit: 1, above: true },
  ...{ quantity: /** @type {const} */ ("sensor"), sensor },
});

test("sensor that an alarm rule limits matters most", () => {
  const pump = machine({ values: { fault: 0, flow: 3, vibration_mm_s: 2 } });
  assert.equal(mainSensor(pump, [limit(null), limit("heat"), limit("vibration_mm_s")]), "vibration_mm_s");
  assert.equal(mainSensor(pump, []), "flow");
  assert.equal(mainSensor(pump, [limit("fault")]), "flow");
  assert.equal(mainSensor(machine({ values: {} }), []), null);
});

test("trend has a line for each part without a gap", () => {
  assert.equal(lines([1, 2, null, null, null, null, 3, 4, 5]).length, 2);
  assert.equal(lines([1, null, 2, null, null, 3]).length, 1, "readings once an hour are one line");
  assert.deepEqual(lines([null, 1, null]), []);
  assert.deepEqual(lines([]), []);
});

test("trend stays within its picture", () => {
  const values = Array.from({ length: 48 }, (_, index) => (index === 20 ? 1e9 : Math.sin(index)));
  for (const point of lines(values).join(" ").split(" ")) {
    const [x, y] = point.split(",").map(Number);
    assert.ok(x >= 0 && x <= 100 && y >= 0 && y <= 24, point);
  }
});
