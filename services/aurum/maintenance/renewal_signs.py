"""Finds stops after which a machine's sensors read again as at the beginning of its life, as after an overhaul.

That is a statistical sign and no fact: a person confirms it with a maintenance record, or says in one what else was
done. A stop of which a record tells is therefore not a sign.

Within the time from the beginning of a life to a stop, a sensor *shows wear* if its means over twenty equal parts move
one way, and farther than they scatter. It has *gone back* if its mean after the stop has left the last level before the
stop and is near the level at the beginning. A stop is a sign if at least two sensors show wear and nearly all of these
go back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from aurum.maintenance.records import Record
from aurum.readings.batch import Column, Values
from aurum.readings.history import AXES, LABELS, LIFE_NUMBERS, Run
from aurum.runtime.time_units import HOUR_US

_NO_SENSORS = AXES.keys() | LABELS | LIFE_NUMBERS
Times = npt.NDArray[np.int64]

SHORTEST_STOP_US = 2 * HOUR_US
MOST_STOPS = 200  # of a life that are examined, the longest
_USUAL_STEPS = 10  # a stop is so many times as long as the usual time between readings
_PARTS = 20  # of the time before a stop
_LEVEL_PARTS = 3  # of which the first and the last level are means
_PART_READINGS = 5  # that a part has at least
_ONE_WAY = 0.8  # rank correlation of the means with time from which on they move one way
_CLEAR = 8.0  # change by wear, in standard deviations of the means of parts
_BACK = (0.7, 1.3)  # share of the change by wear that is undone
_LEAST_SENSORS = 2
_MOST_LEFT = 0.2  # share of the sensors that show wear and may not have gone back
_MOST_DESCRIBED = 3  # sensors
_TOLD_BESIDE_US = 12 * HOUR_US  # between a stop and the times that people record of it


@dataclass(frozen=True, slots=True)
class SensorLevels:
    """The levels of a sensor that shows wear.

    Attributes:
        sensor: The sensor.
        begin: Its mean at the beginning of the life.
        before: Its mean before the stop.
        after: Its mean after the stop.
    """

    sensor: str
    begin: float
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class RenewalSign:
    """A stop after which a machine reads as new.

    Attributes:
        from_us: The last reading before the stop, in µs since 1970.
        to_us: The first reading after it.
        levels: The sensors that went back.
        staying: The sensors that show wear and did not go back.
    """

    from_us: int
    to_us: int
    levels: Sequence[SensorLevels]
    staying: Sequence[str] = ()

    def describe(self) -> str:
        """Returns when the machine stopped and which sensors went back, as text."""
        stop = " to ".join(
            datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M") for at_us in (self.from_us, self.to_us)
        )
        shown = ", ".join(
            f"{each.sensor} from {each.before:.4g} to {each.after:.4g} ({each.begin:.4g} at the beginning)"
            for each in self.levels[:_MOST_DESCRIBED]
        )
        more = len(self.levels) - _MOST_DESCRIBED
        return f"stop {stop} UTC: {shown}{f' and {more} more sensors' if more > 0 else ''}"


def renewal_signs(life: Run, told: Sequence[Record] = ()) -> list[RenewalSign]:
    """Returns the stops in a life after which the machine reads as at its beginning, by time.

    Args:
        life: The readings of a machine in one life, as far as lives are known.
        told: The maintenance records of the machine.
    """
    sensors = {
        name: (life.timestamps[known], values[known])
        for name, values in life.columns.items()
        if name.lower() not in _NO_SENSORS
        for known in [np.isfinite(values)]
        if known.any() and not _is_counter(values[known])
    }
    if len(sensors) < _LEAST_SENSORS:
        return []
    told_of = [(record.from_us, record.end_us) for record in told if record.kind is not None and not record.deleted]
    times = np.unique(np.concatenate([times for times, _ in sensors.values()]))
    signs: list[RenewalSign] = []
    begin = int(times[0])
    for from_us, to_us in stops_between(times):
        with np.errstate(over="ignore", invalid="ignore"):  # readings near the limits of float64 have no finite means
            sign = _sign(sensors, begin, from_us, to_us)
        if sign is None:
            continue
        begin = to_us  # also if a record tells of it: what follows is compared with a life of its own
        if not any(_is_beside(sign, *each) for each in told_of):
            signs.append(sign)
    return signs


def stops_between(times: Times) -> list[tuple[int, int]]:
    """Returns the times without any reading that are long enough to be stops: last reading before, first one after."""
    steps = np.diff(times)
    if not len(steps):
        return []
    shortest = max(SHORTEST_STOP_US, _USUAL_STEPS * float(np.median(steps)))
    found = np.flatnonzero(steps >= shortest)
    if len(found) > MOST_STOPS:
        found = np.sort(found[np.argsort(-steps[found], kind="stable")[:MOST_STOPS]])
    return [(int(times[index]), int(times[index + 1])) for index in found]


def _sign(sensors: Mapping[str, Column], begin: int, from_us: int, to_us: int) -> RenewalSign | None:
    """Returns the sign that a stop is, or None."""
    back, staying = [], []
    for name, (times, values) in sensors.items():
        first, stop, after = np.searchsorted(times, [begin, from_us + 1, to_us])
        worn = _wear(values[first:stop])
        if worn is None:
            continue
        part = max(_PART_READINGS, (stop - first) // _PARTS)
        following = values[after : after + 2 * part]
        if len(following) < part:
            continue
        begun, before = worn
        level = float(following.mean())
        if _BACK[0] <= (before - level) / (before - begun) <= _BACK[1]:
            back.append(SensorLevels(name, begun, before, level))
        else:
            staying.append(name)
    if len(back) < _LEAST_SENSORS or len(staying) > _MOST_LEFT * (len(back) + len(staying)):
        return None
    return RenewalSign(from_us, to_us, back, staying)


def _wear(values: Values) -> tuple[float, float] | None:
    """Returns the first and the last level of readings that show wear, or None if they do not."""
    if len(values) < _PARTS * _PART_READINGS:
        return None
    means = np.array([part.mean() for part in np.array_split(values, _PARTS)])
    ranks = np.argsort(np.argsort(means, kind="stable"), kind="stable")
    if abs(float(np.corrcoef(ranks, np.arange(_PARTS))[0, 1])) < _ONE_WAY:
        return None
    begun, before = float(means[:_LEVEL_PARTS].mean()), float(means[-_LEVEL_PARTS:].mean())
    # Second differences: a steady change by wear is not scatter
    scatter = float(np.sqrt(np.mean(np.diff(means, 2) ** 2) / 6))
    change = abs(before - begun)
    return (begun, before) if np.isfinite(change) and change > max(_CLEAR * scatter, 0.0) else None


def _is_counter(values: Values) -> bool:
    """Whether readings never fall, as those of a meter, or never change."""
    return bool((values[1:] >= values[:-1]).all())


def _is_beside(sign: RenewalSign, from_us: int, to_us: int) -> bool:
    return from_us <= sign.to_us + _TOLD_BESIDE_US and to_us >= sign.from_us - _TOLD_BESIDE_US
