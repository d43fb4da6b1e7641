"""Joins tables of failures and of maintenance to the readings of machines, by machine and time or life."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aurum.commands.common_names import LIFE_NAMES, TIME_NAMES, UNIT_NAMES
from aurum.commands.joined_events import JoinedEvents
from aurum.commands.table_columns import is_counter, numbers_of, read_columns, texts_of, times_of
from aurum.commands.table_names import find_name, key_of, machine_key
from aurum.commands.table_roles import DeclaredColumns, Roles, TableRoleError
from aurum.readings.batch import Timestamps
from aurum.readings.tables import CMAPSS_EPOCH_US, TableError
from aurum.readings.times import TimeOptions
from aurum.runtime.time_units import HOUR_US

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class JoinedRows:
    """The readings that events are joined to.

    Attributes:
        units: The machine of each row.
        times: The time of each row in µs since the epoch.
        of_life: Whether the times were made from a count of life.
    """

    units: Sequence[str]
    times: Timestamps
    of_life: bool


def mark_events(
    file: Path, what: str, declared: DeclaredColumns, roles: Roles, readings: JoinedRows
) -> tuple[Bools, JoinedEvents]:
    """Marks the first reading of a machine at or after each event of a table.

    Args:
        file: The table, with a row for each event.
        what: What the events are, in the plural, for messages.
        declared: How the table is written, or its columns if it has been read.
        roles: The columns of the table of readings.
        readings: The readings.

    Returns:
        Which readings are marked, and what became of the events.

    Raises:
        TableRoleError: The table cannot be read, or a column is missing.
    """
    try:
        table = declared.events.get(file) or read_columns(file, declared.written, declared.encoding)
        named = _machines(table, file, roles, readings)
        machines = named or [readings.units[0]] * len(next(iter(table.values())))
        moments = _moments(table, file, declared, roles, readings, machines)
    except TableError as error:
        raise TableRoleError(f"{file}, {error}") from error
    rows_of: dict[str, list[int]] = {}
    for row, unit in enumerate(readings.units):
        rows_of.setdefault(machine_key(unit), []).append(row)
    ordered = {unit: np.array(sorted(rows, key=lambda row: readings.times[row])) for unit, rows in rows_of.items()}
    marks = np.zeros(len(readings.units), dtype=bool)
    known = early = late = 0
    for machine, moment in zip(machines, moments.tolist(), strict=True):
        rows = ordered.get(machine_key(machine))
        if rows is None:
            continue
        known += 1
        position = int(np.searchsorted(readings.times[rows], moment))
        if position == len(rows):
            late += 1
        elif position == 0 and moment < readings.times[rows[0]]:
            early += 1
        else:
            marks[rows[position]] = True
    return marks, JoinedEvents(
        str(file),
        what,
        len(machines),
        sorted(set(named)),
        sorted(set(readings.units)),
        known,
        early,
        late,
        int(marks.sum()),
    )


def _machines(table: Mapping[str, Any], file: Path, roles: Roles, readings: JoinedRows) -> list[str]:
    """Returns the machine of each event; nothing if all readings are of one machine, which then has the events."""
    column = _column(table, roles.unit, UNIT_NAMES)
    if column is not None:
        return texts_of(table[column])
    if len(set(readings.units)) == 1:
        return []
    raise TableRoleError(
        f"{file} must have a column with the machine, named {roles.unit or 'machine_id'!r} or by a usual name; its "
        f"columns are {', '.join(table)}"
    )


def _moments(
    table: Mapping[str, Any],
    file: Path,
    declared: DeclaredColumns,
    roles: Roles,
    readings: JoinedRows,
    machines: Sequence[str],
) -> Timestamps:
    """Returns the time of each event in µs since the epoch, or its life in the same form as that of the readings."""
    column = _column(
        table, roles.life if readings.of_life else roles.time, LIFE_NAMES if readings.of_life else TIME_NAMES
    )
    if column is None:
        wanted = roles.life if readings.of_life else roles.time
        raise TableRoleError(
            f"{file} must have the column {wanted!r}, as the table of readings has; its columns are {', '.join(table)}"
        )
    if readings.of_life:
        life = numbers_of(column, table[column])
        if life is None or np.isnan(life).any():
            raise TableError(1, column, f"must have a count of life in each row, as {roles.life!r} of the readings")
        at: Timestamps = CMAPSS_EPOCH_US + np.round(life * HOUR_US).astype(np.int64)
        return at
    options = declared.written.times
    try:
        return times_of(table[column], column, options, machines)
    except TableError:
        if options.form == "auto" or is_counter(table[column]):
            raise
        try:  # the format is that of the readings, and this table may be written by another program
            return times_of(table[column], column, TimeOptions(zone=options.zone), machines)
        except TableError:
            return times_of(table[column], column, options, machines)


def _column(table: Mapping[str, Any], same: str | None, usual: Sequence[str]) -> str | None:
    """Returns the column with the same name as in the readings, or else the first one with a usual name."""
    found = find_name(same, table) if same is not None else None
    if found is not None:
        return found
    by_key = {key_of(name): name for name in table}
    return next((by_key[key_of(name)] for name in usual if key_of(name) in by_key), None)
