"""The use of the present day, compared with the usual use of the same machines by the same time of the days before."""

from dataclasses import dataclass
from typing import Literal

from aurum.sustainability.hourly import Floats

DAYS = 7  # days before the present one, whose mean is the usual use
_MIN_COVERAGE = 0.5  # of a machine on a day, and of machines on a day, for a comparison

NoUsual = Literal["no_readings_today", "no_history", "other_machines"]


@dataclass(frozen=True, slots=True)
class DayUse:
    """The use since midnight.

    Attributes:
        amount: What was used.
        usual: The mean of the days before by the same time, of the compared machines; None if it cannot be told.
        days: The number of these days.
        compared: What the compared machines used since midnight; None without a usual use.
        machines: The number of compared machines.
        left_out: The number of metered machines that are not compared, since they are not known on all of these days.
        reason: Why there is no usual use: no machine is known for half of the day so far, there is no earlier day on
            which half of the machines are, or no machine is on all of these days.
    """

    amount: float
    usual: float | None
    days: int
    compared: float | None = None
    machines: int = 0
    left_out: int = 0
    reason: NoUsual | None = None


def compare_days(amounts: Floats, coverage: Floats) -> DayUse:
    """Compares the present day with the days before. Only machines that are known on all of the days are compared.

    A machine is known on a day of which at least half is covered. A day counts if at least half of the machines that
    are known at present are known on it.

    Args:
        amounts: A row for each day, the present one first, with what each machine used by the same time.
        coverage: The share of each of them for which readings exist; 0 for a machine that is not metered.
    """
    total = float(amounts[0].sum()) if len(amounts) else 0.0
    metered = coverage.max(axis=0, initial=0.0) > 0
    known = coverage >= _MIN_COVERAGE
    present = int(known[0].sum())
    if not present:
        return DayUse(total, None, 0, left_out=int(metered.sum()), reason="no_readings_today")
    counted = [day for day in range(1, len(known)) if (known[0] & known[day]).sum() >= _MIN_COVERAGE * present]
    if not counted:
        return DayUse(total, None, 0, left_out=int(metered.sum()), reason="no_history")
    compared = known[0] & known[counted].all(axis=0)
    machines = int(compared.sum())
    left_out = int((metered & ~compared).sum())
    if not machines:
        return DayUse(total, None, 0, left_out=left_out, reason="other_machines")
    usual = float(amounts[counted][:, compared].sum() / len(counted))
    return DayUse(total, usual, len(counted), float(amounts[0][compared].sum()), machines, left_out)
