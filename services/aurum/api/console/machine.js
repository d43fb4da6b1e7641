// One machine: what is predicted and why, what to do, its sensors over time, its alarms and its upkeep.

import { request } from "./api.js";
import { bandChart } from "./charts.js";
import { h, onceAFrame, setText } from "./dom.js";
import { age, interval, moment, number, percent, remainingLife, riskLevel, sensorName } from "./format.js";
import { on, plant, statusOf } from "./live.js";
import { alarmRow } from "./alarms.js";
import { stateBadge } from "./plant.js";
import { setting } from "./settings.js";
import { known, t } from "./text.js";
import { timeline } from "./timeline.js";

const POINTS = 600; // of a series, to which the server reduces it
const AGAIN_EVERY = 30_000; // ms, of what does not come by itself
const MOST_SENSORS = 40;
const MOST_PREDICTIONS = 1000;

const seconds = (isoTimes) => isoTimes.map((time) => Date.parse(time) / 1000);

function card(key, ...children) {
  const body = h("div", {}, ...children);
  return { element: h("section", { class: "card", "data-card": key }, h("h2", {}, t(`card.${key}`)), body), body };
}

/** Fills a card by a request; what goes wrong is said in it, and the other cards do not notice. */
async function fillCard(target, load, signal) {
  try {
    target.body.replaceChildren(...[await load()].flat());
  } catch (error) {
    if (signal.aborted) return;
    target.body.replaceChildren(h("p", { class: "nothing" }, error.message));
  }
}

function factorText(factor) {
  const [, statistic = ""] = factor.feature.split(".");
  const [kind, steps] = statistic.split("_");
  const { name, unit } = sensorName(factor.sensor || factor.feature);
  const value = `${number(factor.value)} ${kind === "slope" ? "" : unit}`.trim();
  return t(`factor.${kind || "last"}`, { sensor: name, value, n: steps ?? "" });
}

function factors(answer) {
  const most = Math.max(...answer.factors.map((factor) => Math.abs(factor.contribution)), 1e-9);
  return h(
    "ul",
    { class: "factors" },
    answer.factors.map((factor) => {
      const raises = factor.contribution > 0;
      const bar = h("i", { class: raises ? "raises" : "lowers" });
      bar.style.width = `${(100 * Math.abs(factor.contribution)) / most}%`;
      return h(
        "li",
        {},
        h("span", {}, factorText(factor)),
        " ",
        h("small", {}, raises ? t("factor.raises") : t("factor.lowers")),
        h("span", { class: "bar", "aria-hidden": "true" }, bar),
      );
    }),
  );
}

function advice(found) {
  const columns = ["money", "kwh", "kgco2e", "litres"];
  const unit = { money: found.currency, kwh: "kWh", kgco2e: "kg CO₂e", litres: "l" };
  const head = ["when", "failure", ...columns].map((name) =>
    h("th", { scope: "col" }, t(`advice.${name}`), unit[name] ? h("small", {}, ` ${unit[name]}`) : null),
  );
  const rows = found.options.map((option) =>
    h(
      "tr",
      { class: option.when === found.best ? "best" : "" },
      h(
        "th",
        { scope: "row" },
        t(`advice.${option.when}`, { after: number(option.after), unit: known(`unit.${found.unit}`, found.unit) }),
      ),
      h("td", {}, percent(option.failure_probability)),
      columns.map((name) => h("td", {}, number(option[name]))),
    ),
  );
  const key = found.best === "at_failure" ? "advice.run" : `advice.best.${found.best}`;
  return [
    h("p", { class: "advice" }, t(key, { saves: `${number(found.saves)} ${found.currency}` })),
    h(
      "div",
      { class: "wide", tabindex: "0", role: "region", "aria-label": t("card.advice") },
      h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows)),
    ),
  ];
}

