// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";

import { sensorName } from "../../services/aurum/api/console/format.js";
import { originalMachine, originalSensor, storedHint } from "../../services/aurum/api/console/names.js";
import { speak } from "./browser.js";

test("stored machine is shown by the name of its device", () => {
  assert.equal(originalMachine("Presse_x0020_7"), "Presse 7");
  assert.equal(originalMachine("x00D6_fen"), "Öfen");
  assert.equal(originalMachine("x0078_00D6_fen"), "x00D6_fen");
  assert.equal(originalMachine("a_x005F_x0020_b"), "a_x0020_b");
  assert.equal(originalMachine("pres_x005B_bar_x005D_"), "pres[bar]");
  assert.equal(originalMachine("_x1F600_"), "😀");
});

test("name without a code is shown as it is", () => {
  for (const name of ["pump-1", "axis_x1_force", "x1000", "_x110000_"]) {
    assert.equal(originalMachine(name), name);
    assert.equal(originalSensor(name), name);
  }
});

test("code at the beginning of a sensor needs its mark", () => {
  assert.equal(originalSensor("_x00D6_l"), "Öl");
  assert.equal(originalSensor("x00D6_l"), "x00D6_l");
});

test("characters that mislead stay codes", () => {
  for (const code of ["202E", "000A", "0007", "2028", "D800"])
    assert.equal(originalSensor(`a_x${code}_b`), `a_x${code}_b`);
});

test("hint is the stored form, if that differs", () => {
  assert.equal(storedHint("Presse_x0020_7"), "Presse_x0020_7");
  assert.equal(storedHint("press-7"), undefined);
});

test("sensor is labelled by its original name and unit", () => {
  speak("en");
  assert.deepEqual(sensorName("_x00D6_ltemperatur_c"), { name: "Öltemperatur", unit: "°C" });
});
