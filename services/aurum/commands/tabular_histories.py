"""Reads histories from tables in CSV or Parquet. The role of each column is declared, or inferred from common names.

A row has the readings of all sensors of one machine at one time. The end of a life is given by a column that is set at
failures, by a column with the remaining life, or by declaring each machine's last row its failure.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aurum.commands.failure_tables import FailureTable, mark_failures
from aurum.commands.histories import align
from aurum.commands.table_columns import FIRST_ROW, is_counter, numbers_of, read_columns, texts_of, times_of
from aurum.readings.batch import Timestamps, Values, machine_id_problem, sensor_problem
from aurum.readings.history import AXES, FAULT, LABELS, Run, split_runs
from aurum.readings.tables import CMAPSS_EPOCH_US, TableError
from aurum.readings.times import TimeOptions
from aurum.runtime.time_units import HOUR_US

_UNITS = (
    "machine_id", "machine", "unit_id", "unit_number", "unit_nr", "unit", "engine_id", "engine", "asset_id", "asset",
    "equipment_id", "equipment", "device_id", "device", "serial_number", "serial", "product_id", "turbine_id", "id",
    "machineid", "unitid", "assetid", "equipmentid", "deviceid",
)  # fmt: skip
_TIMES = ("timestamp", "datetime", "time_stamp", "date_time", "time", "date", "ds", "ts")
_TYPES = ("machine_type", "asset_type", "equipment_type")
_TARGETS = (FAULT, "machine_failure", "failure", "failed", "label", "target")
_LIFE_LEFT = ("rul", "remaining_useful_life", "time_to_failure", "ttf")
_NO_FAILURE = frozenset({"", "0", "0.0", "no", "none", "normal", "healthy", "ok", "false", "n", "nan", "null"})
_LIFE_BELOW = 2e9  # hours, which are µs in a machine word
_MOST_NAMED = 5


class TableRoleError(ValueError):
    """A declared or required column is missing. The message says what is needed."""


@dataclass(frozen=True, slots=True)
class DeclaredColumns:
    """Names of columns, as in the table; None for those to be inferred.

    Attributes:
        machine_type: The type of all machines; not a column.
        unit: The column with the machine.
        time: The column with the time.
        life: The column that counts life.
        failure: The column that is set at failures.
        left: The column with the remaining life.
        times: How times are written.
        failures: A table of failures, with the columns of the machine and the time.
    """

    machine_type: str | None = None
    unit: str | None = None
    time: str | None = None
    life: str | None = None
    failure: str | None = None
    left: str | None = None
    times: TimeOptions = field(default_factory=TimeOptions)
    failures: Path | None = None


@dataclass(slots=True)
class _Roles:
    unit: str | None
    time: str | None
    life: str | None
    failure: str | None
    left: str | None
    machine_type: str | None
    failures: Path | None = None
    notes: list[str] = field(default_factory=list)


def read_histories(
    files: Sequence[Path], declared: DeclaredColumns, run_to_failure: bool
) -> tuple[dict[str, list[Run]], str | None, list[str]]:
    """Reads the histories in tables with the same columns.

    Args:
        files: The tables.
        declared: The columns that are named.
        run_to_failure: Whether each machine's last row is its failure, unless a column says more.

    Returns:
        The runs by machine type, the sensor that counts life, and notes on what was inferred.

    Raises:
        TableError: A row cannot be read.
        TableRoleError: A column is missing.
    """
    parts = [read_columns(file) for file in files]
    lengths = [len(next(iter(part.values()))) for part in parts]
    table = _concatenate(files, parts)
    roles = _roles(table, declared, run_to_failure)
    try:
        runs = _runs(files[0], table, roles, declared, run_to_failure)
    except TableError as error:
        raise _error_in_file(error, files, lengths) from error
    return runs, roles.life and _sensor_name(roles.life), roles.notes


def _concatenate(files: Sequence[Path], parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the rows of all files as one table. Raises TableRoleError if their columns differ."""
    import pyarrow as pa  # noqa: PLC0415

    for file, part in zip(files, parts, strict=True):
        other = set(part) ^ set(parts[0])
        if other:
            raise TableRoleError(
                f"{file} and {files[0]} have different columns: only one of them has the column {min(other)!r}"
            )
    if len(parts) == 1:
        return parts[0]
    # A numeric column with a wrong cell in one file is text there; the wrong cell is reported later
    text = {name for part in parts for name, array in part.items() if pa.types.is_string(array.type)}
    tables = [
        pa.table({name: part[name].cast(pa.string()) if name in text else part[name] for name in parts[0]})
        for part in parts
    ]
    merged = pa.concat_tables(tables, promote_options="permissive")
    return {name: merged.column(name).combine_chunks() for name in merged.column_names}


