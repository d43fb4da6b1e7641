// @ts-check
// Alarm rules in words.

import { duration, number, percent, sensorName } from "./format.js";
import { t, textOr } from "./text.js";

/** @import { AlarmRule, RuleChange, SensorLimit, ValueLimit } from "./types.d.ts" */

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

/**
 * Returns a value of a field of a rule in words.
 * @param {unknown} value
 * @returns {string}
 */
function valueText(value) {
  if (value === null || value === undefined) return t("change.none");
  if (typeof value === "boolean") return t(value ? "change.yes" : "change.no");
  if (typeof value === "number") return number(value);
  if (Array.isArray(value)) return value.map((each) => (each === "*" ? t("rules.all_types") : String(each))).join(", ");
  if (typeof value !== "object") return textOr(`priority.${value}`, String(value));
  return Object.entries(value)
    .filter(([, each]) => each !== null && each !== 0 && each !== false)
    .map(([name, each]) => `${fieldName(name)} ${valueText(each)}`)
    .join(", ");
}

/**
 * Returns the name of a field by its path, such as sensor.above.
 * @param {string} path
 */
const fieldName = (path) =>
  path
    .split(".")
    .map((name) => textOr(`changed.${name}`, name))
    .join(", ");

/**
 * Returns the change of a rule in words.
 * @param {RuleChange | undefined} change Revisions of earlier versions have none.
 * @param {string} text The platform's text.
 */
export function changeText(change, text) {
  if (!change) return text;
  const fields = change.fields.map(({ field, before, after }) =>
    t("change.field", { field: fieldName(field), before: valueText(before), after: valueText(after) }),
  );
  return t(`change.${change.kind}`, { rule: change.rule, fields: fields.join("; ") });
}
