// @ts-check
import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import {
  alarmsWaiting,
  connect,
  disconnect,
  plant,
  statusOf,
  subscribe,
  watchConnection,
} from "../../services/aurum/api/console/live.js";
import { machine, setGlobal } from "./browser.js";

const NOW = Date.parse("2026-01-02T03:04:05Z");

/** An event stream whose events the test sends. */
class Stream extends EventTarget {
  static CLOSED = 2;
  /** @type {Stream[]} */
  static opened = [];
  readyState = 1;

  /** @param {string} url */
  constructor(url) {
    super();
    this.url = url;
    Stream.opened.push(this);
  }

  static get latest() {
    const stream = Stream.opened.at(-1);
    assert.ok(stream);
    return stream;
  }

  close() {
    this.readyState = Stream.CLOSED;
  }

  /**
   * @param {string} name
   * @param {object} content
   */
  send(name, content) {
    this.dispatchEvent(new MessageEvent(name, { data: JSON.stringify(content) }));
  }

  /** Fails like a connection that breaks, or like one that was refused and is closed. */
  fail({ closed = false } = {}) {
    if (closed) this.close();
    this.dispatchEvent(new Event("error"));
  }
}

/**
 * @param {...(Partial<import("../../services/aurum/api/console/types.d.ts").Machine>)} machines
 */
const machinesEvent = (...machines) => ({ machines: machines.map(machine), total: machines.length, whole: true });

/**
 * Lets time pass.
 * @param {number} ms
 */
function pass(ms) {
  for (let passed = 0; passed < ms; passed += 1000) mock.timers.tick(1000);
}

beforeEach(() => {
  mock.timers.enable({ apis: ["Date", "setInterval"], now: NOW });
  mock.method(performance, "now", () => Date.now() - NOW);
  setGlobal("EventSource", Stream);
  Stream.opened = [];
  connect();
});
afterEach(() => {
  disconnect();
  plant.clockOffset = 0;
  plant.unreachable = [];
  mock.timers.reset();
  mock.restoreAll();
});

test("first event brings all machines", () => {
  assert.equal(Stream.latest.url, "/api/events");
  assert.equal(plant.loaded, false);
  Stream.latest.send("machines", machinesEvent({ machine_id: "a" }, { machine_id: "b" }));
  assert.equal(plant.loaded, true);
  assert.equal(plant.total, 2);
  assert.deepEqual([...plant.machines.keys()], ["a", "b"]);
});

test("later events change single machines", () => {
  Stream.latest.send("machines", machinesEvent({ machine_id: "a" }, { machine_id: "b" }));
  const change = { ...machinesEvent({ machine_id: "b", risk_score: 0.5 }), whole: false, total: 2 };
  Stream.latest.send("machines", change);
  assert.equal(plant.machines.size, 2);
  assert.equal(plant.machines.get("b")?.risk_score, 0.5);
});

test("event with the whole state replaces all machines", () => {
  Stream.latest.send("machines", machinesEvent({ machine_id: "a" }));
  Stream.latest.send("machines", machinesEvent({ machine_id: "b" }));
  assert.deepEqual([...plant.machines.keys()], ["b"]);
});

test("listener gets the changed machines until it unsubscribes", () => {
  /** @type {string[]} */
  const changed = [];
  const stop = subscribe("machines", (machines) => changed.push(...machines.map((each) => each.machine_id)));
  Stream.latest.send("machines", machinesEvent({ machine_id: "a" }));
  stop();
  Stream.latest.send("machines", machinesEvent({ machine_id: "b" }));
  assert.deepEqual(changed, ["a"]);
});

test("unacknowledged alarms are counted also after they cleared", () => {
  let calls = 0;
  const stop = subscribe("alarms", () => (calls += 1));
  const counts = { unacknowledged: 2, returned: 1, acknowledged: 4, shelved: 8 };
  Stream.latest.send("alarms", { revision: 1, loaded: true, counts, flood: false });
  stop();
  assert.equal(calls, 1);
  assert.equal(alarmsWaiting(), 3);
});

test("status of a machine follows the time since its last reading", () => {
  /** @param {number} seconds */
  const after = (seconds) => statusOf(machine({ last_seen: new Date(NOW - 1000 * seconds).toISOString() }));
  assert.equal(statusOf(machine({ last_seen: null })), "new");
  assert.equal(after(60), "running");
  assert.equal(after(61), "stale");
  assert.equal(after(3600), "stale");
  assert.equal(after(3601), "offline");
  assert.equal(statusOf(machine({ last_seen: new Date(NOW).toISOString(), status: "fault" })), "fault");
});

test("status of a machine follows the server's clock", () => {
  const seen = machine({ last_seen: new Date(NOW).toISOString() });
  Stream.latest.send("pulse", { now: NOW + 100_000, unreachable: [] });
  assert.equal(plant.clockOffset, 100_000);
  assert.equal(statusOf(seen), "stale");
});

test("pulse announces a change of unreachable services once", () => {
  Stream.latest.send("pulse", { now: NOW, unreachable: [] });
  let calls = 0;
  const stop = subscribe("connection", () => (calls += 1));
  for (let count = 0; count < 2; count += 1) Stream.latest.send("pulse", { now: NOW, unreachable: ["prediction"] });
  stop();
  assert.deepEqual(plant.unreachable, ["prediction"]);
  assert.equal(calls, 1);
});

test("connection is lost by an error until the next event", () => {
  Stream.latest.send("pulse", { now: NOW, unreachable: [] });
  assert.equal(plant.connection, "live");
  Stream.latest.fail();
  assert.equal(plant.connection, "lost");
  Stream.latest.send("pulse", { now: NOW, unreachable: [] });
  assert.equal(plant.connection, "live");
});

test("stream without events is reopened after twelve seconds", () => {
  watchConnection();
  const first = Stream.latest;
  pass(12_000);
  assert.equal(Stream.opened.length, 1);
  pass(1000);
  assert.equal(Stream.opened.length, 2);
  assert.equal(first.readyState, Stream.CLOSED);
  assert.equal(plant.connection, "lost");
});

test("stream with events stays open", () => {
  watchConnection();
  for (let count = 0; count < 10; count += 1) {
    pass(5000);
    Stream.latest.send("pulse", { now: Date.now(), unreachable: [] });
  }
  assert.equal(Stream.opened.length, 1);
  assert.equal(plant.connection, "live");
});

test("refused stream is retried after three seconds", () => {
  watchConnection();
  Stream.latest.fail({ closed: true });
  pass(3000);
  assert.equal(Stream.opened.length, 1);
  pass(1000);
  assert.equal(Stream.opened.length, 2);
});

test("lost connection keeps the last state", () => {
  watchConnection();
  Stream.latest.send("machines", machinesEvent({ machine_id: "a" }));
  pass(20_000);
  assert.equal(plant.connection, "lost");
  assert.deepEqual([...plant.machines.keys()], ["a"]);
});

test("disconnected console keeps nothing for the next user", () => {
  watchConnection();
  Stream.latest.send("machines", machinesEvent({ machine_id: "a" }));
  Stream.latest.send("alarms", { revision: 1, loaded: true, counts: { unacknowledged: 2 }, flood: true });
  disconnect();
  assert.equal(plant.machines.size, 0);
  assert.equal(plant.total, 0);
  assert.equal(plant.loaded, false);
  assert.equal(alarmsWaiting(), 0);
  assert.equal(plant.alarms.flood, false);
  pass(20_000);
  assert.equal(Stream.opened.length, 1);
});