def _error_in_file(error: TableError, files: Sequence[Path], lengths: Sequence[int]) -> TableError:
    """Returns the error with the row number within its own file."""
    if len(files) == 1 or error.row < FIRST_ROW:
        return error
    row = error.row - FIRST_ROW
    for file, length in zip(files, lengths, strict=True):
        if row < length:
            here = TableError(row + FIRST_ROW, error.column, f"{error.description} (in {file.name})")
            return here.with_others([_error_in_file(each, files, lengths) for each in error.others])
        row -= length
    return error


def _roles(table: dict[str, Any], declared: DeclaredColumns, run_to_failure: bool) -> _Roles:
    slugs = {_slug(name): name for name in table}
    named = [declared.unit, declared.time, declared.life, declared.failure, declared.left]
    twice = next((name for name in named if name is not None and named.count(name) > 1), None)
    if twice is not None:
        raise TableRoleError(f"{twice!r} is given for more than one of --unit, --time, --life, --failure and --left")

    def role(name: str | None, option: str, usual: Sequence[str]) -> str | None:
        if name is not None:
            if name not in table:
                raise TableRoleError(f"--{option} names {name!r}, but the columns are {', '.join(table)}")
            return name
        return next((slugs[each] for each in usual if each in slugs and slugs[each] not in named), None)

    roles = _Roles(
        unit=role(declared.unit, "unit", _UNITS),
        time=role(declared.time, "time", _TIMES),
        life=role(declared.life, "life", tuple(AXES)),
        failure=role(declared.failure, "failure", _TARGETS),
        left=role(declared.left, "left", _LIFE_LEFT),
        machine_type=None if declared.machine_type else role(None, "", _TYPES),
        failures=declared.failures,
    )
    if roles.failures is not None:
        if declared.failure is not None or declared.left is not None:
            raise TableRoleError("give either --failures, or --failure or --left")
        roles.failure = roles.left = None
    undeclared = declared.times.form == "auto" and roles.life is None
    if roles.time is not None and undeclared and is_counter(table[roles.time]):
        roles.life, roles.time = roles.time, None
    roles.notes += [*_notes_on_rows(roles), _note_on_failures(roles, table, run_to_failure)]
    return roles


def _notes_on_rows(roles: _Roles) -> Iterator[str]:
    """Yields which columns give the machine, life and time of a row."""
    if roles.unit is None:
        yield "no column names the machine (--unit), so all rows belong to one machine"
    else:
        yield f"machines by {roles.unit!r}"
    if roles.life is not None:
        yield f"life by {roles.life!r}"
    if roles.time is not None:
        yield f"time by {roles.time!r}"
    elif roles.life is None:
        yield "no column contains the time (--time) or life (--life), so consecutive rows count as one hour apart"


def _note_on_failures(roles: _Roles, table: dict[str, Any], run_to_failure: bool) -> str:
    """Returns how failures are recognized."""
    if roles.failure is not None:
        return f"failures by {roles.failure!r}"
    if roles.failures is not None:
        return f"failures by {roles.failures.name}"
    if roles.left is not None:
        return f"remaining life by {roles.left!r}"
    if run_to_failure:
        return "each machine's last row is its failure"
    if {"sensor", "value"} <= set(table):
        return f"long format with a row per reading; failures by the sensor {FAULT!r}, if it exists"
    return "no failures are given (--failure, --left or --run-to-failure), so all machines count as healthy"


