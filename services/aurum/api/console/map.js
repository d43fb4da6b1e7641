// @ts-check
// The services as a map: a box for each with its figures, an arrow for each kind of call with the breaker's state.

import { svg } from "./dom.js";
import { duration, number, percent } from "./format.js";
import { t } from "./text.js";

/** @import { BreakerState, Instance, Rates, ReachableInstance } from "./types.d.ts" */

const WIDTH = 150;
const HEIGHT = 88;
/** @type {Record<string, [number, number]>} */
const PLACES = {
  "iot-sim": [10, 16],
  "edge-sim": [10, 196],
  edge: [215, 16],
  ingestion: [420, 106],
  prediction: [625, 16],
  api: [830, 106],
  operator: [625, 196],
};
const CALLS = [
  ["iot-sim", "edge"],
  ["edge-sim", "ingestion"],
  ["edge", "ingestion"],
  ["prediction", "ingestion"],
  ["api", "prediction"],
  ["api", "ingestion"],
];
const TROUBLED_ERRORS = 0.01; // share of failed requests
/** @type {BreakerState[]} */
const WORST_FIRST = ["open", "half-open", "closed", "disabled"];

/**
 * Returns the middle of a service's box.
 * @param {string} service
 */
const middle = (service) => [PLACES[service][0] + WIDTH / 2, PLACES[service][1] + HEIGHT / 2];

/**
 * Returns where the line between the middles of two boxes leaves the first box.
 * @param {string} from
 * @param {string} to
 */
function border(from, to) {
  const [x, y] = middle(from);
  const [toX, toY] = middle(to);
  const dx = toX - x;
  const dy = toY - y;
  const scale = 1 / Math.max(Math.abs(dx) / (WIDTH / 2 + 4), Math.abs(dy) / (HEIGHT / 2 + 4));
  return [x + dx * scale, y + dy * scale];
}

/**
 * Returns the sum of a rate over all processes that have it; null if none has.
 * @param {ReachableInstance[]} instances
 * @param {keyof Rates} field
 */
function sumOfRates(instances, field) {
  const values = instances.map((each) => each.rates?.[field]).filter((value) => typeof value === "number");
  return values.length ? values.reduce((total, value) => total + value, 0) : null;
}

/**
 * @param {number} up
 * @param {number} all
 * @param {number} errors
 */
function stateOf(up, all, errors) {
  if (!up) return "down";
  return up < all || errors > TROUBLED_ERRORS ? "troubled" : "well";
}

/**
 * Returns the figures of a service over all its processes.
 * @param {Instance[]} instances
 */
export function summarize(instances) {
  const up = instances.filter((each) => each.reachable);
  const requests = sumOfRates(up, "requests_per_second");
  const failed = up
    .map(({ rates }) => (rates?.error_ratio ?? 0) * (rates?.requests_per_second ?? 0))
    .reduce((total, value) => total + value, 0);
  const errors = requests ? failed / requests : 0;
  return {
    up: up.length,
    all: instances.length,
    requests,
    errors,
    slowest: Math.max(0, ...up.map((each) => each.rates?.p95_seconds ?? 0)),
    state: stateOf(up.length, instances.length, errors),
    readings: sumOfRates(up, "readings_per_second"),
    batches: sumOfRates(up, "batches_per_second"),
    spooled: up.reduce((total, each) => total + (each.spool?.batches ?? 0), 0),
  };
}

/**
 * Returns the lines of a box: readings of a simulator, batches of the gateway, requests of other services.
 * @param {string} service
 * @param {ReturnType<typeof summarize>} summary
 */
function figures(service, summary) {
  if (summary.state === "down") return [t("platform.down")];
  if (service.endsWith("-sim")) return [t("map.readings", { rate: number(summary.readings) })];
  if (service === "edge") {
    return [
      t("map.batches", { rate: number(summary.batches) }),
      t("map.spool", { batches: number(summary.spooled), n: summary.spooled }),
    ];
  }
  return [
    `${number(summary.requests)}/s  ·  ${t("map.errors", { share: percent(summary.errors, 1) })}`,
    summary.slowest ? `p95 ${duration(summary.slowest)}` : "p95 –",
  ];
}

/**
 * @param {string} service
 * @param {ReturnType<typeof summarize>} summary
 */
function box(service, summary) {
  const [x, y] = PLACES[service];
  return svg(
    "g",
    { class: "service", "data-service": service, "data-state": summary.state },
    svg("rect", { x, y, width: WIDTH, height: HEIGHT, rx: 8 }),
    svg("text", { x: x + 12, y: y + 25, class: "name" }, service),
    svg(
      "text",
      { x: x + WIDTH - 12, y: y + 25, class: "instances", "text-anchor": "end" },
      `${summary.up}/${summary.all}`,
    ),
    figures(service, summary).map((line, index) => svg("text", { x: x + 12, y: y + 50 + 22 * index }, line)),
  );
}

/**
 * @param {string} from
 * @param {string} to
 * @param {BreakerState | undefined} breaker
 */
function arrow(from, to, breaker) {
  const [x1, y1] = border(from, to);
  const [x2, y2] = border(to, from);
  const call = svg(
    "g",
    { class: "call", "data-call": `${from}-${to}`, "data-breaker": breaker ?? "none" },
    svg("line", { x1, y1, x2, y2, "marker-end": "url(#arrow)" }),
  );
  if (breaker && breaker !== "closed" && breaker !== "disabled") {
    call.append(
      svg("text", { x: (x1 + x2) / 2, y: (y1 + y2) / 2 - 6, "text-anchor": "middle" }, t(`breaker.${breaker}`)),
    );
  }
  return call;
}

/**
 * Returns the processes by service.
 * @param {Instance[]} instances
 */
function byService(instances) {
  /** @type {Map<string, Instance[]>} */
  const services = new Map();
  for (const instance of instances) {
    services.set(instance.service, [...(services.get(instance.service) ?? []), instance]);
  }
  return services;
}

/**
 * Returns the worst state of the breakers of each target over all processes.
 * @param {Instance[]} instances
 */
export function worstBreakers(instances) {
  /** @type {Map<string, BreakerState>} */
  const worst = new Map();
  for (const { name, breaker } of instances.flatMap((each) => (each.reachable ? each.targets : []))) {
    const other = worst.get(name);
    if (!other || WORST_FIRST.indexOf(breaker) < WORST_FIRST.indexOf(other)) worst.set(name, breaker);
  }
  return worst;
}

/** Makes the map. */
export function serviceMap() {
  const arrows = svg(
    "defs",
    {},
    svg(
      "marker",
      { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" },
      svg("path", { d: "M0 0 L8 4 L0 8 z" }),
    ),
  );
  const element = svg("svg", { class: "map", viewBox: "0 0 990 300", role: "img", "aria-label": t("platform.map") });
  return {
    element,
    /** @param {Instance[]} instances */
    show(instances) {
      const services = [...byService(instances)].map(
        ([service, processes]) => /** @type {const} */ ([service, summarize(processes)]),
      );
      const names = new Set(services.map(([service]) => service));
      const breakers = worstBreakers(instances);
      element.replaceChildren(
        arrows,
        ...CALLS.filter(([from, to]) => names.has(from) && names.has(to)).map(([from, to]) =>
          arrow(from, to, breakers.get(`${from}/${to}`)),
        ),
        ...services.filter(([service]) => service in PLACES).map(([service, summary]) => box(service, summary)),
      );
      const states = services.map(([service, { state }]) => `${service} ${t(`map.${state}`)}`);
      element.setAttribute("aria-label", `${t("platform.map")}: ${states.join(", ")}`);
    },
  };
}
