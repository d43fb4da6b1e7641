"""Measures what machines used over a time range, by their meters. Ingestion integrates the readings."""

import math
import time
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass

from aurum.api.accounting.budget import AccountReservation
from aurum.api.accounting.meter_reports import read_reports
from aurum.api.backends import IngestionBackend
from aurum.runtime.errors import InvalidArgumentError
from aurum.runtime.time_units import HOUR_US
from aurum.sustainability.hourly import TimeRange
from aurum.sustainability.machine_use import MachineUse, Quantity, select_meters, use_from_reports
from aurum.sustainability.plan import AccountingPlan
from aurum.v1 import ingestion_pb2

_MAX_MACHINES = 20_000  # in one account
_PAGE = 1000  # machines that are listed at once
_MAX_DAYS = 400
_HOURS_PER_REQUEST = 8192  # of all machines together: 30 million readings of a meter that is read every second
_MACHINES_PER_REQUEST = 256
_BYTES_PER_HOUR = 16  # of one quantity of a machine in memory: amount and covered seconds
_MOST_BYTES = 64_000_000  # of machines that are kept hour by hour


@dataclass(frozen=True, slots=True)
class MachineSelection:
    """Selects one machine, or all machines of a site and a type. An empty field matches all.

    Attributes:
        machine_id: The machine.
        site: The site.
        machine_type: The type.
        most: The greatest number of machines that may be selected.
    """

    machine_id: str = ""
    site: str = ""
    machine_type: str = ""
    most: int = _MAX_MACHINES


def resolve_range(start_us: int, end_us: int) -> TimeRange:
    """Returns a time range, by default the last 24 hours.

    Args:
        start_us: Start in µs since 1970; 0 for 24 hours before the end.
        end_us: End in µs since 1970; 0 for now.

    Raises:
        InvalidArgumentError: The range is empty or too long.
    """
    end = end_us or int(time.time() * 1e6)
    start = start_us or end - 24 * HOUR_US
    if start >= end:
        raise InvalidArgumentError.for_field("start", "must be before end")
    if end - start > _MAX_DAYS * 24 * HOUR_US:
        raise InvalidArgumentError.for_field("start", f"must be at most {_MAX_DAYS} days before end")
    return TimeRange(start, end)


async def measure_use(  # noqa: PLR0917 - what to measure, and its limits
    ingestion: IngestionBackend,
    plan: AccountingPlan,
    selection: MachineSelection,
    over: TimeRange,
    quantities: Collection[Quantity],
    reservation: AccountReservation,
) -> list[MachineUse]:
    """Returns what each selected machine used and produced in each hour, ordered by machine id.

    Args:
        ingestion: Client of the ingestion service.
        plan: The accounting plan.
        selection: The machines.
        over: The time range.
        quantities: What to measure. The other quantities of the result are None.
        reservation: Reserves the memory of the result.

    Raises:
        InvalidArgumentError: Too many machines are selected, or the hours of all of them are too many.
        ResourceExhaustedError: The accounts in progress need too much memory.
        AurumError: Ingestion did not answer.
    """
    machines = await select_machines(ingestion, selection)
    needed = len(machines) * over.hours * (len(quantities) + _feed_in_share(plan, machines)) * _BYTES_PER_HOUR
    if len(machines) > 1 and needed > _MOST_BYTES:
        raise InvalidArgumentError.for_field(
            "start",
            f"and end select {over.hours} hours of {len(machines)} machines, which are too many to be told one by one; "
            "ask for a shorter range, fewer machines, or a sum by line or site",
        )
    reservation.resize(math.ceil(needed))
    return [use async for batch in measure_machines(ingestion, plan, machines, over, quantities) for use in batch]


async def select_machines(ingestion: IngestionBackend, selection: MachineSelection) -> list[ingestion_pb2.Machine]:
    """Returns the selected machines, ordered by id.

    Raises:
        InvalidArgumentError: Too many machines are selected.
        AurumError: Ingestion did not answer.
    """
    if selection.machine_id:
        return [await ingestion.get_machine(selection.machine_id)]
    request = ingestion_pb2.ListMachinesRequest(
        page_size=_PAGE, machine_type=selection.machine_type, site=selection.site, omit_sensors=True
    )
    machines: list[ingestion_pb2.Machine] = []
    while True:
        page = await ingestion.list_machines(request)
        machines += page.machines
        if len(machines) > selection.most:
            raise InvalidArgumentError.for_field(
                "site", f"or machine_type must select at most {selection.most} machines"
            )
        if not page.next_page_token:
            return machines
        request.page_token = page.next_page_token


async def measure_machines(
    ingestion: IngestionBackend,
    plan: AccountingPlan,
    machines: Sequence[ingestion_pb2.Machine],
    over: TimeRange,
    quantities: Collection[Quantity],
) -> AsyncGenerator[list[MachineUse]]:
    """Yields what machines used and produced in each hour, in their order, some machines at a time.

    Args:
        ingestion: Client of the ingestion service.
        plan: The accounting plan.
        machines: The machines.
        over: The time range.
        quantities: What to measure. The other quantities of the result are None.

    Raises:
        AurumError: Ingestion did not answer.
    """
    step = max(1, min(_MACHINES_PER_REQUEST, _HOURS_PER_REQUEST // over.hours))
    for start in range(0, len(machines), step):
        yield await _measure_together(ingestion, plan, machines[start : start + step], over, quantities)


async def _measure_together(
    ingestion: IngestionBackend,
    plan: AccountingPlan,
    machines: Sequence[ingestion_pb2.Machine],
    over: TimeRange,
    quantities: Collection[Quantity],
) -> list[MachineUse]:
    by_type: dict[str, list[ingestion_pb2.Machine]] = {}
    for machine in machines:
        by_type.setdefault(machine.machine_type, []).append(machine)
    used: dict[str, MachineUse] = {}
    for machine_type, members in by_type.items():
        meters = select_meters(plan.meters_of(machine_type), quantities)
        ids = [machine.machine_id for machine in members]
        reports = await read_reports(ingestion, ids, meters, over, plan.longest_gap_seconds)
        for machine in members:
            used[machine.machine_id] = use_from_reports(
                machine.machine_id, machine_type, machine.site, plan, meters, reports[machine.machine_id], over
            )
    return [used[machine.machine_id] for machine in machines]


def _feed_in_share(plan: AccountingPlan, machines: Sequence[ingestion_pb2.Machine]) -> float:
    """Returns the share of machines of which energy that is fed in is measured, too."""
    return sum(plan.meters_of(each.machine_type).measures_feed_in for each in machines) / max(1, len(machines))