def _runs(
    file: Path, table: dict[str, Any], roles: _Roles, declared: DeclaredColumns, run_to_failure: bool
) -> dict[str, list[Run]]:
    if {"sensor", "value"} <= set(table) and roles.unit and roles.time:
        return _long_runs(table, (roles.unit, roles.time, roles.machine_type), file, declared, run_to_failure)
    count = len(next(iter(table.values())))
    units = texts_of(table[roles.unit]) if roles.unit else [_slug(file.stem)] * count
    types = texts_of(table[roles.machine_type]) if roles.machine_type else None
    named_type = declared.machine_type or _slug(file.stem)
    if types is None and declared.machine_type is None:
        roles.notes.append(f"the machines' type is taken from the file's name: {named_type!r} (--machine-type)")
    columns, times = _columns_and_times(table, roles, declared.times, units)
    if (faults := _faults(table, declared, roles, units, times)) is not None:
        columns[FAULT] = faults
    left = numbers_of(roles.left, table[roles.left]) if roles.left and not roles.failure else None
    if roles.left and not roles.failure and left is None:
        raise TableError(1, roles.left, "contains text instead of the remaining life")
    life = _sensor_name(roles.life) if roles.life else None
    if life is not None and life not in columns:
        raise TableError(1, roles.life or "", "contains text instead of a count of life")
    runs: dict[str, list[Run]] = {}
    order = sorted(range(count), key=lambda row: units[row])
    for unit, grouped in itertools.groupby(order, key=lambda row: units[row]):
        rows = np.fromiter(grouped, dtype=np.intp)
        if times is not None:
            at = times[rows]
        elif life is not None:
            at = _times_of_life(columns[life][rows], rows, roles.life or "")
        else:
            at = CMAPSS_EPOCH_US + np.arange(len(rows), dtype=np.int64) * HOUR_US
        rows, at = _sorted_by_time(unit, rows, at, roles.time or roles.life or "")
        machine_runs = split_runs(
            unit if machine_id_problem(unit) is None else _slug(unit) or "machine",
            at,
            {name: values[rows] for name, values in columns.items()},
            ends_in_failure=run_to_failure and roles.failure is None and roles.failures is None,
            axis=life,
        )
        if left is not None:
            machine_runs = [_with_remaining_life(run, left[rows], at) for run in machine_runs]
        runs.setdefault(_slug(types[rows[0]]) if types else named_type, []).extend(machine_runs)
    return runs


def _faults(
    table: dict[str, Any], declared: DeclaredColumns, roles: _Roles, units: Sequence[str], times: Timestamps | None
) -> Values | None:
    """Returns 1 for each row at a failure, else 0; None if no failures are given."""
    if declared.failures is not None:
        return _given_failures(declared.failures, declared.times, roles, units, times)
    return _failures(table[roles.failure]) if roles.failure else None


def _given_failures(
    file: Path, options: TimeOptions, roles: _Roles, units: Sequence[str], times: Timestamps | None
) -> Values:
    """Returns 1 for the first row of a machine at or after each failure in a table of failures, else 0."""
    if roles.unit is None or roles.time is None or times is None:
        raise TableRoleError("--failures needs a table with columns of the machine (--unit) and the time (--time)")
    try:
        table = read_columns(file)
        names = FailureTable(roles.unit, roles.time)
        for name in names:
            if name not in table:
                raise TableRoleError(
                    f"{file} must have the columns {roles.unit!r} and {roles.time!r}, as the table of "
                    f"readings has; its columns are {', '.join(table)}"
                )
        faults, notes = mark_failures(table, names, options, units, times)
    except TableError as error:
        raise TableRoleError(f"{file}, {error}") from error
    roles.notes += notes
    return faults


def _columns_and_times(
    table: dict[str, Any], roles: _Roles, options: TimeOptions, units: Sequence[str]
) -> tuple[dict[str, Values], Timestamps | None]:
    """Returns the columns of sensors, and the times of the rows if a column has them.

    Raises:
        TableError: Names the first wrong cell of each column, so that a user learns of all at once.
    """
    mistakes: list[TableError] = []
    columns = _sensor_columns(table, roles, mistakes)
    times = None
    try:
        times = times_of(table[roles.time], roles.time, options, units) if roles.time else None
    except TableError as error:
        mistakes.append(error)
    if mistakes:
        first, *others = sorted(mistakes, key=lambda mistake: mistake.row)
        raise first.with_others(others[:_MOST_NAMED])
    return columns, times


def _sensor_columns(table: dict[str, Any], roles: _Roles, mistakes: list[TableError]) -> dict[str, Values]:
    """Returns every numeric column without another role, by the sensor's name. Adds wrong cells to `mistakes`."""
    special = {roles.unit, roles.time, roles.failure, roles.left, roles.machine_type}
    columns: dict[str, Values] = {}
    texts = []
    hidden = [name for name in table if name not in special and name != roles.life and _is_no_sensor(name)]
    for name, array in table.items():
        if name in special or name in hidden:
            continue
        try:
            values = numbers_of(name, array, roles.notes)
        except TableError as error:
            mistakes.append(error)
            continue
        if values is None:
            texts.append(name)
            continue
        if _sensor_name(name) in columns:
            raise TableError(1, name, "has the same sensor name as another column; names differ only in case and signs")
        columns[_sensor_name(name)] = values
    if hidden:
        roles.notes.append(f"{', '.join(name or 'column without a name' for name in hidden)}: no sensor, not used")
    if texts:
        more = f" and {len(texts) - _MOST_NAMED} more" if len(texts) > _MOST_NAMED else ""
        roles.notes.append(f"{', '.join(texts[:_MOST_NAMED])}{more}: text column, not used")
    return columns


