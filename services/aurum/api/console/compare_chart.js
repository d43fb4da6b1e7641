// @ts-check
// One sensor of several machines in one chart.

import { axis, loadLibrary, timeTicks } from "./charts.js";
import { color } from "./chart_marks.js";
import { numbersOf, valueLimits } from "./chart_scales.js";
import { h } from "./dom.js";
import { moment, number } from "./format.js";
import { t } from "./text.js";

/** @import uPlot from "uplot" */
/** @import { Column } from "./chart_scales.js" */
/** @typedef {{ label: string, times: number[], values: Column }} Line `times`: seconds since 1970. */

const HEIGHT = 420; // px
const LEAST_WIDTH = 200; // px
const LEAST_SELECTION = 8; // px; a shorter drag is a click
const COLORS = ["gold", "line-blue", "good", "bad", "line-violet", "soft", "warn", "text"]; // of MOST_MACHINES lines
const DASHES = [[], [8, 4], [2, 3], [12, 3, 2, 3]]; // lines differ without colour too

/**
 * Makes the chart.
 * @param {object} options
 * @param {() => [number, number]} options.range Returns the ends of the time axis, in seconds since 1970.
 * @param {(start: number, end: number) => void} options.onZoom Called with the range that the user has selected.
 */
export function compareChart({ range, onZoom }) {
  const element = h("div", { class: "plot" });
  /** @type {uPlot | null} */
  let chart = null;
  /** @type {Line[]} */
  let shown = [];
  let unit = "";

  const width = () => Math.max(LEAST_WIDTH, element.clientWidth);

  /** @param {uPlot} drawn */
  const select = (drawn) => {
    const { left, width: selected } = drawn.select;
    if (selected < LEAST_SELECTION) return;
    onZoom(drawn.posToVal(left, "x"), drawn.posToVal(left + selected, "x"));
  };

  /** @returns {uPlot.Options} */
  const options = () => {
    const values = shown.flatMap((line) => line.values);
    const ends = valueLimits(values, []);
    return {
      width: width(),
      height: HEIGHT,
      legend: { show: true, live: true },
      cursor: { drag: { x: true, y: false, setScale: false } },
      scales: { x: { time: true, range: () => range() }, y: { range: () => ends } },
      axes: [
        { ...axis(), values: timeTicks },
        { ...axis(), size: 58, values: (_, ticks) => ticks.map((tick) => number(tick, 4)) },
      ],
      series: [
        { label: t("journal.time"), value: (_, at) => (at === null ? "–" : moment(at * 1000, "medium")) },
        ...shown.map(({ label, values: own }, index) => ({
          label,
          stroke: color(COLORS[index % COLORS.length]),
          dash: DASHES[index % DASHES.length],
          width: 1.6,
          spanGaps: true, // the machines have readings at different times
          points: { show: false },
          value: (/** @type {uPlot} */ _, /** @type {number | null} */ value) =>
            `${number(value ?? numbersOf(own).at(-1), 4)} ${unit}`,
        })),
      ],
      hooks: { setSelect: [select] },
    };
  };

  async function draw() {
    const UPlot = await loadLibrary();
    chart?.destroy();
    chart = null;
    if (!shown.length) return;
    const tables = shown.map(({ times, values }) => /** @type {uPlot.AlignedData} */ ([times, values]));
    chart = new UPlot(options(), UPlot.join(tables), element);
    const { canvas } = chart.ctx;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", shown.map(description).join("; "));
  }

  /** @param {Line} line */
  function description({ label, values }) {
    const known = numbersOf(values);
    return known.length ? `${label}: ${number(Math.min(...known))} – ${number(Math.max(...known))} ${unit}` : label;
  }

  const redraw = () => draw().catch((error) => console.info("the chart cannot be drawn:", error));
  const resize = new ResizeObserver(() => {
    if (chart && chart.width !== width()) chart.setSize({ width: width(), height: HEIGHT });
  });
  resize.observe(element);
  document.addEventListener("theme", redraw);
  return {
    element,
    /**
     * Shows other lines.
     * @param {Line[]} lines
     * @param {string} itsUnit
     */
    async show(lines, itsUnit) {
      [shown, unit] = [lines, itsUnit];
      await draw();
    },
    close() {
      document.removeEventListener("theme", redraw);
      resize.disconnect();
      chart?.destroy();
    },
  };
}
