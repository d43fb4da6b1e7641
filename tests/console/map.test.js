// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";

import { summarize, worstBreakers } from "../../services/aurum/api/console/map.js";

/** @import { BreakerState, Rates, ReachableInstance, UnreachableInstance } from "../../services/aurum/api/console/types.d.ts" */

/** @type {UnreachableInstance} */
const DOWN = { reachable: false, service: "api", address: "127.0.0.1:1", reason: "refused" };

/**
 * @param {Partial<Rates>} [rates]
 * @param {Record<string, BreakerState>} [breakers] By target.
 * @returns {ReachableInstance}
 */
const up = (rates = {}, breakers = {}) => ({
  reachable: true,
  service: "api",
  address: null,
  instance: "host",
  pid: 1,
  uptime_seconds: 5,
  rates: {
    requests_per_second: 0,
    error_ratio: null,
    p95_seconds: null,
    readings_per_second: 0,
    batches_per_second: 0,
    ...rates,
  },
  spool: null,
  policy: { generation: 1, hash: "" },
  refused: null,
  faults: [],
  missing: [],
  targets: Object.entries(breakers).map(([name, breaker]) => ({
    name,
    breaker,
    window: null,
    retry_budget_tokens: 1,
    limit: { name: null, limit: 1, in_flight: 0 },
  })),
  limits: [],
});

test("service with all processes down is down", () => {
  const { state, up: running, all, requests, slowest } = summarize([DOWN]);
  assert.deepEqual(
    { state, running, all, requests, slowest },
    { state: "down", running: 0, all: 1, requests: null, slowest: 0 },
  );
});

test("service with a process down is troubled", () => {
  assert.equal(summarize([up(), DOWN]).state, "troubled");
});

test("service is troubled by more than one failed request in 100", () => {
  assert.equal(summarize([up({ requests_per_second: 10, error_ratio: 0.01 })]).state, "well");
  assert.equal(summarize([up({ requests_per_second: 10, error_ratio: 0.02 })]).state, "troubled");
  assert.equal(summarize([up()]).state, "well");
});

test("figures of a service cover all its processes", () => {
  const busy = up({ requests_per_second: 30, error_ratio: 0.1, p95_seconds: 0.2, batches_per_second: 1 });
  const quiet = up({ requests_per_second: 10, error_ratio: 0, p95_seconds: 0.5, batches_per_second: 2 });
  const { requests, errors, slowest, batches, spooled } = summarize([
    { ...busy, spool: { batches: 3, oldest_seconds: 1 } },
    { ...quiet, spool: { batches: 4, oldest_seconds: 1 } },
  ]);
  assert.deepEqual(
    { requests, errors, slowest, batches, spooled },
    { requests: 40, errors: 0.075, slowest: 0.5, batches: 3, spooled: 7 },
  );
});

test("rates of a process without an earlier look are unknown", () => {
  assert.equal(summarize([{ ...up(), rates: null }]).requests, null);
});

test("worst breaker over all processes is shown", () => {
  const first = up({}, { "api/prediction": "closed", "api/ingestion": "half-open" });
  const second = up({}, { "api/prediction": "open", "api/ingestion": "disabled" });
  assert.deepEqual(
    [...worstBreakers([first, DOWN, second])],
    [
      ["api/prediction", "open"],
      ["api/ingestion", "half-open"],
    ],
  );
});
