// The live state of the plant: one stream of server-sent events, kept in maps that never hold more than there is.

const LOST_AFTER = 12_000; // ms without an event; the server pulses every 5 s
const AGAIN_AFTER = 3_000; // ms, after a refusal
const STALE_AFTER = 60_000; // ms without a reading, as in the API
const OFFLINE_AFTER = 3_600_000;

export const plant = {
  machines: new Map(), // by machine_id
  total: 0,
  known: false, // whether the first account of all machines has come
  connection: "connecting", // connecting, live, lost
  clockOffset: 0, // ms by which the server's clock is ahead
  unreachable: [],
  alarms: { revision: -1, loaded: false, counts: {}, flood: false },
};

const listeners = { machines: new Set(), alarms: new Set(), connection: new Set() };
let heard = 0;
let source = null;

/** Calls back on each change of a topic until the returned function is called. machines: with the changed ids. */
export function on(topic, listener) {
  listeners[topic].add(listener);
  return () => listeners[topic].delete(listener);
}

function tell(topic, detail) {
  for (const listener of listeners[topic]) listener(detail);
}

/** The state of a machine at this moment: silence makes it stale without any event. */
export function statusOf(machine) {
  if (!machine.last_seen) return "new";
  const silent = Date.now() + plant.clockOffset - Date.parse(machine.last_seen);
  if (silent > OFFLINE_AFTER) return "offline";
  if (silent > STALE_AFTER) return "stale";
  return machine.status === "fault" ? "fault" : "running";
}

function setConnection(state) {
  if (plant.connection === state) return;
  plant.connection = state;
  tell("connection");
}

function receive(name, take) {
  source.addEventListener(name, (event) => {
    heard = performance.now();
    setConnection("live");
    take(JSON.parse(event.data));
  });
}

/** Ends the stream, until it is connected again. */
export function disconnect() {
  source?.close();
  source = null;
  plant.machines.clear();
  plant.known = false;
}

export function connect() {
  source = new EventSource("/api/events");
  receive("machines", (update) => {
    if (update.whole) plant.machines.clear(); // another process, or long away: everything comes anew
    for (const machine of update.machines) plant.machines.set(machine.machine_id, machine);
    plant.total = update.total;
    plant.known = true;
    tell("machines", update.machines);
  });
  receive("alarms", (summary) => {
    plant.alarms = summary;
    tell("alarms");
  });
  receive("pulse", (pulse) => {
    plant.clockOffset = pulse.now - Date.now();
    if (plant.unreachable.join() !== pulse.unreachable.join()) {
      plant.unreachable = pulse.unreachable;
      tell("connection");
    }
  });
  source.addEventListener("error", () => {
    setConnection("lost");
    // Refused, such as by a limit: the browser gives up, we do not
    if (source.readyState === EventSource.CLOSED) heard = performance.now() - LOST_AFTER + AGAIN_AFTER;
  });
  heard = performance.now();
}

export function watchConnection() {
  setInterval(() => {
    if (source && performance.now() - heard > LOST_AFTER) {
      setConnection("lost"); // a connection may be dead without anybody having said so
      source.close();
      connect();
    }
  }, 1000);
}
