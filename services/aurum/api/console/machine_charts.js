// @ts-check
// The charts of a machine: its sensors, and its predictions of the past.

import { request } from "./api.js";
import { bandChart } from "./charts.js";
import { comparisonAddress } from "./comparison.js";
import { h } from "./dom.js";
import { sensorName, unitName } from "./format.js";
import { plant } from "./live.js";
import { ruleText, t } from "./text.js";

/** @import { BandChart } from "./charts.js" */
/** @import { Limit, Mark } from "./chart_marks.js" */
/** @import { AlarmLimits, Machine, Metrics, PastPredictions, Series } from "./types.d.ts" */

const POINTS = 600; // of a series, to which the server reduces it
const MOST_SENSORS = 40;
const MOST_PREDICTIONS = 1000;
/** @type {[number, number]} */
const PERCENT = [0, 100]; // the axis of a risk

/** @param {string} isoTime */
const secondsOf = (isoTime) => Date.parse(isoTime) / 1000;

/**
 * Makes the charts. They are drawn when they are loaded.
 * @param {object} options
 * @param {string} options.id The machine.
 * @param {boolean} options.withPredictions
 * @param {AbortSignal} options.signal Ends all charts.
 * @param {{ range: () => [number, number], isLive: () => boolean, zoomTo: (start: number, end: number) => void }}
 *   options.timeline
 */
