// @ts-check
// The page that compares one sensor of several machines. What is compared is in the address, so that a link restores it.

import { messageOf, request } from "./api.js";
import { compareChart } from "./compare_chart.js";
import { comparisonAddress, MOST_MACHINES, readComparison } from "./comparison.js";
import { h, problemLine, setText, showProblem } from "./dom.js";
import { sensorName } from "./format.js";
import { plant, subscribe } from "./live.js";
import { originalMachine } from "./names.js";
import { t } from "./text.js";
import { timeline } from "./timeline.js";

/** @import { Comparison } from "./comparison.js" */
/** @import { Metrics } from "./types.d.ts" */

const POINTS = 600; // of each line
const MOST_OFFERED = 500; // machines
const REFRESH_EVERY = 30_000; // ms

/**
 * Returns the machines that can be added: those that have the sensor, of the type of the first one before the others.
 * @param {Comparison} comparison
 */
function offered({ sensor, machines }) {
  const type = plant.machines.get(machines[0])?.machine_type;
  return [...plant.machines.values()]
    .filter(({ machine_id: id, values }) => !machines.includes(id) && (!sensor || Object.hasOwn(values, sensor)))
    .sort((a, b) => Number(b.machine_type === type) - Number(a.machine_type === type))
    .slice(0, MOST_OFFERED);
}

/**
 * Opens the page.
 * @param {HTMLElement} main
 */
export function open(main) {
  const leaving = new AbortController();
  const { signal } = leaving;
  const comparison = readComparison(location.search);
  const range = timeline(() => load());
  const chart = compareChart({ range: range.range, onZoom: range.zoomTo });
  const problem = problemLine();
  const hint = h("p", { class: "hint", role: "status" });
  const sensors = h("select", {});
  const chosen = h("ul", { class: "chosen", "aria-label": t("compare.machines") });
  const list = h("datalist", { id: "machines-to-add" });
  const adding = h("input", { list: "machines-to-add", autocomplete: "off" });
  let turn = 0; // a late answer does not replace a later one

  sensors.addEventListener("change", () => change({ ...comparison, sensor: sensors.value }));
  const form = h(
    "form",
    { class: "filters" },
    h("label", {}, t("compare.sensor"), " ", sensors),
    h("label", {}, t("compare.add"), " ", adding),
    list,
    h("button", { type: "submit" }, t("compare.add_button")),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    add(adding.value.trim());
  });

  /** @param {string} machine */
  function add(machine) {
    if (!machine) return;
    if (!plant.machines.has(machine)) {
      showProblem(problem, t("machine.unknown", { machine }));
      return;
    }
    if (comparison.machines.length >= MOST_MACHINES) {
      showProblem(problem, t("compare.most", { n: MOST_MACHINES }));
      return;
    }
    adding.value = "";
    change({ ...comparison, machines: [...new Set([...comparison.machines, machine])] });
  }

  /** @param {Comparison} wanted */
  function change(wanted) {
    Object.assign(comparison, wanted);
    history.replaceState(history.state, "", comparisonAddress(comparison));
    showForm();
    load();
  }

  function showForm() {
    const known = comparison.machines.flatMap((machine) => Object.keys(plant.machines.get(machine)?.values ?? {}));
    const names = [...new Set([comparison.sensor, ...known])].filter(Boolean).sort();
    sensors.replaceChildren(...names.map((name) => h("option", { value: name }, sensorName(name).name)));
    if (!comparison.sensor && names.length) [comparison.sensor] = names;
    sensors.value = comparison.sensor;
    list.replaceChildren(
      ...offered(comparison).map(({ machine_id: id }) => h("option", { value: id }, originalMachine(id))),
    );
    chosen.replaceChildren(
      ...comparison.machines.map((machine) => {
        const click = () => change({ ...comparison, machines: comparison.machines.filter((each) => each !== machine) });
        const label = t("compare.remove", { machine: originalMachine(machine) });
        return h(
          "li",
          {},
          h("a", { href: `/machines/${encodeURIComponent(machine)}` }, originalMachine(machine)),
          " ",
          h("button", { type: "button", class: "quiet", "aria-label": label, title: label, on: { click } }, "×"),
        );
      }),
    );
  }

  /**
   * @param {string} machine
   * @param {string} until The end of the range, as part of a query.
   */
  async function lineOf(machine, until) {
    const query = new URLSearchParams({
      sensor: comparison.sensor,
      points: String(POINTS),
      start: String(range.range()[0]),
    });
    /** @type {Metrics} */
    const { series } = await request(`/api/machines/${encodeURIComponent(machine)}/metrics?${query}${until}`, {
      signal,
    });
    return {
      label: originalMachine(machine),
      times: (series[0]?.timestamps ?? []).map((time) => Date.parse(time) / 1000),
      values: series[0]?.values ?? [],
    };
  }

  async function load() {
    const mine = ++turn;
    const { sensor, machines } = comparison;
    if (!sensor || !machines.length) {
      setText(hint, t("compare.none"));
      await chart.show([], "");
      return;
    }
    const until = range.isLive() ? "" : `&end=${range.range()[1]}`;
    try {
      const lines = await Promise.all(machines.map((machine) => lineOf(machine, until)));
      if (mine !== turn || signal.aborted) return;
      const without = lines.filter((line) => !line.times.length).map((line) => line.label);
      setText(hint, without.length ? t("compare.without", { machines: without.join(", ") }) : t("machine.zoom_only"));
      showProblem(problem, "");
      await chart.show(lines, sensorName(sensor).unit);
    } catch (error) {
      if (!signal.aborted && mine === turn) showProblem(problem, messageOf(error));
    }
  }

  main.append(
    h("h1", {}, t("nav.compare")),
    form,
    chosen,
    problem,
    range.element,
    hint,
    h("figure", { class: "compared" }, chart.element),
  );
  let loaded = plant.loaded;
  const stop = subscribe("machines", () => {
    if (!loaded && plant.loaded) showForm(); // the sensors and machines to choose from
    loaded = plant.loaded;
  });
  const refreshing = setInterval(() => {
    if (!document.hidden && range.isLive()) load();
  }, REFRESH_EVERY);
  showForm();
  load();
  return () => {
    stop();
    clearInterval(refreshing);
    leaving.abort();
    chart.close();
  };
}
