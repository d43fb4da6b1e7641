// @ts-check
// The tiles of the plant: how many machines there are in each state and at risk, alarms, and the totals of the day. They
// follow the filters, and lead to what they count.

import { messageOf, request } from "./api.js";
import { h, setText } from "./dom.js";
import { number, originRemark, percent } from "./format.js";
import { alarmsWaiting, plant, statusOf } from "./live.js";
import { originalMachine } from "./names.js";
import { addressOf, isFiltered, STATES } from "./plant_view.js";
import { t } from "./text.js";

/** @import { View } from "./plant_view.js" */
/** @import { Machine, MachineStatus, Today, Used } from "./types.d.ts" */
/** @typedef {ReturnType<typeof tile>} Tile */

const AT_RISK = 0.5;
const MORE_THAN_USUAL = 0.1; // share above the usual amount, from which a total is marked

/**
 * Makes a tile.
 * @param {string} name
 */
export function tile(name) {
  const value = h("b");
  const note = h("span");
  const element = h("a", { class: "tile", "data-tile": name }, h("h2", {}, t(`tile.${name}`)), value, note);
  return {
    element,
    /** @param {{ text: string, note: string, level?: string, unit?: string, href?: string }} content */
    show({ text, note: more, level = "", unit = "", href }) {
      if (href !== undefined) element.setAttribute("href", href);
      if (value.textContent !== `${text}${unit}`) value.replaceChildren(text, unit ? h("small", {}, unit) : "");
      setText(note, more);
      element.dataset.level = level;
    },
  };
}

/**
 * Returns the number of machines in each state, those at risk, and the machine with the highest risk.
 * @param {Iterable<Machine>} machines
 */
export function countMachines(machines) {
  const states = /** @type {Record<MachineStatus, number>} */ (Object.fromEntries(STATES.map((state) => [state, 0])));
  let atRisk = 0;
  /** @type {{ machine: string, risk: number } | null} */
  let highest = null;
  for (const machine of machines) {
    states[statusOf(machine)] += 1;
    const risk = machine.risk_score;
    if (risk === null || originRemark(machine)) continue; // of a rule, or of a model without skill: no probability
    if (risk >= AT_RISK) atRisk += 1;
    if (highest === null || risk > highest.risk) highest = { machine: machine.machine_id, risk };
  }
  return { states, atRisk, highest };
}

/**
 * Returns the machine with the highest risk in words, or why there is none.
 * @param {{ machine: string, risk: number } | null} highest
 * @param {Machine[]} machines
 */
function highestRisk(highest, machines) {
  if (highest)
    return t("tile.risk.highest", { machine: originalMachine(highest.machine), risk: percent(highest.risk) });
  const predicted = machines.some((machine) => machine.predicted_at);
  return t(predicted ? "tile.risk.unknown" : "prediction.none");
}

/**
 * Returns what the tile of the machines shows.
 * @param {Record<MachineStatus, number>} states
 * @param {number} count
 * @param {View} view
 */
function machinesContent(states, count, view) {
  const others = STATES.filter((state) => states[state] && state !== "running");
  const silent = states.stale + states.offline;
  return {
    text: number(isFiltered(view) ? count : plant.total),
    note: others.map((state) => `${states[state]} ${t(`state.${state}`)}`).join(" · ") || t("tile.machines.well"),
    level: states.fault ? "high" : silent ? "medium" : "low",
    href: addressOf({ ...view, state: states.fault ? "fault" : "" }),
  };
}

/**
 * Shows the numbers of machines, and of alarms.
 * @param {Record<string, Tile>} tiles
 * @param {Machine[]} machines Those that match the filters.
 * @param {View} view
 */
export function showCounts(tiles, machines, view) {
  const { states, atRisk, highest } = countMachines(machines);
  tiles.machines.show(machinesContent(states, machines.length, view));
  tiles.risk.show({
    text: number(atRisk),
    note: highestRisk(highest, machines),
    level: atRisk ? "high" : "low",
    href: addressOf({ ...view, sort: "risk", descending: true }),
  });
  const { counts, loaded } = plant.alarms;
  tiles.alarms.show({
    text: loaded ? number(alarmsWaiting()) : "–",
    note: t("tile.alarms.more", { acknowledged: counts.acknowledged ?? 0, shelved: counts.shelved ?? 0 }),
    level: alarmsWaiting() ? "high" : "low",
    href: view.site ? `/alarms?${new URLSearchParams({ site: view.site })}` : "/alarms",
  });
}

/** @type {{ name: string, field: "energy_kwh" | "carbon_kgco2e" | "water_litres", unit: string }[]} */
const TOTALS = [
  { name: "energy", field: "energy_kwh", unit: "kWh" },
  { name: "carbon", field: "carbon_kgco2e", unit: "kg CO₂e" },
  { name: "water", field: "water_litres", unit: "l" },
];

/**
 * Returns what the tile of a total shows.
 * @param {Used} used
 * @param {string} unit
 */
export function totalContent({ amount, usual, compared, left_out, reason }, unit) {
  const content = { text: number(amount), unit: ` ${unit}` };
  if (!usual) return { ...content, note: t(`tile.use.${reason ?? "no_history"}`) };
  const change = (compared ?? amount) / usual - 1;
  return {
    ...content,
    note: t(left_out ? "tile.use.against_some" : "tile.use.against", {
      change: `${change > 0 ? "+" : ""}${percent(change)}`,
      usual: `${number(usual)} ${unit}`,
      left_out: number(left_out ?? 0),
    }),
    level: change > MORE_THAN_USUAL ? "medium" : "low",
  };
}

/**
 * Shows the totals of the day, of the chosen site if there is one.
 * @param {Record<string, Tile>} tiles
 * @param {View} view
 * @param {AbortSignal} signal
 */
export async function showTotals(tiles, { site }, signal) {
  const midnight = new Date();
  midnight.setHours(0, 0, 0, 0);
  const shown = TOTALS.filter(({ name }) => tiles[name]);
  /** @type {Today} */
  let today;
  try {
    const query = new URLSearchParams({ midnight: midnight.toISOString(), ...(site ? { site } : {}) });
    today = await request(`/api/today?${query}`, { signal });
  } catch (error) {
    if (!signal.aborted) for (const { name } of shown) tiles[name].show({ text: "–", note: messageOf(error) });
    return;
  }
  for (const { name, field, unit } of shown) {
    const used = today[field];
    const why = today.notes.find((note) => note.startsWith(`${name}:`));
    tiles[name].show(used ? totalContent(used, unit) : { text: "–", note: why ?? t("tile.use.none") });
  }
}
