"""Integrates rates and counters by hour, with the coverage of each hour."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

HOUR_US = 3_600_000_000
_ENOUGH = 0.5  # coverage that an extrapolation to the whole time needs


@dataclass(frozen=True, slots=True)
class Hourly:
    """Amounts by hour, with their coverage.

    Attributes:
        first: The first hour, in hours since 1970 UTC.
        amount: Amount in the covered part of each hour.
        covered: Seconds of each hour for which readings exist.
        wanted: Seconds of each hour that are within the range.
    """

    first: int
    amount: Floats
    covered: Floats
    wanted: Floats

    @property
    def coverage(self) -> float:
        """The share of the range for which readings exist, from 0 to 1."""
        return float(self.covered.sum() / self.wanted.sum()) if self.wanted.sum() else 0.0

    @property
    def total(self) -> float:
        """The amount in the covered time."""
        return float(self.amount.sum())

    @property
    def estimate(self) -> float | None:
        """The amount extrapolated to the whole range; None if the coverage is below a half."""
        return self.total / self.coverage if self.coverage >= _ENOUGH else None


def integrate(times: Times, rates: Floats, start_us: int, end_us: int, longest_gap: float) -> Hourly:
    """Integrates a rate per hour (kW gives kWh) over [start, end) by hour, by the trapezoidal rule.

    Args:
        times: µs since 1970, ascending.
        rates: The rate at each time; NaN for a missing reading.
        start_us: Start in µs since 1970.
        end_us: End in µs since 1970, exclusive.
        longest_gap: Seconds. Time between two readings that are further apart counts as not covered.
    """
    first, edges, wanted = _edges(start_us, end_us)
    count = len(wanted)
    there = ~np.isnan(rates)
    times, rates = times[there], rates[there]
    if len(times) < 2:
        return Hourly(first, np.zeros(count), np.zeros(count), wanted)
    inside = edges[(edges > times[0]) & (edges < times[-1])]
    cuts = np.union1d(times, inside)
    values = np.interp(cuts, times, rates)
    middle = (cuts[:-1] + cuts[1:]) // 2
    piece = np.searchsorted(times, middle, side="right") - 1
    seconds = np.diff(cuts) / 1e6
    known = (np.diff(times) / 1e6 <= longest_gap)[np.clip(piece, 0, len(times) - 2)]
    known &= (middle >= start_us) & (middle < end_us)
    hour = np.searchsorted(edges, middle[known], side="right") - 1
    amount = (values[:-1] + values[1:])[known] / 2 * (seconds[known] / 3600)
    return Hourly(
        first,
        np.bincount(hour, weights=amount, minlength=count).astype(np.float64),
        np.bincount(hour, weights=seconds[known], minlength=count).astype(np.float64),
        wanted,
    )


def differences(times: Times, counts: Floats, start_us: int, end_us: int, longest_gap: float) -> Hourly:
    """Returns by how much a counter, such as a water meter, increased in each hour of [start, end).

    A counter that falls has been reset to 0. The arguments are those of `integrate`.
    """
    there = ~np.isnan(counts)
    times, counts = times[there], counts[there]
    if len(times) < 2:
        return integrate(times, counts, start_us, end_us, longest_gap)
    steps = np.diff(counts)
    steps = np.where(steps < 0, counts[1:], steps)
    hours = np.diff(times) / HOUR_US
    # Each increase is spread evenly over the time between its readings, as a constant rate
    twice = np.repeat(np.where(hours > 0, steps / np.where(hours > 0, hours, 1.0), 0.0), 2)
    bounds = np.repeat(times, 2)[1:-1].copy()
    bounds[1:-1:2] -= 1  # by 1 µs, since the rate changes abruptly at each reading
    return integrate(bounds, twice, start_us, end_us, longest_gap)


def nothing(start_us: int, end_us: int) -> Hourly:
    """Returns zero amounts for a range of which no time is wanted."""
    first, _, wanted = _edges(start_us, end_us)
    empty = np.zeros(len(wanted))
    return Hourly(first, empty, empty, empty)


def add(parts: Iterable[Hourly], start_us: int, end_us: int) -> Hourly:
    """Adds the amounts of several machines over the same range."""
    total = nothing(start_us, end_us)
    for part in parts:
        total = Hourly(
            total.first, total.amount + part.amount, total.covered + part.covered, total.wanted + part.wanted
        )
    return total


def mean_of(times: Times, values: Floats, start_us: int, end_us: int, longest_gap: float) -> Floats:
    """Returns the mean of a sensor in each hour; NaN for hours without coverage."""
    hourly = integrate(times, values, start_us, end_us, longest_gap)
    known = hourly.covered > 0
    return np.where(known, hourly.amount / np.where(known, hourly.covered / 3600, 1.0), np.nan)


@functools.lru_cache(maxsize=16)  # the accounts of many machines share the arrays of their range
def _edges(start_us: int, end_us: int) -> tuple[int, Times, Floats]:
    """Returns the first hour of a range, the edges of its hours in µs, and the seconds of each hour within it."""
    first = start_us // HOUR_US
    last = -(-end_us // HOUR_US)
    edges = np.arange(first, last + 1, dtype=np.int64) * HOUR_US
    edges[0], edges[-1] = start_us, end_us
    wanted = np.diff(edges) / 1e6
    for array in (edges, wanted):
        array.flags.writeable = False
    return first, edges, wanted
