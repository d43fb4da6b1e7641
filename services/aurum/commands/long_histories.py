"""Reads histories from tables with a row for each reading, as `aurum export` writes them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from aurum.commands.histories import align
from aurum.commands.row_order import RowOrder
from aurum.commands.table_columns import numbers_of, texts_of, times_of
from aurum.commands.table_names import slug
from aurum.commands.table_roles import DeclaredColumns, Roles
from aurum.readings.history import FAULT, Run, split_runs
from aurum.readings.tables import TableError


def is_long(table: Mapping[str, Any], roles: Roles) -> bool:
    """Whether a table has a row for each reading."""
    return {"sensor", "value"} <= set(table) and roles.unit is not None and roles.time is not None


def long_runs(
    table: Mapping[str, Any], roles: Roles, declared: DeclaredColumns, named_type: str, run_to_failure: bool
) -> dict[str, list[Run]]:
    """Returns the runs in a table with a row for each reading.

    Args:
        table: The columns of the table.
        roles: The columns with the machine, the time and, if there is one, the machine type. Gets notes.
        declared: What options tell.
        named_type: The machine type if no column states it.
        run_to_failure: Whether each machine's last row is its failure, unless there is a sensor of failures.

    Raises:
        TableError: A row cannot be read.
    """
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
    runs: dict[str, list[Run]] = {}
    for unit, by_sensor in rows.items():
        columns = {}
        for sensor, sensor_rows in by_sensor.items():
            ordered, at = order.sort(unit, np.array(sensor_rows), times[sensor_rows])
            columns[sensor] = at, values[ordered]
        timestamps, aligned = align(columns)
        first = next(iter(by_sensor.values()))[0]
        machine_type = (slug(types[first]) if types else None) or named_type
        ends = run_to_failure and FAULT not in aligned
        runs.setdefault(machine_type, []).extend(split_runs(unit, timestamps, aligned, ends_in_failure=ends))
    if note := order.note():
        roles.notes.append(note)
    return runs
