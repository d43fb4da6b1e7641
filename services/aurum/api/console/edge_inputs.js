// @ts-check
// The inputs of the gateways on the platform page: what each input and device sends, and what was refused or corrected.

import { h, headings, tableOf } from "./dom.js";
import { age, duration, number, percent } from "./format.js";
import { t, textOr } from "./text.js";

/** @import { EdgeDevice, EdgeInput, Instance, Tally } from "./types.d.ts" */

const COLUMNS = ["name", "last", "rate", "accepted", "corrected", "refused", "quality", "skew", "state"];
const LEAST_SKEW = 0.001; // seconds

/**
 * Returns the inputs of all gateways that answer.
 * @param {Instance[]} instances
 */
export const inputsOf = (instances) => instances.flatMap((each) => (each.reachable && each.inputs ? each.inputs : []));

/**
 * Returns the values that were refused or corrected, by reason.
 * @param {Tally[]} tallies
 */
export const tallyText = (tallies) =>
  tallies
    .map(({ reason, count }) => `${number(count)} ${textOr(`refusal.${reason}`, reason.replaceAll("_", " "))}`)
    .join(", ") || "0";

/**
 * Returns the latest value with the names that the device uses, and those under which it is stored if they differ.
 * @param {EdgeDevice["last"]} last
 */
export function lastText(last) {
  if (!last) return "–";
  const { machine, sensor, stored_machine: storedMachine, stored_sensor: storedSensor, value, time } = last;
  const text = `${machine} ${sensor} = ${number(value)}, ${age(time)}`;
  const same = machine === storedMachine && sensor === storedSensor;
  return same ? text : `${text} ${t("inputs.stored", { name: `${storedMachine} ${storedSensor}` })}`;
}

/** @param {number} seconds */
const skewText = (seconds) =>
  Math.abs(seconds) < LEAST_SKEW ? "0" : `${seconds < 0 ? "−" : "+"}${duration(Math.abs(seconds))}`;

/** @param {Tally[]} tallies */
const tallyCell = (tallies) =>
  h(
    "td",
    {},
    tallyText(tallies),
    tallies.map(({ example }) => h("small", { class: "example" }, ` ${example}`)),
  );

/** @param {EdgeInput} input */
function stateCell({ problem, losses, unusable }) {
  const problems = [...(problem ? [problem] : []), ...losses, ...unusable.map((each) => each.problem)];
  return h(
    "td",
    {},
    h(
      "span",
      { class: "badge", "data-state": problem ? "fault" : "running" },
      t(problem ? "inputs.away" : "platform.up"),
    ),
    problems.map((text) => h("small", {}, ` ${text}`)),
  );
}

/** @param {EdgeInput | EdgeDevice} sender */
const numberCells = (sender) => [
  h("td", {}, `${number(sender.readings_per_second)}/s`),
  h("td", {}, number(sender.accepted)),
  tallyCell(sender.corrected),
  tallyCell(sender.refused),
];

/** @param {EdgeInput} input */
const inputRow = (input) =>
  h(
    "tr",
    { "data-input": input.name },
    h("th", { scope: "row" }, input.name),
    h("td", {}, t("inputs.devices", { n: input.sources, devices: number(input.sources) })),
    numberCells(input),
    h("td", {}, percent(input.worst_quality)),
    h("td", {}, skewText(input.clock_skew_seconds)),
    stateCell(input),
  );

/** @param {EdgeDevice} device */
const deviceRow = (device) =>
  h(
    "tr",
    { "data-device": device.source },
    h("th", { scope: "row" }, `· ${device.source}`),
    h("td", {}, lastText(device.last)),
    numberCells(device),
    h("td", {}, percent(device.quality)),
    h("td", {}, skewText(device.clock_skew_seconds)),
    h("td", {}, age(device.seen)),
  );

/**
 * Makes the table of all inputs, each followed by its devices with the lowest quality.
 * @param {Instance[]} instances
 */
export function inputTable(instances) {
  const inputs = inputsOf(instances);
  if (!inputs.length) return h("p", { class: "nothing" }, t("inputs.none"));
  return tableOf({
    label: t("platform.inputs"),
    head: headings(COLUMNS.map((key) => t(`inputs.${key}`))),
    rows: inputs.flatMap((input) => [inputRow(input), ...input.worst.map(deviceRow)]),
  });
}
