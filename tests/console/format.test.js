// @ts-check
import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import {
  age,
  anomalyLevel,
  clock,
  duration,
  interval,
  moment,
  number,
  percent,
  predictionRemark,
  lifeText,
  remainingLife,
  riskLevel,
  riskText,
  sensorName,
  unusualness,
} from "../../services/aurum/api/console/format.js";
import { plant } from "../../services/aurum/api/console/live.js";
import { machine, rul, speak } from "./browser.js";

beforeEach(() => speak("en"));
afterEach(() => {
  mock.timers.reset();
  plant.clockOffset = 0;
});

test("number has three significant digits below 1000", () => {
  assert.equal(number(0.012345), "0.0123");
  assert.equal(number(123.456), "123");
  assert.equal(number(-1.2345), "-1.23");
  assert.equal(number(1.23456, 4), "1.235");
});

test("number is an integer with separators from 1000 on", () => {
  assert.equal(number(1234.5), "1,235");
  assert.equal(number(-12_345.6), "-12,346");
});

test("missing number and share are shown as a dash", () => {
  for (const missing of [null, undefined]) {
    assert.equal(number(missing), "–");
    assert.equal(percent(missing), "–");
  }
  assert.equal(number(NaN), "–");
});

test("number and share follow the language", async () => {
  await speak("es");
  assert.equal(number(1.5), "1,5");
  assert.equal(percent(0.255, 1).replace(/\s/, " "), "25,5 %");
});

test("prediction is remarked on if a rule made it, or readings came long after it", () => {
  const seen = {
    machine_id: "m",
    machine_type: "pump",
    site: "",
    status: /** @type {const} */ ("running"),
    risk_score: 0.5,
    rul: null,
    values: {},
    degraded: false,
    last_seen: "2026-01-01T12:10:00Z",
    predicted_at: "2026-01-01T12:09:30Z",
  };
  mock.timers.enable({ apis: ["Date"], now: Date.parse("2026-01-01T12:10:00Z") });
  assert.equal(predictionRemark(seen), "");
  assert.equal(predictionRemark({ ...seen, degraded: true }), "rule-based");
  assert.equal(predictionRemark({ ...seen, predicted_at: "2026-01-01T12:00:00Z" }), "predicted 10 min ago");
  assert.equal(
    predictionRemark({ ...seen, predicted_at: "2026-01-01T12:00:00Z", last_seen: null }),
    "predicted 10 min ago",
  );
});

test("share is shown as percentage", () => {
  assert.equal(percent(0.256), "26%");
  assert.equal(percent(0.0125, 1), "1.3%");
});

test("duration is shown in the unit that suits it", () => {
  const shown = /** @type {const} */ ([
    [0, "0 µs"],
    [0.000_25, "250 µs"],
    [0.0123, "12 ms"],
    [1, "1 s"],
    [89, "89 s"],
    [90, "2 min"],
    [3600, "60 min"],
    [5400, "2 h"],
    [47 * 3600, "47 h"],
    [48 * 3600, "2 d"],
  ]);
  for (const [seconds, text] of shown) assert.equal(duration(seconds), text);
});

test("age is counted by the server's clock", () => {
  mock.timers.enable({ apis: ["Date"], now: Date.parse("2026-01-02T03:04:05Z") });
  assert.equal(age("2026-01-02T03:04:00Z"), "5 s ago");
  assert.equal(age("2026-01-02T03:04:04Z"), "just now");
  plant.clockOffset = 60_000;
  assert.equal(age("2026-01-02T03:04:05Z"), "60 s ago");
  assert.equal(age(null), "never");
});

test("moment has date and time", () => {
  assert.match(moment("2026-01-02T12:00:00Z"), /Jan \d, 2026/);
});

test("sensor name is split into label and unit", () => {
  assert.deepEqual(sensorName("vibration_mm_s"), { name: "Vibration", unit: "mm/s" });
  assert.deepEqual(sensorName("bearing_temperature_c"), { name: "Bearing temperature", unit: "°C" });
  assert.deepEqual(sensorName("my_own_sensor"), { name: "My own sensor", unit: "" });
  assert.deepEqual(sensorName("c"), { name: "C", unit: "" });
});

test("sensor name is translated", async () => {
  await speak("es");
  assert.deepEqual(sensorName("vibration_mm_s"), { name: "Vibración", unit: "mm/s" });
});

