"""Reads the alarms of a period for reports, at a bounded cost."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from aurum.alarms.lifecycle import Transition
from aurum.alarms.period import PeriodAlarm, alarms_of_period
from aurum.api.alarm_history import HistoryQuery, read_period
from aurum.api.context import ApiContext
from aurum.runtime.errors import InvalidArgumentError
from aurum.runtime.time_units import DAY_US

MOST_ENTRIES = 50_000  # of the journal, in a report
_LONGEST_US = 92 * DAY_US  # the journal is kept for 90 days


@dataclass(frozen=True, slots=True)
class ReportedPeriod:
    """The alarms of a period.

    Attributes:
        start_us: Start in µs since 1970, inclusive.
        end_us: End in µs since 1970, exclusive.
        complete_from_us: From when on all entries were read; after the start if there are more than MOST_ENTRIES.
        alarms: The alarms.
    """

    start_us: int
    end_us: int
    complete_from_us: int
    alarms: list[PeriodAlarm]


async def read_alarms_of_period(
    context: ApiContext, start_us: int, end_us: int, selects_machine: Callable[[str], bool] | None
) -> ReportedPeriod:
    """Returns the alarms of a period, from the journal since its start and the present alarms.

    Args:
        context: The shared objects.
        start_us: Start in µs since 1970, inclusive.
        end_us: End in µs since 1970, exclusive.
        selects_machine: Whether alarms of a machine count, by its id; None if all do.

    Raises:
        InvalidArgumentError: The period is empty or too long.
        AurumError: The store did not answer.
    """
    if not start_us < end_us:
        raise InvalidArgumentError.for_field("end", "must be after the start")
    if end_us - start_us > _LONGEST_US:
        raise InvalidArgumentError.for_field("start", f"must be at most {_LONGEST_US // DAY_US} days before the end")
    query = HistoryQuery(start_us=start_us, selects_machine=selects_machine)
    entries: list[Transition] = []
    oldest_us, examined = 0, 0
    async for part in read_period(context.ingestion, query, MOST_ENTRIES):
        entries += part.transitions
        examined += part.examined
        oldest_us = part.oldest_us
    present = [
        alarm for alarm in context.alarm_service.alarms if selects_machine is None or selects_machine(alarm.machine_id)
    ]
    priorities = context.alarm_service.priorities
    alarms = await asyncio.to_thread(alarms_of_period, entries, present, priorities)
    complete_from_us = start_us if examined < MOST_ENTRIES else min(oldest_us + 1, end_us)
    return ReportedPeriod(start_us, end_us, complete_from_us, alarms)
