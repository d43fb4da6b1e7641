"""Reads histories from tables with a row for each reading, as `aurum export` writes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from aurum.commands.failure_tables import Bools, JoinedRows, mark_events
from aurum.commands.joined_events import JoinedEvents
from aurum.commands.row_order import RowOrder
from aurum.commands.table_columns import numbers_of, texts_of, times_of
from aurum.commands.table_roles import DeclaredColumns, Roles, TableRoleError
from aurum.readings.batch import Timestamps, Values
from aurum.readings.history import FAULT, Run, align, split_runs
from aurum.readings.tables import TableError


@dataclass(slots=True)
class _Aligned:
    """The readings of a machine at all times at which any sensor has one.

    Attributes:
        timestamps: The times in µs since the epoch.
        columns: The values of each sensor.
        machine_type: The type of the machine.
        renewed: The times from which on the machine is known to have been overhauled.
    """

    timestamps: Timestamps
    columns: dict[str, Values]
    machine_type: str
    renewed: Bools | None = None


def is_long(table: Mapping[str, Any], roles: Roles) -> bool:
    """Whether a table has a row for each reading."""
    return {"sensor", "value"} <= set(table) and roles.unit is not None and roles.time is not None


def long_runs(
    table: Mapping[str, Any], roles: Roles, declared: DeclaredColumns, named_type: str, run_to_failure: bool
) -> tuple[dict[str, list[Run]], list[JoinedEvents]]:
    """Returns the runs in a table with a row for each reading, and what became of the events of other tables.

    Args:
        table: The columns of the table.
        roles: The columns with the machine, the time and, if there is one, the machine type. Gets notes.
        declared: What options tell.
        named_type: The machine type if no column states it.
        run_to_failure: Whether each machine's last row is its failure, unless there is a sensor of failures.

    Raises:
        TableError: A row cannot be read.
        TableRoleError: An option is given that only tables with a column for each sensor have.
    """
    if declared.failure is not None or declared.left is not None or declared.run is not None or declared.states:
        raise TableRoleError(
            f"--failure, --left, --run and words of states apply to tables with a column for each sensor; in a table "
            f"with a row for each reading, failures are those of the sensor {FAULT!r}, or of --failures"
        )
    time = roles.time or ""
    units, sensors = texts_of(table[roles.unit or ""]), texts_of(table["sensor"])
    series = list(zip(units, sensors, strict=True))
    times = times_of(table[time], time, declared.written.times, series)
    values = numbers_of("value", table["value"], roles.notes, declared.written.absent_words)
    if values is None:
        raise TableError(1, "value", "contains text; a table with a column `sensor` must have numbers in `value`")
    types = texts_of(table[roles.machine_type]) if roles.machine_type else None
    rows: dict[str, dict[str, list[int]]] = {}
    for row, (unit, sensor) in enumerate(series):
        rows.setdefault(unit, {}).setdefault(sensor, []).append(row)
    order = RowOrder({"value": values}, declared.duplicates, time)
    aligned: dict[str, _Aligned] = {}
    for unit, by_sensor in rows.items():
        columns = {}
        for sensor, sensor_rows in by_sensor.items():
            ordered, at = order.sort(unit, np.array(sensor_rows), times[sensor_rows])
            columns[sensor] = at, values[ordered]
        first = next(iter(by_sensor.values()))[0]
        aligned[unit] = _Aligned(*align(columns), machine_type=(types[first] if types else "") or named_type)
    joined = _join_events(aligned, roles, declared)
    runs: dict[str, list[Run]] = {}
    for unit, machine in aligned.items():
        ends = run_to_failure and FAULT not in machine.columns
        found = split_runs(unit, machine.timestamps, machine.columns, ends_in_failure=ends, renewed=machine.renewed)
        runs.setdefault(machine.machine_type, []).extend(found)
    if note := order.note():
        roles.notes.append(note)
    return runs, joined


def _join_events(aligned: Mapping[str, _Aligned], roles: Roles, declared: DeclaredColumns) -> list[JoinedEvents]:
    """Adds the failures and overhauls of tables of their own. Returns what became of them."""
    all_joined: list[JoinedEvents] = []
    if declared.failures is None and declared.maintenance is None:
        return all_joined
    units = [unit for unit, machine in aligned.items() for _ in machine.timestamps]
    readings = JoinedRows(units, np.concatenate([machine.timestamps for machine in aligned.values()]), of_life=False)
    ends = np.cumsum([len(machine.timestamps) for machine in aligned.values()])[:-1]
    if declared.failures is not None:
        marks, joined = mark_events(declared.failures, "failures", declared, roles, readings)
        all_joined.append(joined)
        for machine, part in zip(aligned.values(), np.split(marks, ends), strict=True):
            machine.columns[FAULT] = part.astype(np.float64)
    if declared.maintenance is not None:
        marks, joined = mark_events(declared.maintenance, "maintenance records", declared, roles, readings)
        all_joined.append(joined)
        for machine, part in zip(aligned.values(), np.split(marks, ends), strict=True):
            machine.renewed = part
    return all_joined
