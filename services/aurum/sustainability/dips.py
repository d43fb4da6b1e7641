"""Finds readings of a counter that are too low: drops from which it returns to its former level."""

from dataclasses import dataclass
from statistics import median_low

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_SMALL = 0.1  # share of the level; a smaller drop may recover slowly
_DEEP = 0.5  # share of the level; a drop to less than it must recover faster than the counter usually counts
_FASTER = 3.0  # times the usual rate
_ZERO = 0.1  # share of the level; of a counter that runs both ways, only a drop to less than it is a dip
_FASTER_BOTH_WAYS = 10.0  # times the usual rate
_REGAINED = 0.9  # share of the level that a jump must regain
_RISES = 8  # of which the usual rate is the median
_LOOK_BACK = 24  # readings among which they are searched


@dataclass(frozen=True, slots=True)
class Dip:
    """Consecutive readings that are too low.

    Attributes:
        first: Index of the first one.
        last: Index of the last one.
        level: The count before them.
        depth: How far the lowest one is below it.
    """

    first: int
    last: int
    level: float
    depth: float


def find_dips(times: Times, counts: Floats, recovery_seconds: float, *, both_ways: bool = False) -> list[Dip]:
    """Returns the dips of a counter, in their order; of those within one another only the outermost.

    Args:
        times: µs since 1970, ascending.
        counts: The counter at each time.
        recovery_seconds: Time from the reading before a dip to the one after it, at most.
        both_ways: Whether the counter also runs backwards, so that it may fall and rise again without any fault.
    """
    if not (np.diff(counts) < 0).any():
        return []
    regained = _recoveries(counts, _REGAINED)
    jumps = {before: after for before, after, _ in regained}
    dips: list[Dip] = []
    end = -1
    for before, after, lowest in regained if both_ways else _recoveries(counts, 1.0):
        if before < end or times[after] - times[before] > recovery_seconds * 1e6:
            continue
        fall = _Fall(times, counts, before, jumps.get(before, after), lowest, recovery_seconds)
        if fall.is_false_both_ways() if both_ways else fall.is_false_one_way():
            dips.append(Dip(before + 1, after - 1, fall.level, fall.depth))
            end = after
    return dips


@dataclass(frozen=True, slots=True)
class _Fall:
    """A drop with its recovery.

    Attributes:
        times: µs since 1970, ascending.
        counts: The counter at each time.
        before: Index of the reading before the drop.
        jump: Index of the reading with which most of the level is regained.
        lowest: The lowest count in between.
        recovery_seconds: Time before the drop from which the usual rate is taken.
    """

    times: Times
    counts: Floats
    before: int
    jump: int
    lowest: float
    recovery_seconds: float

    @property
    def level(self) -> float:
        return float(self.counts[self.before])

    @property
    def depth(self) -> float:
        return self.level - self.lowest

    def is_false_one_way(self) -> bool:
        if self.depth <= _SMALL * abs(self.level):
            return True
        return self._jumps_back() and (self.lowest > _DEEP * self.level or self._is_faster_than_usual(_FASTER))

    def is_false_both_ways(self) -> bool:
        falls_to_zero = self.level > 0 and self.lowest < _ZERO * self.level
        return falls_to_zero and self._jumps_back() and self._is_faster_than_usual(_FASTER_BOTH_WAYS, both_ways=True)

    def _step(self) -> float:
        return float(self.counts[self.jump] - self.counts[self.jump - 1])

    def _jumps_back(self) -> bool:
        return self._step() > self.depth / 2

    def _is_faster_than_usual(self, factor: float, *, both_ways: bool = False) -> bool:
        usual = usual_rate(self.times, self.counts, self.before, self.recovery_seconds, both_ways=both_ways)
        seconds = float(self.times[self.jump] - self.times[self.jump - 1]) / 1e6
        return usual is None or self._step() > factor * usual * seconds


def usual_rate(times: Times, counts: Floats, until: int, seconds: float, *, both_ways: bool = False) -> float | None:
    """Returns the usual rate at which a counter rises, per second; None if there is no rise to tell it from.

    It is the median of up to eight rises. A rise that leads from less than half of an earlier level back to it does
    not count, since it is a recovery. Of a counter that runs both ways, it is the median of rises and falls.

    Args:
        times: µs since 1970, ascending.
        counts: The counter at each time.
        until: Index of the last reading to consider.
        seconds: Time before that reading to consider.
        both_ways: Whether the counter also runs backwards.
    """
    earliest = int(times[until]) - round(seconds * 1e6)
    begin = max(until - _LOOK_BACK, int(np.searchsorted(times, earliest)))
    window, lasted = counts[begin : until + 1], np.diff(times[begin : until + 1]) / 1e6
    steps, before, after = np.diff(window), window[:-1], window[1:]
    if both_ways:
        usable = (steps != 0) & (lasted > 0)
    else:
        highest = np.maximum.accumulate(before)
        recovers = (before < _DEEP * highest) & (after >= _REGAINED * highest)
        usable = (steps > 0) & (lasted > 0) & ~recovers
    rates = np.abs(steps[usable] / lasted[usable])[-_RISES:].tolist()
    return median_low(rates) if rates else None


def _recoveries(counts: Floats, share: float) -> list[tuple[int, int, float]]:
    """Returns for each drop the reading before it, the next one at its level or above, and the lowest in between.

    They are ordered by the reading before. Drops without recovery are left out.

    Args:
        counts: The counter.
        share: Share of the level that has to be regained.
    """
    values = counts.tolist()
    found: list[tuple[int, int, float]] = []
    waiting: list[tuple[int, float]] = []  # index and lowest count from it on, with descending counts
    for index, value in enumerate(values):
        while waiting and share * values[waiting[-1][0]] <= value:
            before, since = waiting.pop()
            if since < values[before]:
                found.append((before, index, since))
            if waiting:
                waiting[-1] = (waiting[-1][0], min(waiting[-1][1], since))
        if waiting:
            waiting[-1] = (waiting[-1][0], min(waiting[-1][1], value))
        waiting.append((index, value))
    found.sort()
    return found
