// @ts-check
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { factorText, useRows } from "../../services/aurum/api/console/machine_cards.js";
import { speak } from "./browser.js";

/**
 * @param {string} feature
 * @param {number} value
 */
const factor = (feature, value) => ({ feature, sensor: feature.split(".")[0], value, contribution: 1 });

beforeEach(() => speak("en"));

const HOURS = { step: 1, step_unit: "hours" };

test("factor names sensor, statistic and unit", () => {
  assert.equal(factorText(factor("vibration_mm_s.last", 3.456), HOURS), "Vibration is at 3.46 mm/s");
  assert.equal(
    factorText(factor("vibration_mm_s.mean_64", 3.456), HOURS),
    "Vibration averages 3.46 mm/s over the last 64 h",
  );
  assert.equal(
    factorText(factor("vibration_mm_s.slope_64", 0.05), HOURS),
    "Vibration changes by 0.05 mm/s per h over the last 64 h",
  );
});

test("factor tells time, not the steps of the model", () => {
  const eighth = { step: 0.125, step_unit: "hours" };
  assert.equal(factorText(factor("vibration_mm_s.mean_64", 3), eighth), "Vibration averages 3 mm/s over the last 8 h");
  assert.equal(
    factorText(factor("vibration_mm_s.slope_64", 0.05), eighth),
    "Vibration changes by 0.4 mm/s per h over the last 8 h",
  );
  assert.equal(
    factorText(factor("vibration_mm_s.slope_8", 0.05), { step: 1, step_unit: "cycles" }),
    "Vibration changes by 0.05 mm/s per cycle over the last 8 cycles",
  );
});

test("factor without a statistic is its value", () => {
  const none = { step: null, step_unit: null };
  assert.equal(factorText({ ...factor("age", 120), sensor: "" }, none), "Time since the last overhaul is at 120");
});

test("use names corrections of the meter and energy fed in", () => {
  const total = { energy_kwh: 36, fed_in_kwh: null, coverage: 0.75 };
  assert.deepEqual(useRows({ total, corrections_count: 0 }, null), [
    ["Energy", "36 kWh", "data for 75% of the period"],
  ]);
  assert.deepEqual(useRows({ total: { ...total, fed_in_kwh: 5 }, corrections_count: 2 }, null), [
    ["Energy", "36 kWh", "data for 75% of the period; corrections of the meter: 2"],
    ["Energy fed in", "5 kWh", ""],
  ]);
});

test("use names the share of energy without an hourly factor", () => {
  const carbon = { total: { location_kgco2e: 12, market_kgco2e: 9 }, missing_factor_share: 0.2 };
  assert.deepEqual(useRows(null, carbon), [
    ["Carbon, location-based (Scope 2)", "12 kg CO₂e", "no hourly factor for 20% of the energy"],
    ["Carbon, market-based (Scope 2)", "9 kg CO₂e", ""],
  ]);
  assert.equal(useRows(null, { ...carbon, missing_factor_share: 0 })[0][2], "");
});

test("factor of a sensor with points in its name has its statistic", () => {
  const text = factorText(
    { feature: "ENERGY.Power.mean_64", sensor: "ENERGY.Power", value: 2, contribution: 1 },
    HOURS,
  );
  assert.equal(text, factorText(factor("ENERGY.mean_64", 2), HOURS).replace("ENERGY", "ENERGY.Power"));
});
