"""Measures what machines used over a time range, from the readings of their meters."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass

from aurum.api.accounting.budget import AccountReservation
from aurum.api.accounting.counter_readings import MAX_COUNTS, MOST_COUNTS, CounterReadings, read_counters
from aurum.api.backends import IngestionBackend
from aurum.readings.batch import Column
from aurum.readings.transport.query_columns import decode_columns
from aurum.runtime.errors import InvalidArgumentError
from aurum.runtime.time_units import HOUR_US
from aurum.sustainability.hourly import TimeRange, hold_means
from aurum.sustainability.machine_use import MachineUse, Quantity, select_meters, use_from_readings
from aurum.sustainability.plan import AccountingPlan, Meters
from aurum.v1 import columns_pb2, ingestion_pb2

_MAX_MACHINES = 1000  # in one account
_MACHINES_PER_QUERY = 32  # at most; fewer if they would have more points than the next limit
_POINTS_PER_QUERY = 200_000
_MAX_HOURS = 60 * 24
_POINTS_PER_HOUR = 6  # to which rates are reduced; 10 minutes are well below the usual longest gap of 20 minutes
_BYTES_PER_READING = 16  # of a counter in memory: time and count
_BYTES_PER_HOUR = 16  # of one quantity of a machine in memory: amount and covered seconds


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
    if end - start > _MAX_HOURS * HOUR_US:
        raise InvalidArgumentError.for_field("start", f"must be at most {_MAX_HOURS // 24} days before end")
    return TimeRange(start, end)


async def measure_use(  # noqa: PLR0917 - what to measure, and its limits
    ingestion: IngestionBackend,
    plan: AccountingPlan,
    selection: MachineSelection,
    over: TimeRange,
    quantities: Collection[Quantity],
    reservation: AccountReservation,
) -> list[MachineUse]:
    """Returns what each selected machine used and produced, ordered by machine id.

    Args:
        ingestion: Client of the ingestion service.
        plan: The accounting plan.
        selection: The machines.
        over: The time range.
        quantities: What to measure. The other quantities of the result are None.
        reservation: Reserves the memory of the result.

    Raises:
        InvalidArgumentError: Too many machines are selected.
        ResourceExhaustedError: The accounts in progress need too much memory.
        AurumError: Ingestion did not answer.
    """
    machines = [machine async for machine in _selected_machines(ingestion, selection)]
    needed = len(machines) * over.hours * (len(quantities) + _feed_in_share(plan, machines)) * _BYTES_PER_HOUR
    reservation.resize(math.ceil(needed))
    by_type: dict[str, list[ingestion_pb2.Machine]] = {}
    for machine in machines:
        by_type.setdefault(machine.machine_type, []).append(machine)
    used: dict[str, MachineUse] = {}
    for machine_type, members in by_type.items():
        task = _Measurement(ingestion, plan, select_meters(plan.meters_of(machine_type), quantities), over)
        step = _machines_per_query(task.meters, over)
        for start in range(0, len(members), step):
            for use in await task.measure(members[start : start + step], MAX_COUNTS):
                used[use.machine_id] = use
        large = [machine for machine in members if used[machine.machine_id].corrections.counts.get("reduced")]
        if large:  # these have so many readings that each is measured alone
            reservation.resize(math.ceil(needed) + len(task.meters.counters) * MOST_COUNTS * _BYTES_PER_READING)
        for machine in large:
            (used[machine.machine_id],) = await task.measure([machine], MOST_COUNTS)
        reservation.resize(math.ceil(needed))
    return [used[machine.machine_id] for machine in machines]


def _feed_in_share(plan: AccountingPlan, machines: Sequence[ingestion_pb2.Machine]) -> float:
    """Returns the share of machines of which energy that is fed in is measured, too."""
    return sum(plan.meters_of(each.machine_type).measures_feed_in for each in machines) / max(1, len(machines))


@dataclass(frozen=True, slots=True)
class _Measurement:
    """Measures machines of one type.

    Attributes:
        ingestion: Client of the ingestion service.
        plan: The accounting plan.
        meters: The meters whose quantities are measured.
        over: The time range.
    """

    ingestion: IngestionBackend
    plan: AccountingPlan
    meters: Meters
    over: TimeRange

    async def measure(self, machines: Sequence[ingestion_pb2.Machine], most_counts: int) -> list[MachineUse]:
        """Measures some machines. The readings of a counter are reduced to `most_counts` if there are more."""
        ids = [machine.machine_id for machine in machines]
        gap = self.plan.longest_gap_seconds
        rates = await _query_rates(self.ingestion, ids, self.meters, self.plan, self.over)
        counters = await read_counters(self.ingestion, ids, self.meters, self.over, gap, most_counts)
        return await asyncio.to_thread(_compute_use, machines, self.meters, self.plan, rates, counters, self.over)


def _machines_per_query(meters: Meters, over: TimeRange) -> int:
    points = len(meters.rates) * over.hours * _POINTS_PER_HOUR + len(meters.counters) * MAX_COUNTS
    return max(1, min(_MACHINES_PER_QUERY, _POINTS_PER_QUERY // max(1, points)))


async def _selected_machines(
    ingestion: IngestionBackend, selection: MachineSelection
) -> AsyncIterator[ingestion_pb2.Machine]:
    if selection.machine_id:
        yield await ingestion.get_machine(selection.machine_id)
        return
    token, count = "", 0
    while True:
        page = await ingestion.list_machines(
            ingestion_pb2.ListMachinesRequest(
                page_size=1000,
                page_token=token,
                machine_type=selection.machine_type,
                site=selection.site,
                omit_sensors=True,
            )
        )
        for machine in page.machines:
            count += 1
            if count > selection.most:
                raise InvalidArgumentError.for_field(
                    "site", f"or machine_type must select at most {selection.most} machines"
                )
            yield machine
        token = page.next_page_token
        if not token:
            return


async def _query_rates(
    ingestion: IngestionBackend, machine_ids: Sequence[str], meters: Meters, plan: AccountingPlan, over: TimeRange
) -> list[columns_pb2.QueriedColumns]:
    if not meters.rates:
        return []
    margin = int(plan.longest_gap_seconds * 1e6)  # finds the readings just outside, to integrate up to both ends
    hours = (over.end - over.start + 2 * margin) / HOUR_US
    return await ingestion.query_readings(
        ingestion_pb2.QueryRequest(
            machine_ids=machine_ids,
            sensors=meters.rates,
            start_us=max(1, over.start - margin),
            end_us=over.end + margin,
            points=max(2, math.ceil(hours * _POINTS_PER_HOUR)),
        )
    )


def _compute_use(  # noqa: PLR0917 - machines, their meters and readings
    machines: Sequence[ingestion_pb2.Machine],
    measured: Meters,
    plan: AccountingPlan,
    rates: Sequence[columns_pb2.QueriedColumns],
    counters: CounterReadings,
    over: TimeRange,
) -> list[MachineUse]:
    readings: dict[str, dict[str, Column]] = {machine.machine_id: {} for machine in machines}
    for series, times, values in decode_columns(rates):
        readings[series.machine_id][series.sensor] = hold_means(times, values) if series.counts else (times, values)
    for (machine_id, sensor), column in counters.columns.items():
        readings[machine_id][sensor] = column
    reduced: dict[str, list[str]] = {}
    for machine_id, sensor in counters.reduced:
        reduced.setdefault(machine_id, []).append(sensor)
    return [
        use_from_readings(
            machine.machine_id,
            machine.machine_type,
            machine.site,
            plan,
            measured,
            readings[machine.machine_id],
            over,
            reduced.get(machine.machine_id, ()),
        )
        for machine in machines
    ]
