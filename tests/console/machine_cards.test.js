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
  const text = factorText({ feature: "ENERGY.Power.mean_64", sensor: "ENERGY.Power", value: 2, contribution: 1 });
  assert.equal(text, factorText(factor("ENERGY.mean_64", 2)).replace("ENERGY", "ENERGY.Power"));
});
