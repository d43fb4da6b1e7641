// @ts-check
// The rows of the plant's table: what is shown of each machine.

import { h, setText } from "./dom.js";
import {
  age,
  interval,
  lifeText,
  number,
  predictionRemark,
  riskLevel,
  riskText,
  sensorName,
  timeOrDate,
} from "./format.js";
import { statusOf } from "./live.js";
import { originalMachine, storedHint } from "./names.js";
import { t, textOr } from "./text.js";

/** @import { Machine } from "./types.d.ts" */

const VALUES = 3; // readings in a row
const HIDDEN_SENSORS = new Set(["fault", "operating_hours"]); // shown by state and remaining life

/** Makes the badge for the state of a machine. */
export function stateBadge() {
  const element = h("span", { class: "badge" });
  return {
    element,
    /** @param {Machine} machine */
    show(machine) {
      const state = statusOf(machine);
      if (element.dataset.state !== state) element.dataset.state = state;
      const since = state === "stale" || state === "offline" ? machine.last_seen : null;
      setText(element, since ? t("state.no_data", { time: timeOrDate(since) }) : t(`state.${state}`));
    },
  };
}

/**
 * Makes a row, which shows one machine after another.
 * @param {ReturnType<typeof import("./plant_trends.js").plantTrends>} trends
 */
export function makeRow(trends) {
  const link = h("a");
  const state = stateBadge();
  const bar = h("i");
  const risk = h("b");
  const rule = h("small");
  const life = h("span");
  const range = h("small");
  const [type, site, values, seen] = ["type", "site", "values", "seen"].map((name) => h("td", { class: name }));
  const trend = trends.cell();
  const element = h(
    "tr",
    { class: "machine" },
    h("th", { scope: "row" }, link),
    type,
    site,
    h("td", {}, state.element),
    h("td", { class: "risk" }, h("span", { class: "bar", "aria-hidden": "true" }, bar), risk, " ", rule),
    h("td", { class: "life" }, life, " ", range),
    trend.element,
    values,
    seen,
  );
  return {
    element,
    /** @param {Machine} machine */
    show(machine) {
      const id = machine.machine_id;
      const href = `/machines/${encodeURIComponent(id)}`;
      if (link.getAttribute("href") !== href) {
        link.textContent = originalMachine(id);
        link.title = storedHint(id) ?? "";
        link.setAttribute("href", href);
      }
      setText(type, textOr(`type.${machine.machine_type}`, machine.machine_type));
      setText(site, machine.site);
      state.show(machine);
      bar.style.width = `${100 * (machine.risk_score ?? 0)}%`;
      bar.dataset.level = riskLevel(machine.risk_score);
      setText(risk, riskText(machine));
      setText(rule, predictionRemark(machine));
      setText(life, lifeText(machine));
      setText(range, interval(machine.rul));
      trend.show(machine);
      setText(values, latestReadings(machine));
      setText(seen, age(machine.last_seen));
    },
  };
}

/** @param {Machine} machine */
function latestReadings(machine) {
  return Object.entries(machine.values)
    .filter(([sensor, value]) => value !== null && !HIDDEN_SENSORS.has(sensor))
    .slice(0, VALUES)
    .map(([sensor, value]) => {
      const { name, unit } = sensorName(sensor);
      return `${name} ${number(value)} ${unit}`.trim();
    })
    .join(" · ");
}
