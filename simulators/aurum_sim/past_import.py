"""Gives the machines of a simulator a past, if the store is empty. What was killed meanwhile is done again.

The marks in the store (`aurum.readings.simulated_past`) tell when an import began, so that repeating it makes the same
batches and events, which the store recognises. The newest readings go first: the alarm rules that are evaluated
meanwhile then never take an old reading for the latest one.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aurum.alarms.journal import to_event
from aurum.alarms.rules import load_rules
from aurum.readings.batch import Series, now_us
from aurum.readings.limits import MAX_EVENTS
from aurum.readings.simulated_past import KIND, SimulatedPast, pasts_of
from aurum.readings.transport.write_call import SerializedSeries, write_method, write_request
from aurum.resilience import Criticality, criticality_scope
from aurum.runtime.errors import FAILURES, AurumError
from aurum.runtime.grpc.client import Dependency
from aurum.runtime.time_units import HOUR_US
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc
from aurum_sim.fleet import Fleet
from aurum_sim.past import STEP_US, GroupPast, past_of
from aurum_sim.past_alarms import past_alarms
from aurum_sim.past_records import past_records

logger = logging.getLogger(__name__)

MAX_MACHINES = 200  # of a fleet with a past, so that its readings are stored before anyone misses new ones
_DAY_US = 24 * HOUR_US
_RETRY_SECONDS = 0.5
_WRITES_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class PastOptions:
    """Options of the past of a simulated fleet.

    Attributes:
        days: How long it lasts.
        failures: The number of machines that failed in it.
        rules: The file of the alarm rules in force; None for the built-in ones.
    """

    days: float = 7.0
    failures: int = 1
    rules: Path | None = None


class PastImport:
    """Gives a fleet a past.

    Args:
        name: The name of the simulator.
        fleet: The fleet, which has not been advanced yet. If it gets a past, it goes on from its end.
        site: The site of the machines.
        seed: The seed of the fleet.
        options: The options of the past.
        ingestion: The ingestion service.
        clock: Present time in µs since 1970.

    Attributes:
        ended: Whether the past is stored, or will not be.
    """

    def __init__(  # noqa: PLR0917 - each has its own type
        self,
        name: str,
        fleet: Fleet,
        site: str,
        seed: int,
        options: PastOptions,
        ingestion: Dependency,
        clock: Callable[[], int] = now_us,
    ) -> None:
        self._name = name
        self._fleet = fleet
        self._site = site
        self._seed = seed
        self._options = options
        self._ingestion = ingestion
        self._stub = ingestion_pb2_grpc.IngestionServiceStub(ingestion.channel)
        self._write = write_method(ingestion.channel)
        self._clock = clock
        self.ended = False
        self._begun: SimulatedPast | None = None
        self._made: tuple[list[GroupPast], list[ingestion_pb2.Event]] | None = None

    async def run(self) -> bool:
        """Does what there is to do, see `_run`."""
        try:
            return await self._run()
        finally:
            self.ended = True

    async def _run(self) -> bool:
        """Imports the past once ingestion answers. Returns whether the fleet has a past now that it did not have.

        Without the right to do so, the fleet stays without a past, which is logged.
        """
        if len(self._fleet.machines) > MAX_MACHINES:
            logger.warning(
                "the simulated plant gets no past: it has %d machines, and at most %d can have one",
                len(self._fleet.machines),
                MAX_MACHINES,
            )
            return False
        waits = False
        while True:
            try:
                with criticality_scope(Criticality.BATCH):
                    return await self._import()
            except FAILURES as error:
                if not waits:
                    logger.info("the past waits for ingestion: %s", error)
                waits = True
                await asyncio.sleep(_RETRY_SECONDS)
            except AurumError as error:
                logger.warning("the simulated plant gets no past, since ingestion refused a part: %s", error.message)
                return False

    async def _import(self) -> bool:
        begun = self._begun or await self._begin()
        if begun is None:
            return False
        self._begun = begun
        if self._made is None:
            self._made = await asyncio.to_thread(self._make, begun)
        pasts, events = self._made
        await self._register()
        for start in range(0, len(events), MAX_EVENTS):
            await self._record(events[start : start + MAX_EVENTS])
        readings = await self._store(pasts, begun)
        await self._record([SimulatedPast(**{**_fields(begun), "complete": True}).to_event()])
        logger.info(
            "the simulated plant has a past",
            extra={"readings": readings, "events": len(events), "days": self._options.days, "site": self._site},
        )
        return True

    async def _begin(self) -> SimulatedPast | None:
        """Returns the import to do or to go on with; None if there is none to do."""
        request = ingestion_pb2.ListEventsRequest(kind=KIND, limit=MAX_EVENTS)
        marked = pasts_of((await self._ingestion.unary(self._stub.ListEvents, request)).events)
        mine = [past for past in marked if past.name == self._name]
        if mine:
            return None if mine[0].complete else mine[0]
        if not await self._is_empty({past.site for past in marked}):
            return None
        end_us = self._clock() // STEP_US * STEP_US
        start_us = end_us - round(self._options.days * _DAY_US) + STEP_US
        begun = SimulatedPast(self._name, self._site, start_us, end_us)
        await self._record([begun.to_event()])
        return begun

    async def _is_empty(self, simulated_sites: set[str]) -> bool:
        """Whether the store has no readings but those of other simulators."""
        request = ingestion_pb2.ListMachinesRequest(page_size=MAX_EVENTS, omit_sensors=True)
        while True:
            answer = await self._ingestion.unary(self._stub.ListMachines, request)
            if any(each.last_seen_us and each.site not in simulated_sites for each in answer.machines):
                return False
            if not answer.next_page_token:
                return True
            request.page_token = answer.next_page_token

    def _make(self, begun: SimulatedPast) -> tuple[list[GroupPast], list[ingestion_pb2.Event]]:
        """Returns the readings and the events of the past."""
        hours = (begun.end_us - begun.start_us + STEP_US) / HOUR_US
        pasts = past_of(self._fleet, begun.end_us, hours, self._options.failures, self._seed)
        events = [
            event
            for past in pasts
            for machine_id, stops in zip(past.machine_ids, past.stops, strict=True)
            for event in past_records(machine_id, stops)
        ]
        kinds = [group.kind.name for group, _ in self._fleet.groups]
        rules = load_rules(self._options.rules)
        alarms = past_alarms(list(zip(kinds, pasts, strict=True)), rules)
        return pasts, [*events, *map(to_event, alarms)]

    async def _register(self) -> None:
        for machine_id, machine_type in self._fleet.machines:
            request = ingestion_pb2.RegisterMachineRequest(
                machine_id=machine_id,
                machine_type=machine_type,
                site=self._site,
                request_id=f"simulated-{machine_id}",
            )
            await self._ingestion.unary(self._stub.RegisterMachine, request)

    async def _record(self, events: Sequence[ingestion_pb2.Event]) -> None:
        await self._ingestion.unary(self._stub.RecordEvents, ingestion_pb2.RecordEventsRequest(events=events))

    async def _store(self, pasts: Sequence[GroupPast], begun: SimulatedPast) -> int:
        """Stores the readings. Returns their number."""
        source_id = f"past/{self._name}/{begun.end_us}/{self._seed}.{len(self._fleet.machines)}"
        batches = enumerate(_batches(pasts), 1)
        readings = 0

        async def write_batches() -> None:
            nonlocal readings
            for sequence, series in batches:
                data = await asyncio.to_thread(SerializedSeries.from_series, series)
                await self._call_write(write_request(source_id, sequence, "", data))
                readings += sum(len(each.values) for each in series)

        # Gathered, since a group of tasks would hide the error of ingestion in a group of errors
        ends = await asyncio.gather(*(write_batches() for _ in range(_WRITES_AT_ONCE)), return_exceptions=True)
        for end in ends:
            if end is not None:
                raise end
        return readings

    async def _call_write(self, request: bytes) -> Any:
        return await self._ingestion.unary(self._write, request)


def _batches(pasts: Sequence[GroupPast]) -> Iterator[list[Series]]:
    """Yields the readings day by day, the newest day first, in a batch for each machine type."""
    times = pasts[0].times
    days = times // _DAY_US
    for day in range(int(days[-1]), int(days[0]) - 1, -1):
        start, end = np.searchsorted(days, [day, day + 1]).tolist()
        for past in pasts:
            for some in range(0, len(past.machine_ids), _MACHINES_AT_ONCE):
                series = _series_of(past, range(some, min(some + _MACHINES_AT_ONCE, len(past.machine_ids))), start, end)
                if series:
                    yield series


_MACHINES_AT_ONCE = 12  # in a batch of a day, of which each sensor has 1,440 readings


def _series_of(past: GroupPast, machines: range, start: int, end: int) -> list[Series]:
    series = []
    times = past.times[start:end]
    for machine in machines:
        for column, sensor in enumerate(past.sensors):
            values, present = past.values[start:end, machine, column], past.present[start:end, machine, column]
            if present.any():
                series.append(Series(past.machine_ids[machine], sensor, times[present], values[present], True))
    return series


def _fields(past: SimulatedPast) -> dict[str, Any]:
    return {"name": past.name, "site": past.site, "start_us": past.start_us, "end_us": past.end_us}
