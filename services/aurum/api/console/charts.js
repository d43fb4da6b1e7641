// Time series with uPlot, which is loaded when the first chart is drawn. Long ranges are means with the band from the
// least to the greatest reading behind them, so that no spike is lost.

import { h } from "./dom.js";
import { number } from "./format.js";
import { language, t } from "./text.js";

const HEIGHT = 190; // px
const FEW = 40; // readings in view, which are shown as points too

let loading = null;

function load() {
  loading ??= new Promise((resolve, reject) => {
    const style = h("link", { rel: "stylesheet", href: "/console/vendor/uPlot.min.css" });
    const script = h("script", {
      src: "/console/vendor/uPlot.iife.min.js",
      on: {
        load: () => resolve(window.uPlot),
        error: () => reject(new Error("uPlot could not be loaded")),
      },
    });
    document.head.append(style, script);
  });
  return loading;
}

const probe = h("i", { hidden: true });

/** A colour of the style sheet as a canvas takes it: for the theme that is on. */
function color(name) {
  if (!probe.isConnected) document.body.append(probe);
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

/** Ticks of the time axis in the reader's language: dates where a day begins or ticks are days apart. */
function timeTicks(_, ticks, axis, space, step) {
  const day = { day: "numeric", month: "short" };
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

/** Vertical lines at moments worth knowing. marks(): [{ at: seconds, kind }]. */
function markPlugin(marks) {
  return {
    hooks: {
      draw: (chart) => {
        const { ctx, bbox } = chart;
        ctx.save();
        ctx.lineWidth = devicePixelRatio * 1.5;
        for (const { at, kind } of marks()) {
          if (at < chart.scales.x.min || at > chart.scales.x.max) continue;
          const x = Math.round(chart.valToPos(at, "x", true));
          ctx.strokeStyle = color(kind === "maintenance" ? "good" : "bad");
          ctx.setLineDash(kind === "maintenance" ? [] : [6, 4]); // told apart without colour too
          ctx.beginPath();
          ctx.moveTo(x, bbox.top);
          ctx.lineTo(x, bbox.top + bbox.height);
          ctx.stroke();
        }
        ctx.restore();
      },
    },
  };
}

/**
 * A chart of one line and its band. onZoom(start, end): seconds since 1970, of the part that was drawn over.
 * show({ times, values, lower, upper }): seconds since 1970 and columns; range(): [start, end] of the axis.
 */
export async function bandChart(container, { label, unit, range, marks, onZoom, group, line = "gold" }) {
  const UPlot = await load();
  const data = [[], [], [], []];
  let chart = null;

  function make() {
    chart?.destroy();
    const band = { stroke: color("band"), width: 1, points: { show: false } };
    chart = new UPlot(
      {
        width: Math.max(200, container.clientWidth),
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
          { ...band, label: "min", value: (_, value) => number(value) },
          { ...band, label: "max", value: (_, value) => number(value) },
          {
            label,
            stroke: color(line),
            width: 1.6,
            points: { show: (_, series, first, last) => last - first < FEW, size: 5 },
            value: (_, value) => `${number(value, 4)} ${unit}`,
          },
        ],
        bands: [{ series: [2, 1], fill: color("band") }],
        hooks: {
          setSelect: [
            (self) => {
              if (self.select.width < 8) return;
              onZoom(self.posToVal(self.select.left, "x"), self.posToVal(self.select.left + self.select.width, "x"));
              self.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
            },
          ],
        },
        plugins: [markPlugin(marks)],
      },
      data,
      container,
    );
    const canvas = container.querySelector("canvas");
    canvas.setAttribute("role", "img");
    describe();
  }

  function describe() {
    const there = data[3].filter((value) => value !== null);
    const canvas = container.querySelector("canvas");
    if (!canvas) return;
    canvas.setAttribute(
      "aria-label",
      there.length
        ? `${label}: ${number(there.at(-1))} ${unit}; ${number(Math.min(...data[1].filter((value) => value !== null)))} – ${number(Math.max(...data[2].filter((value) => value !== null)))} ${unit}`
        : label,
    );
  }

  const resize = new ResizeObserver(() => {
    const width = Math.max(200, container.clientWidth);
    if (chart && chart.width !== width) chart.setSize({ width, height: HEIGHT });
  });
  make();
  resize.observe(container);
  document.addEventListener("theme", make);
  return {
    show({ times, values, lower, upper }) {
      data.splice(0, 4, times, lower, upper, values);
      chart.setData(data);
      describe();
    },
    /** Adds the latest reading, and forgets what has left the axis. */
    append(at, value) {
      const last = data[0].at(-1);
      if (value === null || (last !== undefined && at <= last)) return;
      for (const [column, item] of [
        [0, at],
        [1, value],
        [2, value],
        [3, value],
      ])
        data[column].push(item);
      const start = range()[0];
      const old = data[0].findIndex((time) => time >= start);
      if (old > 1) for (const column of data) column.splice(0, old - 1);
      chart.setData(data);
    },
    redraw: () => chart.setData(data),
    close() {
      document.removeEventListener("theme", make);
      resize.disconnect();
      chart.destroy();
    },
  };
}
