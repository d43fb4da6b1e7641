// Numbers, times and names as people read them.

import { plant } from "./live.js";
import { known, language, t } from "./text.js";

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

const formats = new Map(); // by language and options: making one takes far longer than using it

function format(value, options) {
  const key = language + JSON.stringify(options);
  let found = formats.get(key);
  if (!found) formats.set(key, (found = new Intl.NumberFormat(language, options)));
  return found.format(value);
}

export function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  return format(value, Math.abs(value) >= 1000 ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: digits });
}

export const percent = (share, digits = 0) =>
  share === null || share === undefined ? "–" : format(share, { style: "percent", maximumFractionDigits: digits });

export const now = () => Date.now() + plant.clockOffset;

export function age(isoTime) {
  if (!isoTime) return t("never");
  const seconds = (now() - Date.parse(isoTime)) / 1000;
  return seconds < 1.5 ? t("just_now") : t("ago", { time: duration(seconds) });
}

export function duration(seconds) {
  if (seconds < 0.001) return `${number(seconds * 1e6, 2)} µs`;
  if (seconds < 1) return `${number(seconds * 1000, 2)} ms`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

export const moment = (time) => new Date(time).toLocaleString(language, { dateStyle: "medium", timeStyle: "short" });

export const clock = (time) => new Date(time).toLocaleTimeString(language);

/** A sensor's name in words, and its unit: "vibration_mm_s" is "Vibration" in "mm/s". */
export function sensorName(sensor) {
  const parts = sensor.split("_");
  for (const length of [2, 1]) {
    const unit = UNITS[parts.slice(-length).join("_")];
    if (unit && parts.length > length) return { name: words(parts.slice(0, -length)), unit };
  }
  return { name: words(parts), unit: "" };
}

function words(parts) {
  const whole = known(`sensor.${parts.join("_")}`, "");
  const text = whole || parts.join(" ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export function remainingLife(rul) {
  if (!rul) return "";
  const least = interval(rul) ? "" : "≥ "; // at its cap a model only tells that it is no less
  return `${least}${Math.round(rul.estimate)} ${known(`unit.${rul.unit}`, rul.unit)}`;
}

/** "20–35"; empty where both ends are the same, as at a model's cap. */
export function interval(rul) {
  if (!rul || Math.round(rul.lower) === Math.round(rul.upper)) return "";
  return `${Math.round(rul.lower)}–${Math.round(rul.upper)}`;
}

/** How much is at stake: a word beside the number, since colour alone tells nothing to many. */
export const riskLevel = (risk) =>
  risk === null || risk === undefined ? "none" : risk >= 0.7 ? "high" : risk >= 0.3 ? "medium" : "low";
