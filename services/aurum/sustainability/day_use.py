"""The use of the present day, compared with the usual use by the same time of the days before."""

from collections.abc import Sequence
from dataclasses import dataclass

from aurum.runtime.time_units import DAY_US, HOUR_US
from aurum.sustainability.hourly import Floats, TimeRange

DAYS = 7  # days before the present one, whose mean is the usual use
_MIN_COVERAGE = 0.5  # that a day needs to count for the mean


@dataclass(frozen=True, slots=True)
class HourUse:
    """The use in one hour, or in the part of it that is within a range.

    Attributes:
        start_us: Start in µs since 1970.
        end_us: End in µs since 1970, exclusive.
        amount: What was used.
        coverage: Share of the hour for which readings exist.
    """

    start_us: int
    end_us: int
    amount: float
    coverage: float


@dataclass(frozen=True, slots=True)
class DayUse:
    """The use since midnight.

    Attributes:
        amount: What was used.
        usual: The mean of the days before by the same time; None if none of them is covered well enough.
        days: The number of these days.
    """

    amount: float
    usual: float | None
    days: int


def hours_of_range(over: TimeRange, amounts: Floats, coverage: Floats) -> list[HourUse]:
    """Returns the use by hour, cut to a range.

    Args:
        over: The range.
        amounts: What was used in each hour of the range.
        coverage: Share of each hour for which readings exist.
    """
    hours = []
    for index, (amount, covered) in enumerate(zip(amounts.tolist(), coverage.tolist(), strict=True)):
        start = (over.first_hour + index) * HOUR_US
        hours.append(HourUse(max(start, over.start), min(start + HOUR_US, over.end), amount, covered))
    return hours


def use_since_midnight(hours: Sequence[HourUse], midnight_us: int, now_us: int) -> DayUse:
    """Returns the use since midnight, and the mean use by the same time of the DAYS days before.

    A day counts for the mean if its coverage is at least half.

    Args:
        hours: The use by hour, from DAYS days before midnight on.
        midnight_us: When the day began, in µs since 1970.
        now_us: The present time in µs since 1970.
    """
    earlier = []
    for back in range(1, DAYS + 1):
        shift = back * DAY_US
        amount, coverage = _sum_between(hours, midnight_us - shift, now_us - shift)
        if coverage >= _MIN_COVERAGE:
            earlier.append(amount)
    return DayUse(
        _sum_between(hours, midnight_us, now_us)[0], sum(earlier) / len(earlier) if earlier else None, len(earlier)
    )


def _sum_between(hours: Sequence[HourUse], start: int, end: int) -> tuple[float, float]:
    """Returns amount and coverage of [start, end). Hours that are partly inside count proportionally."""
    amount = covered = 0.0
    for hour in hours:
        within = max(0, min(end, hour.end_us) - max(start, hour.start_us))
        amount += within / (hour.end_us - hour.start_us) * hour.amount
        covered += within * hour.coverage
    return amount, covered / max(1, end - start)
