// @ts-check
// The scales of charts: which values the axis covers, and which series are signals with two states.

/** @typedef {(number | null)[]} Column */

const FEW = 20; // values; the axis covers all of them
const OUTER = 0.01; // share of the values at each end that may be outliers
const FAR = 1; // times the spread of the other values, from which an outlier is left out
const NEAR = 0.5; // share of the highest value, within which the axis covers a limit beyond the values
const PADDING = 0.05; // share of the axis above and below

/** @param {Column} column */
export const numbersOf = (column) => column.flatMap((value) => (value !== null && Number.isFinite(value) ? value : []));

/**
 * Returns whether a series has only the values 0 and 1, such as a fault signal or a valve.
 * @param {Column} lower The lowest reading of each point.
 * @param {Column} upper The highest.
 */
export function isSignal(lower, upper) {
  const values = [...numbersOf(lower), ...numbersOf(upper)];
  return values.length > 0 && values.every((value) => value === 0 || value === 1);
}

/**
 * Returns the ends of values, without a few that lie far from the others.
 * @param {number[]} sorted At least one.
 */
function endsWithoutOutliers(sorted) {
  const last = sorted.length - 1;
  const outer = sorted.length > FEW ? Math.ceil(OUTER * sorted.length) : 0;
  const spread = (sorted[last - outer] - sorted[outer]) * FAR;
  if (!outer || !spread) return [sorted[0], sorted[last]];
  return [Math.max(sorted[0], sorted[outer] - spread), Math.min(sorted[last], sorted[last - outer] + spread)];
}

/**
 * Returns the ends of the value axis. A few far outliers do not squeeze all other values into a line: the axis ends at
 * twice the spread of the others, and the chart marks what lies beyond.
 * @param {Column} lower The lowest reading of each point.
 * @param {Column} upper The highest.
 * @param {number[]} [limits] Limits of alarms, which the axis covers if they are near the readings.
 * @returns {[number, number]}
 */
export function valueLimits(lower, upper, limits = []) {
  const sorted = [...numbersOf(lower), ...numbersOf(upper)].sort((a, b) => a - b);
  if (!sorted.length) return [0, 1];
  const [low, high] = endsWithoutOutliers(sorted);
  const near = Math.max(high - low, Math.abs(high) * NEAR);
  const covered = limits.filter((limit) => limit <= high + near && limit >= low - near);
  const [from, to] = [Math.min(low, ...covered), Math.max(high, ...covered)];
  const padding = PADDING * (to - from) || Math.abs(to) * PADDING || 1;
  return [from - padding, to + padding];
}
