"""Histories for learning from a running ingestion service, whichever store it has."""

import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np

from aurum.commands.histories import HistoryError, RecordsOf
from aurum.commands.stores import Columns
from aurum.maintenance.lives import stops_of
from aurum.maintenance.records import RECORD, Record, RecordError, decode
from aurum.readings.history import Run, align, split_runs
from aurum.readings.transport.query_columns import decode_columns, query_method
from aurum.resilience import Criticality, criticality_scope
from aurum.runtime.grpc.client import Dependency
from aurum.runtime.grpc.tls import certificate_folder
from aurum.runtime.policy.policies import Policies
from aurum.runtime.settings import Settings
from aurum.runtime.time_units import DAY_US, HOUR_US
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc

logger = logging.getLogger(__name__)

_PAGE = 1000
_FIRST_US, _LONGEST_US = HOUR_US, 64 * DAY_US  # range of a query; it doubles while the answers are small
_SMALL = 100_000  # readings of an answer, a fifth of what it may have of one series


@contextlib.asynccontextmanager
async def served_histories(target: str, settings: Settings) -> AsyncIterator["ServedHistories"]:
    """Connects to ingestion. target: its host:port."""
    dependency = Dependency(
        "learn",
        "ingestion",
        target,
        Policies("learn", settings),
        settings.rpc_max_message_bytes,
        certificate_folder(settings),
    )
    try:
        yield ServedHistories(dependency)
    finally:
        await dependency.close()


class TooManyReadingsError(HistoryError):
    """There are more readings than may be held in memory."""


class ServedHistories:
    """Reads the machines of ingestion type by type."""

    def __init__(self, ingestion: Dependency) -> None:
        self._ingestion = ingestion
        self._stub = ingestion_pb2_grpc.IngestionServiceStub(ingestion.channel)
        self._query = query_method(ingestion.channel)

    async def machines(self, only_type: str | None) -> dict[str, list[ingestion_pb2.Machine]]:
        """Returns the registered machines with readings by type. Raises AurumError, HistoryError if there are none."""
        request = ingestion_pb2.ListMachinesRequest(page_size=_PAGE, omit_sensors=True, machine_type=only_type or "")
        types: dict[str, list[ingestion_pb2.Machine]] = {}
        while True:
            answer = await self._ingestion.unary(self._stub.ListMachines, request)
            for machine in answer.machines:
                if machine.machine_type and machine.first_seen_us:
                    types.setdefault(machine.machine_type, []).append(machine)
            if not answer.next_page_token:
                break
            request.page_token = answer.next_page_token
        if not types:
            raise HistoryError(f"ingestion has no machine {f'of type {only_type!r}' if only_type else 'with a type'}")
        return types

    async def runs(
        self, machines: Sequence[ingestion_pb2.Machine], most: int, since_us: int
    ) -> tuple[list[Run], RecordsOf]:
        """Returns the lives of machines, and the maintenance records of each of them.

        Args:
            machines: The machines.
            most: The greatest number of readings that are held in memory.
            since_us: The time of the first reading, in µs since 1970; 0 for all.

        Raises:
            TooManyReadingsError: There are more readings than that.
            AurumError: Ingestion did not answer.
        """
        runs: list[Run] = []
        records: dict[str, Sequence[Record]] = {}
        held = 0
        with criticality_scope(Criticality.BATCH):
            for machine in machines:
                columns, count = await self._columns(machine, most - held, since_us)
                held += count
                if not columns:
                    continue
                told = records[machine.machine_id] = await self._records(machine.machine_id)
                timestamps, aligned = align(columns)
                stops = stops_of(told)
                runs += split_runs(machine.machine_id, timestamps, aligned, ends_in_failure=False, stops=stops)
        return runs, records

    async def _columns(self, machine: ingestion_pb2.Machine, most: int, since_us: int) -> tuple[Columns, int]:
        """Returns the readings of a machine, and how many there are."""
        parts: dict[str, list[tuple[Any, Any]]] = {}
        count = 0
        start, length = max(machine.first_seen_us, since_us), _FIRST_US
        while start <= machine.last_seen_us:
            end = start + length
            before = count
            request = ingestion_pb2.QueryRequest(
                machine_ids=[machine.machine_id], start_us=start, end_us=end, once=True
            )
            answers = await self._ingestion.stream(self._query, request)
            for series, times, values in decode_columns(itertools.chain.from_iterable(each.series for each in answers)):
                parts.setdefault(series.sensor, []).append((times, values))
                count += len(values)
            if count > most:
                raise TooManyReadingsError(
                    f"the machines of type {machine.machine_type!r} have more readings of a day than are held in "
                    f"memory; set AURUM_LEARN_READINGS to hold more"
                )
            start = end
            length = min(2 * length, _LONGEST_US) if count - before < _SMALL else max(length // 2, _FIRST_US)
        columns = {
            sensor: (np.concatenate([times for times, _ in found]), np.concatenate([values for _, values in found]))
            for sensor, found in parts.items()
        }
        return columns, count

    async def _records(self, machine_id: str) -> list[Record]:
        request = ingestion_pb2.ListEventsRequest(kind=RECORD, machine_id=machine_id, limit=_PAGE)
        records: list[Record] = []
        while True:
            answer = await self._ingestion.unary(self._stub.ListEvents, request)
            for event in answer.events:
                try:
                    records.append(decode(event.at_us, event.id, event.content))
                except RecordError as error:
                    logger.warning("a maintenance record of %s cannot be read and is left out: %s", machine_id, error)
            if not answer.next_page_token:
                return records
            request.page_token = answer.next_page_token
