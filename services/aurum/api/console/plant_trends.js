// @ts-check
// The trends in the plant's table: for each visible machine the sensor that matters, over the last day.

import { request } from "./api.js";
import { numbersOf, valueLimits } from "./chart_scales.js";
import { h, svg } from "./dom.js";
import { number, sensorName } from "./format.js";
import { t } from "./text.js";

/** @import { AlarmLimits, Machine, Metrics, Series } from "./types.d.ts" */
/** @typedef {{ sensor: string, values: (number | null)[], loadedAt: number }} Trend `values` is empty without readings. */

const HOURS = 24;
const POINTS = 48;
const GAP = (2 * POINTS) / HOURS; // points
const FRESH = 600_000; // ms, for which a trend is kept
const SETTLE = 250; // ms, for which a row shows a machine before its trend is requested
const AT_ONCE = 2; // requests
const MOST_KEPT = 1000; // trends
const WIDTH = 100;
const HEIGHT = 24;
/** @type {Pick<Trend, "sensor" | "values">} */
const NOTHING = { sensor: "", values: [] };
const HIDDEN_SENSORS = new Set(["fault", "operating_hours"]);

/**
 * Returns the sensor that matters: the first that an alarm rule of the machine's type limits, or else its first one.
 * @param {Machine} machine
 * @param {AlarmLimits["items"]} limits
 */
export function mainSensor(machine, limits) {
  const present = Object.keys(machine.values).filter((sensor) => !HIDDEN_SENSORS.has(sensor));
  const limited = limits.find(({ sensor }) => sensor !== null && present.includes(sensor));
  return limited?.sensor ?? present[0] ?? null;
}

/**
 * Returns the points of a line through values, by step of time; a gap of more than two hours begins a new line.
 * @param {(number | null)[]} values
 * @returns {string[]} Each as the `points` of a polyline.
 */
export function lines(values) {
  const [low, high] = valueLimits(values, []);
  /** @type {string[][]} */
  const parts = [[]];
  let last = 0;
  values.forEach((value, index) => {
    if (value === null) return;
    if (index - last > GAP) parts.push([]);
    last = index;
    const x = (WIDTH * index) / Math.max(1, values.length - 1);
    const y = HEIGHT * (1 - (Math.min(high, Math.max(low, value)) - low) / (high - low));
    parts[parts.length - 1].push(`${x.toFixed(1)},${y.toFixed(1)}`);
  });
  return parts.filter((part) => part.length > 1).map((part) => part.join(" "));
}

/**
 * Spreads the points of a series evenly over the day; null where there is none.
 * @param {Series} series
 * @param {number} end In ms since 1970.
 */
function onTheDay({ timestamps, values }, end) {
  /** @type {(number | null)[]} */
  const spread = Array(POINTS).fill(null);
  const start = end - HOURS * 3_600_000;
  timestamps.forEach((time, index) => {
    const at = Math.floor((POINTS * (Date.parse(time) - start)) / (end - start));
    if (at >= 0 && at < POINTS) spread[at] = values[index];
  });
  return spread;
}

/**
 * Returns what a trend shows, in words.
 * @param {string} sensor
 * @param {number[]} values
 */
function trendText(sensor, values) {
  if (!values.length) return t("trend.none");
  const { name, unit } = sensorName(sensor);
  const range = `${number(Math.min(...values))} – ${number(Math.max(...values))} ${unit}`.trim();
  return t("trend.of", { sensor: name, range });
}

/**
 * Makes the trends of the table. They are requested for rows that stay in view, a few at a time.
 * @param {AbortSignal} signal Ends all requests.
 */
export function plantTrends(signal) {
  /** @type {Map<string, Trend>} */
  const kept = new Map(); // by machine
  /** @type {Map<string, Promise<AlarmLimits["items"]>>} */
  const limits = new Map(); // by type of machine
  /** @type {Set<ReturnType<typeof cell>>} */
  const waiting = new Set();
  let active = 0;

  /** @param {Machine} machine */
  function limitsOf({ machine_id: id, machine_type: type }) {
    const known = limits.get(type);
    if (known) return known;
    const asking = request(`/api/machines/${encodeURIComponent(id)}/alarm-limits`, { signal }).then(
      (/** @type {AlarmLimits} */ { items }) => items,
    );
    limits.set(type, asking);
    asking.catch(() => limits.delete(type));
    return asking;
  }

  /**
   * @param {Machine} machine
   * @returns {Promise<Pick<Trend, "sensor" | "values">>}
   */
  async function load(machine) {
    const sensor = mainSensor(machine, await limitsOf(machine));
    if (sensor === null) return NOTHING;
    const end = Date.now();
    const query = new URLSearchParams({
      sensor,
      points: String(POINTS),
      start: String(end / 1000 - HOURS * 3600),
    });
    /** @type {Metrics} */
    const { series } = await request(`/api/machines/${encodeURIComponent(machine.machine_id)}/metrics?${query}`, {
      signal,
    });
    return series.length ? { sensor, values: onTheDay(series[0], end) } : NOTHING;
  }

  /** Requests the trends of rows that wait, as many as may be at once. */
  function work() {
    for (const each of waiting) {
      if (active >= AT_ONCE || signal.aborted) return;
      waiting.delete(each);
      const { machine } = each;
      if (!machine) continue;
      active += 1;
      load(machine)
        .catch(() => NOTHING) // it is requested again when it would not be fresh any more
        .then((loaded) => {
          active -= 1;
          if (signal.aborted) return;
          const trend = { ...loaded, loadedAt: performance.now() };
          if (kept.size >= MOST_KEPT) kept.clear();
          kept.set(machine.machine_id, trend);
          if (each.machine?.machine_id === machine.machine_id) each.draw(trend);
          work();
        });
    }
  }

  /** Makes the cell of a row. */
  function cell() {
    const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    const element = h("td", { class: "trend" }, picture);
    let timer = 0;
    const self = {
      element,
      /** @type {Machine | null} */
      machine: null,
      /** @param {Machine} machine */
      show(machine) {
        const same = self.machine?.machine_id === machine.machine_id;
        self.machine = machine;
        const trend = kept.get(machine.machine_id);
        const fresh = trend && performance.now() - trend.loadedAt < FRESH;
        if (!same) {
          clearTimeout(timer);
          timer = 0;
          self.draw(trend ?? NOTHING);
        }
        if (fresh || timer) return;
        timer = window.setTimeout(() => {
          waiting.add(self);
          work();
        }, SETTLE);
      },
      /** @param {Pick<Trend, "sensor" | "values">} trend */
      draw({ sensor, values }) {
        timer = 0;
        picture.replaceChildren(...lines(values).map((points) => svg("polyline", { points })));
        const text = trendText(sensor, numbersOf(values));
        picture.setAttribute("aria-label", text);
        element.title = text;
      },
    };
    return self;
  }

  return { cell };
}
