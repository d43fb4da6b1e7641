"""Integrates rates, and spreads the increases of counters, by hour, with the coverage of each hour.

A rate is integrated by the trapezoidal rule, and the increase of a counter is spread evenly over its time. Both make
one running total for each series, which begins and ends with its readings. The amount of a range is the difference of
that total between its ends, so the amounts of adjacent ranges add up, wherever the ends are. Nothing is extrapolated.
"""

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
    def means(self) -> Floats:
        """The mean of a sensor in each hour, if the amounts are its integrals; NaN without coverage."""
        covered = self.covered > 0
        return np.where(covered, self.amount / np.where(covered, self.covered / 3600, 1.0), np.nan)

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


def integrate(  # noqa: PLR0917 - a series, a range, and how to divide it
    times: Times, rates: Floats, start_us: int, end_us: int, longest_gap: float, width_us: int = HOUR_US
) -> HourlyAmounts:
    """Integrates a rate per hour (kW gives kWh) over [start, end) by hour, by the trapezoidal rule.

    Args:
        times: µs since 1970, ascending.
        rates: The rate at each time; NaN for a missing reading.
        start_us: Start in µs since 1970.
        end_us: End in µs since 1970, exclusive.
        longest_gap: Seconds. Time between two readings that are further apart counts as not covered.
        width_us: The width of the intervals in µs, an hour by default. They begin at its multiples since 1970.
    """
    first, edges, in_range = _edges(start_us, end_us, width_us)
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


def spread_increases(  # noqa: PLR0917 - a series, a range, and how to divide it
    times: Times, increases: Floats, start_us: int, end_us: int, longest_gap: float, width_us: int = HOUR_US
) -> HourlyAmounts:
    """Spreads the increases of a counter evenly over the time between its readings, and sums them by hour.

    An increase at once counts at its time. The increase over a gap is known, but not when in the gap it came about:
    it is spread as well, and its time is bridged instead of covered. Gaps of more than LONGEST_BRIDGE_US are not.

    Args:
        times: µs since 1970, ascending.
        increases: The increase from each time to the next.
        start_us: Start in µs since 1970.
        end_us: End in µs since 1970, exclusive.
        longest_gap: Seconds. Time between two readings that are further apart counts as bridged.
        width_us: The width of the intervals in µs, an hour by default. They begin at its multiples since 1970.
    """
    first, edges, in_range = _edges(start_us, end_us, width_us)
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


def seconds_in_range(over: TimeRange) -> Floats:
    """Returns the seconds of each hour that are within a range. The array is read-only."""
    return _edges(over.start, over.end, HOUR_US)[2]


def empty_hours(start_us: int, end_us: int) -> HourlyAmounts:
    """Returns zero amounts for the hours of a range, without coverage."""
    first, _, in_range = _edges(start_us, end_us, HOUR_US)
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


@functools.lru_cache(maxsize=16)  # the accounts of many machines share the arrays of their range
def _edges(start_us: int, end_us: int, width_us: int) -> tuple[int, Times, Floats]:
    """Returns the first hour of a range, the edges of its hours in µs, and the seconds of each hour within it.

    The hours have the given width.

    The arrays are read-only.
    """
    first = start_us // width_us
    last = -(-end_us // width_us)
    edges = np.arange(first, last + 1, dtype=np.int64) * width_us
    edges[0], edges[-1] = start_us, end_us
    in_range = np.diff(edges) / 1e6
    for array in (edges, in_range):
        array.flags.writeable = False
    return first, edges, in_range
