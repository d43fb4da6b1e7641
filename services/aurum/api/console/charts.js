// @ts-check
// Time series with uPlot, which is loaded with the first chart. Each point of a long range is a mean; the band behind the
// line spans the lowest to the highest reading, and triangles at the edge mark what lies beyond it, so every spike is
// visible.

import { color, limitPlugin, markPlugin, outlierPlugin } from "./chart_marks.js";
import { isSignal, numbersOf, valueLimits } from "./chart_scales.js";
import { h } from "./dom.js";
import { clockText, dateText, moment, number } from "./format.js";
import { t } from "./text.js";

/** @import uPlot from "uplot" */
/** @import { Limit, Mark } from "./chart_marks.js" */
/** @import { Column } from "./chart_scales.js" */
/** @typedef {Awaited<ReturnType<typeof bandChart>>} BandChart */

const HEIGHT = 190; // px
const SIGNAL_HEIGHT = 96; // px, of a series with two states
const LEAST_WIDTH = 200; // px
const LEAST_SELECTION = 8; // px; a shorter drag is a click
const FEW = 40; // readings in view, from which on points are not drawn

/** @type {Promise<typeof uPlot> | null} */
let loading = null;

/** Loads uPlot once. After a failure the next call tries again. */
export function loadLibrary() {
  loading ??= /** @type {Promise<typeof uPlot>} */ (
    new Promise((resolve, reject) => {
      const script = h("script", { src: "/console/vendor/uPlot.iife.min.js" });
      script.addEventListener("load", () => resolve(/** @type {any} */ (window).uPlot));
      script.addEventListener("error", () => {
        loading = null;
        script.remove();
        reject(new Error(t("chart.failed")));
      });
      document.head.append(h("link", { rel: "stylesheet", href: "/console/vendor/uPlot.min.css" }), script);
    })
  );
  return loading;
}

/**
 * Returns the labels of the time axis: dates where a day begins or ticks are days apart, otherwise times.
 * @param {unknown} _
 * @param {number[]} ticks
 * @param {number} _axis
 * @param {number} _space
 * @param {number} step
 */
export function timeTicks(_, ticks, _axis, _space, step) {
  /** @type {Intl.DateTimeFormatOptions} */
  const day = { day: "numeric", month: "short" };
  /** @type {Intl.DateTimeFormatOptions} */
  const clock = { hour: "2-digit", minute: "2-digit", ...(step < 60 ? { second: "2-digit" } : {}) };
  return ticks.map((tick) => {
    const at = new Date(tick * 1000);
    const begins = step >= 86_400 || (at.getHours() === 0 && at.getMinutes() === 0 && step >= 60);
    return begins ? dateText(at, day) : clockText(at, clock);
  });
}

/** Returns the look of an axis. */
export const axis = () => ({
  stroke: color("soft"),
  grid: { stroke: color("line"), width: 1 },
  ticks: { stroke: color("line") },
});

/**
 * Draws a chart of a line and its band, which follows the width of its container and the theme.
 * @param {HTMLElement} container
 * @param {object} options
 * @param {string} options.label
 * @param {string} options.unit
 * @param {() => [number, number]} options.range Returns the ends of the time axis, in seconds since 1970.
 * @param {() => Mark[]} options.marks
 * @param {() => Limit[]} [options.limits] Returns the limits of alarms for the values.
 * @param {(start: number, end: number) => void} options.onZoom Called with the range that the user has selected.
 * @param {string} options.group Charts of the same group share a cursor.
 * @param {string} [options.line] Colour of the line in the style sheet.
 * @param {[number, number]} [options.scale] The ends of the value axis; by default the values decide.
 */
