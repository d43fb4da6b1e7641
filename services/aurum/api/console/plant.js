// @ts-check
// The plant: today's totals, and all machines in a table that stays fast with ten thousand.

import { groupBoard } from "./alarm_groups.js";
import { h, onceAFrame, setText } from "./dom.js";
import { number } from "./format.js";
import { plant, subscribe } from "./live.js";
import { plantFilters } from "./plant_filters.js";
import { makeRow } from "./plant_rows.js";
import { showCounts, showTotals, tile } from "./plant_tiles.js";
import { plantTrends } from "./plant_trends.js";
import { keepInAddress, matchingMachines, readView, SORT_KEYS } from "./plant_view.js";
import { longTable } from "./table.js";
import { t } from "./text.js";

/** @import { SortKey } from "./plant_view.js" */
/** @import { Machine, PageContext } from "./types.d.ts" */

const ROW_HEIGHTS = { wide: 2.75, narrow: 4.75 }; // rem, as .machines in style.css
const SORT_EVERY = 1000; // ms; an order that changes more often cannot be read
const TOTALS_EVERY = 60_000; // ms

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
  const view = readView(location.search);
  let held = false; // whether the order stays, since the user points at the table
  let sortedAt = -Infinity;
  /** @type {Machine[]} */
  let order = [];
  let sorted = 0; // number of machines when they were sorted
  let { site } = view; // of the totals
  const leaving = new AbortController();
  const trends = plantTrends(leaving.signal);
  const tiles = Object.fromEntries(
    ["machines", "risk", "alarms", "energy", "carbon", "water"]
      .filter((name) => features[name] !== false)
      .map((name) => [name, tile(name)]),
  );
  const columns = ["machine", "type", "site", "state", "risk", "life", "trend", "values", "seen"].map((key) => ({
    key,
    label: t(`column.${key}`),
    class: key,
    sort: SORT_KEYS.includes(/** @type {SortKey} */ (key)),
  }));
  const table = longTable({
    label: t("plant.table"),
    columns,
    rowHeights: ROW_HEIGHTS,
    makeRow: () => makeRow(trends),
    onSort: (key) => sortBy(/** @type {SortKey} */ (key)),
  });
  table.element.classList.add("machines");
  table.element.addEventListener("pointerenter", () => {
    held = true;
  });
  table.element.addEventListener("pointerleave", () => {
    held = false;
  });
  const count = h("p", { class: "count-line", role: "status" });
  const filters = plantFilters(view, (key) => (key ? sortBy(key) : choose()));
  const groups = groupBoard();
  const refreshGroups = () => groups.refresh(leaving.signal);
  const empty = firstSteps();
  const loading = h("p", { class: "loading" }, t("loading"));
  const nothing = h("p", { class: "nothing", hidden: true }, t("plant.no_match"));
  const list = h("section", { hidden: true }, filters.element, count, nothing, table.element);
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

  /**
   * Sorts by a column; the other way round if it is the one by which the table is sorted.
   * @param {SortKey} key
   */
  function sortBy(key) {
    view.descending = view.sort === key ? !view.descending : key === "risk" || key === "seen";
    view.sort = key;
    choose();
  }

  /** Sorts and filters anew, keeps the view in the address, and scrolls to the first match. */
  function choose() {
    keepInAddress(view);
    if (view.site !== site) totals();
    table.scrollToStart();
    sort();
    showCounts(tiles, order, view);
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

  function draw() {
    const some = plant.machines.size > 0;
    loading.hidden = plant.loaded;
    empty.hidden = !plant.loaded || some;
    list.hidden = !some;
    const isNew = plant.machines.size !== sorted;
    const due = isNew || performance.now() - sortedAt > SORT_EVERY;
    if (due) filters.show();
    if (isNew || (due && !held)) sort();
    else {
      order = order.map((machine) => plant.machines.get(machine.machine_id) ?? machine);
      table.setItems(order);
    }
    if (due) showCounts(tiles, order, view);
  }

  const drawSoon = onceAFrame(draw);
  const stops = [
    subscribe("machines", drawSoon),
    subscribe("connection", drawSoon),
    subscribe("alarms", () => showCounts(tiles, order, view)),
    subscribe("alarms", refreshGroups),
  ];
  const ticking = setInterval(drawSoon, 1000); // for ages, and machines that become stale
  function totals() {
    site = view.site;
    return showTotals(tiles, view, leaving.signal);
  }

  const totalling = setInterval(totals, TOTALS_EVERY);
  addEventListener("resize", drawSoon);
  keepInAddress(view);
  draw();
  totals();
  refreshGroups();
  return () => {
    stops.forEach((stop) => stop());
    clearInterval(ticking);
    clearInterval(totalling);
    removeEventListener("resize", drawSoon);
    table.close();
    leaving.abort();
  };
}
