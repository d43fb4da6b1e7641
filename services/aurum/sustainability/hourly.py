"""Integrates rates, and spreads the increases of counters, by hour, with the coverage of each hour."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aurum.runtime.time_units import DAY_US, HOUR_US

Times = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

LONGEST_BRIDGE_US = 7 * DAY_US  # gap of a counter whose increase is spread over it

_MIN_COVERAGE = 0.5  # for an extrapolation to the whole range


@dataclass(frozen=True, slots=True)
class TimeRange:
    """A time range in µs since 1970. The end is exclusive."""

    start: int
    end: int

    @property
    def first_hour(self) -> int:
        """The hour in which the range starts, in hours since 1970."""
        return self.start // HOUR_US

    @property
    def hours(self) -> int:
        """The number of hours that the range touches."""
        return -(-self.end // HOUR_US) - self.first_hour


@dataclass(frozen=True, slots=True)
class HourlyAmounts:
    """Amounts by hour, with their coverage.

    Attributes:
        first: The first hour, in hours since 1970 UTC.
        amount: Amount in the covered part of each hour.
        covered: Seconds of each hour for which readings exist.
        in_range: Seconds of each hour that are within the range.
        bridged: Seconds of all hours in gaps of a counter, over which its increase is known, but not by hour.
    """

    first: int
    amount: Floats
    covered: Floats
    in_range: Floats
    bridged: float = 0.0

    @property
    def coverage(self) -> float:
        """The share of the range for which readings exist, from 0 to 1."""
        return float(self.covered.sum() / self.in_range.sum()) if self.in_range.sum() else 0.0

    @property
    def coverage_by_hour(self) -> Floats:
        """The share of each hour for which readings exist, from 0 to 1; 0 for an hour outside the range."""
        inside = self.in_range > 0
        return np.where(inside, self.covered / np.where(inside, self.in_range, 1.0), 0.0)

    @property
    def total(self) -> float:
        """The amount in the covered and bridged time."""
        return float(self.amount.sum())

    @property
    def estimate(self) -> float | None:
        """The amount extrapolated to the whole range; None if less than half of it is covered or bridged."""
        if not self.in_range.sum():
            return None
        known = float((self.covered.sum() + self.bridged) / self.in_range.sum())
        return self.total / known if known >= _MIN_COVERAGE else None


def integrate(times: Times, rates: Floats, start_us: int, end_us: int, longest_gap: float) -> HourlyAmounts:
    """Integrates a rate per hour (kW gives kWh) over [start, end) by hour, by the trapezoidal rule.

    Args:
        times: µs since 1970, ascending.
        rates: The rate at each time; NaN for a missing reading.
        start_us: Start in µs since 1970.
        end_us: End in µs since 1970, exclusive.
        longest_gap: Seconds. Time between two readings that are further apart counts as not covered.
    """
    first, edges, in_range = _edges(start_us, end_us)
    count = len(in_range)
    valid = ~np.isnan(rates)
    times, rates = times[valid], rates[valid]
    if len(times) < 2:
        return HourlyAmounts(first, np.zeros(count), np.zeros(count), in_range)
    inside = edges[(edges > times[0]) & (edges < times[-1])]
    cuts = np.union1d(times, inside)
    values = np.interp(cuts, times, rates)
    middle = (cuts[:-1] + cuts[1:]) // 2
    piece = np.searchsorted(times, middle, side="right") - 1
    seconds = np.diff(cuts) / 1e6
    covered = (np.diff(times) / 1e6 <= longest_gap)[np.clip(piece, 0, len(times) - 2)]
    covered &= (middle >= start_us) & (middle < end_us)
    hour = np.searchsorted(edges, middle[covered], side="right") - 1
    amount = (values[:-1] + values[1:])[covered] / 2 * (seconds[covered] / 3600)
    return HourlyAmounts(
        first,
        np.bincount(hour, weights=amount, minlength=count).astype(np.float64),
        np.bincount(hour, weights=seconds[covered], minlength=count).astype(np.float64),
        in_range,
    )


def spread_increases(times: Times, increases: Floats, start_us: int, end_us: int, longest_gap: float) -> HourlyAmounts:
    """Spreads the increases of a counter evenly over the time between its readings, and sums them by hour.

    An increase at once counts at its time. The increase over a gap is known, but not when in the gap it came about:
    it is spread as well, and its time is bridged instead of covered. Gaps of more than LONGEST_BRIDGE_US are not.

    Args:
        times: µs since 1970, ascending.
        increases: The increase from each time to the next.
        start_us: Start in µs since 1970.
        end_us: End in µs since 1970, exclusive.
        longest_gap: Seconds. Time between two readings that are further apart counts as bridged.
    """
    first, edges, in_range = _edges(start_us, end_us)
    if len(times) < 2:
        return HourlyAmounts(first, np.zeros(len(in_range)), np.zeros(len(in_range)), in_range)
    lasted = np.diff(times)
    at_once, covered = lasted == 0, lasted <= longest_gap * 1e6
    bridged = ~covered & (lasted <= LONGEST_BRIDGE_US)

    def sum_by_hour(steps: Floats) -> Floats:
        running = np.concatenate([[0.0], np.cumsum(steps)])
        by_hour: Floats = np.diff(np.interp(edges - times[0], times - times[0], running))
        return np.maximum(by_hour, 0.0)

    amount = sum_by_hour(np.where((covered | bridged) & ~at_once, increases, 0.0))
    hour = np.searchsorted(edges, times[1:][at_once], side="right") - 1
    inside = (hour >= 0) & (hour < len(in_range))
    np.add.at(amount, hour[inside], increases[at_once][inside])
    return HourlyAmounts(
        first,
        amount,
        np.minimum(sum_by_hour(np.where(covered, lasted / 1e6, 0.0)), in_range),
        in_range,
        float(sum_by_hour(np.where(bridged, lasted / 1e6, 0.0)).sum()),
    )


def add_zero_crossings(times: Times, rates: Floats, longest_gap: float) -> tuple[Times, Floats]:
    """Returns a rate with a zero at each time at which it changes its sign, so that its two signs can be integrated.

    The arguments are those of `integrate`. No zero is added within a gap, which stays one.
    """
    valid = ~np.isnan(rates)
    times, rates = times[valid], rates[valid]
    before, after, lasted = rates[:-1], rates[1:], np.diff(times)
    crossing = np.flatnonzero((before * after < 0) & (lasted <= longest_gap * 1e6))
    share = before[crossing] / (before[crossing] - after[crossing])
    zeros = times[crossing] + np.round(share * lasted[crossing]).astype(np.int64)
    return np.insert(times, crossing + 1, zeros), np.insert(rates, crossing + 1, 0.0)


def empty_hours(start_us: int, end_us: int) -> HourlyAmounts:
    """Returns zero amounts for the hours of a range, without coverage."""
    first, _, in_range = _edges(start_us, end_us)
    empty = np.zeros(len(in_range))
    return HourlyAmounts(first, empty, empty, empty)


def sum_hours(parts: Iterable[HourlyAmounts], start_us: int, end_us: int) -> HourlyAmounts:
    """Returns the sum of the amounts of several machines over the same range."""
    total = empty_hours(start_us, end_us)
    for part in parts:
        total = HourlyAmounts(
            total.first,
            total.amount + part.amount,
            total.covered + part.covered,
            total.in_range + part.in_range,
            total.bridged + part.bridged,
        )
    return total


def hourly_means(times: Times, values: Floats, start_us: int, end_us: int, longest_gap: float) -> Floats:
    """Returns the mean of a sensor in each hour; NaN without coverage. The arguments are those of `integrate`."""
    hourly = integrate(times, values, start_us, end_us, longest_gap)
    covered = hourly.covered > 0
    return np.where(covered, hourly.amount / np.where(covered, hourly.covered / 3600, 1.0), np.nan)


def hold_means(times: Times, means: Floats) -> tuple[Times, Floats]:
    """Converts means of intervals of equal length into a rate that is constant over each interval.

    Args:
        times: The start of each interval, in µs since 1970.
        means: The mean of each interval.

    Returns:
        Times and rates, for `integrate`.
    """
    width = int(np.diff(times).min()) if len(times) > 1 else 0
    ends = times + max(width - 1, 0)
    return np.column_stack([times, ends]).ravel(), np.repeat(means, 2)


@functools.lru_cache(maxsize=16)  # the accounts of many machines share the arrays of their range
def _edges(start_us: int, end_us: int) -> tuple[int, Times, Floats]:
    """Returns the first hour of a range, the edges of its hours in µs, and the seconds of each hour within it.

    The arrays are read-only.
    """
    first = start_us // HOUR_US
    last = -(-end_us // HOUR_US)
    edges = np.arange(first, last + 1, dtype=np.int64) * HOUR_US
    edges[0], edges[-1] = start_us, end_us
    in_range = np.diff(edges) / 1e6
    for array in (edges, in_range):
        array.flags.writeable = False
    return first, edges, in_range