export async function bandChart(
  container,
  { label, unit, range, marks, limits = () => [], onZoom, group, line = "gold", scale },
) {
  const UPlot = await loadLibrary();
  /** @type {Column[]} */
  const data = [[], [], [], []]; // times, lower, upper, values
  let signal = false; // whether the values are only 0 and 1
  /** @type {[number, number]} */
  let ends = scale ?? [0, 1];
  const width = () => Math.max(LEAST_WIDTH, container.clientWidth);

  /** @param {uPlot} chart */
  const select = (chart) => {
    const { left, width: selected } = chart.select;
    if (selected < LEAST_SELECTION) return;
    onZoom(chart.posToVal(left, "x"), chart.posToVal(left + selected, "x"));
    chart.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
  };

  const height = () => (signal ? SIGNAL_HEIGHT : HEIGHT);

  /**
   * Returns what the legend shows: the value at the cursor, or the latest one.
   * @param {number} column
   * @param {(value: number | null) => string} text
   * @returns {(chart: uPlot, value: number | null, series: number, index: number | null) => string}
   */
  const legendValue = (column, text) => (_, value, _series, index) =>
    text(index === null || index === undefined ? (data[column].at(-1) ?? null) : value);

  /** @returns {uPlot.Options} */
  const options = () => {
    const band = { stroke: color("band"), width: 1, points: { show: false } };
    const stepped = signal ? { paths: UPlot.paths.stepped?.({ align: 1 }), fill: color("band") } : {};
    return {
      width: width(),
      height: height(),
      legend: { show: true, live: true },
      cursor: { sync: { key: group, setSeries: false }, drag: { x: true, y: false, setScale: false } },
      scales: { x: { time: true, range: () => range() }, y: { range: () => ends } },
      axes: [
        { ...axis(), values: timeTicks },
        {
          ...axis(),
          size: 58,
          splits: signal ? () => [0, 1] : undefined,
          values: (_, ticks) => ticks.map((tick) => number(tick, 4)),
        },
      ],
      series: [
        {
          label: t("journal.time"),
          value: legendValue(0, (at) => (at === null ? "–" : moment(at * 1000, "medium"))),
        },
        { ...band, label: t("chart.lowest"), value: legendValue(1, (value) => number(value)) },
        { ...band, label: t("chart.highest"), value: legendValue(2, (value) => number(value)) },
        {
          label,
          stroke: color(line),
          width: 1.6,
          points: { show: (_, _series, first, last) => last - first < FEW, size: 5 },
          value: legendValue(3, (value) => `${number(value, 4)} ${unit}`),
          ...stepped,
        },
      ],
      bands: signal ? [] : [{ series: [2, 1], fill: color("band") }],
      hooks: { setSelect: [select] },
      plugins: [limitPlugin(() => (signal ? [] : limits())), markPlugin(marks), outlierPlugin(line)],
    };
  };

  /** Chooses the value axis anew. Returns whether the chart has to be made again, as another kind of series. */
  function rescale() {
    const [, lower, upper] = data;
    const was = signal;
    signal = !scale && isSignal(lower, upper);
    if (signal) ends = [-0.1, 1.1];
    else if (!scale) {
      ends = valueLimits(
        lower,
        upper,
        limits().map((limit) => limit.value),
      );
    }
    return was !== signal && data[0].length > 0;
  }

  const columns = () => /** @type {uPlot.AlignedData} */ (data);
  const make = () => new UPlot(options(), columns(), container);
  let chart = make();

  /** Describes the chart for screen readers. */
  function describe() {
    const [, lower, upper, values] = data.map(numbersOf);
    const { canvas } = chart.ctx;
    canvas.setAttribute("role", "img");
    const latest = values.at(-1);
    const text = `${number(latest)} ${unit}; ${number(Math.min(...lower))} – ${number(Math.max(...upper))} ${unit}`;
    canvas.setAttribute("aria-label", latest === undefined ? label : `${label}: ${text}`);
  }

  function remake() {
    chart.destroy();
    chart = make();
    describe();
  }

  const resize = new ResizeObserver(() => {
    if (chart.width !== width()) chart.setSize({ width: width(), height: height() });
  });
  describe();
  resize.observe(container);
  document.addEventListener("theme", remake);
  return {
    /**
     * Shows other data.
     * @param {{ times: number[], values: Column, lower: Column, upper: Column }} columns times: seconds since 1970.
     */
    show({ times, values, lower, upper }) {
      data.splice(0, 4, times, lower, upper, values);
      if (rescale()) {
        remake();
        return;
      }
      chart.setData(columns());
      describe();
    },
    /**
     * Adds the latest reading, and discards what has left the time axis.
     * @param {number} at Seconds since 1970.
     * @param {number | null} value
     */
    append(at, value) {
      const last = data[0].at(-1) ?? -Infinity;
      if (value === null || at <= last) return;
      [at, value, value, value].forEach((item, column) => data[column].push(item));
      const [start] = range();
      const first = data[0].findIndex((time) => time !== null && time >= start);
      if (first > 1) for (const column of data) column.splice(0, first - 1);
      if ((value < ends[0] || value > ends[1]) && rescale()) remake();
      else chart.setData(columns());
    },
    /** Draws again, for other marks or limits. */
    redraw() {
      rescale();
      chart.setData(columns());
    },
    close() {
      document.removeEventListener("theme", remake);
      resize.disconnect();
      chart.destroy();
    },
  };
}
