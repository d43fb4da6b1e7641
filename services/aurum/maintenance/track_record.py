"""What became of predictions: hits, missed failures, false alarms, lead times, and calibration by month.

A *forecast* is a recorded prediction with its horizon and the machine's life counter. Recorded stops and decreases of
the counter divide a machine's forecasts into lives. A forecast has come true if its life ended in a failure within the
horizon, and is false if the life went on beyond the horizon. It is undecided while the life goes on, and if the machine
was overhauled within the horizon, since nobody knows whether it would have failed.

Successive forecasts of at least WARNED are one warning. A failure was predicted if a warning preceded it in its life;
the lead time is the life from the beginning of the last such warning to the failure. A warning was false if its first
forecast was false.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from aurum.readings.history import Stop

WARNED = 0.5  # risk from which a forecast is a warning, as in the model card
BINS = 10  # of the calibration, by risk
_MOST_LEAD_TIMES = 400  # of a month that are kept for the median; an event has 16 kB


@dataclass(frozen=True, slots=True)
class Forecast:
    """A recorded prediction.

    Attributes:
        at_us: Its time, in µs since 1970.
        life: The life counter at this time.
        horizon: The amount of life within which a failure counts.
        risk: The predicted probability of a failure within the horizon.
    """

    at_us: int
    life: float
    horizon: float
    risk: float


@dataclass(slots=True)
class Month:
    """What became of the forecasts and failures of one month.

    Attributes:
        told: Sum of the risks of decided forecasts, by bins of the risk.
        true: How many of them came true, by bins.
        decided: How many of them there are, by bins.
        squared: Sum of the squared errors of decided forecasts.
        undecided: Forecasts that are not decided.
        failures: Failures of machines that had forecasts.
        predicted: Those of them that a warning preceded.
        lead_times: The lead times of these, in the unit of the life.
        false_warnings: Warnings after which the machine ran on beyond the horizon.
        undecided_warnings: Warnings that are neither true nor false.
    """

    told: list[float] = field(default_factory=lambda: [0.0] * BINS)
    true: list[int] = field(default_factory=lambda: [0] * BINS)
    decided: list[int] = field(default_factory=lambda: [0] * BINS)
    squared: float = 0.0
    undecided: int = 0
    failures: int = 0
    predicted: int = 0
    lead_times: list[float] = field(default_factory=list)
    false_warnings: int = 0
    undecided_warnings: int = 0

    def add(self, other: "Month") -> None:
        """Adds the numbers of another machine."""
        for index in range(BINS):
            self.told[index] += other.told[index]
            self.true[index] += other.true[index]
            self.decided[index] += other.decided[index]
        self.squared += other.squared
        self.undecided += other.undecided
        self.failures += other.failures
        self.predicted += other.predicted
        self.lead_times = (self.lead_times + other.lead_times)[-_MOST_LEAD_TIMES:]
        self.false_warnings += other.false_warnings
        self.undecided_warnings += other.undecided_warnings

    @property
    def forecasts(self) -> int:
        """The number of decided forecasts."""
        return sum(self.decided)

    @property
    def mean_risk(self) -> float | None:
        """The mean risk of decided forecasts."""
        return sum(self.told) / self.forecasts if self.forecasts else None

    @property
    def failure_rate(self) -> float | None:
        """The share of decided forecasts that came true."""
        return sum(self.true) / self.forecasts if self.forecasts else None

    @property
    def calibration_error(self) -> float | None:
        """The expected calibration error of decided forecasts, over the bins."""
        if not self.forecasts:
            return None
        return sum(abs(told - true) for told, true in zip(self.told, self.true, strict=True)) / self.forecasts

    @property
    def skill(self) -> float | None:
        """The share by which the squared error is less than that of the base rate; None if all are in one class."""
        rate = self.failure_rate
        if rate is None or rate in (0.0, 1.0):
            return None
        return 1 - self.squared / self.forecasts / (rate * (1 - rate))

    @property
    def lead_time(self) -> float | None:
        """The median lead time, in the unit of the life."""
        return float(np.median(self.lead_times)) if self.lead_times else None


def month_of(at_us: int) -> str:
    """Returns the month of a time, such as 2026-05, in UTC."""
    return f"{datetime.fromtimestamp(at_us / 1e6, UTC):%Y-%m}"


def month_start(month: str) -> int:
    """Returns the beginning of a month, such as 2026-05, in µs since 1970. Raises ValueError."""
    return int(datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC).timestamp() * 1e6)


def track(forecasts: Iterable[Forecast], stops: Iterable[Stop]) -> dict[str, Month]:
    """Returns what became of the forecasts of one machine, by month.

    A forecast belongs to its own month, and so does a warning; a failure belongs to the month in which it happened.

    Args:
        forecasts: The forecasts of the machine.
        stops: Its recorded failures and overhauls.
    """
    ordered = sorted(forecasts, key=lambda each: each.at_us)
    ends = sorted((stop for stop in stops if stop.failed or stop.renewed), key=lambda stop: stop.from_us)
    months: dict[str, Month] = {}
    for life, stop in _lives(ordered, ends):
        _track_life(life, stop, months)
    return months


def _lives(forecasts: Sequence[Forecast], ends: Sequence[Stop]) -> Iterable[tuple[list[Forecast], Stop | None]]:
    """Yields the forecasts of each life, and the recorded stop that ended it, or None."""
    position = 0
    for stop in [*ends, None]:
        part: list[Forecast] = []
        while position < len(forecasts) and (stop is None or forecasts[position].at_us <= stop.from_us):
            part.append(forecasts[position])
            position += 1
        cuts = [index for index in range(1, len(part)) if part[index].life < part[index - 1].life]
        for start, end in itertools.pairwise([0, *cuts, len(part)]):
            if end > start:
                yield part[start:end], stop if end == len(part) else None
        if stop is not None and stop.to_us is not None:
            while position < len(forecasts) and forecasts[position].at_us < stop.to_us:
                position += 1  # while it was out of service


def _track_life(life: Sequence[Forecast], stop: Stop | None, months: dict[str, Month]) -> None:
    end = _life_at_end(life, stop)
    failed = stop is not None and stop.failed
    outcomes = [_outcome(each, end, failed) for each in life]
    for forecast, outcome in zip(life, outcomes, strict=True):
        month = months.setdefault(month_of(forecast.at_us), Month())
        if outcome is None:
            month.undecided += 1
            continue
        index = min(int(forecast.risk * BINS), BINS - 1)
        month.told[index] += forecast.risk
        month.true[index] += outcome
        month.decided[index] += 1
        month.squared += (forecast.risk - outcome) ** 2
    warnings = [
        index
        for index, each in enumerate(life)
        if each.risk >= WARNED and (index == 0 or life[index - 1].risk < WARNED)
    ]
    for index in warnings:
        month = months.setdefault(month_of(life[index].at_us), Month())
        month.false_warnings += outcomes[index] is False
        month.undecided_warnings += outcomes[index] is None
    if failed and stop is not None:
        month = months.setdefault(month_of(stop.from_us), Month())
        month.failures += 1
        if warnings:
            month.predicted += 1
            month.lead_times = [*month.lead_times, max(end - life[warnings[-1]].life, 0.0)][-_MOST_LEAD_TIMES:]


def _life_at_end(life: Sequence[Forecast], stop: Stop | None) -> float:
    """Returns the life counter at the end of a life, extrapolated from the last forecasts to the recorded stop."""
    last = life[-1]
    if stop is None or len(life) < 2 or last.at_us <= life[-2].at_us:
        return last.life
    rate = (last.life - life[-2].life) / (last.at_us - life[-2].at_us)
    return last.life + min(rate * max(stop.from_us - last.at_us, 0), last.horizon)


def _outcome(forecast: Forecast, end: float, failed: bool) -> bool | None:
    """Returns whether a forecast came true; None if it is undecided."""
    if end - forecast.life > forecast.horizon:
        return False
    return True if failed else None
