"""Turns the readings of a counter, such as an energy, water or production meter, into consumption.

What meters in the field do, and what `consumption` makes of it:

- **Jitter and false readings.** A drop from which the counter returns to its former level or above within
  `recovery_seconds` is no restart if it was at most a tenth of the level, or if a single step of more than half of it
  leads back to nine tenths of the level. After a fall to less than half of the level, that step must also be of more
  than three times the usual rate, because a counter that restarts often climbs back as well. The readings in between
  are ignored.
- **Wrap-around.** A counter with a declared modulus that falls has passed it, if the increase is at most a third of
  the modulus. Without a declaration, whole numbers in the last sixteenth of 16 or 32 bits that fall into the first
  sixteenth have.
- **Jitter that does not recover.** A fall by at most a tenth of the level counts as nothing.
- **Restart.** After any other fall the counter has started from zero, and what it shows was consumed since then.
- **Replacement.** If that is more than a tenth of the former level and more than ten times what the usual rate
  explains, another counter took its place. What it shows is where it begins, and counts as nothing.
- **Feed-in.** The decreases of a counter that runs both ways are what was fed in. Exceptions are wrap-arounds, and
  falls to less than a tenth of the level by more than ten times the usual rate: they are false readings if nine tenths
  of the level are regained as fast, and restarts if not.

Each decision depends only on readings from twice `recovery_seconds` before to `recovery_seconds` after it, and on the
last reading before them. So sums over adjacent ranges add up to the sum over the whole range.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from aurum.sustainability.dips import Dip, find_dips, usual_rates

Times = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
CorrectionKind = Literal["false_reading", "jitter", "wrap", "restart", "replacement", "gap", "long_gap"]

RECOVERY_SECONDS = 43_200.0  # of a counter whose plan does not state it; inverters report zero for a night

_SMALL = 0.1  # share of the level; a smaller fall is no restart
_REGISTERS = (2.0**16, 2.0**32)
_REGISTER_EDGE = 1 / 16  # share of an undeclared modulus before and after a wrap-around
_LONGEST_STEP = 1 / 3  # of a declared modulus, in one step
_IMPLAUSIBLE = 10.0  # times the usual rate


@dataclass(frozen=True, slots=True)
class CounterRules:
    """What is declared of a counter.

    Attributes:
        modulus: Where the counter starts from zero again, in its own unit; None if that is not declared.
        detects_registers: Whether to recognise counters of 16 and 32 bits without a declared modulus.
        recovery_seconds: Time within which a drop that recovers is a false reading.
        both_ways: Whether the counter also runs backwards, for energy that is fed in.
    """

    modulus: float | None = None
    detects_registers: bool = True
    recovery_seconds: float = RECOVERY_SECONDS
    both_ways: bool = False


@dataclass(frozen=True, slots=True)
class Correction:
    """A place where consumption is not the plain difference of two readings.

    Attributes:
        kind: What was corrected.
        start_us: Time of the first reading concerned, in µs since 1970.
        end_us: Time of the last one.
        amount: For false_reading and jitter, the depth of the fall, which is ignored. For wrap, restart and gap, the
            increase that is counted. For replacement, what the new counter began with, which is not counted. For
            long_gap, the increase that is not counted. In the unit of the counter.
    """

    kind: CorrectionKind
    start_us: int
    end_us: int
    amount: float


@dataclass(frozen=True, slots=True)
class Consumption:
    """What a counter counted between its readings.

    Attributes:
        times: Times of the readings that are used, in µs since 1970, ascending.
        increases: Consumption from each of them to the next, at least 0.
        decreases: What was fed in from each of them to the next, at least 0; all 0 if the counter runs one way.
        corrections: What was corrected, by time.
    """

    times: Times
    increases: Floats
    decreases: Floats
    corrections: list[Correction]


def consumption(times: Times, counts: Floats, rules: CounterRules) -> Consumption:
    """Returns what a counter counted between its readings. The module's description says how.

    Args:
        times: µs since 1970. The order of the readings does not matter, and each may be there several times.
        counts: The counter at each time. Readings that are no finite number are ignored.
        rules: What is declared of the counter.
    """
    times, counts = _sorted_once(times, counts)
    dips = find_dips(times, counts, rules.recovery_seconds, both_ways=rules.both_ways)
    used = np.ones(len(times), dtype=bool)
    for dip in dips:
        used[dip.first : dip.last + 1] = False
    corrections = [_ignored(dip, times) for dip in dips]
    kept = np.flatnonzero(used)
    steps = np.diff(counts[kept])
    increases, decreases = np.maximum(steps, 0.0), np.zeros(len(steps))
    positions = np.flatnonzero(_unusual(steps, rules))
    rates = usual_rates(times, counts, kept[positions], rules.recovery_seconds, both_ways=rules.both_ways)
    for position, rate in zip(positions.tolist(), rates.tolist(), strict=True):
        before, after = int(kept[position]), int(kept[position + 1])
        seconds = float(times[after] - times[before]) / 1e6
        usual = rate * seconds if seconds <= rules.recovery_seconds else math.nan
        step, kind, amount = _corrected_step(float(counts[before]), float(counts[after]), usual, rules)
        increases[position], decreases[position] = max(step, 0.0), max(-step, 0.0)
        if kind is not None:
            corrections.append(Correction(kind, int(times[after]), int(times[after]), amount))
    corrections.sort(key=lambda correction: correction.start_us)
    return Consumption(times[kept], increases, decreases, corrections)


def _sorted_once(times: Times, counts: Floats) -> tuple[Times, Floats]:
    """Returns the finite readings by time, those of one time by count, each once."""
    finite = np.isfinite(counts)
    times, counts = times[finite], counts[finite]
    order = np.lexsort((counts, times))
    times, counts = times[order], counts[order]
    if len(times) < 2:
        return times, counts
    first = np.concatenate([[True], (np.diff(times) > 0) | (np.diff(counts) > 0)])
    return times[first], counts[first]


def _unusual(steps: Floats, rules: CounterRules) -> npt.NDArray[np.bool_]:
    """Returns which steps need a decision: falls and, if the counter runs both ways, wraps in both directions."""
    if rules.both_ways and rules.modulus is not None:
        return (steps < 0) | (steps > (1 - _LONGEST_STEP) * rules.modulus)
    return steps < 0


def _ignored(dip: Dip, times: Times) -> Correction:
    kind: CorrectionKind = "jitter" if dip.depth <= _SMALL * abs(dip.level) else "false_reading"
    return Correction(kind, int(times[dip.first]), int(times[dip.last]), dip.depth)


def _corrected_step(
    level: float, count: float, usual: float, rules: CounterRules
) -> tuple[float, CorrectionKind | None, float]:
    """Returns the consumption of a step, what was corrected, and the amount of the correction.

    Args:
        level: The counter before it.
        count: The counter after it.
        usual: The usual increase in its time; NaN if it is not known, which makes any increase plausible.
        rules: What is declared of the counter.
    """
    passed = _passed(level, count, rules)
    if passed is not None:
        return passed, "wrap", passed
    if rules.both_ways:
        restarted = count < _SMALL * level and level - count > _IMPLAUSIBLE * usual
        return (count, "restart", count) if restarted else (count - level, None, 0.0)
    if level - count <= _SMALL * abs(level):
        return 0.0, "jitter", level - count
    if count > _SMALL * level and count > _IMPLAUSIBLE * usual:
        return 0.0, "replacement", count
    return max(count, 0.0), "restart", max(count, 0.0)


def _passed(level: float, count: float, rules: CounterRules) -> float | None:
    """Returns the increase, negative for a decrease, of a counter that passed its modulus; None if it did not."""
    modulus = rules.modulus
    if modulus is not None:
        if not (0 <= level <= modulus and 0 <= count <= modulus):
            return None
        step = count - level + (modulus if count < level else -modulus)
        return step if abs(step) <= _LONGEST_STEP * modulus else None
    if not rules.detects_registers or rules.both_ways or not (level.is_integer() and count.is_integer()):
        return None
    for register in _REGISTERS:
        edge = _REGISTER_EDGE * register
        if register - edge <= level < register and 0 <= count < edge:
            return register - level + count
    return None
