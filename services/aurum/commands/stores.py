"""Reads the machines of stores and their histories: SQLite files, and the store that the settings name."""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aurum.maintenance.records import RECORD
from aurum.readings.batch import Timestamps, Values
from aurum.runtime.errors import InvalidArgumentError
from aurum.runtime.time_units import DAY_US

if TYPE_CHECKING:
    from aurum.ingestion.store import Event, MachineRecord, Store

Columns = dict[str, tuple[Timestamps, Values]]
_LONGEST_READ = 64 * DAY_US
_END_US = 2**62
_EVENTS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class StoredMachine:
    """A machine in a store.

    Attributes:
        record: Its registration.
        columns: All readings by sensor.
        events: Its maintenance records, ordered by time.
    """

    record: "MachineRecord"
    columns: Columns
    events: "Sequence[Event]"


def list_store(file: Path | None, only_type: str | None = None) -> "list[MachineRecord]":
    """Returns the machines of a store that have a type.

    Args:
        file: The SQLite file; None for the store that the settings of this process name, such as Cassandra.
        only_type: Only machines of this type; None for all.

    Raises:
        FileNotFoundError, NewerDatabaseError, sqlite3.DatabaseError: The file cannot be read.
        UnavailableError: Cassandra cannot be reached.
    """
    # Images that only train lack the packages of ingestion
    from aurum.ingestion.sqlite.snapshot import open_snapshot  # noqa: PLC0415

    if file is not None:
        with open_snapshot(file) as snapshot:
            machines = snapshot.list_machines()
    else:
        with _store_of_settings() as (runner, store):
            machines = runner.run(store.list_machines())
    return [each for each in machines if each.machine_type and only_type in (None, each.machine_type)]


def read_store(
    file: Path | None, only_type: str | None = None, machine_ids: frozenset[str] | None = None
) -> Iterator[StoredMachine]:
    """Yields the machines of a store that have a type and readings.

    Arguments and errors are those of `list_store`; machine_ids: only these machines, None for all.
    """
    from aurum.ingestion.sqlite.snapshot import read_events, read_histories  # noqa: PLC0415

    if file is not None:
        events = read_events(file, RECORD)
        for machine, columns in read_histories(file, machine_ids):
            if machine.machine_type and only_type in (None, machine.machine_type):
                yield StoredMachine(machine, columns, events.get(machine.machine_id, []))
        return
    with _store_of_settings() as (runner, store):
        for machine in runner.run(store.list_machines()):
            wanted = machine_ids is None or machine.machine_id in machine_ids
            if wanted and machine.machine_type and only_type in (None, machine.machine_type):
                columns = runner.run(read_machine(store, machine.machine_id))
                if columns:
                    yield StoredMachine(machine, columns, runner.run(read_records(store, machine.machine_id)))


async def read_records(store: "Store", machine_id: str) -> "list[Event]":
    """Returns the maintenance records of a machine in a store, ordered by time."""
    found: list[Event] = []
    before: tuple[int, str] | None = None
    while some := await store.events(RECORD, machine_id, 0, _END_US, _EVENTS_AT_ONCE, before):
        found += some
        before = (some[-1].at_us, some[-1].id)
    return found[::-1]


async def read_machine(store: "Store", machine_id: str) -> Columns:
    """Returns all readings of a machine in a store, by sensor."""
    spans = {}
    if store.shared:
        found = await store.find_machine(machine_id)
        if found is not None:
            spans = {sensor: (found.first_us, latest.at_us) for sensor, latest in found.sensors.items()}
    else:
        for series in await store.summaries():
            if series.machine_id == machine_id:
                spans[series.sensor] = (series.first_us, series.last_us)
    columns = {sensor: await _read_series(store, machine_id, sensor, *spans[sensor]) for sensor in sorted(spans)}
    return {sensor: column for sensor, column in columns.items() if len(column[0])}


async def _read_series(
    store: "Store", machine_id: str, sensor: str, first_us: int, last_us: int
) -> tuple[Timestamps, Values]:
    """Returns the readings in [first_us, last_us], in ranges that are as long as an answer allows."""
    from aurum.ingestion.downsample import merge_parts  # noqa: PLC0415

    parts = []
    start, length = first_us, _LONGEST_READ
    while start <= last_us:
        end = min(start + length, last_us + 1)
        try:
            points = await store.read(machine_id, sensor, start, end)
        except InvalidArgumentError:  # more readings than an answer may have
            if length == 1:
                raise
            length = max(1, length // 2)
            continue
        parts.append((points.timestamps, points.values))
        start, length = end, min(2 * length, _LONGEST_READ)
    return merge_parts(parts)


@contextlib.contextmanager
def _store_of_settings() -> "Iterator[tuple[asyncio.Runner, Store]]":
    """Opens the store of the settings for reading. It is not started, so it changes nothing in the background."""
    from aurum.ingestion.service import open_store  # noqa: PLC0415
    from aurum.ingestion.settings import IngestionSettings  # noqa: PLC0415
    from aurum.runtime.settings import load_settings  # noqa: PLC0415

    with asyncio.Runner() as runner:
        store = open_store(load_settings(IngestionSettings))
        try:
            yield runner, store
        finally:
            runner.run(store.close())
