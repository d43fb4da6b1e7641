// @ts-check
// The content of a machine's cards: why the risk is what it is, what to do, and what the machine uses.

import { h, headings, tableOf, wideRegion } from "./dom.js";
import { moment, number, percent, sensorName, unitName } from "./format.js";
import { t, textOr } from "./text.js";

/** @import { Advice, AdviceOption, Cause, Carbon, ConsoleSettings, Energy, Explanation, Factor } from "./types.d.ts" */

/** @typedef {Pick<Explanation, "step" | "step_unit">} Step */

/**
 * Returns a factor of a prediction in words. Its feature is named SENSOR.STATISTIC_STEPS, such as flow_m3_h.mean_64.
 * @param {Factor} factor
 * @param {Step} time The length of a step.
 */
export function factorText(factor, { step, step_unit: stepUnit }) {
  const point = factor.feature.lastIndexOf("."); // a sensor's name may have points
  const statistic = point < 0 ? "" : factor.feature.slice(point + 1);
  const [kind, steps = ""] = statistic.split("_");
  const { name, unit } = sensorName(factor.sensor || factor.feature);
  const length = step || 1;
  const life = stepUnit ?? "hours";
  const value = kind === "slope" && factor.value !== null ? factor.value / length : factor.value;
  return t(`factor.${kind || "last"}`, {
    sensor: name,
    value: `${number(value)} ${unit}`.trim(),
    span: `${number(Number(steps) * length)} ${unitName(life)}`,
    one: textOr(`unit.one.${life}`, life),
  });
}

/**
 * @param {Factor} factor
 * @param {number} largest The largest contribution.
 * @param {Step} time
 */
function factorItem(factor, largest, time) {
  const raises = factor.contribution > 0;
  const bar = h("i", { class: raises ? "raises" : "lowers" });
  bar.style.width = `${(100 * Math.abs(factor.contribution)) / largest}%`;
  return h(
    "li",
    {},
    h("span", {}, factorText(factor, time)),
    " ",
    h("small", {}, raises ? t("factor.raises") : t("factor.lowers")),
    h("span", { class: "bar", "aria-hidden": "true" }, bar),
  );
}

/**
 * Lists the factors of a prediction with their contributions.
 * @param {Explanation} explanation
 */
export function factorList({ factors, ...time }) {
  const largest = Math.max(...factors.map((factor) => Math.abs(factor.contribution)), 1e-9);
  return h(
    "ul",
    { class: "factors" },
    factors.map((factor) => factorItem(factor, largest, time)),
  );
}

/**
 * Names the most likely failure mode, if the model knows modes.
 * @param {Cause[]} causes The greatest first.
 */
export function causeRemark(causes) {
  const whole = causes.reduce((sum, { risk }) => sum + risk, 0);
  if (!whole) return [];
  return [h("p", {}, t("why.mode", { mode: causes[0].mode, share: percent(causes[0].risk / whole) }))];
}

/** @param {AdviceOption[]} options */
const cheapest = (options) => options.reduce((least, option) => (option.money < least.money ? option : least));

/**
 * Returns the time of an option in words.
 * @param {AdviceOption} option
 * @param {string} unit Of the remaining life.
 */
function optionText({ when, after, at }, unit) {
  const key = at ? "advice.planned_date" : `advice.${when}`;
  return t(key, { after: number(after), unit: unitName(unit), date: at ? moment(at) : "" });
}

/** @type {("money" | "kwh" | "kgco2e" | "litres")[]} */
const COSTS = ["money", "kwh", "kgco2e", "litres"];

/**
 * @param {AdviceOption} option
 * @param {Advice} advice
 */
const adviceRow = (option, { unit, options, best }) =>
  h(
    "tr",
    { class: option === cheapest(options) && option.when === best ? "best" : "" },
    h("th", { scope: "row" }, optionText(option, unit)),
    h("td", {}, percent(option.failure_probability)),
    COSTS.map((cost) => h("td", {}, number(option[cost]))),
  );

/**
 * Returns the recommendation, and the costs of each option in a table.
 * @param {Advice} advice
 */
export function adviceContent(advice) {
  const units = { money: advice.currency, kwh: "kWh", kgco2e: "kg CO₂e", litres: "l" };
  const head = [
    ...headings([t("advice.when"), t("advice.failure")]),
    ...COSTS.map((cost) => h("th", { scope: "col" }, t(`advice.${cost}`), h("small", {}, ` ${units[cost]}`))),
  ];
  const rows = advice.options.map((option) => adviceRow(option, advice));
  const key = advice.best === "at_failure" ? "advice.run" : `advice.best.${advice.best}`;
  const { after } = cheapest(advice.options);
  const words = {
    saves: `${number(advice.saves)} ${advice.currency}`,
    next: t(`advice.next.${advice.next_best}`),
    after: number(after, 2),
    unit: unitName(advice.unit),
  };
  return [
    h("p", { class: "advice" }, t(key, words)),
    ...advice.notes.map((note) => h("p", { class: "hint" }, note)),
    wideRegion(t("card.advice"), tableOf({ head, rows })),
  ];
}

/**
 * Returns name, value and note of what a machine used.
 * @param {Energy | null} energy Null if the feature is off.
 * @param {Carbon | null} carbon
 */
export function useRows(energy, carbon) {
  /** @type {[string, string, string][]} */
  const rows = [];
  if (energy) {
    const { energy_kwh: amount, fed_in_kwh: fedIn, coverage } = energy.total;
    const { corrections_count: count } = energy;
    const corrected = count ? `; ${t("use.corrected", { count: String(count) })}` : "";
    rows.push([t("use.energy"), `${number(amount)} kWh`, t("use.coverage", { share: percent(coverage) }) + corrected]);
    if (fedIn !== null) rows.push([t("use.fedIn"), `${number(fedIn)} kWh`, ""]);
  }
  if (carbon) {
    const share = carbon.missing_factor_share;
    const missing = share ? t("use.missing", { share: percent(share) }) : "";
    rows.push([t("use.location"), `${number(carbon.total.location_kgco2e)} kg CO₂e`, missing]);
    rows.push([t("use.market"), `${number(carbon.total.market_kgco2e)} kg CO₂e`, ""]);
  }
  return rows;
}

/**
 * Lists the energy and the carbon of a machine.
 * @param {Energy | null} energy Null if the feature is off.
 * @param {Carbon | null} carbon
 */
export function useList(energy, carbon) {
  return h(
    "dl",
    {},
    useRows(energy, carbon).map(([name, value, note]) => [
      h("dt", {}, name),
      h("dd", {}, value, " ", h("small", {}, note)),
    ]),
  );
}

/**
 * Returns the links to a prediction's trace and logs, as far as they are configured.
 * @param {string} traceId
 * @param {ConsoleSettings} settings
 */
export function predictionLinks(traceId, settings) {
  const trace = settings.jaeger_url
    ? h("a", { href: `${settings.jaeger_url}/trace/${traceId}` }, t("link.trace"))
    : null;
  const logs = settings.logs_url
    ? h("a", { href: settings.logs_url.replace("{trace_id}", traceId) }, t("link.logs"))
    : null;
  return trace || logs ? [h("p", { class: "links" }, trace, logs)] : [];
}
