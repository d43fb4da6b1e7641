// The services as a map: boxes with what each does, arrows for who calls whom with the state of the breaker between.

import { svg } from "./dom.js";
import { duration, number, percent } from "./format.js";
import { t } from "./text.js";

const WIDTH = 150;
const HEIGHT = 88;
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

const middle = (service) => [PLACES[service][0] + WIDTH / 2, PLACES[service][1] + HEIGHT / 2];

/** Where the line between the middles of two boxes leaves the box of the first. */
function border(from, to) {
  const [x, y] = middle(from);
  const [toX, toY] = middle(to);
  const dx = toX - x;
  const dy = toY - y;
  const scale = 1 / Math.max(Math.abs(dx) / (WIDTH / 2 + 4), Math.abs(dy) / (HEIGHT / 2 + 4));
  return [x + dx * scale, y + dy * scale];
}

function sum(instances, field) {
  const values = instances.map((each) => each.rates?.[field]).filter((value) => typeof value === "number");
  return values.length ? values.reduce((total, value) => total + value, 0) : null;
}

function ofService(instances) {
  const up = instances.filter((each) => each.reachable);
  const requests = sum(up, "requests_per_second");
  const failed = up.reduce(
    (total, each) => total + (each.rates?.error_ratio ?? 0) * (each.rates?.requests_per_second ?? 0),
    0,
  );
  const slowest = Math.max(...up.map((each) => each.rates?.p95_seconds ?? 0));
  const state = !up.length
    ? "down"
    : up.length < instances.length || failed > 0.01 * (requests ?? 0)
      ? "troubled"
      : "well";
  return {
    up: up.length,
    all: instances.length,
    requests,
    errors: requests ? failed / requests : null,
    slowest,
    state,
    readings: sum(up, "readings_per_second"),
    batches: sum(up, "batches_per_second"),
    spooled: up.reduce((total, each) => total + (each.spool?.batches ?? 0), 0),
  };
}

function box(service, found) {
  const [x, y] = PLACES[service];
  const lines = found.state === "down" ? [t("platform.down")] : work(service, found);
  return svg(
    "g",
    { class: "service", "data-service": service, "data-state": found.state },
    svg("rect", { x, y, width: WIDTH, height: HEIGHT, rx: 8 }),
    svg("text", { x: x + 12, y: y + 25, class: "name" }, service),
    svg("text", { x: x + WIDTH - 12, y: y + 25, class: "instances", "text-anchor": "end" }, `${found.up}/${found.all}`),
    lines.map((line, index) => svg("text", { x: x + 12, y: y + 50 + 22 * index }, line)),
  );
}

/** What a service does, in the terms of its kind: devices send readings, a gateway takes batches, others answer. */
function work(service, found) {
  if (service.endsWith("-sim")) return [t("map.readings", { rate: number(found.readings) })];
  if (service === "edge")
    return [t("map.batches", { rate: number(found.batches) }), t("map.spool", { batches: number(found.spooled) })];
  return [
    `${number(found.requests)}/s  ·  ${t("map.errors", { share: percent(found.errors ?? 0, 1) })}`,
    found.slowest ? `p95 ${duration(found.slowest)}` : "p95 –",
  ];
}

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

const WORST = ["open", "half-open", "closed", "disabled"];

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
    show(instances) {
      const services = Map.groupBy ? Map.groupBy(instances, (each) => each.service) : grouped(instances);
      const breakers = new Map();
      for (const instance of instances) {
        for (const target of instance.targets ?? []) {
          const before = breakers.get(target.name);
          if (before === undefined || WORST.indexOf(target.breaker) < WORST.indexOf(before))
            breakers.set(target.name, target.breaker);
        }
      }
      const there = ([from, to]) => services.has(from) && services.has(to);
      element.replaceChildren(
        arrows,
        ...CALLS.filter(there).map(([from, to]) => arrow(from, to, breakers.get(`${from}/${to}`))),
        ...[...services]
          .filter(([service]) => service in PLACES)
          .map(([service, found]) => box(service, ofService(found))),
      );
      element.setAttribute(
        "aria-label",
        `${t("platform.map")}: ${[...services].map(([service, found]) => `${service} ${t(`map.${ofService(found).state}`)}`).join(", ")}`,
      );
    },
  };
}

function grouped(instances) {
  const found = new Map();
  for (const instance of instances) found.set(instance.service, [...(found.get(instance.service) ?? []), instance]);
  return found;
}
