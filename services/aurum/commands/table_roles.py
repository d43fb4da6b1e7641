"""Finds out which column of a table has which role: declared by options, or recognised by common names.

Names are compared without capitals and signs, so that `Machine ID`, `machine_id` and `MACHINEID` are the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from aurum.commands.common_names import (
    ANOMALY_NAMES,
    FAILURE_NAMES,
    LABEL_KEYS,
    LABELS_OF_SETS,
    LEFT_NAMES,
    LIFE_NAMES,
    ROW_NUMBER_KEYS,
    RUN_NAMES,
    STATE_NAMES,
    TIME_NAMES,
    TYPE_NAMES,
    UNIT_NAMES,
)
from aurum.commands.row_order import Duplicates
from aurum.commands.state_words import StateWords, has_failure_word
from aurum.commands.table_columns import is_counter, is_text, texts_of
from aurum.commands.table_names import find_name, key_of
from aurum.readings.csv_table import TableOptions
from aurum.readings.history import FAULT

_LEAST_NUMBERED = 10
NO_FAILURES = "no failures are given"  # the beginning of a note, which a file of remaining lives makes wrong


class TableRoleError(ValueError):
    """A declared or required column is missing. The message says what is needed."""


@dataclass(frozen=True, slots=True)
class DeclaredColumns:
    """What options tell of a table. Names of columns may differ from the table's in capitals; None to infer them.

    Attributes:
        machine_type: The type of all machines; not a column.
        usual_type: Their type if neither `machine_type` nor a column states it; by default the files' names tell it.
        unit: The column with the machine.
        time: The column with the time.
        life: The column that counts life.
        failure: The column that is set at failures.
        left: The column with the remaining life.
        run: The column whose value changes where a new life begins.
        written: How the table is written.
        encoding: The encoding of its text; None to recognise it.
        failures: A table of failures.
        maintenance: A table of overhauls and repairs, each of which begins a new life.
        states: The meaning of words in the column of failures.
        excluded: Columns that are not read.
        machine_by_file: Whether each file has one machine, named as the file.
        duplicates: What is done with rows of the same machine and time.
        all_words: Whether text columns with one word or with many are read too, since a model may know them.
        events: The columns of `failures` and `maintenance`, by the file, if they have been read.
    """

    machine_type: str | None = None
    usual_type: str | None = None
    unit: str | None = None
    time: str | None = None
    life: str | None = None
    failure: str | None = None
    left: str | None = None
    run: str | None = None
    written: TableOptions = field(default_factory=TableOptions)
    encoding: str | None = None
    failures: Path | None = None
    maintenance: Path | None = None
    states: StateWords = field(default_factory=StateWords)
    excluded: Sequence[str] = ()
    machine_by_file: bool = False
    duplicates: Duplicates = "refuse"
    all_words: bool = False
    events: Mapping[Path, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(slots=True)
class Roles:
    """The role of columns, by their names in the table.

    Attributes:
        run: The column that numbers lives, or names what is replaced: a new life begins where its value changes.
        anomaly: The column that labels anomalies over time. No model is trained with it, but evaluated on it.
        hidden: Columns that are no sensors, with the reason.
        notes: What was inferred, as text.
    """

    unit: str | None = None
    time: str | None = None
    life: str | None = None
    failure: str | None = None
    left: str | None = None
    run: str | None = None
    machine_type: str | None = None
    anomaly: str | None = None
    hidden: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def taken(self) -> set[str | None]:
        """Returns the columns that have a role and are no sensors."""
        return {self.unit, self.time, self.failure, self.left, self.run, self.machine_type, *self.hidden}


def roles_of(
    table: Mapping[str, Any], lengths: Sequence[int], declared: DeclaredColumns, run_to_failure: bool, place: str
) -> Roles:
    """Returns the roles of a table's columns.

    Args:
        table: The columns.
        lengths: The number of rows of each file of the table.
        declared: What options tell.
        run_to_failure: Whether each machine's last row is its failure, unless a column says more.
        place: The files, for messages.

    Raises:
        TableRoleError: A declared column is missing, or declarations contradict each other.
    """
    named = _Named(table, declared, place)
    roles = Roles(
        time=named.role("time", declared.time, TIME_NAMES),
        life=named.role("life", declared.life, LIFE_NAMES),
        left=named.role("left", declared.left, LEFT_NAMES),
        run=named.role("run", declared.run, RUN_NAMES),
        machine_type=None if declared.machine_type else named.role("", None, TYPE_NAMES),
        anomaly=named.role("", None, ANOMALY_NAMES),
    )
    roles.unit = _unit(named, declared, lengths, roles)
    roles.failure = _failure(named, declared)
    if declared.failures is not None:
        if declared.failure is not None or declared.left is not None:
            raise TableRoleError("give either --failures, or --failure or --left")
        roles.failure = roles.left = None
    elif (
        roles.failure
        and roles.left
        and declared.failure is None
        and (declared.left is not None or key_of(roles.failure) in ("label", "target"))
    ):
        roles.failure = None  # such labels are often derived from the remaining life
    _resolve_counters(table, declared, roles)
    roles.hidden |= dict(_hidden(table, lengths, roles))
    roles.notes += [
        *_notes_on_rows(roles, declared, len(lengths)),
        *_note_on_failures(roles, table, declared, run_to_failure),
    ]
    return roles


class _Named:
    """Finds columns by declared and by usual names."""

    def __init__(self, table: Mapping[str, Any], declared: DeclaredColumns, place: str) -> None:
        self.table = table
        self._place = place
        self._by_key: dict[str, str] = {}
        for name in table:
            self._by_key.setdefault(key_of(name), name)
        options = {
            "unit": declared.unit,
            "time": declared.time,
            "life": declared.life,
            "failure": declared.failure,
            "left": declared.left,
            "run": declared.run,
        }
        self._named = {option: self._find(option, name) for option, name in options.items() if name is not None}
        found = list(self._named.values())
        twice = next((name for name in found if found.count(name) > 1), None)
        if twice is not None:
            raise TableRoleError(
                f"{twice!r} is given for more than one of --unit, --time, --life, --failure, --left and --run"
            )

    def _find(self, option: str, name: str) -> str:
        found = find_name(name, self.table)
        if found is None:
            raise TableRoleError(
                f"--{option} names {name!r}, but the columns are {', '.join(self.table)} (in {self._place})"
            )
        return found

    def role(self, option: str, declared: str | None, usual: Sequence[str]) -> str | None:
        """Returns the declared column, or the first one with a usual name that has no declared role."""
        if declared is not None:
            return self._named[option]
        return next(iter(self.usual(usual)), None)

    def usual(self, names: Sequence[str]) -> list[str]:
        """Returns the columns with usual names, in the order of these."""
        found = (self._by_key.get(key_of(name)) for name in names)
        return list(dict.fromkeys(each for each in found if each is not None and each not in self._named.values()))


def _unit(named: _Named, declared: DeclaredColumns, lengths: Sequence[int], roles: Roles) -> str | None:
    """Returns the column with the machine. The number of the row is none, if rows have a time or life."""
    if declared.machine_by_file:
        if declared.unit is not None:
            raise TableRoleError("give either --machine-by-file or --unit")
        return None
    if declared.unit is not None:
        return named.role("unit", declared.unit, ())
    ordered = roles.time is not None or roles.life is not None
    for name in named.usual(UNIT_NAMES):
        if not (ordered and key_of(name) in ROW_NUMBER_KEYS and _numbers_rows(named.table[name], lengths)):
            return name
    return None


def _failure(named: _Named, declared: DeclaredColumns) -> str | None:
    """Returns the column with failures. A column with a name such as `status` is one if it has words of failures."""
    if declared.failure is not None:
        return named.role("failure", declared.failure, ())
    flag = named.role("failure", None, FAILURE_NAMES)
    if flag is not None and not declared.states.failure:
        return flag
    candidates: list[str] = [*([flag] if flag else []), *named.usual(STATE_NAMES)]
    for name in candidates:
        array = named.table[name]
        if is_text(array) and has_failure_word(texts_of(array), declared.states):
            return name
    return flag


def _resolve_counters(table: Mapping[str, Any], declared: DeclaredColumns, roles: Roles) -> None:
    """Takes a time column that counts hours or cycles for the life, or leaves it out if life is counted already."""
    if roles.time is None or declared.written.times.form != "auto" or not is_counter(table[roles.time]):
        return
    if roles.life is None:
        roles.life, roles.time = roles.time, None
    elif declared.time is None:
        roles.hidden[roles.time] = "counts life too"
        roles.time = None


def _hidden(table: Mapping[str, Any], lengths: Sequence[int], roles: Roles) -> Iterator[tuple[str, str]]:
    """Yields columns that are no sensors, with the reason."""
    keys = {key_of(name) for name in table}
    labels = {label for members, of_set in LABELS_OF_SETS if members <= keys for label in of_set}
    used = {*roles.taken(), roles.life, roles.anomaly}
    # Of one machine, or of few rows, a column with consecutive numbers may be a sensor
    several = roles.unit is not None and sum(lengths) >= _LEAST_NUMBERED and len(set(texts_of(table[roles.unit]))) > 1
    for name, array in table.items():
        if name in used:
            continue
        key = key_of(name)
        if not name.strip():
            yield name, "has no name"
        elif (
            key in LABEL_KEYS
            or key in labels
            or (roles.failure and is_text(array) and key in {key_of(each) for each in STATE_NAMES})
        ):
            yield name, "tells the outcome"
        elif (key in ROW_NUMBER_KEYS or several) and _numbers_rows(array, lengths):
            yield name, "is the number of the row"


def _numbers_rows(array: Any, lengths: Sequence[int]) -> bool:
    """Whether a column counts the rows of each file."""
    import pyarrow as pa  # noqa: PLC0415

    if not pa.types.is_integer(array.type) or array.null_count or len(array) < 2:
        return False
    numbers = np.asarray(array.cast(pa.int64()).to_numpy(zero_copy_only=False))
    ends = np.cumsum(lengths)[:-1]
    return all(len(part) < 2 or bool((np.diff(part) == 1).all()) for part in np.split(numbers, ends))


def _notes_on_rows(roles: Roles, declared: DeclaredColumns, files: int) -> Iterator[str]:
    """Yields which columns give the machine, life and time of a row."""
    if roles.unit is not None:
        yield f"machines by {roles.unit!r}"
    elif declared.machine_by_file or files > 1:
        yield "each file is one machine, named as the file (--unit names a column with the machine)"
    else:
        yield "no column names the machine (--unit), so all rows belong to one machine"
    if roles.life is not None:
        yield f"life by {roles.life!r}"
    if roles.run is not None:
        yield f"a new life begins where {roles.run!r} changes"
    if roles.time is not None:
        yield f"time by {roles.time!r}"
    elif roles.life is None:
        yield "no column contains the time (--time) or life (--life), so consecutive rows count as one hour apart"


def _note_on_failures(
    roles: Roles, table: Mapping[str, Any], declared: DeclaredColumns, run_to_failure: bool
) -> Iterator[str]:
    """Yields how failures are recognised; nothing for a column of failures, whose words are noted later."""
    if roles.anomaly is not None:
        yield f"anomalies are labelled by {roles.anomaly!r}, which is no sensor"
    if declared.failures is not None:
        yield f"failures by {declared.failures.name}"
    elif roles.failure is not None:
        return
    elif roles.left is not None:
        yield f"remaining life by {roles.left!r}"
    elif run_to_failure:
        yield "each machine's last row is its failure"
    elif {"sensor", "value"} <= set(table):
        yield f"long format with a row per reading; failures by the sensor {FAULT!r}, if it exists"
    else:
        yield f"{NO_FAILURES} (--failure, --failures, --left or --run-to-failure), so all machines count as healthy"
