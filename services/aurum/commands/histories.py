"""Histories for training: from the plant model, C-MAPSS files, CSV files or a store, as runs by machine type."""

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from aurum.commands.stores import Columns, read_store
from aurum.maintenance.lives import stops_of
from aurum.maintenance.records import Record, RecordError, decode
from aurum.readings.csv_table import DELIMITERS, LONG_COLUMNS, TableNotes, TableOptions, read_csv
from aurum.readings.history import Run, Stop, align, split_runs
from aurum.readings.table_text import PARQUET, TextError, open_table
from aurum.readings.tables import CMAPSS_COLUMNS, Rows, cmapss_prefix, read_cmapss, to_series
from aurum_sim.machine_types import MACHINE_TYPES
from aurum_sim.plant_model import run_to_failure

logger = logging.getLogger(__name__)

RecordsOf = Mapping[str, Sequence[Record]]
"""The maintenance records of machines by their ids."""
_BLOCK = 1_000_000  # readings held as Python objects at a time


class HistoryError(ValueError):
    """The files contain no usable history. The message says what is needed."""


def from_plant(types: Sequence[str], machines: int, seed: int) -> dict[str, list[Run]]:
    """Returns simulated histories.

    Args:
        types: The machine types; all if empty.
        machines: Machines of each type.
        seed: Seed of the simulation.

    Raises:
        HistoryError: A type is unknown.
    """
    unknown = sorted(set(types) - MACHINE_TYPES.keys())
    if unknown:
        raise HistoryError(f"machine type {unknown[0]!r} is not simulated; there are {', '.join(MACHINE_TYPES)}")
    return {name: run_to_failure(MACHINE_TYPES[name], machines, seed) for name in types or MACHINE_TYPES}


def from_cmapss(files: Sequence[Path], machine_type: str) -> dict[str, list[Run]]:
    """Returns the histories in C-MAPSS files, in which every unit runs until it fails. Raises TableError."""
    machines: dict[str, Columns] = {}
    for file in files:
        with file.open(encoding="ascii", errors="replace") as lines:
            _add_blocks(machines, read_cmapss(lines, cmapss_prefix(file), _BLOCK), "")
    return {machine_type: _runs(machines, ends_in_failure=True)}


def is_long_csv(file: Path) -> bool:
    """Whether a file is a CSV table in long format: machine_id, timestamp, sensor, value."""
    if file.suffix.lower() in PARQUET:
        return False
    with open_table(file) as text:
        try:
            header = next(iter(text), "")
        except TextError:
            return False
    return any(
        sorted(name.strip().strip('"') for name in header.split(sign)) == sorted(LONG_COLUMNS) for sign in DELIMITERS
    )


def detect_format(file: Path) -> str:
    """Returns the format of a file: cmapss, store, or csv for any table."""
    with file.open("rb") as content:
        start = content.read(4096)
    if start.startswith(b"SQLite format 3"):
        return "store"
    cells = start.split(b"\n", 1)[0].split()
    return "cmapss" if len(cells) == CMAPSS_COLUMNS and b"," not in start else "csv"


def from_csv(
    files: Sequence[Path], machine_type: str, ends_in_failure: bool, options: TableOptions, notes: TableNotes
) -> dict[str, list[Run]]:
    """Returns the histories in CSV files in long format. Raises TableError, HistoryError."""
    machines: dict[str, Columns] = {}
    for file in files:
        with open_table(file) as lines:
            _add_blocks(machines, read_csv(lines, _BLOCK, options=options, notes=notes), "value")
    return {machine_type: _runs(machines, ends_in_failure)}


def from_store(
    files: Sequence[Path],
    only_type: str | None,
    ends_in_failure: bool,
    machine_ids: frozenset[str] | None = None,
    told: dict[str, list[Record]] | None = None,
) -> dict[str, list[Run]]:
    """Returns the histories of registered machines by type, split by their maintenance records.

    Args:
        files: The stores; the store of the settings if empty.
        only_type: The type of the machines; None for all types.
        ends_in_failure: Whether each machine's last reading is its failure.
        machine_ids: Only these machines; None for all.
        told: Gets the maintenance records of each machine.

    Raises:
        HistoryError: There are none.
    """
    types: dict[str, dict[str, Columns]] = {}
    told = {} if told is None else told
    for file in files or (None,):
        for stored in read_store(file, only_type, machine_ids):
            machine_id = stored.record.machine_id
            records = (_record_of(machine_id, event.at_us, event.id, event.data) for event in stored.events)
            told.setdefault(machine_id, []).extend(record for record in records if record is not None)
            types.setdefault(stored.record.machine_type, {})[machine_id] = stored.columns
    if not types:
        raise HistoryError(
            f"{', '.join(map(str, files)) or 'the store of the settings'} has no machine "
            f"{f'of type {only_type!r}' if only_type else 'with a type'}"
        )
    stops = {machine_id: stops_of(records) for machine_id, records in told.items()}
    return {machine_type: _runs(machines, ends_in_failure, stops) for machine_type, machines in types.items()}


def _record_of(machine_id: str, at_us: int, digest: str, content: bytes) -> Record | None:
    try:
        return decode(at_us, digest, content)
    except RecordError as error:
        logger.warning("a maintenance record of %s at %d cannot be read and is left out: %s", machine_id, at_us, error)
        return None


def describe_files(files: Iterable[Path]) -> str:
    """Returns the names and digests of files, for a model card."""
    return ", ".join(f"{file.name} (sha256 {hashlib.sha256(file.read_bytes()).hexdigest()[:16]})" for file in files)


def _add_blocks(machines: dict[str, Columns], blocks: Iterable[Rows], value_column: str) -> None:
    for block in blocks:
        for series in to_series(block, value_column=value_column):
            columns = machines.setdefault(series.machine_id, {})
            earlier = columns.get(series.sensor)
            columns[series.sensor] = (
                (series.timestamps, series.values)
                if earlier is None
                else (np.append(earlier[0], series.timestamps), np.append(earlier[1], series.values))
            )


def _runs(
    machines: Mapping[str, Columns], ends_in_failure: bool, stops: Mapping[str, Sequence[Stop]] | None = None
) -> list[Run]:
    runs = []
    for machine_id, columns in machines.items():
        timestamps, aligned = align(columns)
        of_machine = (stops or {}).get(machine_id, ())
        runs.extend(split_runs(machine_id, timestamps, aligned, ends_in_failure=ends_in_failure, stops=of_machine))
    return runs