test("remaining life has its unit and its interval", () => {
  assert.equal(remainingLife(rul(27.4, 20, 35)), "27 h");
  assert.equal(interval(rul(27.4, 20, 35)), "20–35");
  assert.equal(remainingLife({ ...rul(27, 20, 35), unit: "strokes" }), "27 strokes");
  assert.equal(remainingLife(null), "");
  assert.equal(interval(null), "");
});

test("remaining life at the cap is a lower bound", () => {
  assert.equal(remainingLife(rul(120, 120, 120)), "≥ 120 h");
  assert.equal(interval(rul(120, 120, 120)), "");
});

test("remaining life that a model withholds is unknown", () => {
  const withheld = machine({ rul: null, rul_unknown_reason: "it has no skill" });
  assert.equal(lifeText(withheld), "unknown");
  assert.equal(lifeText({ ...withheld, rul: rul(27.4, 20, 35) }), "27 h");
  assert.equal(lifeText(machine({ rul: null, rul_unknown_reason: null })), "");
});

test("remaining life below an hour is no lower bound", () => {
  assert.equal(remainingLife(rul(0.3, 0.1, 0.4)), "0 h");
  assert.equal(remainingLife(rul(0, 0, 0)), "0 h");
});

test("risk level begins at 0.3 and 0.7", () => {
  const levels = [null, undefined, 0, 0.29, 0.3, 0.69, 0.7, 1].map(riskLevel);
  assert.deepEqual(levels, ["none", "none", "low", "low", "medium", "medium", "high", "high"]);
});

test("anomaly level is none for scores of healthy machines", () => {
  const levels = [0, 0.94, 0.95, 0.99, 0.999, 1].map(anomalyLevel);
  assert.deepEqual(levels, ["none", "none", "slight", "high", "very_high", "very_high"]);
});

test("risk of a rule is named as the rule's, and an unknown one has no number", () => {
  const pump = machine({ risk_score: 0.95, source: "rule", rule: "limits", degraded: true });
  assert.equal(riskText(pump), "rule “limits”: 0.95");
  assert.equal(predictionRemark(pump), "rule-based");
  const unknown = machine({
    risk_score: null,
    source: "model",
    risk_unknown_reason: "it has no skill",
    degraded: true,
  });
  assert.equal(riskText(unknown), "unknown");
  assert.equal(predictionRemark(unknown), "it has no skill");
  const forced = machine({ risk_score: 0.25, source: "model", without_skill: "it has no skill" });
  assert.equal(riskText(forced), "25%");
  assert.equal(predictionRemark(forced), "model without proven skill");
  assert.equal(riskText(machine({})), "no prediction yet");
});

test("reason of an unknown risk is told by its code", async () => {
  const parameters = { quantity: "risk", baseline: "base rate", skill: "0.02", low: "-0.10", high: "0.12" };
  const unknown = machine({
    risk_score: null,
    source: "model",
    risk_unknown_reason: "it has no skill",
    risk_unknown: { code: "NO_SKILL", parameters },
  });
  assert.match(
    predictionRemark(unknown),
    /better than the usual rate of failures \(skill 0\.02, 95 %: -0\.10 to 0\.12\)/,
  );
  await speak("es");
  assert.match(predictionRemark(unknown), /mejor que la frecuencia habitual de fallos/);
  const newer = machine({ risk_unknown_reason: "it is new", risk_unknown: { code: "NEWER", parameters: {} } });
  assert.equal(predictionRemark(newer), "it is new");
});

test("threshold of a model decides what is very unusual", () => {
  assert.equal(unusualness(machine({})), undefined);
  assert.equal(unusualness(machine({ anomaly_score: 0.9995 })), "very_high");
  assert.equal(unusualness(machine({ anomaly_score: 0.9995, anomaly_threshold: 0.9999 })), "high");
  assert.equal(unusualness(machine({ anomaly_score: 0.98, anomaly_threshold: 0.97 })), "very_high");
});

test("times follow the browser's region and its clock", async () => {
  const afternoon = new Date(2026, 2, 1, 15, 4, 5).getTime();
  await speak("en-GB");
  assert.match(moment(afternoon), /^1 Mar 2026, 15:04$/);
  assert.match(clock(afternoon), /^15:04:05$/);
  await speak("en-US");
  assert.match(moment(afternoon).replace(/\s/g, " "), /^Mar 1, 2026, 3:04 PM$/);
  await speak("de-DE", "en");
  assert.match(moment(afternoon, "medium"), /15:04:05/);
});
