"""Marks the failures of a table of failures in the readings of machines."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from aurum.commands.table_columns import texts_of, times_of
from aurum.readings.batch import Timestamps, Values
from aurum.readings.times import TimeOptions


class FailureTable(NamedTuple):
    """The columns of a table of failures.

    Attributes:
        unit: The column with the machine.
        time: The column with the time.
    """

    unit: str
    time: str


def mark_failures(
    table: Mapping[str, Any],
    columns: FailureTable,
    options: TimeOptions,
    units: Sequence[str],
    times: Timestamps,
) -> tuple[Values, list[str]]:
    """Marks the first reading of a machine at or after each of its failures.

    Args:
        table: The table of failures.
        columns: Its columns.
        options: How its times are written.
        units: The machine of each row of readings.
        times: The time of each row of readings in µs since the epoch.

    Returns:
        1 for each row at a failure, else 0; and notes on failures of machines without readings, or after their last
        one.

    Raises:
        TableError: A time cannot be read.
    """
    machines = texts_of(table[columns.unit])
    moments = times_of(table[columns.time], columns.time, options, machines)
    rows_of: dict[str, list[int]] = {}
    for row, unit in enumerate(units):
        rows_of.setdefault(unit, []).append(row)
    ordered = {unit: np.array(sorted(rows, key=lambda row: times[row])) for unit, rows in rows_of.items()}
    faults = np.zeros(len(units))
    unknown = late = 0
    for machine, moment in zip(machines, moments.tolist(), strict=True):
        rows = ordered.get(machine)
        if rows is None:
            unknown += 1
            continue
        position = int(np.searchsorted(times[rows], moment))
        if position == len(rows):
            late += 1
        else:
            faults[rows[position]] = 1.0
    notes = []
    if unknown:
        notes.append(f"{unknown} failures of machines without readings are not used")
    if late:
        notes.append(f"{late} failures after the last reading of their machine are not used")
    return faults, notes
