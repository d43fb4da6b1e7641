// @ts-check
// A machine: its prediction with the reasons, what to do, its sensors over time, its alarms and its maintenance.

import { alarmRow } from "./alarms.js";
import { messageOf, request } from "./api.js";
import { h, onceAFrame, setText, showProblem, tableOf, wideRegion } from "./dom.js";
import {
  age,
  interval,
  isByRule,
  lifeText,
  originRemark,
  predictionAge,
  riskLevel,
  riskText,
  unitName,
  unknownText,
  unusualness,
} from "./format.js";
import { lifeSuggestions } from "./life_suggestions.js";
import { plant, subscribe } from "./live.js";
import { adviceContent, causeRemark, factorList, predictionLinks, useList } from "./machine_cards.js";
import { machineCharts } from "./machine_charts.js";
import { maintenanceForm, maintenanceList, outcomeList } from "./maintenance_cards.js";
import { originalMachine, storedHint } from "./names.js";
import { plannedStops } from "./planned_stops.js";
import { stateBadge } from "./plant_rows.js";
import { latestAddress } from "./plant_view.js";
import { mayMake } from "./session.js";
import { t, textOr } from "./text.js";
import { timeline } from "./timeline.js";

/** @import { Mark } from "./chart_marks.js" */
/** @import { Alarms, Explanation, Journal, Machine, MaintenanceRecords, Outcomes, PageContext } from "./types.d.ts" */

const REFRESH_EVERY = 30_000; // ms, for what the event stream does not bring
const MONTHS = 3; // of what became of predictions, the newest

/**
 * Makes a card.
 * @param {string} key
 */
function card(key) {
  const body = h("div");
  return { element: h("section", { class: "card", "data-card": key }, h("h2", {}, t(`card.${key}`)), body), body };
}

/**
 * Fills a card. An error is shown in this card; the others stay as they are.
 * @param {ReturnType<typeof card>} target
 * @param {() => Promise<Node[]>} load
 * @param {AbortSignal} signal
 */
async function fillCard(target, load, signal) {
  try {
    target.body.replaceChildren(...(await load()));
  } catch (error) {
    if (!signal.aborted) target.body.replaceChildren(h("p", { class: "nothing" }, messageOf(error)));
  }
}

/**
 * Makes the head of the page with the prediction.
 * @param {string} id
 */
function heading(id) {
  const state = stateBadge();
  const where = h("span", { class: "where" });
  const risk = h("b", { class: "big" });
  const rule = h("small");
  const life = h("b", { class: "big" });
  const range = h("small");
  const anomaly = h("b", { class: "big" });
  const anomalyOrigin = h("small");
  const seen = h("b", { class: "big" });
  /**
   * @param {string} key
   * @param {...Node} content
   */
  const fact = (key, ...content) => h("div", { class: "fact" }, h("span", {}, t(key)), content);
  const element = h(
    "header",
    { class: "machine-head" },
    h(
      "div",
      {},
      h("a", { href: latestAddress(), class: "back" }, t("machine.back")),
      h("h1", { title: storedHint(id) }, originalMachine(id)),
      where,
      " ",
      state.element,
    ),
    fact("column.risk", risk, rule),
    fact("column.life", life, range),
    fact("machine.anomaly", anomaly, anomalyOrigin),
    fact("column.seen", seen),
  );
  return {
    element,
    /** @param {Machine} machine */
    show(machine) {
      state.show(machine);
      const type = textOr(`type.${machine.machine_type}`, machine.machine_type);
      setText(where, [type, machine.site].filter(Boolean).join(" · "));
      setText(risk, riskText(machine));
      risk.dataset.level = riskLevel(machine.risk_score);
      setText(rule, [originRemark(machine), predictionAge(machine)].filter(Boolean).join(" · "));
      setText(life, lifeText(machine) || "–");
      setText(range, intervalText(machine));
      const level = unusualness(machine);
      setText(anomaly, level === undefined ? "–" : t(`anomaly.${level}`));
      setText(anomalyOrigin, level !== undefined && isByRule(machine) ? t("by_rule") : "");
      setText(seen, age(machine.last_seen));
    },
  };
}

/**
 * Returns the interval of the remaining life, or why the model tells none.
 * @param {Machine} machine
 */
function intervalText({ rul, rul_unknown_reason, rul_unknown }) {
  if (!rul && rul_unknown_reason) return unknownText(rul_unknown_reason, rul_unknown);
  const range = interval(rul);
  return rul && range ? t("machine.interval", { range, unit: unitName(rul.unit) }) : "";
}

/**
 * Makes the cards of a machine.
 * @param {PageContext} context
 * @param {AbortSignal} signal
 * @param {(marks: Mark[]) => void} onMarks Called with the alarms and the maintenance of the past.
 */
