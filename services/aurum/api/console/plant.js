// @ts-check
// The plant: today's totals, and all machines in a table that stays fast with ten thousand.

import { groupBoard } from "./alarm_groups.js";
import { messageOf, request } from "./api.js";
import { h, onceAFrame, setText } from "./dom.js";
import {
  age,
  interval,
  number,
  originRemark,
  percent,
  predictionRemark,
  remainingLife,
  riskLevel,
  riskText,
  sensorName,
  timeOrDate,
} from "./format.js";
import { alarmsWaiting, plant, statusOf, subscribe } from "./live.js";
import { originalMachine, storedHint } from "./names.js";
import { longTable } from "./table.js";
import { t, textOr } from "./text.js";

/** @import { Machine, MachineStatus, PageContext, Today, Used } from "./types.d.ts" */
/** @typedef {"machine" | "type" | "site" | "state" | "risk" | "life" | "seen"} SortKey */
/** @typedef {"state" | "type" | "site"} FilterKey */
/** @typedef {{ search: string, state: string, type: string, site: string, sort: SortKey, descending: boolean }} View */
/** @typedef {ReturnType<typeof tile>} Tile */

const ROW_HEIGHT = 44; // px, as .machines in style.css
const SORT_EVERY = 1000; // ms; an order that changes more often cannot be read
const TOTALS_EVERY = 60_000; // ms
const VALUES = 3; // readings in a row
const AT_RISK = 0.5;
const MORE_THAN_USUAL = 0.1; // share above the usual amount, from which a total is marked
const HIDDEN_SENSORS = new Set(["fault", "operating_hours"]); // shown by state and remaining life
/** @type {MachineStatus[]} */
const STATES = ["running", "fault", "stale", "offline", "new"];

/** @type {View} */
const view = { search: "", state: "", type: "", site: "", sort: "risk", descending: true }; // kept between visits

/** @type {Record<SortKey, (machine: Machine) => string | number>} */
const KEYS = {
  machine: (machine) => originalMachine(machine.machine_id),
  type: (machine) => machine.machine_type,
  site: (machine) => machine.site,
  state: (machine) => STATES.indexOf(statusOf(machine)),
  risk: (machine) => machine.risk_score ?? -1,
  life: (machine) => machine.rul?.estimate ?? Infinity,
  seen: (machine) => machine.last_seen ?? "",
};

/**
 * @param {Machine} machine
 * @param {View} wanted
 * @param {string} words The search in lower case.
 */
function matches(machine, wanted, words) {
  if (wanted.type && machine.machine_type !== wanted.type) return false;
  if (wanted.site && machine.site !== wanted.site) return false;
  if (wanted.state && statusOf(machine) !== wanted.state) return false;
  const names = `${machine.machine_id} ${originalMachine(machine.machine_id)}`;
  return !words || `${names} ${machine.machine_type} ${machine.site}`.toLowerCase().includes(words);
}

/**
 * Returns the machines that match search and filters, sorted; machines with equal keys by name.
 * @param {Iterable<Machine>} machines
 * @param {View} wanted
 */
export function matchingMachines(machines, wanted) {
  const words = wanted.search.trim().toLowerCase();
  const key = KEYS[wanted.sort];
  const sign = wanted.descending ? -1 : 1;
  return [...machines]
    .filter((machine) => matches(machine, wanted, words))
    .map((machine) => /** @type {const} */ ([key(machine), machine]))
    .sort(([left, a], [right, b]) => {
      if (left !== right) return left < right ? -sign : sign;
      return a.machine_id < b.machine_id ? -1 : 1;
    })
    .map(([, machine]) => machine);
}

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

