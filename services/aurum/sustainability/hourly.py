"""Integrates rates and counters by hour, with the coverage of each hour."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aurum.runtime.time_units import HOUR_US

Times = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

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
    """

    first: int
    amount: Floats
    covered: Floats
    in_range: Floats

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
        """The amount in the covered time."""
        return float(self.amount.sum())

    @property
    def estimate(self) -> float | None:
        """The amount extrapolated to the whole range; None if the coverage is below a half."""
        return self.total / self.coverage if self.coverage >= _MIN_COVERAGE else None


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


def hourly_increases(times: Times, counts: Floats, start_us: int, end_us: int, longest_gap: float) -> HourlyAmounts:
    """Returns the increase of a counter, such as a water meter, in each hour of [start, end).

    A counter that falls has been reset to 0. The arguments are those of `integrate`.
    """
    valid = ~np.isnan(counts)
    times, counts = times[valid], counts[valid]
    if len(times) < 2:
        return integrate(times, counts, start_us, end_us, longest_gap)
    steps = np.diff(counts)
    steps = np.where(steps < 0, counts[1:], steps)
    hours = np.diff(times) / HOUR_US
    # Each increase is spread evenly over the time between its readings, as a constant rate
    rates = np.repeat(np.where(hours > 0, steps / np.where(hours > 0, hours, 1.0), 0.0), 2)
    bounds = np.repeat(times, 2)[1:-1].copy()
    bounds[1:-1:2] -= 1  # by 1 µs, since the rate changes abruptly at each reading
    return integrate(bounds, rates, start_us, end_us, longest_gap)


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
            total.first, total.amount + part.amount, total.covered + part.covered, total.in_range + part.in_range
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
