"""Corrections of counters as an account tells them: the first ones in full, and the number of each kind."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from aurum.sustainability.counters import Consumption, Correction, CorrectionKind
from aurum.sustainability.hourly import LONGEST_BRIDGE_US, TimeRange

MAX_LISTED = 50  # corrections that are listed one by one


@dataclass(frozen=True, slots=True)
class MeterCorrection:
    """A correction of a meter's readings.

    Attributes:
        kind: What was corrected.
        sensor: The sensor.
        start_us: Time of the first reading concerned, in µs since 1970.
        end_us: Time of the last one.
        amount: How much was corrected, in `unit`; see `counters.Correction`.
        unit: kWh, l or the unit of production.
    """

    kind: CorrectionKind
    sensor: str
    start_us: int
    end_us: int
    amount: float
    unit: str


@dataclass(frozen=True, slots=True)
class CorrectionLog:
    """The corrections of one machine.

    Attributes:
        listed: The first ones.
        counts: The number of all, by kind.
    """

    listed: tuple[MeterCorrection, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, corrections: Iterable[MeterCorrection]) -> "CorrectionLog":
        """Returns the log of some corrections."""
        ordered = sorted(corrections, key=lambda each: (each.start_us, each.sensor))
        counts: dict[str, int] = {}
        for each in ordered:
            counts[each.kind] = counts.get(each.kind, 0) + 1
        return cls(tuple(ordered[:MAX_LISTED]), counts)


NO_CORRECTIONS = CorrectionLog()


def corrections_within(  # noqa: PLR0917 - a meter, and what the account asks for
    sensor: str, used: Consumption, over: TimeRange, longest_gap: float, factor: float, unit: str
) -> list[MeterCorrection]:
    """Returns the corrections that concern a range.

    Args:
        sensor: The counter.
        used: What it counted.
        over: The range.
        longest_gap: Seconds. Increases between two readings that are further apart are corrections too.
        factor: Converts the counter's unit.
        unit: The unit that results.
    """
    return [
        MeterCorrection(each.kind, sensor, each.start_us, each.end_us, each.amount * factor, unit)
        for each in (*used.corrections, *_gaps(used, longest_gap))
        if each.start_us < over.end and each.end_us >= over.start
    ]


def _gaps(used: Consumption, longest_gap: float) -> Iterable[Correction]:
    if len(used.times) < 2:
        return
    lasted = np.diff(used.times)
    for index in np.flatnonzero((lasted > longest_gap * 1e6) & (used.increases + used.decreases > 0)).tolist():
        kind: CorrectionKind = "gap" if lasted[index] <= LONGEST_BRIDGE_US else "long_gap"
        amount = float(used.increases[index] + used.decreases[index])
        yield Correction(kind, int(used.times[index]), int(used.times[index + 1]), amount)
