"""Sums what meters measured, from all readings of their series: some days of some series at a time, never reduced."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from aurum.ingestion.meter_window import MeterWindow, SeriesReads, read_window
from aurum.ingestion.store import TOO_MANY_READINGS
from aurum.readings.batch import SeriesKey
from aurum.runtime.errors import InvalidArgumentError
from aurum.runtime.time_units import DAY_US, HOUR_US
from aurum.sustainability.corrections import MAX_LISTED, corrections_that_begin
from aurum.sustainability.counters import Correction, CounterRules, consumption
from aurum.sustainability.hourly import (
    Floats,
    HourlyAmounts,
    TimeRange,
    add_zero_crossings,
    integrate,
    spread_increases,
)

_DAYS_AT_ONCE = 4 * DAY_US  # of a series; fewer if it has too many readings
_SERIES_AT_ONCE = 64
_SHORTEST = HOUR_US  # part of a range that is divided further only by reading it in pieces


@dataclass(frozen=True, slots=True)
class MeteredSeries:
    """A series of a meter.

    Attributes:
        key: Its machine and sensor.
        counter: What is declared of a counter; None for a rate.
        both_ways: Whether negative rates, or decreases of the counter, are summed separately.
    """

    key: SeriesKey
    counter: CounterRules | None = None
    both_ways: bool = False


@dataclass(frozen=True, slots=True)
class Grid:
    """A range, and how it is divided.

    Attributes:
        over: The range.
        width_us: The width of the intervals, which begin at its multiples since 1970.
        longest_gap: Seconds. Time between two readings that are further apart is not covered.
    """

    over: TimeRange
    width_us: int
    longest_gap: float

    @property
    def intervals(self) -> int:
        """The number of intervals that the range touches."""
        return -(-self.over.end // self.width_us) - self.over.start // self.width_us


@dataclass(slots=True)
class MeterSums:
    """What a meter measured in the intervals of a grid.

    Attributes:
        amounts: The amount of each interval.
        reverse: What ran backwards in each; None for a meter that runs one way.
        covered: Seconds of each interval between readings that are close enough.
        bridged: Seconds in longer gaps of a counter whose increase is known.
        readings: The number of readings that were used, or that lie around the range.
        corrections: The first corrections of a counter.
        counts: The number of all corrections, by kind.
    """

    amounts: Floats
    reverse: Floats | None
    covered: Floats
    bridged: float = 0.0
    readings: int = 0
    corrections: list[Correction] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def empty(cls, intervals: int, *, both_ways: bool) -> "MeterSums":
        """Returns sums of nothing."""
        return cls(np.zeros(intervals), np.zeros(intervals) if both_ways else None, np.zeros(intervals))

    def add(self, part: HourlyAmounts, reverse: HourlyAmounts | None, first: int) -> None:
        """Adds the amounts of a part of the range. first: The number of the grid's first interval since 1970."""
        where = slice(part.first - first, part.first - first + len(part.amount))
        self.amounts[where] += part.amount
        self.covered[where] += part.covered
        self.bridged += part.bridged
        if self.reverse is not None and reverse is not None:
            self.reverse[where] += reverse.amount

    def add_corrections(self, found: Sequence[Correction]) -> None:
        """Adds corrections, which begin later than those added before."""
        for each in found:
            self.counts[each.kind] = self.counts.get(each.kind, 0) + 1
        self.corrections += found[: MAX_LISTED - len(self.corrections)]


async def sum_meters(reads: SeriesReads, meters: Sequence[MeteredSeries], grid: Grid) -> list[MeterSums]:
    """Returns what meters measured in each interval of a grid, in their order.

    It holds the readings of some days of some series at a time, whatever the length of the range.

    Args:
        reads: Reads the series.
        meters: The meters.
        grid: The range, and how it is divided.

    Raises:
        InvalidArgumentError: A counter has too many readings for the time that decides about its falls.
        AurumError: The store did not answer.
    """
    sums = [MeterSums.empty(grid.intervals, both_ways=meter.both_ways) for meter in meters]
    rates = [index for index, meter in enumerate(meters) if meter.counter is None]
    counters = [index for index, meter in enumerate(meters) if meter.counter is not None]
    task = _Summing(reads, meters, grid, sums)
    for over in _parts(grid.over):
        for indexes in (rates, counters):
            for start in range(0, len(indexes), _SERIES_AT_ONCE):
                await task.add(indexes[start : start + _SERIES_AT_ONCE], over)
    return sums


