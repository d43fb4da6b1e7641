// @ts-check
// Time series with uPlot, which is loaded with the first chart. Each point of a long range is a mean; the band behind the
// line spans the lowest to the highest reading, so every spike is visible.

import { h } from "./dom.js";
import { number } from "./format.js";
import { language, t } from "./text.js";

/** @import uPlot from "uplot" */
/** @typedef {{ at: number, kind: "alarm" | "maintenance" }} Mark `at`: seconds since 1970. */
/** @typedef {(number | null)[]} Column */
/** @typedef {Awaited<ReturnType<typeof bandChart>>} BandChart */

const HEIGHT = 190; // px
const LEAST_WIDTH = 200; // px
const LEAST_SELECTION = 8; // px; a shorter drag is a click
const FEW = 40; // readings in view, from which on points are not drawn

/** @type {Promise<typeof uPlot> | null} */
let loading = null;

/** Loads uPlot once. After a failure the next call tries again. */
function loadLibrary() {
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

const probe = h("i", { hidden: true });

/**
 * Returns a colour of the style sheet in the theme that is on, in the form that a canvas takes.
 * @param {string} name
 */
function color(name) {
  if (!probe.isConnected) document.body.append(probe);
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

/**
 * Returns the labels of the time axis: dates where a day begins or ticks are days apart, otherwise times.
 * @param {unknown} _
 * @param {number[]} ticks
 * @param {number} _axis
 * @param {number} _space
 * @param {number} step
 */
function timeTicks(_, ticks, _axis, _space, step) {
  /** @type {Intl.DateTimeFormatOptions} */
  const day = { day: "numeric", month: "short" };
  /** @type {Intl.DateTimeFormatOptions} */
  const clock = { hour: "2-digit", minute: "2-digit", ...(step < 60 ? { second: "2-digit" } : {}) };
  return ticks.map((tick) => {
    const at = new Date(tick * 1000);
    const begins = step >= 86_400 || (at.getHours() === 0 && at.getMinutes() === 0 && step >= 60);
    return begins ? at.toLocaleDateString(language, day) : at.toLocaleTimeString(language, clock);
  });
}

const axis = () => ({
  stroke: color("soft"),
  grid: { stroke: color("line"), width: 1 },
  ticks: { stroke: color("line") },
});

/**
 * Draws vertical lines: dashed for alarms, solid for maintenance, so that they differ without colour too.
 * @param {() => Mark[]} marks
 * @returns {uPlot.Plugin}
 */
function markPlugin(marks) {
  /** @param {uPlot} chart */
  const draw = (chart) => {
    const { ctx, bbox } = chart;
    const { min = Infinity, max = -Infinity } = chart.scales.x;
    ctx.save();
    ctx.lineWidth = devicePixelRatio * 1.5;
    for (const { at, kind } of marks()) {
      if (at < min || at > max) continue;
      const x = Math.round(chart.valToPos(at, "x", true));
      ctx.strokeStyle = color(kind === "maintenance" ? "good" : "bad");
      ctx.setLineDash(kind === "maintenance" ? [] : [6, 4]);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  };
  return { hooks: { draw } };
}

/** @param {Column} column */
const numbers = (column) => column.filter((value) => value !== null);

/**
 * Draws a chart of a line and its band, which follows the width of its container and the theme.
 * @param {HTMLElement} container
 * @param {object} options
 * @param {string} options.label
 * @param {string} options.unit
 * @param {() => [number, number]} options.range Returns the ends of the time axis, in seconds since 1970.
 * @param {() => Mark[]} options.marks
 * @param {(start: number, end: number) => void} options.onZoom Called with the range that the user has selected.
 * @param {string} options.group Charts of the same group share a cursor.
 * @param {string} [options.line] Colour of the line in the style sheet.
 */
export async function bandChart(container, { label, unit, range, marks, onZoom, group, line = "gold" }) {
  const UPlot = await loadLibrary();
  /** @type {Column[]} */
  const data = [[], [], [], []]; // times, lower, upper, values
  const width = () => Math.max(LEAST_WIDTH, container.clientWidth);

  /** @param {uPlot} chart */
  const select = (chart) => {
    const { left, width: selected } = chart.select;
    if (selected < LEAST_SELECTION) return;
    onZoom(chart.posToVal(left, "x"), chart.posToVal(left + selected, "x"));
    chart.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
  };

  /** @returns {uPlot.Options} */
  const options = () => {
    const band = { stroke: color("band"), width: 1, points: { show: false } };
    return {
      width: width(),
      height: HEIGHT,
      legend: { show: true, live: true },
      cursor: { sync: { key: group, setSeries: false }, drag: { x: true, y: false, setScale: false } },
      scales: { x: { time: true, range: () => range() } },
      axes: [
        { ...axis(), values: timeTicks },
        { ...axis(), size: 58, values: (_, ticks) => ticks.map((tick) => number(tick, 4)) },
      ],
      series: [
        {
          label: t("journal.time"),
          value: (_, at) => (at === null ? "–" : new Date(at * 1000).toLocaleString(language)),
        },
        { ...band, label: t("chart.lowest"), value: (_, value) => number(value) },
        { ...band, label: t("chart.highest"), value: (_, value) => number(value) },
        {
          label,
          stroke: color(line),
          width: 1.6,
          points: { show: (_, _series, first, last) => last - first < FEW, size: 5 },
          value: (_, value) => `${number(value, 4)} ${unit}`,
        },
      ],
      bands: [{ series: [2, 1], fill: color("band") }],
      hooks: { setSelect: [select] },
      plugins: [markPlugin(marks)],
    };
  };

  const columns = () => /** @type {uPlot.AlignedData} */ (data);
  const make = () => new UPlot(options(), columns(), container);
  let chart = make();

  /** Describes the chart for screen readers. */
  function describe() {
    const [, lower, upper, values] = data.map(numbers);
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
    if (chart.width !== width()) chart.setSize({ width: width(), height: HEIGHT });
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
      chart.setData(columns());
    },
    /** Draws again, for other marks. */
    redraw: () => chart.setData(columns()),
    close() {
      document.removeEventListener("theme", remake);
      resize.disconnect();
      chart.destroy();
    },
  };
}
