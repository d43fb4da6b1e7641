"""Energy, water and production of machines over a time range, integrated by hour from the readings of meters."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Collection, Generator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from aurum.api.backends import IngestionBackend
from aurum.readings.batch import Column
from aurum.readings.queried import columns
from aurum.runtime.errors import InvalidArgumentError, ResourceExhaustedError
from aurum.sustainability.energy import power_of_current
from aurum.sustainability.hourly import HOUR_US, Floats, Hourly, Times, differences, integrate, mean_of
from aurum.sustainability.plan import FlowMeter, Meters, Plan
from aurum.v1 import columns_pb2, ingestion_pb2

GroupBy = Literal["machine", "line", "site"]
Quantity = Literal["energy", "water", "production", "temperature"]

_MOST_MACHINES = 1000  # in one account
_AT_ONCE = 32  # machines in one query, or fewer with this many points
_POINTS_AT_ONCE = 200_000
_LONGEST = 60 * 24  # hours
_RETRY_AFTER = 1.0  # seconds
_POINTS_AN_HOUR = 6  # to which rates are reduced; 10 minutes are well below the usual longest gap of 20 minutes
_HOUR_BYTES = 16  # of a quantity of a machine in memory
_MOST_COUNTS = 10_000  # readings of a counter up to which it is not reduced, since means hide its resets


@dataclass(frozen=True, slots=True)
class Range:
    """A time range in µs since 1970. The end is exclusive."""

    start: int
    end: int

    @property
    def first_hour(self) -> int:
        return self.start // HOUR_US

    @property
    def hours(self) -> int:
        return -(-self.end // HOUR_US) - self.first_hour


@dataclass(frozen=True, slots=True)
class Scope:
    """Selects one machine, or all machines of a site and a type. An empty field matches all."""

    machine_id: str = ""
    site: str = ""
    machine_type: str = ""


@dataclass(frozen=True, slots=True)
class MachineUse:
    """What one machine used and produced. A quantity that is not metered is None.

    Attributes:
        machine_id: The machine.
        machine_type: Its type.
        site: Its site.
        line: Its line in the accounting plan.
        meters: The meters of its type.
        energy: Energy in kWh.
        water: Water in litres.
        produced: Production in the unit of its meter.
        temperature: The mean of each hour; NaN if it is unknown.
    """

    machine_id: str
    machine_type: str
    site: str
    line: str
    meters: Meters
    energy: Hourly | None = None
    water: Hourly | None = None
    produced: Hourly | None = None
    temperature: Floats | None = None

    def group(self, by: GroupBy) -> str:
        return {"machine": self.machine_id, "line": self.line, "site": self.site}[by]


def range_of(start_us: int, end_us: int) -> Range:
    """Returns a range, by default the last 24 hours.

    Args:
        start_us: Start in µs since 1970; 0 for 24 hours before the end.
        end_us: End in µs since 1970; 0 for now.

    Raises:
        InvalidArgumentError: The range is empty or too long.
    """
    end = end_us or int(time.time() * 1e6)
    start = start_us or end - 24 * HOUR_US
    if start >= end:
        raise InvalidArgumentError.of("start", "must be before end")
    if end - start > _LONGEST * HOUR_US:
        raise InvalidArgumentError.of("start", f"is more than {_LONGEST // 24} days before end; ask for less at a time")
    return Range(start, end)


class AccountBudget:
    """Limits the bytes of all accounts that are in memory at once. It is for use on one event loop.

    Args:
        most: Bytes of all accounts together. One account alone may have more.
    """

    def __init__(self, most: int = 64_000_000) -> None:
        self._most = most
        self._held = 0

    @contextlib.contextmanager
    def reservation(self) -> Generator["Reservation"]:
        """Yields a reservation, of nothing at first, that ends with the block."""
        held = Reservation(self)
        try:
            yield held
        finally:
            held.hold(0)

    def exchange(self, before: int, after: int) -> None:
        """Gives bytes back and takes others. Raises ResourceExhaustedError, and takes none, if there are too many."""
        others = self._held - before
        if after and others and others + after > self._most:
            raise ResourceExhaustedError(
                f"the accounts that are made at the moment have {others} bytes, and {self._most} are allowed in all; "
                f"ask again later, or for fewer machines or a shorter time",
                reason="ACCOUNT_BUDGET",
                retry_after=_RETRY_AFTER,
            )
        self._held = others + after


class Reservation:
    """The bytes of one request in an AccountBudget."""

    def __init__(self, budget: AccountBudget) -> None:
        self._budget = budget
        self._bytes = 0

    def hold(self, nbytes: int) -> None:
        """Changes the number of bytes. Raises ResourceExhaustedError."""
        self._budget.exchange(self._bytes, nbytes)
        self._bytes = nbytes


async def account(  # noqa: PLR0917
    ingestion: IngestionBackend,
    plan: Plan,
    scope: Scope,
    over: Range,
    quantities: Collection[Quantity],
    held: Reservation,
) -> list[MachineUse]:
    """Returns the use of each machine in scope, ordered by machine id.

    Args:
        ingestion: The ingestion service.
        plan: The accounting plan.
        scope: The machines.
        over: The time range.
        quantities: What is wanted of each machine; other quantities are None.
        held: Reserves the bytes of the result.

    Raises:
        AurumError: The scope is too large, there are too many accounts at once, or ingestion did not answer.
    """
    machines = [machine async for machine in _machines(ingestion, scope)]
    held.hold(len(machines) * over.hours * len(quantities) * _HOUR_BYTES)
    by_type: dict[str, list[ingestion_pb2.Machine]] = {}
    for machine in machines:
        by_type.setdefault(machine.machine_type, []).append(machine)
    used: dict[str, MachineUse] = {}
    for machine_type, members in by_type.items():
        meters = plan.meters_of(machine_type)
        metered = _only(meters, quantities)
        at_once = _machines_at_once(metered, over)
        for start in range(0, len(members), at_once):
            part = members[start : start + at_once]
            readings = await _readings(ingestion, [each.machine_id for each in part], metered, plan, over)
            for use in await asyncio.to_thread(_uses, part, (meters, metered), plan, readings, over):
                used[use.machine_id] = use
    return [used[machine.machine_id] for machine in machines]


def _only(meters: Meters, quantities: Collection[Quantity]) -> Meters:
    """Returns the meters of some quantities."""
    fields = {"energy": "power", "water": "water", "production": "production", "temperature": "temperature"}
    return meters.model_copy(update={field: None for name, field in fields.items() if name not in quantities})


def _machines_at_once(meters: Meters, over: Range) -> int:
    points = len(meters.rates) * over.hours * _POINTS_AN_HOUR + len(meters.counters) * _MOST_COUNTS
    return max(1, min(_AT_ONCE, _POINTS_AT_ONCE // max(1, points)))


async def _machines(ingestion: IngestionBackend, scope: Scope) -> AsyncIterator[ingestion_pb2.Machine]:
    if scope.machine_id:
        yield await ingestion.machine(scope.machine_id)
        return
    token, count = "", 0
    while True:
        page = await ingestion.machines(
            ingestion_pb2.ListMachinesRequest(
                page_size=1000,
                page_token=token,
                machine_type=scope.machine_type,
                site=scope.site,
                omit_sensors=True,
            )
        )
        for machine in page.machines:
            count += 1
            if count > _MOST_MACHINES:
                raise InvalidArgumentError.of(
                    "site", f"or machine_type must narrow this: it has more than {_MOST_MACHINES} machines"
                )
            yield machine
        token = page.next_page_token
        if not token:
            return


async def _readings(
    ingestion: IngestionBackend, machine_ids: Sequence[str], meters: Meters, plan: Plan, over: Range
) -> list[columns_pb2.QueriedColumns]:
    margin = int(plan.longest_gap_seconds * 1e6)  # finds the readings just outside, to integrate up to both ends
    hours = (over.end - over.start + 2 * margin) / HOUR_US
    found: list[columns_pb2.QueriedColumns] = []
    for sensors, points in (
        (meters.rates, max(2, math.ceil(hours * _POINTS_AN_HOUR))),
        (meters.counters, _MOST_COUNTS),
    ):
        if sensors:
            found += await ingestion.query(
                ingestion_pb2.QueryRequest(
                    machine_ids=machine_ids,
                    sensors=sensors,
                    start_us=max(1, over.start - margin),
                    end_us=over.end + margin,
                    points=points,
                )
            )
    return found


def _uses(
    machines: Sequence[ingestion_pb2.Machine],
    meters: tuple[Meters, Meters],
    plan: Plan,
    readings: Sequence[columns_pb2.QueriedColumns],
    over: Range,
) -> list[MachineUse]:
    """Returns the use of machines of one type. meters: All meters of the type, and those that were read."""
    known: dict[str, dict[str, Column]] = {machine.machine_id: {} for machine in machines}
    for series, times, values in columns(readings):
        reduced = bool(series.counts) and series.sensor in meters[1].rates
        known[series.machine_id][series.sensor] = _held(times, values) if reduced else (times, values)
    return [_use(machine, meters, plan, known[machine.machine_id], over) for machine in machines]


def _held(times: Times, means: Floats) -> Column:
    """Converts means, given with the starts of their intervals, into a rate that is constant over each interval."""
    width = int(np.diff(times).min()) if len(times) > 1 else 0
    ends = times + max(width - 1, 0)  # µs
    return np.column_stack([times, ends]).ravel(), np.repeat(means, 2)


def _use(
    machine: ingestion_pb2.Machine, meters: tuple[Meters, Meters], plan: Plan, readings: dict[str, Column], over: Range
) -> MachineUse:
    of_type, read = meters
    gap = plan.longest_gap_seconds

    def of(sensor: str) -> Column:
        return readings.get(sensor, (np.empty(0, np.int64), np.empty(0)))

    def flow(meter: FlowMeter | None) -> Hourly | None:
        if meter is None:
            return None
        times, values = of(meter.sensor)
        how = integrate if meter.kind == "rate" else differences
        return how(times, values * meter.per_hour, over.start, over.end, gap)

    energy = None
    if read.power is not None:
        times, values = of(read.power.sensor)
        if read.power.kind == "current":
            values = power_of_current(values, read.power.volts, read.power.power_factor, read.power.phases)
        energy = integrate(times, values, over.start, over.end, gap)
    temperature = None
    if read.temperature is not None:
        temperature = mean_of(*of(read.temperature), over.start, over.end, gap)
    return MachineUse(
        machine.machine_id,
        machine.machine_type,
        machine.site,
        plan.line_of(machine.machine_id),
        of_type,
        energy,
        flow(read.water),
        flow(read.production),
        temperature,
    )
