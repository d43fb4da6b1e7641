"""Reads histories from tables in CSV or Parquet. The role of each column is declared, or inferred from common names.

A row has the readings of all sensors of one machine at one time. The end of a life is given by a column that is set at
failures, by a table of failures, by a column with the remaining life, or by declaring each machine's last row its
failure.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aurum.commands.categories import Words, category_note, coded
from aurum.commands.failure_tables import JoinedRows, mark_events
from aurum.commands.joined_events import JoinedEvents
from aurum.commands.long_histories import is_long, long_runs
from aurum.commands.remaining_life import check_fall, fall_of, with_remaining_life
from aurum.commands.row_order import RowOrder
from aurum.commands.state_words import States, states_of
from aurum.commands.table_columns import FIRST_ROW, is_text, numbers_of, texts_of, times_of
from aurum.commands.table_files import error_in_file, file_names, read_files, type_by_files
from aurum.commands.table_names import listed, natural_order, sensor_name, slug
from aurum.commands.table_roles import DeclaredColumns, Roles, TableRoleError, roles_of
from aurum.prediction.model.features import TIME
from aurum.readings.batch import Timestamps, Values, machine_id_problem
from aurum.readings.history import FAULT, Run, split_runs
from aurum.readings.tables import CMAPSS_EPOCH_US, TableError
from aurum.runtime.time_units import HOUR_US

_LIFE_BELOW = 2e9  # hours, which are µs in a machine word
_MOST_NAMED = 5
_TYPE = re.compile(r"[a-z0-9][a-z0-9_.-]*")
ANOMALY = "anomaly"  # the sensor of labelled anomalies, one of LABELS
_LIFE_IN_TIME = "life_count"  # the name of a counter in a column `time`, which is the name of the clock elsewhere


@dataclass(slots=True)
class TabularHistories:
    """The histories in a table.

    Attributes:
        runs: The runs by machine type.
        life: The sensor that counts life, if there is one.
        categories: The words of each sensor whose values stand for words, in the order of the values.
        notes: What was inferred, as text.
        clock: Whether times are those of a clock.
        joined: What became of the events of other tables.
    """

    runs: dict[str, list[Run]]
    life: str | None
    categories: dict[str, Words]
    notes: list[str]
    clock: bool = True
    joined: list[JoinedEvents] = field(default_factory=list)


@dataclass(slots=True)
class _Rows:
    """The rows of a table.

    Attributes:
        units: The machine of each row.
        types: The machine type of each row, if a column states it.
        columns: The values of each sensor.
        times: The times in µs, if the table has them.
        left: The remaining life, if a column states it.
        used: Which rows are used.
        renewed: Which rows are the first ones after an overhaul.
        life: The sensor that counts life, if there is one.
        categories: The words of each sensor whose values stand for words.
        joined: What became of the events of other tables.
    """

    units: list[str]
    types: list[str] | None
    columns: dict[str, Values]
    times: Timestamps | None
    left: Values | None = None
    used: npt.NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=bool))
    renewed: npt.NDArray[np.bool_] | None = None
    life: str | None = None
    categories: dict[str, Words] = field(default_factory=dict)
    joined: list[JoinedEvents] = field(default_factory=list)


def read_histories(files: Sequence[Path], declared: DeclaredColumns, run_to_failure: bool) -> TabularHistories:
    """Reads the histories in tables with the same columns.

    Args:
        files: The tables.
        declared: What options tell of them.
        run_to_failure: Whether each machine's last row is its failure, unless a column says more.

    Raises:
        TableError: A row cannot be read.
        TableRoleError: A column is missing, or cannot be used as declared.
        UnknownStateError: A word in the column of failures is not known.
    """
    table, lengths = read_files(files, declared)
    place = listed([file.name for file in files])
    roles = roles_of(table, lengths, declared, run_to_failure, place)
    by_file = declared.machine_by_file or (roles.unit is None and len(files) > 1)
    named_type = declared.machine_type or declared.usual_type or type_by_files(files, by_file)
    if roles.machine_type is None and declared.machine_type is None:
        roles.notes.append(f"the machines' type is taken from the file's name: {named_type!r} (--machine-type)")
    try:
        if is_long(table, roles):
            runs, joined = long_runs(table, roles, declared, named_type, run_to_failure)
            return TabularHistories(runs, None, {}, roles.notes, joined=joined)
        names = file_names(files) if by_file else [slug(files[0].stem)] * len(files)
        of_rows = [name for name, length in zip(names, lengths, strict=True) for _ in range(length)]
        rows = _read_rows(table, roles, declared, of_rows, place)
        ends = run_to_failure and roles.failure is None and declared.failures is None
        runs = _runs(rows, roles, declared, named_type, ends_in_failure=ends)
    except TableError as error:
        raise error_in_file(error, files, lengths) from error
    return TabularHistories(runs, rows.life, rows.categories, roles.notes, rows.times is not None, rows.joined)


def _read_rows(
    table: Mapping[str, Any], roles: Roles, declared: DeclaredColumns, names: list[str], place: str
) -> _Rows:
    """Returns the rows of a table. `names` are the machines of rows in a table without a column of machines."""
    units = texts_of(table[roles.unit]) if roles.unit else names
    rows = _Rows(units, texts_of(table[roles.machine_type]) if roles.machine_type else None, {}, None)
    _read_sensors_and_times(rows, table, roles, declared)
    rows.life = _life_sensor(rows, roles)
    rows.used = np.ones(len(units), dtype=bool)
    if roles.failure is not None:
        states = states_of(roles.failure, texts_of(table[roles.failure]), declared.states, place)
        roles.notes.append(states.note)
        _use_states(rows, roles, states)
    elif declared.states:
        raise TableRoleError(
            f"--healthy, --failure-value and --ignore tell the words of a column of failures, and {place} has none; "
            f"name it with --failure"
        )
    if roles.left is not None and roles.failure is None:
        rows.left = numbers_of(roles.left, table[roles.left], absent=declared.written.absent_words)
        if rows.left is None:
            raise TableError(1, roles.left, "contains text instead of the remaining life")
    _join_events(rows, roles, declared)
    if roles.run is not None:
        changed = _changes_of(texts_of(table[roles.run]), rows)
        rows.renewed = changed if rows.renewed is None else rows.renewed | changed
    return rows


def _life_sensor(rows: _Rows, roles: Roles) -> str | None:
    """Returns the sensor that counts life. One that is named as the clock gets another name."""
    if roles.life is None:
        return None
    life = sensor_name(roles.life)
    if life not in rows.columns:
        raise TableError(1, roles.life, "contains text instead of a count of life")
    if life == TIME:
        rows.columns[_LIFE_IN_TIME] = rows.columns.pop(life)
        roles.notes.append(f"the life in {roles.life!r} is the sensor {_LIFE_IN_TIME}")
        return _LIFE_IN_TIME
    return life


def _use_states(rows: _Rows, roles: Roles, states: States) -> None:
    """Adds the failures. A machine that begins in one is used from its repair on, since the onset is not known."""
    rows.columns[FAULT] = states.faults
    rows.used &= ~states.ignored
    begun = 0
    for indices in _rows_by_unit(rows):
        at = _order_of(rows, indices)
        faulty = states.faults[indices[at]] >= 0.5
        if faulty[0] and not faulty.all():
            rows.used[indices[at[: int(faulty.argmin())]]] = False
            begun += 1
    if begun:
        roles.notes.append(
            f"{begun} machines begin in a failure: their first rows are not used, since the failure began before"
        )


def _join_events(rows: _Rows, roles: Roles, declared: DeclaredColumns) -> None:
    """Adds the failures and overhauls of tables of their own."""
    if declared.failures is None and declared.maintenance is None:
        return
    of_life = rows.times is None
    times = rows.times
    if times is None and rows.life is not None:
        times = _times_of_life(rows.columns[rows.life], np.arange(len(rows.units)), roles.life or "")
    if times is None:
        raise TableRoleError(
            "--failures and --maintenance need a table of readings with a column of the time (--time) or life (--life)"
        )
    readings = JoinedRows(rows.units, times, of_life)
    if declared.failures is not None:
        marks, joined = mark_events(declared.failures, "failures", declared, roles, readings)
        rows.columns[FAULT] = marks.astype(np.float64)
        rows.joined.append(joined)
    if declared.maintenance is not None:
        rows.renewed, joined = mark_events(declared.maintenance, "maintenance records", declared, roles, readings)
        rows.joined.append(replace(joined, begins_life=True))


def _changes_of(runs: Sequence[str], rows: _Rows) -> npt.NDArray[np.bool_]:
    """Marks the rows whose run is another one than in the row of the machine before; empty cells do not count."""
    changed = np.zeros(len(rows.units), dtype=bool)
    for indices in _rows_by_unit(rows):
        last = ""
        for row in indices[_order_of(rows, indices)]:
            run = runs[row].strip()
            changed[row] = bool(last and run and run != last)
            last = run or last
    return changed


def _rows_by_unit(rows: _Rows) -> Iterator[npt.NDArray[np.intp]]:
    """Yields the indices of the rows of each machine that are used, in the natural order of machines."""
    ordered = sorted(set(rows.units), key=lambda unit: (natural_order(unit), unit))
    ranks = {unit: rank for rank, unit in enumerate(ordered)}
    of_rows = np.fromiter((ranks[unit] for unit in rows.units), dtype=np.intp, count=len(rows.units))
    used = np.flatnonzero(rows.used)
    used = used[np.argsort(of_rows[used], kind="stable")]
    yield from (part for part in np.split(used, np.flatnonzero(np.diff(of_rows[used])) + 1) if len(part))


def _order_of(rows: _Rows, indices: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    if rows.times is not None:
        return np.argsort(rows.times[indices], kind="stable")
    if rows.life is not None:
        return np.argsort(rows.columns[rows.life][indices], kind="stable")
    return np.arange(len(indices))


def _runs(
    rows: _Rows, roles: Roles, declared: DeclaredColumns, named_type: str, *, ends_in_failure: bool
) -> dict[str, list[Run]]:
    """Returns the runs of each machine by type."""
    compared = rows.columns if rows.left is None else {**rows.columns, "": rows.left}
    order = RowOrder(compared, declared.duplicates, roles.time or roles.life or "", frozenset(rows.categories))
    runs: dict[str, list[Run]] = {}
    falls: list[float] = []
    for indices in _rows_by_unit(rows):
        unit = rows.units[indices[0]]
        if rows.times is not None:
            at = rows.times[indices]
        elif rows.life is not None:
            at = _times_of_life(rows.columns[rows.life][indices], indices, roles.life or "")
        else:
            at = CMAPSS_EPOCH_US + np.arange(len(indices), dtype=np.int64) * HOUR_US
        renewed_at = at[rows.renewed[indices]] if rows.renewed is not None else None
        kept, at = order.sort(unit, indices, at)
        machine_runs = split_runs(
            unit if machine_id_problem(unit) is None else slug(unit) or "machine",
            at,
            {name: values[kept] for name, values in rows.columns.items()},
            ends_in_failure=ends_in_failure,
            axis=rows.life,
            renewed=None if renewed_at is None else np.isin(at, renewed_at),
        )
        if rows.left is not None:
            machine_runs = [with_remaining_life(run, rows.left[kept], at) for run in machine_runs]
            falls += [fall_of(run, rows.left[kept], at, rows.life) for run in machine_runs if run.left > 0]
        runs.setdefault(_type_name(rows.types[kept[0]]) if rows.types else named_type, []).extend(machine_runs)
    if note := order.note():
        roles.notes.append(note)
    check_fall(np.array(falls), roles)
    return runs


def _read_sensors_and_times(rows: _Rows, table: Mapping[str, Any], roles: Roles, declared: DeclaredColumns) -> None:
    """Reads the columns of sensors, and the times of the rows if a column has them.

    Raises:
        TableError: Names the first wrong cell of each column, so that a user learns of all at once.
    """
    mistakes: list[TableError] = []
    _read_sensors(rows, table, roles, declared, mistakes)
    try:
        if roles.time:
            rows.times = times_of(table[roles.time], roles.time, declared.written.times, rows.units)
    except TableError as error:
        mistakes.append(error)
    if mistakes:
        first, *others = sorted(mistakes, key=lambda mistake: mistake.row)
        raise first.with_others(others[:_MOST_NAMED])


def _read_sensors(
    rows: _Rows, table: Mapping[str, Any], roles: Roles, declared: DeclaredColumns, mistakes: list[TableError]
) -> None:
    """Reads every column without another role as numbers, or as a category. Adds wrong cells to `mistakes`."""
    taken = roles.taken()
    texts = []
    for name, array in table.items():
        if name in taken:
            continue
        try:
            values = numbers_of(name, array, roles.notes, declared.written.absent_words)
        except TableError as error:
            mistakes.append(error)
            continue
        sensor = ANOMALY if name == roles.anomaly else sensor_name(name)
        if values is None:
            category = coded(texts_of(array), all_words=declared.all_words) if is_text(array) else None
            if category is None or name in (roles.life, roles.anomaly):
                texts.append(name)
                continue
            rows.categories[sensor], values = category
        if sensor in rows.columns:
            raise TableError(1, name, "has the same sensor name as another column; names differ only in case and signs")
        rows.columns[sensor] = values
    for reason, names in itertools.groupby(sorted(roles.hidden.items(), key=lambda each: each[1]), key=lambda e: e[1]):
        shown = ", ".join(name or "column without a name" for name, _ in names)
        roles.notes.append(f"{shown}: no sensor, not used ({reason})")
    roles.notes += [category_note(name, words) for name, words in rows.categories.items()]
    if texts:
        roles.notes.append(f"{listed(texts, _MOST_NAMED)}: text column, not used")


def _type_name(text: str) -> str:
    """Returns a machine type as it is if it can be registered so; else its slug."""
    return text if _TYPE.fullmatch(text) else slug(text)


def _times_of_life(life: Values, rows: npt.NDArray[np.intp], name: str) -> Timestamps:
    """Returns times derived from a life counter, for a table without times. Raises TableError."""
    wrong = np.flatnonzero(~(np.abs(life) < _LIFE_BELOW))
    if len(wrong):
        first = int(wrong[0])
        problem = "is empty" if np.isnan(life[first]) else f"{life[first]:g} is too large for a count of life"
        raise TableError(int(rows[first]) + FIRST_ROW, name, problem)
    at: Timestamps = CMAPSS_EPOCH_US + np.round(life * HOUR_US).astype(np.int64)
    return at