function use(energy, carbon) {
  const rows = [];
  if (energy)
    rows.push([
      t("use.energy"),
      `${number(energy.total.energy_kwh)} kWh`,
      t("use.coverage", { share: percent(energy.total.coverage) }),
    ]);
  if (carbon) {
    rows.push([t("use.location"), `${number(carbon.total.location_kgco2e)} kg CO₂e`, ""]);
    rows.push([t("use.market"), `${number(carbon.total.market_kgco2e)} kg CO₂e`, ""]);
  }
  return h(
    "dl",
    {},
    rows.map(([name, value, note]) => [h("dt", {}, name), h("dd", {}, value, " ", h("small", {}, note))]),
  );
}

function links(traceId, settings) {
  const found = [];
  if (settings.jaeger_url) found.push(h("a", { href: `${settings.jaeger_url}/trace/${traceId}` }, t("link.trace")));
  if (settings.logs_url) found.push(h("a", { href: settings.logs_url.replace("{trace_id}", traceId) }, t("link.logs")));
  return found.length ? h("p", { class: "links" }, found) : [];
}

function heading(id) {
  const state = stateBadge();
  const where = h("span", { class: "where" });
  const risk = h("b", { class: "big" });
  const rule = h("small", {});
  const life = h("b", { class: "big" });
  const range = h("small", {});
  const anomaly = h("b", { class: "big" });
  const seen = h("b", { class: "big" });
  const fact = (key, ...content) => h("div", { class: "fact" }, h("span", {}, t(key)), ...content);
  return {
    element: h(
      "header",
      { class: "machine-head" },
      h("div", {}, h("a", { href: "/", class: "back" }, t("machine.back")), h("h1", {}, id), where, " ", state.element),
      fact("column.risk", risk, rule),
      fact("column.life", life, range),
      fact("machine.anomaly", anomaly),
      fact("column.seen", seen),
    ),
    show(machine) {
      state.show(statusOf(machine));
      setText(
        where,
        [known(`type.${machine.machine_type}`, machine.machine_type), machine.site].filter(Boolean).join(" · "),
      );
      setText(risk, machine.risk_score === null ? "–" : percent(machine.risk_score));
      risk.dataset.level = riskLevel(machine.risk_score);
      setText(rule, machine.degraded ? t("by_rule") : "");
      setText(life, remainingLife(machine.rul) || "–");
      setText(range, interval(machine.rul) ? t("machine.interval", { range: interval(machine.rul) }) : "");
      setText(anomaly, percent(machine.anomaly_score));
      setText(seen, age(machine.last_seen));
    },
  };
}

function maintenanceForm(id, done, signal) {
  const text = h("input", { required: true, maxlength: 500, placeholder: t("maintenance.hint") });
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  return h(
    "form",
    {
      class: "inline",
      on: {
        submit: async (event) => {
          event.preventDefault();
          problem.hidden = true;
          try {
            await request(`/api/machines/${encodeURIComponent(id)}/maintenance`, {
              method: "POST",
              body: { text: text.value, by: setting("operator") },
              signal,
            });
            text.value = "";
            done();
          } catch (error) {
            setText(problem, error.message);
            problem.hidden = false;
          }
        },
      },
    },
    h("label", {}, t("maintenance.label"), " ", text),
    h("button", { type: "submit" }, t("maintenance.record")),
    problem,
  );
}

