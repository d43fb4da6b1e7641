// @ts-check
// What is drawn over the line of a chart: events, limits of alarms, and values beyond the axis.

import { h } from "./dom.js";

/** @import uPlot from "uplot" */
/** @typedef {{ at: number, kind: "alarm" | "maintenance" }} Mark `at`: seconds since 1970. */
/** @typedef {{ value: number, text: string }} Limit A limit of an alarm rule, in the unit of the chart. */

const MOST_OUTLIERS = 100; // that are marked
const TRIANGLE = 5; // px
const LABEL_GAP = 4; // px

const probe = h("i", { hidden: true });

/**
 * Returns a colour of the style sheet in the theme that is on, in the form that a canvas takes.
 * @param {string} name
 */
export function color(name) {
  if (!probe.isConnected) document.body.append(probe);
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

/**
 * Draws vertical lines: dashed for alarms, solid for maintenance, so that they differ without colour too.
 * @param {() => Mark[]} marks
 * @returns {uPlot.Plugin}
 */
export function markPlugin(marks) {
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

/**
 * Draws the limits of alarms as horizontal lines with the text of the alarm.
 * @param {() => Limit[]} limits
 * @returns {uPlot.Plugin}
 */
export function limitPlugin(limits) {
  /** @param {uPlot} chart */
  const draw = (chart) => {
    const { ctx, bbox } = chart;
    const { min = Infinity, max = -Infinity } = chart.scales.y;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = color("bad");
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio]);
    ctx.textAlign = "left";
    ctx.font = `${11 * devicePixelRatio}px system-ui`;
    for (const { value, text } of limits()) {
      if (value < min || value > max) continue;
      const y = Math.round(chart.valToPos(value, "y", true));
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
      const gap = LABEL_GAP * devicePixelRatio;
      const below = y - bbox.top < 16 * devicePixelRatio; // no room above the line
      ctx.textBaseline = below ? "top" : "bottom";
      ctx.fillText(text, bbox.left + gap, below ? y + gap : y - gap / 2);
    }
    ctx.restore();
  };
  return { hooks: { draw } };
}

/**
 * Returns the times of values beyond the axis, and whether they are above it.
 * @param {uPlot} chart
 */
function outliers({ data: [times, lower, upper], scales }) {
  const { min: start = Infinity, max: end = -Infinity } = scales.x;
  const { min = -Infinity, max = Infinity } = scales.y;
  return Array.from(times).flatMap((at, index) => {
    if (at < start || at > end) return [];
    const above = (upper[index] ?? max) > max ? [{ at, above: true }] : [];
    const below = (lower[index] ?? min) < min ? [{ at, above: false }] : [];
    return [...above, ...below];
  });
}

/**
 * Marks values beyond the axis by triangles at its end.
 * @param {string} name Colour of the triangles in the style sheet.
 * @returns {uPlot.Plugin}
 */
export function outlierPlugin(name) {
  /** @param {uPlot} chart */
  const draw = (chart) => {
    const { ctx, bbox } = chart;
    const size = TRIANGLE * devicePixelRatio;
    ctx.save();
    ctx.fillStyle = color(name);
    for (const { at, above } of outliers(chart).slice(0, MOST_OUTLIERS)) {
      const x = chart.valToPos(at, "x", true);
      const edge = above ? bbox.top : bbox.top + bbox.height;
      const base = edge + (above ? 2 : -2) * size;
      ctx.beginPath();
      ctx.moveTo(x, edge);
      ctx.lineTo(x - size, base);
      ctx.lineTo(x + size, base);
      ctx.fill();
    }
    ctx.restore();
  };
  return { hooks: { draw } };
}
