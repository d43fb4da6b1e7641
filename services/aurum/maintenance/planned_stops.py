"""Planned stops: dates at which a machine stands anyway, so that it can be maintained without a loss of production."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from aurum.maintenance.costs import TypeCosts
from aurum.runtime.time_units import HOUR_US

MOST_STOPS = 100  # of a machine, in the future
MOST_COMPARED = 5  # stops that advice compares
_HOURS = "h"


@dataclass(frozen=True, slots=True)
class PlannedStop:
    """A planned stop of a machine.

    Attributes:
        id: Its identity among the stops of the machine.
        at_us: When it begins, in µs since 1970.
        text: What is planned.
        by: Who set it.
    """

    id: str
    at_us: int
    text: str = ""
    by: str = ""


def hours_per_unit(unit: str, costs: TypeCosts) -> float | None:
    """Returns the hours in a unit of the RUL, by which dates are compared with it; None if they are not known."""
    return costs.hours_per_unit or (1.0 if unit == _HOURS else None)


def next_dates(stops: Iterable[PlannedStop], dates: Sequence[datetime], now_us: int) -> list[int]:
    """Returns the next dates of the stops of a machine and of its type, in µs since 1970, ascending."""
    times = {stop.at_us for stop in stops} | {round(date.timestamp() * 1e6) for date in dates}
    return sorted(time for time in times if time > now_us)[:MOST_COMPARED]


def life_until(at_us: int, now_us: int, hours_per_unit: float) -> float:
    """Returns the life until a date in units of the RUL, for a machine that runs all the time until then."""
    return (at_us - now_us) / HOUR_US / hours_per_unit