export function open(main, { id, console: settings }) {
  const leaving = new AbortController();
  const { signal } = leaving;
  const path = `/api/machines/${encodeURIComponent(id)}`;
  const head = heading(id);
  const features = { predictive: true, analytics: true, ...settings.features };
  const cards = {
    why: features.analytics && features.predictive ? card("why") : null,
    advice: features.predictive ? card("advice") : null,
    use: features.energy || features.carbon ? card("use") : null,
    alarms: card("alarms"),
    maintenance: card("maintenance"),
  };
  const range = timeline(() => loadSeries());
  const charts = new Map(); // sensor → chart
  const grid = h("div", { class: "charts" });
  const history = h("div", { class: "charts" });
  const noSeries = h("p", { class: "nothing", hidden: true }, t("machine.no_readings"));
  const missing = h("p", { class: "nothing", hidden: true });
  let marks = [];
  let life = null;
  let loadingTurn = 0;

  main.append(
    head.element,
    missing,
    h(
      "div",
      { class: "cards" },
      Object.values(cards)
        .filter(Boolean)
        .map((each) => each.element),
    ),
    h(
      "section",
      { "aria-label": t("machine.charts") },
      range.element,
      h("h2", {}, t("machine.prediction")),
      history,
      h("h2", {}, t("machine.sensors")),
      h("p", { class: "hint" }, t("machine.zoom")),
      noSeries,
      grid,
    ),
  );

  async function chartOf(sensor) {
    if (charts.has(sensor)) return charts.get(sensor);
    const { name, unit } = sensorName(sensor);
    const place = h("div", { class: "plot" });
    grid.append(
      h(
        "figure",
        { "data-sensor": sensor },
        h("figcaption", {}, name, unit ? h("small", {}, ` ${unit}`) : null),
        place,
      ),
    );
    const making = bandChart(place, {
      label: name,
      unit,
      range: range.range,
      marks: () => marks,
      onZoom: range.zoomTo,
      group: id,
    });
    charts.set(sensor, making);
    return making;
  }

  async function loadSeries() {
    const turn = ++loadingTurn;
    const [start, end] = range.range();
    let found;
    try {
      const until = range.isLive() ? "" : `&end=${end}`;
      found = await request(`${path}/metrics?points=${POINTS}&start=${start}${until}`, { signal });
    } catch (error) {
      if (!signal.aborted) {
        setText(missing, error.message);
        missing.hidden = false;
      }
      return;
    }
    if (turn !== loadingTurn || signal.aborted) return; // somebody has zoomed on
    missing.hidden = true;
    noSeries.hidden = found.series.length > 0;
    for (const series of found.series.slice(0, MOST_SENSORS)) {
      const chart = await chartOf(series.sensor);
      if (turn !== loadingTurn) return;
      chart.show({
        times: seconds(series.timestamps),
        values: series.values,
        lower: series.minima ?? series.values,
        upper: series.maxima ?? series.values,
      });
    }
    for (const [sensor, making] of charts) {
      if (!found.series.some((series) => series.sensor === sensor))
        (await making).show({ times: [], values: [], lower: [], upper: [] });
    }
    if (features.predictive) await loadPredictions(start, end);
  }

  async function loadPredictions(start, end) {
    const { items } = await request(`${path}/predictions?limit=${MOST_PREDICTIONS}&start=${start}&end=${end}`, {
      signal,
    });
    const past = items.filter((each) => each.as_of && !each.degraded).reverse();
    life ??= Promise.all([lifeChart(), riskChart()]);
    const [rul, risk] = await life;
    const withRul = past.filter((each) => each.rul);
    rul.show({
      times: withRul.map((each) => Date.parse(each.as_of) / 1000),
      values: withRul.map((each) => each.rul.estimate),
      lower: withRul.map((each) => each.rul.lower),
      upper: withRul.map((each) => each.rul.upper),
    });
    const risks = past.map((each) => 100 * each.risk_score);
    risk.show({ times: past.map((each) => Date.parse(each.as_of) / 1000), values: risks, lower: risks, upper: risks });
  }

  function predictionChart(key, unit, line) {
    const place = h("div", { class: "plot" });
    history.append(
      h(
        "figure",
        { "data-chart": key },
        h("figcaption", {}, t(`chart.${key}`), unit ? h("small", {}, ` ${unit}`) : null),
        place,
      ),
    );
    return bandChart(place, {
      label: t(`chart.${key}`),
      unit,
      range: range.range,
      marks: () => marks,
      onZoom: range.zoomTo,
      group: id,
      line,
    });
  }
  const lifeChart = () => {
    const unit = plant.machines.get(id)?.rul?.unit ?? "";
    return predictionChart("rul", known(`unit.${unit}`, unit), "good");
  };
  const riskChart = () => predictionChart("risk", "%", "bad");

  async function loadMarks() {
    const [journal, kept] = await Promise.all([
      request("/api/alarms/journal?limit=1000", { signal }),
      request(`${path}/maintenance`, { signal }),
    ]);
    marks = [
      ...journal.items
        .filter((each) => each.machine_id === id && each.transition === "raised")
        .map((each) => ({ at: Date.parse(each.at) / 1000, kind: "alarm" })),
      ...kept.items.map((each) => ({ at: Date.parse(each.at) / 1000, kind: "maintenance" })),
    ];
    for (const making of charts.values()) (await making).redraw();
    return kept;
  }

  const refreshMaintenance = () =>
    fillCard(
      cards.maintenance,
      async () => {
        const kept = await loadMarks();
        return [
          kept.items.length
            ? h(
                "ul",
                { class: "plain" },
                kept.items
                  .slice(0, 10)
                  .map((each) =>
                    h(
                      "li",
                      {},
                      h("time", {}, moment(each.at)),
                      " ",
                      each.text,
                      each.by ? h("small", {}, ` ${each.by}`) : null,
                    ),
                  ),
              )
            : h("p", { class: "nothing" }, t("maintenance.none")),
          maintenanceForm(id, refreshMaintenance, signal),
        ];
      },
      signal,
    );

  const refreshAlarms = () =>
    fillCard(
      cards.alarms,
      async () => {
        const { items } = await request(`/api/alarms?machine_id=${encodeURIComponent(id)}`, { signal });
        if (!items.length) return h("p", { class: "nothing" }, t("alarms.none"));
        return h(
          "div",
          { class: "wide", tabindex: "0", role: "region", "aria-label": t("card.alarms") },
          h(
            "table",
            {},
            h(
              "tbody",
              {},
              items.map((alarm) => alarmRow(alarm, { withMachine: false, done: refreshAlarms })),
            ),
          ),
        );
      },
      signal,
    );

  function refresh() {
    if (document.hidden) return;
    if (cards.why)
      fillCard(
        cards.why,
        async () => {
          const answer = await request(`${path}/explanation`, { signal });
          return [factors(answer), links(answer.prediction.trace_id, settings)].flat();
        },
        signal,
      );
    if (cards.advice) fillCard(cards.advice, async () => advice(await request(`${path}/advice`, { signal })), signal);
    if (cards.use)
      fillCard(
        cards.use,
        async () => {
          const query = `machine_id=${encodeURIComponent(id)}`;
          return use(
            features.energy ? await request(`/api/energy?${query}`, { signal }) : null,
            features.carbon ? await request(`/api/carbon?${query}`, { signal }) : null,
          );
        },
        signal,
      );
    if (range.isLive()) loadSeries().catch(said);
  }

  function said(error) {
    if (!signal.aborted) console.info(error.message);
  }

  function showHead() {
    const machine = plant.machines.get(id);
    if (machine) head.show(machine);
    else if (plant.known) {
      setText(missing, t("machine.unknown", { machine: id }));
      missing.hidden = false;
    }
  }

  const draw = onceAFrame(showHead);
  const stops = [
    on("machines", async (changed) => {
      const machine = changed.find((each) => each.machine_id === id);
      if (!machine) return;
      draw();
      if (!range.isLive() || !machine.last_seen) return;
      const at = Date.parse(machine.last_seen) / 1000;
      for (const [sensor, making] of charts)
        if (sensor in machine.values) (await making).append(at, machine.values[sensor]);
    }),
    on("alarms", refreshAlarms),
  ];
  const ticking = setInterval(draw, 1000);
  const again = setInterval(refresh, AGAIN_EVERY);
  showHead();
  refreshMaintenance();
  refreshAlarms();
  refresh();
  return () => {
    stops.forEach((stop) => stop());
    clearInterval(ticking);
    clearInterval(again);
    leaving.abort();
    for (const making of charts.values()) making.then((chart) => chart.close());
    life?.then((made) => made.forEach((chart) => chart.close()));
  };
}
