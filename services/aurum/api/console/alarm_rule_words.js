// @ts-check
// Alarm rules in words.

import { duration, number, percent, sensorName } from "./format.js";
import { t } from "./text.js";

/** @import { AlarmRule, SensorLimit, ValueLimit } from "./types.d.ts" */

/** @typedef {"sensor" | "rate" | "stale" | "risk" | "rul" | "anomaly"} ConditionName */

export const CONDITIONS = /** @type {ConditionName[]} */ (["sensor", "rate", "stale", "risk", "rul", "anomaly"]);

/**
 * Returns which condition a rule has.
 * @param {AlarmRule} rule
 */
export const conditionOf = (rule) => CONDITIONS.find((name) => rule[name]) ?? "sensor";

/**
 * Returns the machine types of a rule.
 * @param {AlarmRule} rule
 */
export const typesText = ({ machine_types: types }) => (types.includes("*") ? t("rules.all_types") : types.join(", "));

/**
 * @param {ValueLimit} limit
 * @param {(value: number) => string} shown
 */
function limitText({ above, below, deadband }, shown) {
  const limit =
    above === null ? t("rules.below", { value: shown(below ?? 0) }) : t("rules.above", { value: shown(above) });
  return deadband ? `${limit}, ${t("rules.with_deadband", { value: shown(deadband) })}` : limit;
}

/**
 * @param {SensorLimit} limit
 * @param {string} key Of the text.
 * @param {string} per What follows the unit.
 */
function sensorText(limit, key, per) {
  const { name, unit } = sensorName(limit.sensor);
  return t(key, { sensor: name, limit: limitText(limit, (value) => `${number(value)} ${unit}${per}`.trim()) });
}

/**
 * Returns the condition of a rule, such as "Vibration above 7.1 mm/s".
 * @param {AlarmRule} rule
 */
export function conditionText({ sensor, rate, stale, risk, rul, anomaly }) {
  if (sensor) return sensorText(sensor, "rules.is.sensor", "");
  if (rate) return sensorText(rate, "rules.is.rate", "/min");
  if (stale) return t("rules.is.stale", { time: duration(stale.after_seconds) });
  if (risk) return t("rules.is.risk", { limit: limitText(risk, (value) => percent(value)) });
  if (rul) return t("rules.is.rul", { limit: limitText(rul, number) });
  if (anomaly?.beyond_threshold) return t("rules.is.threshold");
  return anomaly ? t("rules.is.anomaly", { limit: limitText(anomaly, (value) => percent(value, 1)) }) : "";
}
