// @ts-check
// Numbers, times and names for display.

import { plant } from "./live.js";
import { originalSensor } from "./names.js";
import { filled, hourCycle, locale, t, textOr } from "./text.js";

/** @import { Machine, Rul, UnknownReason } from "./types.d.ts" */

const OLD_PREDICTION = 60_000; // ms, from which the age of a prediction is shown beside each value
const DAY = 86_400_000; // ms

/** @type {Record<string, string>} */
const UNITS = {
  mm_s: "mm/s",
  m3_h: "m³/h",
  m3_min: "m³/min",
  l_h: "l/h",
  l_min: "l/min",
  kg_h: "kg/h",
  m_s: "m/s",
  kw: "kW",
  kwh: "kWh",
  kn: "kN",
  nm: "Nm",
  bar: "bar",
  mbar: "mbar",
  c: "°C",
  a: "A",
  v: "V",
  hz: "Hz",
  rpm: "rpm",
  pct: "%",
  percent: "%",
  um: "µm",
  mm: "mm",
  s: "s",
  db: "dB",
  n: "N",
  g: "g",
  mohm: "MΩ",
  kpa: "kPa",
  k: "K",
  t_h: "t/h",
};

/** @type {Map<string, Intl.NumberFormat>} */
const formats = new Map(); // by locale and options: making one takes far longer than using it

/**
 * @param {number} value
 * @param {Intl.NumberFormatOptions} options
 */
function format(value, options) {
  const key = locale + JSON.stringify(options);
  let made = formats.get(key);
  if (!made) formats.set(key, (made = new Intl.NumberFormat(locale, options)));
  return made.format(value);
}

/**
 * Returns a number with so many significant digits, from 1000 on as an integer; "–" without a value.
 * @param {number | null | undefined} value
 */
export function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  return format(value, Math.abs(value) >= 1000 ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: digits });
}

/**
 * Returns a share from 0 to 1 as a percentage; "–" without a value.
 * @param {number | null | undefined} share
 * @param {number} [digits] After the decimal point.
 */
export const percent = (share, digits = 0) =>
  share === null || share === undefined ? "–" : format(share, { style: "percent", maximumFractionDigits: digits });

/** Returns the time of the server, in ms since 1970. */
export const now = () => Date.now() + plant.clockOffset;

/**
 * Returns how long ago a moment was, such as "5 s ago".
 * @param {string | null | undefined} isoTime
 */
export function age(isoTime) {
  if (!isoTime) return t("never");
  const seconds = (now() - Date.parse(isoTime)) / 1000;
  return seconds < 1.5 ? t("just_now") : t("ago", { time: duration(seconds) });
}

/**
 * Returns a remark on the prediction of a machine: why its risk is unknown, that it comes from a rule, or that its model
 * has no skill; and how old it is if it is not from the last minute.
 * @param {Machine} machine
 */
export function predictionRemark(machine) {
  const { predicted_at } = machine;
  const old = predicted_at && now() - Date.parse(predicted_at) >= OLD_PREDICTION;
  return [originRemark(machine), old ? predictionAge(machine) : ""].filter(Boolean).join(" · ");
}

/**
 * Returns why the risk of a machine is unknown, that it comes from a rule, or that its model has no skill; else empty.
 * @param {Machine} machine
 */
export function originRemark(machine) {
  const { risk_unknown_reason, risk_unknown, without_skill } = machine;
  if (risk_unknown_reason) return unknownText(risk_unknown_reason, risk_unknown);
  if (isByRule(machine)) return t("by_rule");
  return without_skill ? t("risk.without_skill") : "";
}

/**
 * Returns the remaining life of a machine, or that it is unknown; empty if no model predicts it.
 * @param {Machine} machine
 */
export const lifeText = ({ rul, rul_unknown_reason: unknown }) =>
  remainingLife(rul) || (unknown ? t("life.unknown") : "");

/**
 * Returns why a value is unknown, in the language of the console.
 * @param {string} reason The platform's text.
 * @param {UnknownReason | null} [unknown] Its code; services of earlier versions tell none.
 */
export function unknownText(reason, unknown) {
  if (!unknown) return reason;
  const { baseline, ...values } = unknown.parameters;
  return filled(textOr(`unknown.${unknown.code.toLowerCase().replaceAll("_", "-")}`, reason), {
    ...values,
    baseline: textOr(`baseline.${baseline}`, baseline),
  });
}

/**
 * Returns whether the prediction of a machine comes from a rule.
 * @param {Machine} machine
 */
export const isByRule = ({ degraded, source }) => source === "rule" || Boolean(degraded && !source);

/**
 * Returns how long ago the prediction of a machine was made; empty without one.
 * @param {Machine} machine
 */
export function predictionAge({ predicted_at }) {
  if (!predicted_at) return "";
  const seconds = (now() - Date.parse(predicted_at)) / 1000;
  return seconds < 1.5 ? t("prediction.now") : t("prediction.old", { time: duration(seconds) });
}

/**
 * Returns a duration in the unit that suits it, from µs to days.
 * @param {number} seconds
 */
