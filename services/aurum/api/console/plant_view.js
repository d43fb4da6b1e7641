// @ts-check
// What the user has chosen on the page of the plant: search, filters and order. It is in the address, so that a link
// restores it.

import { statusOf } from "./live.js";
import { originalMachine } from "./names.js";

/** @import { Machine, MachineStatus } from "./types.d.ts" */
/** @typedef {"machine" | "type" | "site" | "state" | "risk" | "life" | "seen"} SortKey */
/** @typedef {{ search: string, state: string, type: string, site: string, sort: SortKey, descending: boolean }} View */

/** @type {MachineStatus[]} */
export const STATES = ["running", "fault", "stale", "offline", "new"];

/** @type {View} */
const DEFAULT = { search: "", state: "", type: "", site: "", sort: "risk", descending: true };
const FILTERS = /** @type {const} */ (["search", "state", "type", "site"]);

/** @type {Record<SortKey, (machine: Machine) => string | number>} */
const KEYS = {
  machine: (machine) => originalMachine(machine.machine_id),
  type: (machine) => machine.machine_type,
  site: (machine) => machine.site,
  state: (machine) => STATES.indexOf(statusOf(machine)),
  risk: (machine) => machine.risk_score ?? -1,
  life: (machine) => machine.rul?.estimate ?? Infinity,
  seen: (machine) => machine.last_seen ?? "",
};

export const SORT_KEYS = /** @type {SortKey[]} */ (Object.keys(KEYS));

/**
 * @param {Machine} machine
 * @param {View} wanted
 * @param {string} words The search in lower case.
 */
function matches(machine, wanted, words) {
  if (wanted.type && machine.machine_type !== wanted.type) return false;
  if (wanted.site && machine.site !== wanted.site) return false;
  if (wanted.state && statusOf(machine) !== wanted.state) return false;
  const names = `${machine.machine_id} ${originalMachine(machine.machine_id)}`;
  return !words || `${names} ${machine.machine_type} ${machine.site}`.toLowerCase().includes(words);
}

/**
 * Returns the machines that match search and filters, sorted; machines with equal keys by name.
 * @param {Iterable<Machine>} machines
 * @param {View} wanted
 */
export function matchingMachines(machines, wanted) {
  const words = wanted.search.trim().toLowerCase();
  const key = KEYS[wanted.sort];
  const sign = wanted.descending ? -1 : 1;
  return [...machines]
    .filter((machine) => matches(machine, wanted, words))
    .map((machine) => /** @type {const} */ ([key(machine), machine]))
    .sort(([left, a], [right, b]) => {
      if (left !== right) return left < right ? -sign : sign;
      return a.machine_id < b.machine_id ? -1 : 1;
    })
    .map(([, machine]) => machine);
}

/**
 * Returns the view that an address states. What it does not state, or states wrongly, has its default.
 * @param {string} query The query of the address.
 * @returns {View}
 */
export function readView(query) {
  const stated = new URLSearchParams(query);
  const view = { ...DEFAULT };
  for (const name of FILTERS) view[name] = stated.get(name) ?? "";
  const sort = stated.get("sort");
  if (sort !== null && Object.hasOwn(KEYS, sort)) {
    view.sort = /** @type {SortKey} */ (sort);
    view.descending = stated.get("order") === "descending";
  }
  return view;
}

/**
 * Returns the address of the page with a view.
 * @param {Partial<View>} view What it lacks has its default.
 */
export function addressOf(view) {
  const wanted = { ...DEFAULT, ...view };
  const stated = new URLSearchParams(FILTERS.flatMap((name) => (wanted[name] ? [[name, wanted[name]]] : [])));
  if (wanted.sort !== DEFAULT.sort || wanted.descending !== DEFAULT.descending) {
    stated.set("sort", wanted.sort);
    if (wanted.descending) stated.set("order", "descending");
  }
  return stated.size ? `/?${stated}` : "/";
}

let latest = "/";

/** Returns the address of the page with the view that was last shown, for the way back to it. */
export const latestAddress = () => latest;

/**
 * Puts a view into the address, in place of the one before.
 * @param {View} view
 */
export function keepInAddress(view) {
  latest = addressOf(view);
  history.replaceState(history.state, "", latest);
}

/**
 * Returns whether a view leaves out machines.
 * @param {View} view
 */
export const isFiltered = (view) => FILTERS.some((name) => view[name].trim() !== "");
