// @ts-check
// What is compared: a sensor and machines, as the address states them.

/** @typedef {{ sensor: string, machines: string[] }} Comparison */

/** The most machines in one chart, whose lines can be told apart. */
export const MOST_MACHINES = 8;

/**
 * Returns the comparison that an address states.
 * @param {string} query
 * @returns {Comparison}
 */
export function readComparison(query) {
  const stated = new URLSearchParams(query);
  return {
    sensor: stated.get("sensor") ?? "",
    machines: [...new Set(stated.getAll("machine"))].filter(Boolean).slice(0, MOST_MACHINES),
  };
}

/**
 * Returns the address of a comparison.
 * @param {Comparison} comparison
 */
export function comparisonAddress({ sensor, machines }) {
  return `/compare?${new URLSearchParams([["sensor", sensor], ...machines.map((machine) => ["machine", machine])])}`;
}