function makeRow() {
  const link = h("a");
  const state = stateBadge();
  const bar = h("i");
  const risk = h("b");
  const rule = h("small");
  const life = h("span");
  const range = h("small");
  const [type, site, values, seen] = ["type", "site", "values", "seen"].map((name) => h("td", { class: name }));
  const element = h(
    "tr",
    { class: "machine" },
    h("th", { scope: "row" }, link),
    type,
    site,
    h("td", {}, state.element),
    h("td", { class: "risk" }, h("span", { class: "bar", "aria-hidden": "true" }, bar), risk, " ", rule),
    h("td", { class: "life" }, life, " ", range),
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
      setText(life, remainingLife(machine.rul));
      setText(range, interval(machine.rul));
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

/** @param {string} name */
function tile(name) {
  const value = h("b");
  const note = h("span");
  const element = h("div", { class: "tile", "data-tile": name }, h("h2", {}, t(`tile.${name}`)), value, note);
  return {
    element,
    /** @param {{ text: string, note: string, level?: string, unit?: string }} content */
    show({ text, note: more, level = "", unit = "" }) {
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
 */
function highestRisk(highest) {
  if (highest)
    return t("tile.risk.highest", { machine: originalMachine(highest.machine), risk: percent(highest.risk) });
  const predicted = [...plant.machines.values()].some((machine) => machine.predicted_at);
  return t(predicted ? "tile.risk.unknown" : "prediction.none");
}

/** @param {Record<string, Tile>} tiles */
function showCounts(tiles) {
  const { states, atRisk, highest } = countMachines(plant.machines.values());
  const others = STATES.filter((state) => states[state] && state !== "running");
  const silent = states.stale + states.offline;
  tiles.machines.show({
    text: number(plant.total),
    note: others.map((state) => `${states[state]} ${t(`state.${state}`)}`).join(" · ") || t("tile.machines.well"),
    level: states.fault ? "high" : silent ? "medium" : "low",
  });
  tiles.risk.show({ text: number(atRisk), note: highestRisk(highest), level: atRisk ? "high" : "low" });
  const { counts, loaded } = plant.alarms;
  tiles.alarms.show({
    text: loaded ? number(alarmsWaiting()) : "–",
    note: t("tile.alarms.more", { acknowledged: counts.acknowledged ?? 0, shelved: counts.shelved ?? 0 }),
    level: alarmsWaiting() ? "high" : "low",
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
function totalContent({ amount, usual }, unit) {
  const content = { text: number(amount), unit: ` ${unit}` };
  if (!usual) return { ...content, note: t("tile.use.no_history") };
  const change = amount / usual - 1;
  return {
    ...content,
    note: t("tile.use.against", {
      change: `${change > 0 ? "+" : ""}${percent(change)}`,
      usual: `${number(usual)} ${unit}`,
    }),
    level: change > MORE_THAN_USUAL ? "medium" : "low",
  };
}

/**
 * @param {Record<string, Tile>} tiles
 * @param {AbortSignal} signal
 */
async function showTotals(tiles, signal) {
  const midnight = new Date();
  midnight.setHours(0, 0, 0, 0);
  const shown = TOTALS.filter(({ name }) => tiles[name]);
  /** @type {Today} */
  let today;
  try {
    today = await request(`/api/today?midnight=${encodeURIComponent(midnight.toISOString())}`, { signal });
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

/**
 * Makes a filter with a choice of values.
 * @param {FilterKey} name
 * @param {() => void} onChange
 */
function chooser(name, onChange) {
  const select = h("select");
  select.addEventListener("change", () => {
    view[name] = select.value;
    onChange();
  });
  return {
    element: h("label", {}, t(`filter.${name}`), " ", select),
    /**
     * Offers these values.
     * @param {string[]} values
     * @param {(value: string) => string} text
     */
    show(values, text) {
      const wanted = ["", ...values];
      if (wanted.join("\n") === [...select.options].map((option) => option.value).join("\n")) return;
      select.replaceChildren(...wanted.map((value) => h("option", { value }, value ? text(value) : t("filter.all"))));
      select.value = view[name];
    },
  };
}

/** @param {"machine_type" | "site"} field */
const distinct = (field) =>
  [...new Set([...plant.machines.values()].map((each) => each[field]).filter(Boolean))].sort();

/** Returns what a plant without machines shows. */
function firstSteps() {
  /** @param {string} text */
  const command = (text) => h("pre", { tabindex: "0" }, h("code", {}, text));
  return h(
    "section",
    { class: "empty", hidden: true },
    h("h2", {}, t("first.title")),
    h("p", {}, t("first.text")),
    h("h3", {}, t("first.send")),
    command(
      `curl ${location.origin}/api/readings -H 'Content-Type: application/json' -d '{"readings": [\n` +
        `  {"machine_id": "pump-1", "sensor": "vibration_mm_s", "timestamp": "${new Date().toISOString()}", "value": 2.4}]}'`,
    ),
    h("h3", {}, t("first.import")),
    command("aurum import --format csv --machine-type pump readings.csv"),
    h("h3", {}, t("first.simulate")),
    command("make run"),
  );
}

/**
 * Opens the page.
 * @param {HTMLElement} main
 * @param {PageContext} context
 */
export function open(main, { console: { features } }) {
  let held = false; // whether the order stays, since the user points at the table
  let sortedAt = -Infinity;
  /** @type {Machine[]} */
  let order = [];
  let sorted = 0; // number of machines when they were sorted
  const leaving = new AbortController();
  const tiles = Object.fromEntries(
    ["machines", "risk", "alarms", "energy", "carbon", "water"]
      .filter((name) => features[name] !== false)
      .map((name) => [name, tile(name)]),
  );
  const columns = ["machine", "type", "site", "state", "risk", "life", "values", "seen"].map((key) => ({
    key,
    label: t(`column.${key}`),
    class: key,
    sort: key in KEYS,
  }));
  const table = longTable({
    label: t("plant.table"),
    columns,
    rowHeight: ROW_HEIGHT,
    makeRow,
    onSort: (key) => {
      view.descending = view.sort === key ? !view.descending : key === "risk" || key === "seen";
      view.sort = /** @type {SortKey} */ (key);
      choose();
    },
  });
  table.element.classList.add("machines");
  table.element.addEventListener("pointerenter", () => {
    held = true;
  });
  table.element.addEventListener("pointerleave", () => {
    held = false;
  });
  const count = h("p", { class: "count-line", role: "status" });
  const search = h("input", { type: "search", value: view.search, placeholder: t("filter.search.hint") });
  search.addEventListener("input", () => {
    view.search = search.value;
    choose();
  });
  const choosers = { state: chooser("state", choose), type: chooser("type", choose), site: chooser("site", choose) };
  const groups = groupBoard();
  const refreshGroups = () => groups.refresh(leaving.signal);
  const empty = firstSteps();
  const loading = h("p", { class: "loading" }, t("loading"));
  const nothing = h("p", { class: "nothing", hidden: true }, t("plant.no_match"));
  const list = h(
    "section",
    { hidden: true },
    h(
      "form",
      { class: "filters", on: { submit: (event) => event.preventDefault() } },
      h("label", {}, t("filter.search"), " ", search),
      Object.values(choosers).map((each) => each.element),
    ),
    count,
    nothing,
    table.element,
  );
  main.append(
    h("h1", { class: "hidden" }, t("nav.plant")),
    h(
      "section",
      { class: "tiles", "aria-label": t("plant.totals") },
      Object.values(tiles).map((each) => each.element),
    ),
    groups.element,
    loading,
    empty,
    list,
  );

  /** Sorts and filters anew, and scrolls to the first match. */
  function choose() {
    table.element.scrollTop = 0;
    sort();
  }

  function sort() {
    sortedAt = performance.now();
    sorted = plant.machines.size;
    order = matchingMachines(plant.machines.values(), view);
    table.markSorted(view.sort, view.descending);
    table.setItems(order);
    nothing.hidden = order.length > 0 || !plant.machines.size;
    setText(count, t("plant.shown", { n: number(order.length), total: number(plant.machines.size) }));
  }

  function showFilters() {
    choosers.state.show(STATES, (state) => t(`state.${state}`));
    choosers.type.show(distinct("machine_type"), (type) => textOr(`type.${type}`, type));
    choosers.site.show(distinct("site"), (site) => site);
  }

  function draw() {
    const some = plant.machines.size > 0;
    loading.hidden = plant.loaded;
    empty.hidden = !plant.loaded || some;
    list.hidden = !some;
    const isNew = plant.machines.size !== sorted;
    const due = isNew || performance.now() - sortedAt > SORT_EVERY;
    if (due) {
      showCounts(tiles);
      showFilters();
    }
    if (isNew || (due && !held)) sort();
    else {
      order = order.map((machine) => plant.machines.get(machine.machine_id) ?? machine);
      table.setItems(order);
    }
  }

  const drawSoon = onceAFrame(draw);
  const stops = [
    subscribe("machines", drawSoon),
    subscribe("connection", drawSoon),
    subscribe("alarms", () => showCounts(tiles)),
    subscribe("alarms", refreshGroups),
  ];
  const ticking = setInterval(drawSoon, 1000); // for ages, and machines that become stale
  const totals = () => showTotals(tiles, leaving.signal);
  const totalling = setInterval(totals, TOTALS_EVERY);
  addEventListener("resize", drawSoon);
  draw();
  totals();
  refreshGroups();
  return () => {
    stops.forEach((stop) => stop());
    clearInterval(ticking);
    clearInterval(totalling);
    removeEventListener("resize", drawSoon);
    leaving.abort();
  };
}