function machineCards({ id, console: settings }, signal, onMarks) {
  const path = `/api/machines/${encodeURIComponent(id)}`;
  const query = `machine_id=${encodeURIComponent(id)}`;
  const { predictive = true, analytics = true, energy, carbon } = settings.features;
  const why = card("why");
  const advice = card("advice");
  const use = card("use");
  const alarms = card("alarms");
  const maintenance = card("maintenance");
  const lives = card("lives");
  const outcomes = card("outcomes");
  const happened = h("p", { role: "status", class: "happened" });
  const stops = card("stops");

  async function loadWhy() {
    /** @type {Explanation} */
    const explanation = await request(`${path}/explanation`, { signal });
    const { prediction } = explanation;
    return [
      ...causeRemark(prediction.causes ?? []),
      factorList(explanation),
      ...predictionLinks(prediction.trace_id, settings),
    ];
  }

  const loadAdvice = async () => adviceContent(await request(`${path}/advice`, { signal }));

  const loadUse = async () => [
    useList(
      energy ? await request(`/api/energy?${query}`, { signal }) : null,
      carbon ? await request(`/api/carbon?${query}`, { signal }) : null,
    ),
  ];

  async function loadAlarms() {
    /** @type {Alarms} */
    const { items } = await request(`/api/alarms?${query}`, { signal });
    if (!items.length) return [happened, h("p", { class: "nothing" }, t("alarms.none"))];
    const rows = items.map((alarm) => alarmRow(alarm, { withMachine: false, onDone }));
    return [happened, wideRegion(t("card.alarms"), tableOf({ rows }))];
  }

  const mayRecord = mayMake("POST /api/machines/{machine_id}/maintenance");

  async function loadMaintenance() {
    /** @type {[Journal, MaintenanceRecords]} */
    const [journal, { items }] = await Promise.all([
      request(`/api/alarms/journal?limit=1000&machine_id=${encodeURIComponent(id)}&transition=raised`, { signal }),
      request(`${path}/maintenance`, { signal }),
    ]);
    onMarks([
      ...journal.items.map(({ at }) => /** @type {Mark} */ ({ at: Date.parse(at) / 1000, kind: "alarm" })),
      ...items.map(({ at }) => /** @type {Mark} */ ({ at: Date.parse(at) / 1000, kind: "maintenance" })),
    ]);
    const records = `${path}/maintenance`;
    const list = maintenanceList(items, records, mayRecord ? refreshMaintenance : null);
    return mayRecord ? [list, maintenanceForm(records, refreshMaintenance)] : [list];
  }

  const loadLives = () => lifeSuggestions(path, signal, mayRecord ? refreshMaintenance : null);

  async function loadOutcomes() {
    const type = plant.machines.get(id)?.machine_type;
    if (!type) return [outcomeList([])];
    /** @type {Outcomes} */
    const { items } = await request(`/api/outcomes?machine_type=${encodeURIComponent(type)}&limit=${MONTHS}`, {
      signal,
    });
    return [outcomeList(items)];
  }

  /** @param {string} done */
  function onDone(done) {
    setText(happened, done);
    refreshAlarms();
  }

  const loadStops = () => plannedStops(`${path}/planned-stops`, signal, refreshStops);

  function refreshStops() {
    fillCard(stops, loadStops, signal);
    if (predictive) fillCard(advice, loadAdvice, signal);
  }

  const refreshAlarms = () => fillCard(alarms, loadAlarms, signal);
  function refreshMaintenance() {
    fillCard(maintenance, loadMaintenance, signal);
    fillCard(lives, loadLives, signal); // a record may answer a suggestion
  }
  const polled = [
    ...(predictive && analytics ? [{ target: why, load: loadWhy }] : []),
    ...(predictive
      ? [
          { target: advice, load: loadAdvice },
          { target: outcomes, load: loadOutcomes },
        ]
      : []),
    ...(energy || carbon ? [{ target: use, load: loadUse }] : []),
  ];
  return {
    elements: [alarms, ...polled.map(({ target }) => target), stops, lives, maintenance].map((each) => each.element),
    refreshAlarms,
    refreshMaintenance,
    refreshStops,
    /** Refreshes the cards that the event stream does not keep current. */
    refresh() {
      for (const { target, load } of polled) fillCard(target, load, signal);
    },
  };
}

/**
 * Opens the page.
 * @param {HTMLElement} main
 * @param {PageContext} context
 */
export function open(main, context) {
  const { id } = context;
  const leaving = new AbortController();
  const { signal } = leaving;
  const head = heading(id);
  const range = timeline(() => loadCharts());
  const withPredictions = context.console.features.predictive !== false;
  const charts = machineCharts({ id, withPredictions, signal, timeline: range });
  const cards = machineCards(context, signal, (marks) => charts.setMarks(marks).catch(report));
  const problem = h("p", { class: "nothing", hidden: true });
  main.append(
    head.element,
    problem,
    h("div", { class: "cards" }, cards.elements),
    h(
      "section",
      { "aria-label": t("machine.charts") },
      range.element,
      h("h2", {}, t("machine.prediction")),
      charts.predictions,
      h("h2", {}, t("machine.sensors")),
      h("p", { class: "hint" }, t("machine.zoom")),
      charts.empty,
      charts.sensors,
    ),
  );

  /** @param {unknown} error */
  function report(error) {
    if (!signal.aborted) showProblem(problem, messageOf(error));
  }

  async function loadCharts() {
    try {
      await charts.load();
      showProblem(problem, "");
    } catch (error) {
      report(error);
    }
  }

  function refresh() {
    if (document.hidden) return;
    cards.refresh();
    if (range.isLive()) loadCharts();
  }

  function showHead() {
    const machine = plant.machines.get(id);
    if (machine) head.show(machine);
    else if (plant.loaded) showProblem(problem, t("machine.unknown", { machine: originalMachine(id) }));
  }

  const draw = onceAFrame(showHead);
  const stops = [
    subscribe("machines", (changed) => {
      const machine = changed.find((each) => each.machine_id === id);
      if (!machine) return;
      draw();
      charts.append(machine).catch(report);
    }),
    subscribe("alarms", cards.refreshAlarms),
  ];
  const ticking = setInterval(draw, 1000); // for the age of the last reading
  const refreshing = setInterval(refresh, REFRESH_EVERY);
  showHead();
  cards.refreshStops();
  cards.refreshMaintenance();
  cards.refreshAlarms();
  refresh();
  return () => {
    stops.forEach((stop) => stop());
    clearInterval(ticking);
    clearInterval(refreshing);
    leaving.abort();
  };
}