def _long_runs(
    table: dict[str, Any],
    named: tuple[str, str, str | None],
    file: Path,
    declared: DeclaredColumns,
    run_to_failure: bool,
) -> dict[str, list[Run]]:
    """Returns the runs in a table in long format, as `aurum export` writes it.

    Args:
        table: The columns of the table.
        named: The columns with the machine, the time and, if there is one, the machine type.
        file: The file, whose name is the machine type if nothing else states it.
        declared: The columns that are named.
        run_to_failure: Whether each machine's last row is its failure, unless there is a sensor of failures.
    """
    unit_column, time_column, type_column = named
    units, sensors = texts_of(table[unit_column]), texts_of(table["sensor"])
    series = list(zip(units, sensors, strict=True))
    times = times_of(table[time_column], time_column, declared.times, series)
    values = numbers_of("value", table["value"])
    if values is None:
        raise TableError(1, "value", "contains text; a table with a column `sensor` must have numbers in `value`")
    types = texts_of(table[type_column]) if type_column else None
    rows: dict[str, dict[str, list[int]]] = {}
    for row, (unit, sensor) in enumerate(zip(units, sensors, strict=True)):
        rows.setdefault(unit, {}).setdefault(sensor, []).append(row)
    runs: dict[str, list[Run]] = {}
    for unit, by_sensor in rows.items():
        columns = {}
        for sensor, sensor_rows in by_sensor.items():
            ordered, at = _sorted_by_time(unit, np.array(sensor_rows), times[sensor_rows], time_column)
            columns[sensor] = at, values[ordered]
        timestamps, aligned = align(columns)
        first = next(iter(by_sensor.values()))[0]
        machine_type = (types[first] if types else None) or declared.machine_type or _slug(file.stem)
        ends = run_to_failure and FAULT not in aligned
        runs.setdefault(machine_type, []).extend(split_runs(unit, timestamps, aligned, ends_in_failure=ends))
    return runs


def _with_remaining_life(run: Run, left: Values, at: Timestamps) -> Run:
    last = float(left[int(np.searchsorted(at, run.timestamps[-1]))])
    return run if np.isnan(last) else Run(run.machine_id, True, run.timestamps, run.columns, max(last, 0.0))


def _sorted_by_time(
    unit: str, rows: npt.NDArray[np.intp], at: Timestamps, column: str
) -> tuple[npt.NDArray[np.intp], Timestamps]:
    order = np.argsort(at, kind="stable")
    rows, at = rows[order], at[order]
    same = np.flatnonzero(np.diff(at) == 0)
    if len(same):
        first, second = int(rows[same[0]]) + 2, int(rows[same[0] + 1]) + 2
        raise TableError(
            max(first, second),
            column,
            f"machine {unit} already has a row with this time, row {min(first, second)} ({len(same)} such pairs in "
            f"all); keep one row of each pair, or name other columns with --unit and --time",
        )
    return rows, at


def _failures(array: Any) -> Values:
    """Returns 1 for each row at a failure, else 0. Numbers from 0.5 on and words not in _NO_FAILURE are failures."""
    return np.array([float(_is_failure(text)) for text in texts_of(array)])


def _is_failure(text: str) -> bool:
    try:
        return float(text) >= 0.5
    except ValueError:
        return text.strip().lower() not in _NO_FAILURE


def _is_no_sensor(name: str) -> bool:
    """Whether a column tells the outcome, or is the number of the row, which has no name."""
    return not name.strip() or _slug(name) in LABELS


def _times_of_life(life: Values, rows: npt.NDArray[np.intp], name: str) -> Timestamps:
    """Returns times derived from a life counter, for a table without times. Raises TableError."""
    wrong = np.flatnonzero(~(np.abs(life) < _LIFE_BELOW))
    if len(wrong):
        first = int(wrong[0])
        problem = "is empty" if np.isnan(life[first]) else f"{life[first]:g} is too large for a count of life"
        raise TableError(int(rows[first]) + FIRST_ROW, name, problem)
    at: Timestamps = CMAPSS_EPOCH_US + np.round(life * HOUR_US).astype(np.int64)
    return at


def _sensor_name(name: str) -> str:
    """Returns a column's name as it is if it is a valid sensor name, so that it fits readings; else its slug."""
    return name if sensor_problem(name) is None else _slug(name)


def _slug(name: str) -> str:
    """Returns a name in lower case with only letters, digits and underscores."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