export function machineCharts({ id, withPredictions, signal, timeline }) {
  const path = `/api/machines/${encodeURIComponent(id)}`;
  const sensors = h("div", { class: "charts" });
  const predictions = h("div", { class: "charts" });
  const empty = h("p", { class: "nothing", hidden: true }, t("machine.no_readings"));
  /** @type {Map<string, Promise<BandChart>>} */
  const bySensor = new Map();
  /** @type {Map<string, Promise<BandChart>>} */
  const byPrediction = new Map(); // rul and risk
  /** @type {Mark[]} */
  let marks = [];
  /** @type {AlarmLimits["items"]} */
  let limits = [];
  let turn = 0; // a late answer does not replace a later one

  /**
   * Makes a chart once. After a failure the next call tries again.
   * @param {typeof bySensor} charts
   * @param {string} key
   * @param {{ grid: HTMLElement, attributes: object, label: string, unit: string, line?: string,
   *   limitsOf: () => Limit[], scale?: [number, number], compared?: HTMLElement }} options compared: A link to
   *   compare the values with those of other machines.
   */
  function chartOf(charts, key, { grid, attributes, label, unit, line, limitsOf, scale, compared }) {
    const existing = charts.get(key);
    if (existing) return existing;
    const place = h("div", { class: "plot" });
    const caption = h("figcaption", {}, label, unit ? h("small", {}, ` ${unit}`) : null, compared);
    const figure = h("figure", { ...attributes }, caption, place);
    grid.append(figure);
    const { range, zoomTo } = timeline;
    const making = bandChart(place, {
      ...{ label, unit, range, line, scale },
      ...{ marks: () => marks, limits: limitsOf, onZoom: zoomTo, group: id },
    });
    charts.set(key, making);
    making.then(
      (chart) => {
        if (signal.aborted) chart.close();
        else signal.addEventListener("abort", chart.close, { once: true });
      },
      () => {
        charts.delete(key);
        figure.remove();
      },
    );
    return making;
  }

  /**
   * Returns the lines of limits in a chart.
   * @param {(limit: AlarmLimits["items"][number]) => boolean} belongs Whether a limit is one of the chart's quantity.
   * @param {number} [factor] From the unit of the limit to that of the chart.
   * @returns {Limit[]}
   */
  const limitLines = (belongs, factor = 1) =>
    limits.filter(belongs).map(({ limit, text }) => ({ value: factor * limit, text: ruleText(text) }));

  /** @param {string} sensor */
  function sensorChart(sensor) {
    const { name, unit } = sensorName(sensor);
    return chartOf(bySensor, sensor, {
      ...{ grid: sensors, attributes: { "data-sensor": sensor }, label: name, unit },
      limitsOf: () => limitLines((limit) => limit.quantity === "sensor" && limit.sensor === sensor),
      compared: h(
        "a",
        {
          class: "compare",
          href: comparisonAddress({ sensor, machines: [id] }),
          "aria-label": t("compare.of", { name }),
        },
        t("compare.link"),
      ),
    });
  }

  /**
   * @param {"rul" | "risk"} key
   * @param {string} unit
   * @param {string} line
   */
  const predictionChart = (key, unit, line) =>
    chartOf(byPrediction, key, {
      grid: predictions,
      attributes: { "data-chart": key },
      label: t(`chart.${key}`),
      unit,
      line,
      limitsOf: () => limitLines((limit) => limit.quantity === key, key === "risk" ? 100 : 1),
      scale: key === "risk" ? PERCENT : undefined,
    });

  /** @param {Series[]} series */
  async function showSeries(series) {
    empty.hidden = series.length > 0;
    const shown = series.slice(0, MOST_SENSORS);
    const mine = turn;
    for (const { sensor, timestamps, values, minima, maxima } of shown) {
      const chart = await sensorChart(sensor);
      if (mine !== turn || signal.aborted) return;
      chart.show({ times: timestamps.map(secondsOf), values, lower: minima ?? values, upper: maxima ?? values });
    }
    const withReadings = new Set(shown.map((each) => each.sensor));
    for (const [sensor, making] of bySensor) {
      if (!withReadings.has(sensor)) (await making).show({ times: [], values: [], lower: [], upper: [] });
    }
  }

  /**
   * @param {number} start
   * @param {number} end
   */
  async function loadPredictions(start, end) {
    const mine = turn;
    /** @type {PastPredictions} */
    const { items } = await request(`${path}/predictions?limit=${MOST_PREDICTIONS}&start=${start}&end=${end}`, {
      signal,
    });
    const past = items
      .filter((each) => each.source !== "rule")
      .flatMap(({ as_of, rul, risk_score: risk }) =>
        as_of ? [{ at: secondsOf(as_of), rul, risk: risk === null ? NaN : 100 * risk }] : [],
      )
      .reverse();
    const lives = past.flatMap(({ at, rul }) => (rul ? [{ at, ...rul }] : []));
    const unit = lives.at(-1)?.unit ?? plant.machines.get(id)?.rul?.unit ?? "";
    const [life, risk] = await Promise.all([
      predictionChart("rul", unitName(unit), "good"),
      predictionChart("risk", "%", "bad"),
    ]);
    if (mine !== turn || signal.aborted) return;
    life.show({
      times: lives.map((each) => each.at),
      values: lives.map((each) => each.estimate),
      lower: lives.map((each) => each.lower),
      upper: lives.map((each) => each.upper),
    });
    const risks = past.map((each) => each.risk);
    risk.show({ times: past.map((each) => each.at), values: risks, lower: risks, upper: risks });
  }

  return {
    sensors,
    predictions,
    empty,
    /**
     * Loads the range of the timeline into all charts.
     * @throws {Error} It cannot be loaded, or the signal aborted it.
     */
    async load() {
      const mine = ++turn;
      const [start, end] = timeline.range();
      const until = timeline.isLive() ? "" : `&end=${end}`;
      /** @type {[Metrics, AlarmLimits]} */
      const [{ series }, { items }] = await Promise.all([
        request(`${path}/metrics?points=${POINTS}&start=${start}${until}`, { signal }),
        request(`${path}/alarm-limits`, { signal }),
      ]);
      if (mine !== turn) return;
      limits = items;
      await showSeries(series);
      if (withPredictions && mine === turn) await loadPredictions(start, end);
    },
    /**
     * Adds the latest readings of a machine.
     * @param {Machine} machine
     */
    async append({ last_seen, values }) {
      if (!timeline.isLive() || !last_seen) return;
      for (const [sensor, making] of bySensor) {
        if (Object.hasOwn(values, sensor)) (await making).append(secondsOf(last_seen), values[sensor]);
      }
    },
    /**
     * Draws other marks.
     * @param {Mark[]} wanted
     */
    async setMarks(wanted) {
      marks = wanted;
      for (const making of [...bySensor.values(), ...byPrediction.values()]) (await making).redraw();
    },
  };
}
