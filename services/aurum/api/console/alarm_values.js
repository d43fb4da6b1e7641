// @ts-check
// The values of an alarm: what raised it, its limit, and the present value, which follows the readings of its machine.

import { h, setText } from "./dom.js";
import { duration, isByRule, now, number, percent, sensorName } from "./format.js";
import { plant, subscribe } from "./live.js";
import { t } from "./text.js";

/** @import { Alarm, Machine } from "./types.d.ts" */

const FORGET_AFTER = 5000; // ms, for a line that is not in the page

/** @type {Map<HTMLElement, { alarm: Alarm, made: number }>} */
const lines = new Map(); // that are in the page, or will be in a moment

/** @type {Partial<Record<Alarm["quantity"], (machine: Machine, sensor: string) => number | null | undefined>>} */
const PRESENT = {
  sensor: (machine, sensor) => machine.values[sensor],
  silence: (machine) => (machine.last_seen ? Math.max(0, (now() - Date.parse(machine.last_seen)) / 1000) : null),
  risk: (machine) => (isByRule(machine) ? null : machine.risk_score),
  anomaly: (machine) => (isByRule(machine) ? null : machine.anomaly_score),
  rul: (machine) => machine.rul?.estimate,
};

/**
 * Returns the present value of what an alarm limits: the live one, or the one that the API told.
 * @param {Alarm} alarm
 */
function presentValue({ machine_id, quantity, sensor, present_value }) {
  const machine = plant.machines.get(machine_id);
  const read = PRESENT[quantity];
  return (machine && read ? read(machine, sensor ?? "") : null) ?? present_value;
}

/**
 * Returns a value of what a rule limits, with its unit.
 * @param {Alarm} alarm
 * @param {number} value
 */
function quantityText({ quantity, sensor }, value) {
  if (quantity === "risk" || quantity === "anomaly") return percent(value, quantity === "anomaly" ? 1 : 0);
  if (quantity === "silence") return duration(value);
  const { unit } = sensorName(sensor ?? "");
  return `${number(value)} ${quantity === "rate" ? `${unit}/min` : unit}`.trim();
}

/**
 * Returns the value that raised an alarm, its limit, and the present value.
 * @param {Alarm} alarm
 */
function alarmValues(alarm) {
  /** @type {[string, number | null][]} */
  const values = [
    ["alarm.raised_by", alarm.value],
    ["alarm.limit", alarm.limit],
    ["alarm.now", presentValue(alarm)],
  ];
  return values
    .flatMap(([key, value]) => (value === null ? [] : [t(key, { value: quantityText(alarm, value) })]))
    .join(", ");
}

/**
 * Makes the line with the values of an alarm.
 * @param {Alarm} alarm
 */
export function valueLine(alarm) {
  const element = h("small", {}, ` ${alarmValues(alarm)}`);
  lines.set(element, { alarm, made: performance.now() });
  return element;
}

subscribe("machines", (changed) => {
  const machines = new Set(changed.map((machine) => machine.machine_id));
  for (const [element, { alarm, made }] of lines) {
    if (!element.isConnected) {
      if (performance.now() - made > FORGET_AFTER) lines.delete(element);
    } else if (machines.has(alarm.machine_id)) setText(element, ` ${alarmValues(alarm)}`);
  }
});
