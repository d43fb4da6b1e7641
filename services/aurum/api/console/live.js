// @ts-check
// The live state of the plant, from one stream of server-sent events.

/** @import { AlarmSummary, HangingGateway, Machine, MachinesEvent, MachineStatus, PulseEvent } from "./types.d.ts" */

/** @typedef {{ machines: Machine[], alarms: void, connection: void }} Topics What listeners of each topic get. */

const LOST_AFTER = 12_000; // ms without an event; the server sends a pulse every 5 s
const RETRY_AFTER = 3_000; // ms after a refusal
const STALE_AFTER = 60_000; // ms without a reading, as in the API
const OFFLINE_AFTER = 3_600_000;
const CHECK_EVERY = 1000; // ms

/** @returns {AlarmSummary} */
const noAlarms = () => ({ revision: -1, loaded: false, counts: {}, flood: false });

export const plant = {
  /** @type {Map<string, Machine>} By machine_id. */
  machines: new Map(),
  total: 0,
  loaded: false, // whether all machines have been received once
  /** @type {"connecting" | "live" | "lost"} */
  connection: "connecting",
  clockOffset: 0, // ms by which the server's clock is ahead
  /** @type {string[]} */
  unreachable: [], // services
  /** @type {HangingGateway[]} */
  hangingGateways: [],
  alarms: noAlarms(),
};

/** @type {{ [Topic in keyof Topics]: Set<(detail: Topics[Topic]) => unknown> }} */
const listeners = { machines: new Set(), alarms: new Set(), connection: new Set() };
let lastEventAt = 0; // performance.now()
/** @type {EventSource | null} */
let source = null;

/**
 * Calls the listener on each change of a topic; a listener of "machines" gets the changed machines.
 * @template {keyof Topics} Topic
 * @param {Topic} topic
 * @param {(detail: Topics[Topic]) => unknown} listener
 * @returns {() => void} Ends the calls.
 */
export function subscribe(topic, listener) {
  listeners[topic].add(listener);
  return () => {
    listeners[topic].delete(listener);
  };
}

/**
 * @template {keyof Topics} Topic
 * @param {Topic} topic
 * @param {Topics[Topic]} detail
 */
function publish(topic, detail) {
  for (const listener of listeners[topic]) listener(detail);
}

/** Returns whether readings cannot arrive here, so that nothing is known of the present state of a machine. */
const isCutOff = () => plant.connection === "lost" || plant.unreachable.includes("ingestion");

/**
 * Returns the status of a machine at this moment. It becomes stale and offline by time alone, without an event, and stale
 * at once while no readings can arrive here.
 * @param {Machine} machine
 * @returns {MachineStatus}
 */
export function statusOf(machine) {
  if (!machine.last_seen) return "new";
  const silence = Date.now() + plant.clockOffset - Date.parse(machine.last_seen);
  if (silence > OFFLINE_AFTER) return "offline";
  if (silence > STALE_AFTER || isCutOff()) return "stale";
  return machine.status === "fault" ? "fault" : "running";
}

/** Returns the number of alarms that nobody has acknowledged. */
export const alarmsWaiting = () => (plant.alarms.counts.unacknowledged ?? 0) + (plant.alarms.counts.returned ?? 0);

/** @param {typeof plant.connection} state */
function setConnection(state) {
  if (plant.connection === state) return;
  plant.connection = state;
  publish("connection", undefined);
}

/** @param {MachinesEvent} event */
function takeMachines({ machines, total, whole }) {
  if (whole) plant.machines.clear(); // a new stream starts with all machines
  for (const machine of machines) plant.machines.set(machine.machine_id, machine);
  plant.total = total;
  plant.loaded = true;
  publish("machines", machines);
}

/** @param {AlarmSummary} summary */
function takeAlarms(summary) {
  plant.alarms = summary;
  publish("alarms", undefined);
}

/** @param {PulseEvent} pulse */
function takePulse({ now, unreachable, gateways = [] }) {
  plant.clockOffset = now - Date.now();
  const names = gateways.map((gateway) => gateway.name).join();
  const same = plant.hangingGateways.map((gateway) => gateway.name).join() === names;
  if (same && plant.unreachable.join() === unreachable.join()) return;
  plant.unreachable = unreachable;
  plant.hangingGateways = gateways;
  publish("connection", undefined);
}

/** Opens the stream. An open one is closed. */
export function connect() {
  source?.close();
  const opened = new EventSource("/api/events");
  source = opened;
  lastEventAt = performance.now();

  /**
   * @param {string} name
   * @param {(content: any) => void} take
   */
  const receive = (name, take) =>
    opened.addEventListener(name, (event) => {
      lastEventAt = performance.now();
      setConnection("live");
      take(JSON.parse(event.data));
    });
  receive("machines", takeMachines);
  receive("alarms", takeAlarms);
  receive("pulse", takePulse);
  opened.addEventListener("error", () => {
    setConnection("lost");
    // After a refusal, such as by a limit, a browser does not retry; watchConnection does
    if (opened.readyState === EventSource.CLOSED) lastEventAt = performance.now() - LOST_AFTER + RETRY_AFTER;
  });
}

/** Closes the stream and discards the state, since the next user may see other sites. */
export function disconnect() {
  source?.close();
  source = null;
  plant.machines.clear();
  plant.total = 0;
  plant.loaded = false;
  plant.alarms = noAlarms();
}

/** Reopens a stream without events, since a connection can be lost without an error. Runs as long as the page. */
export function watchConnection() {
  setInterval(() => {
    if (!source || performance.now() - lastEventAt <= LOST_AFTER) return;
    setConnection("lost");
    connect();
  }, CHECK_EVERY);
}
