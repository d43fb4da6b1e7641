// @ts-check
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { factorText } from "../../services/aurum/api/console/machine_cards.js";
import { speak } from "./browser.js";

/**
 * @param {string} feature
 * @param {number} value
 */
const factor = (feature, value) => ({ feature, sensor: feature.split(".")[0], value, contribution: 1 });

beforeEach(() => speak("en"));

test("factor names sensor, statistic and unit", () => {
  assert.equal(factorText(factor("vibration_mm_s.last", 3.456)), "Vibration is at 3.46 mm/s");
  assert.equal(
    factorText(factor("vibration_mm_s.mean_64", 3.456)),
    "Vibration averages 3.46 mm/s over the last 64 time steps",
  );
  assert.equal(
    factorText(factor("vibration_mm_s.slope_64", 0.05)),
    "Vibration changes by 0.05 mm/s per time step over the last 64 time steps",
  );
});

test("factor without a statistic is its value", () => {
  assert.equal(factorText({ ...factor("age", 120), sensor: "" }), "Time since the last overhaul is at 120");
});