def _parts(over: TimeRange) -> Iterator[TimeRange]:
    """Divides a range at whole days."""
    start = over.start
    while start < over.end:
        end = min(over.end, (start + _DAYS_AT_ONCE) // DAY_US * DAY_US)
        yield TimeRange(start, end)
        start = end


@dataclass(frozen=True, slots=True)
class _Summing:
    reads: SeriesReads
    meters: Sequence[MeteredSeries]
    grid: Grid
    sums: list[MeterSums]

    async def add(self, indexes: Sequence[int], over: TimeRange) -> None:
        """Adds what some meters, all rates or all counters, measured in a part of the range."""
        at = 0
        while at < len(indexes):
            some = indexes[at:]
            windows = await self._read(some, over)
            if windows is None:  # too many readings of one of them
                await self._add_dense(some[0], over)
                at += 1
                continue
            await asyncio.to_thread(self._sum, some[: len(windows)], windows, over)
            at += len(windows)

    async def _read(self, indexes: Sequence[int], over: TimeRange) -> list[MeterWindow] | None:
        """Returns the readings of the first of some meters; None if one of them has too many to read at once."""
        meters = [self.meters[index] for index in indexes]
        try:
            return await read_window(
                self.reads,
                [meter.key for meter in meters],
                over,
                self.grid.longest_gap,
                max((meter.counter.recovery_seconds for meter in meters if meter.counter is not None), default=None),
            )
        except InvalidArgumentError as error:
            if error.reason != TOO_MANY_READINGS:
                raise
            if len(indexes) > 1:
                return await self._read(indexes[:1], over)
            return None

    async def _add_dense(self, index: int, over: TimeRange) -> None:
        """Adds a meter with many readings in smaller parts of the range."""
        if over.end - over.start <= _SHORTEST:
            machine_id, sensor = self.meters[index].key
            raise InvalidArgumentError.for_field(
                "machine_ids",
                f"machine {machine_id}, sensor {sensor} has too many readings to be summed; state a shorter "
                "recovery_seconds of its counter, or send fewer readings of it",
            )
        middle = (over.start + over.end) // 2
        for half in (TimeRange(over.start, middle), TimeRange(middle, over.end)):
            await self.add([index], half)

    def _sum(self, indexes: Sequence[int], windows: Sequence[MeterWindow], over: TimeRange) -> None:
        for index, window in zip(indexes, windows, strict=True):
            self.sums[index].readings += len(window.times)
            if self.meters[index].counter is None:
                self._sum_rate(index, window, over)
            else:
                self._sum_counter(index, window, over)

    def _sum_rate(self, index: int, window: MeterWindow, over: TimeRange) -> None:
        times, rates = window.times, window.values
        grid, sums = self.grid, self.sums[index]
        first = grid.over.start // grid.width_us
        if sums.reverse is None:
            sums.add(integrate(times, rates, over.start, over.end, grid.longest_gap, grid.width_us), None, first)
            return
        times, rates = add_zero_crossings(times, rates, grid.longest_gap)
        drawn, reverse = (
            integrate(times, np.maximum(signed, 0.0), over.start, over.end, grid.longest_gap, grid.width_us)
            for signed in (rates, -rates)
        )
        sums.add(drawn, reverse, first)

    def _sum_counter(self, index: int, window: MeterWindow, over: TimeRange) -> None:
        grid, sums, rules = self.grid, self.sums[index], self.meters[index].counter
        if rules is None or not len(window.times):
            return
        used = consumption(window.times, window.values, rules)
        increases, decreases = (
            spread_increases(used.times, steps, over.start, over.end, grid.longest_gap, grid.width_us)
            for steps in (used.increases, used.decreases)
        )
        sums.add(increases, decreases, grid.over.start // grid.width_us)
        sums.add_corrections(
            corrections_that_begin(used, over, grid.longest_gap, earlier=over.start == grid.over.start)
        )
