"""Finds readings of a counter that are too low: drops from which it returns to its former level."""

from dataclasses import dataclass
from typing import Any

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
_ROWS = 4096  # falls whose usual rates are computed at once


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
    limit = recovery_seconds * 1e6
    falls = [
        _Fall(before, after, jumps.get(before, after), float(counts[before]), lowest)
        for before, after, lowest in (regained if both_ways else _recoveries(counts, 1.0))
        if times[after] - times[before] <= limit
    ]
    indices = np.array([fall.before for fall in falls], dtype=np.int64)
    usual = usual_rates(times, counts, indices, recovery_seconds, both_ways=both_ways).tolist()
    dips: list[Dip] = []
    end = -1
    for fall, rate in zip(falls, usual, strict=True):
        if fall.before < end:
            continue
        step, seconds = fall.regained_in_one_step(times, counts)
        is_false = _is_false_both_ways if both_ways else _is_false_one_way
        if is_false(fall, step, rate * seconds):
            dips.append(Dip(fall.before + 1, fall.after - 1, fall.level, fall.level - fall.lowest))
            end = fall.after
    return dips


@dataclass(frozen=True, slots=True)
class _Fall:
    """A drop with its recovery.

    Attributes:
        before: Index of the reading before the drop.
        after: Index of the first one at its level or above.
        jump: Index of the first one at most of its level.
        level: The count before the drop.
        lowest: The lowest count after it.
    """

    before: int
    after: int
    jump: int
    level: float
    lowest: float

    def regained_in_one_step(self, times: Times, counts: Floats) -> tuple[float, float]:
        """Returns the increase of the step that leads to most of the level, and its seconds."""
        last = self.jump - 1
        return float(counts[self.jump] - counts[last]), float(times[self.jump] - times[last]) / 1e6


def _is_false_one_way(fall: _Fall, step: float, usual: float) -> bool:
    """usual: The usual increase in the time of the step; NaN if it is not known."""
    depth = fall.level - fall.lowest
    if depth <= _SMALL * abs(fall.level):
        return True
    return step > depth / 2 and (fall.lowest > _DEEP * fall.level or not step <= _FASTER * usual)


def _is_false_both_ways(fall: _Fall, step: float, usual: float) -> bool:
    falls_to_zero = fall.level > 0 and fall.lowest < _ZERO * fall.level
    return falls_to_zero and step > (fall.level - fall.lowest) / 2 and not step <= _FASTER_BOTH_WAYS * usual


def usual_rates(times: Times, counts: Floats, until: Times, seconds: float, *, both_ways: bool = False) -> Floats:
    """Returns the usual rates at which a counter rises before some readings, per second.

    Each is the median of up to eight rises, and NaN if there is none. A rise that leads from less than half of an
    earlier level back to it does not count, since it is a recovery. Of a counter that runs both ways, it is the median
    of rises and falls.

    Args:
        times: µs since 1970, ascending.
        counts: The counter at each time.
        until: Indices of the readings before which the rises are.
        seconds: Time before each of these readings to consider.
        both_ways: Whether the counter also runs backwards.
    """
    rates = np.full(len(until), np.nan)
    for begin in range(0, len(until), _ROWS):
        part = until[begin : begin + _ROWS, np.newaxis]
        index = part + np.arange(-_LOOK_BACK, 1)
        inside = (index >= 0) & (times[index.clip(0)] >= times[part] - seconds * 1e6)
        window = np.where(inside, counts[index.clip(0)], -np.inf)
        before, after = window[:, :-1], window[:, 1:]
        steps, lasted = _differences(window), _differences(times[index.clip(0)]) / 1e6
        usable = inside[:, :-1] & (lasted > 0) & (steps != 0)
        if not both_ways:
            highest = np.maximum.accumulate(before, axis=1)
            usable &= (steps > 0) & ~((before < _DEEP * highest) & (after >= _REGAINED * highest))
        usable &= usable[:, ::-1].cumsum(axis=1)[:, ::-1] <= _RISES
        found = np.full(steps.shape, np.inf)
        np.divide(np.abs(steps), lasted, out=found, where=usable)
        found.sort(axis=1)
        number = usable.sum(axis=1)
        middle = found[np.arange(len(part)), (number - 1).clip(0) // 2]
        rates[begin : begin + _ROWS] = np.where(number > 0, middle, np.nan)
    return rates


def _differences(rows: npt.NDArray[Any]) -> Floats:
    """Returns the differences within each row; 0 between two values of minus infinity."""
    differences = np.zeros((len(rows), rows.shape[1] - 1))
    np.subtract(rows[:, 1:], rows[:, :-1], out=differences, where=rows[:, 1:] > -np.inf)
    return differences


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