export function duration(seconds) {
  if (seconds < 0.001) return `${number(seconds * 1e6, 2)} µs`;
  if (seconds < 1) return `${number(seconds * 1000, 2)} ms`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

/**
 * Returns a date as people write it in the browser's region.
 * @param {Date} date
 * @param {Intl.DateTimeFormatOptions} options
 */
export const dateText = (date, options) => date.toLocaleDateString(locale, options);

/**
 * Returns a time of day with the clock of the browser's region, of 24 or 12 hours.
 * @param {Date} date
 * @param {Intl.DateTimeFormatOptions} [options]
 */
export const clockText = (date, options = { hour: "2-digit", minute: "2-digit", second: "2-digit" }) =>
  date.toLocaleTimeString(locale, { ...options, hourCycle });

/**
 * Returns date and time.
 * @param {string | number} time ISO 8601, or ms since 1970.
 * @param {"short" | "medium"} timeStyle `medium` has seconds.
 */
export const moment = (time, timeStyle = "short") =>
  new Date(time).toLocaleString(locale, { dateStyle: "medium", timeStyle, hourCycle });

/**
 * Returns hours and minutes of a time of the last day, and date and time of an earlier one.
 * @param {string | number} time ISO 8601, or ms since 1970.
 */
export function timeOrDate(time) {
  const at = new Date(time);
  if (now() - at.getTime() >= DAY) return moment(time);
  return clockText(at, { hour: "2-digit", minute: "2-digit" });
}

/**
 * Returns the time of day.
 * @param {number} time In ms since 1970.
 */
export const clock = (time) => clockText(new Date(time));

/**
 * Splits the name of a sensor: "vibration_mm_s" has the name "Vibration" and the unit "mm/s".
 * @param {string} sensor
 */
export function sensorName(sensor) {
  const parts = originalSensor(sensor).split("_");
  for (const length of [2, 1]) {
    const unit = UNITS[parts.slice(-length).join("_")];
    if (unit && parts.length > length) return { name: sensorLabel(parts.slice(0, -length)), unit };
  }
  return { name: sensorLabel(parts), unit: "" };
}

/** @param {string[]} parts */
function sensorLabel(parts) {
  const text = textOr(`sensor.${parts.join("_")}`, parts.join(" "));
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/**
 * Returns the name of a unit of the remaining life, such as "h".
 * @param {string} unit
 */
export const unitName = (unit) => textOr(`unit.${unit}`, unit);

/**
 * Returns a remaining useful life with its unit, such as "27 h"; empty without one. At the cap of its model, where both
 * ends of the interval are equal, the life is at least that long: "≥ 120 h".
 * @param {Rul | null | undefined} rul
 */
export function remainingLife(rul) {
  if (!rul) return "";
  const atCap = rul.lower === rul.upper && rul.lower > 0;
  return `${atCap ? "≥ " : ""}${Math.round(rul.estimate)} ${unitName(rul.unit)}`;
}

/**
 * Returns the interval of a remaining useful life, such as "20–35"; empty if both ends are shown as the same number.
 * @param {Rul | null | undefined} rul
 */
export function interval(rul) {
  if (!rul || Math.round(rul.lower) === Math.round(rul.upper)) return "";
  return `${Math.round(rul.lower)}–${Math.round(rul.upper)}`;
}

/**
 * Returns the risk of a machine in words. The value of a rule is no probability, so it is named as the rule's.
 * @param {Machine} machine
 */
export function riskText({ risk_score: risk, rule, source, risk_unknown_reason }) {
  if (risk_unknown_reason) return t("risk.unknown");
  if (risk === null) return t("prediction.none");
  return source === "rule"
    ? t("risk.rule", { rule: textOr(`by_rule.${rule}`, rule ?? ""), value: number(risk, 2) })
    : percent(risk);
}

/**
 * Returns the level of a risk of failure. The style sheet colours by it, so the number is always shown too.
 * @param {number | null | undefined} risk
 */
export function riskLevel(risk) {
  if (risk === null || risk === undefined) return "none";
  if (risk >= 0.7) return "high";
  return risk >= 0.3 ? "medium" : "low";
}

const ANOMALY_LEVELS = /** @type {const} */ ([
  [0.999, "very_high"], // where the alarm rule "unusual" begins
  [0.99, "high"],
  [0.95, "slight"],
]);

/**
 * Returns the level of an anomaly score, which is the share of healthy states that look less unusual; the scores of a
 * healthy machine are spread evenly from 0 to 1.
 * @param {number} score
 */
export const anomalyLevel = (score) => ANOMALY_LEVELS.find(([least]) => score >= least)?.[1] ?? "none";

/**
 * Returns how unusual a machine behaves; undefined without a score. If its model has a threshold, only states beyond it
 * are very unusual.
 * @param {Machine} machine
 */
export function unusualness({ anomaly_score: score, anomaly_threshold: threshold }) {
  if (score === undefined) return undefined;
  if (!threshold) return anomalyLevel(score);
  return score >= threshold ? "very_high" : anomalyLevel(Math.min(score, 0.995));
}
