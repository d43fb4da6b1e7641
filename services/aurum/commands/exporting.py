"""`aurum export`: writes a store's readings as Parquet, one file per machine and day, for pandas, DuckDB and Spark."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from aurum.commands.progress import progress_bar
from aurum.ingestion.store import MachineRecord
from aurum.readings.batch import Timestamps, Values
from aurum.runtime.time_units import DAY_US

_SCHEMA = pa.schema(
    [
        ("machine_id", pa.dictionary(pa.int32(), pa.string())),
        ("machine_type", pa.dictionary(pa.int32(), pa.string())),
        ("site", pa.dictionary(pa.int32(), pa.string())),
        ("sensor", pa.dictionary(pa.int32(), pa.string())),
        ("timestamp", pa.timestamp("us", tz="UTC")),
        ("value", pa.float64()),
    ]
)


class ReadingsSource(Protocol):
    """A store that is read machine by machine and day by day."""

    def list_machines(self) -> list[MachineRecord]:
        """Returns all machines."""

    def sensors(self, machine_id: str) -> list[str]:
        """Returns the sensors of a machine."""

    def days(self, key: tuple[str, str]) -> list[int]:
        """Returns the days since the epoch on which a series has readings. key: machine and sensor."""

    def day(self, key: tuple[str, str], day: int) -> tuple[Timestamps, Values]:
        """Returns the readings of a series on one day."""


@dataclass(slots=True)
class Exported:
    """The numbers of files, readings and bytes that were written."""

    files: int = 0
    readings: int = 0
    bytes: int = 0


def export(
    source: ReadingsSource, folder: Path, since: datetime | None = None, until: datetime | None = None
) -> Exported:
    """Writes machine_id=…/day=YYYY-MM-DD.parquet below a folder. Each file is written atomically.

    Args:
        source: The store.
        folder: The folder, which is created if necessary.
        since: The first day; None for all from the beginning.
        until: The day after the last; None for all up to the end.
    """
    first = _day(since) if since else 0
    end = _day(until) if until else 2**31
    result = Exported()
    machines = source.list_machines()
    with progress_bar("export") as update:
        for index, machine in enumerate(machines):
            for day, table in _tables(source, machine, first, end):
                path = folder / f"machine_id={machine.machine_id}" / f"day={_date(day)}.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary = path.with_suffix(".part")
                pq.write_table(table, temporary, compression="zstd")
                os.replace(temporary, path)
                result.files += 1
                result.readings += table.num_rows
                result.bytes += path.stat().st_size
            update((index + 1) / len(machines), f"{result.readings:,} readings")
    return result


def _tables(source: ReadingsSource, machine: MachineRecord, first: int, end: int) -> Iterator[tuple[int, pa.Table]]:
    days: dict[int, list[str]] = {}
    for sensor in source.sensors(machine.machine_id):
        for day in source.days((machine.machine_id, sensor)):
            if first <= day < end:
                days.setdefault(day, []).append(sensor)
    for day, sensors in sorted(days.items()):
        columns = [source.day((machine.machine_id, sensor), day) for sensor in sensors]
        lengths = [len(values) for _, values in columns]
        total = sum(lengths)
        if not total:  # all of its segments are damaged
            continue
        names = pa.DictionaryArray.from_arrays(np.repeat(np.arange(len(sensors), dtype=np.int32), lengths), sensors)
        yield (
            day,
            pa.table(
                [
                    *(_constant(text, total) for text in (machine.machine_id, machine.machine_type, machine.site)),
                    names,
                    pa.array(np.concatenate([timestamps for timestamps, _ in columns])).cast(_SCHEMA.field(4).type),
                    pa.array(np.concatenate([values for _, values in columns])),
                ],
                schema=_SCHEMA,
            ),
        )


def _constant(text: str, length: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(np.zeros(length, np.int32), [text])


def _day(moment: datetime) -> int:
    return int(moment.replace(tzinfo=UTC).timestamp() * 1e6) // DAY_US


def _date(day: int) -> str:
    return datetime.fromtimestamp(day * DAY_US / 1e6, tz=UTC).date().isoformat()
