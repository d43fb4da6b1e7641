"""Corrections of counters as an account tells them: the first ones in full, and the number of each kind."""

from collections import Counter
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
    def joined(cls, logs: Iterable["CorrectionLog"]) -> "CorrectionLog":
        """Returns the log of several meters."""
        listed: list[MeterCorrection] = []
        counts: Counter[str] = Counter()
        for log in logs:
            listed += log.listed
            counts.update(log.counts)
        listed.sort(key=lambda each: (each.start_us, each.sensor))
        return cls(tuple(listed[:MAX_LISTED]), dict(counts))


NO_CORRECTIONS = CorrectionLog()


def corrections_that_begin(
    used: Consumption, over: TimeRange, longest_gap: float, *, earlier: bool
) -> list[Correction]:
    """Returns the corrections that begin in a range, by time, so that adjacent ranges have each of them once.

    Args:
        used: What the counter counted.
        over: The range.
        longest_gap: Seconds. Increases between two readings that are further apart are corrections too.
        earlier: Whether those that begin before the range and end in it are contained as well.
    """
    return sorted(
        (
            each
            for each in (*used.corrections, *_gaps(used, longest_gap))
            if each.start_us < over.end and (each.end_us if earlier else each.start_us) >= over.start
        ),
        key=lambda each: each.start_us,
    )


def _gaps(used: Consumption, longest_gap: float) -> Iterable[Correction]:
    if len(used.times) < 2:
        return
    lasted = np.diff(used.times)
    for index in np.flatnonzero((lasted > longest_gap * 1e6) & (used.increases + used.decreases > 0)).tolist():
        kind: CorrectionKind = "gap" if lasted[index] <= LONGEST_BRIDGE_US else "long_gap"
        amount = float(used.increases[index] + used.decreases[index])
        yield Correction(kind, int(used.times[index]), int(used.times[index + 1]), amount)
