"""Loads the histories that a command is given, in any supported format."""

import contextlib
from collections.abc import Container, Generator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from aurum.commands.categories import Words
from aurum.commands.histories import (
    HistoryError,
    describe_files,
    detect_format,
    from_cmapss,
    from_csv,
    from_plant,
    from_store,
    is_long_csv,
)
from aurum.commands.importing import CMAPSS_TYPE
from aurum.commands.joined_events import JoinedEvents, notes_on
from aurum.commands.left_files import with_remaining_lives
from aurum.commands.table_names import find_name, natural_order
from aurum.commands.table_roles import NO_FAILURES, DeclaredColumns, TableRoleError
from aurum.commands.tabular_histories import read_histories
from aurum.readings.csv_table import TableNotes
from aurum.readings.history import AXES, FAULT, Run
from aurum.readings.tables import TableError


@dataclass(frozen=True, slots=True)
class DataSelection:
    """The data that a command is given.

    Attributes:
        form: The format: plant, cmapss, csv or store; None to detect it from the files.
        files: The files.
        types: Machine types, see `load_histories`.
        run_to_failure: Whether each machine's last reading is its failure.
        declared: What options tell of a table.
        machines: Simulated machines of each type.
        seed: Seed of the simulation.
        left_file: A file with the remaining life at each machine's last reading, see `with_remaining_lives`.
        sensors: The sensors to use; all if empty.
        machine_ids: Only these machines of a store; None for all.
    """

    form: str | None
    files: Sequence[Path]
    types: Sequence[str]
    run_to_failure: bool = False
    declared: DeclaredColumns = field(default_factory=DeclaredColumns)
    machines: int = 50
    seed: int = 7
    left_file: Path | None = None
    sensors: Sequence[str] = ()
    machine_ids: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Histories:
    """Loaded histories.

    Attributes:
        by_type: The runs by machine type.
        source: Where the data comes from, for the model card.
        life: The sensor that counts life, if a table has one; None to recognise it by its name.
        notes: What was inferred from the data, as text.
        categories: The words of each sensor whose values stand for words, in the order of the values.
        clock: Whether times are those of a clock; if not, they are made from a count of life, or of rows.
        joined: What became of the events of other tables.
    """

    by_type: dict[str, list[Run]]
    source: str
    life: str | None = None
    notes: Sequence[str] = ()
    categories: Mapping[str, Words] = field(default_factory=dict)
    clock: bool = True
    joined: Sequence[JoinedEvents] = ()


def load_histories(given: DataSelection) -> Histories:
    """Loads histories. Types select machines of the plant model or a store, and name the machines of other files.

    Raises:
        HistoryError: The files contain no usable history, or the selection does not fit them.
        TableError: A row cannot be read.
        TableRoleError: A column is missing.
        UnknownStateError: A word in the column of failures is not known.
    """
    histories = load_part(given)
    histories = replace(histories, notes=[*histories.notes, *notes_on(histories.joined)])
    if given.left_file:
        by_type, note = with_remaining_lives(histories.by_type, given.left_file)
        histories = replace(histories, by_type=by_type, notes=[*without_failure_note(histories.notes), note])
    return histories


def without_failure_note(notes: Sequence[str]) -> list[str]:
    """Returns notes without the one that no failures are given, which a file of remaining lives makes wrong."""
    return [note for note in notes if not note.startswith(NO_FAILURES)]


def load_part(given: DataSelection) -> Histories:
    """Loads histories of some machines. What concerns all machines together is left to the caller.

    These are the remaining lives of `left_file`, and whether the events of other tables have machines at all.

    Raises:
        HistoryError, TableError, TableRoleError, UnknownStateError: As `load_histories`.
    """
    form = given.form or (detect_format(given.files[0]) if given.files else "plant")
    only = given.types[0] if given.types else None
    if form in ("cmapss", "csv") and len(given.types) > 1:
        raise HistoryError("give only one --machine-type, since it applies to all machines of these files")
    if form == "csv":
        histories = _from_table(given, only)
    else:
        refuse_table_options(given.declared, form)
        with _files_named(given.files):
            histories = _from_other_data(given, form, only)
        if given.declared.excluded:
            histories = replace(histories, by_type=_exclude(histories.by_type, given.declared.excluded))
    histories = replace(histories, by_type=_in_natural_order(histories.by_type))
    if given.sensors:
        histories = replace(histories, by_type=_select_sensors(histories.by_type, given.sensors, histories.life))
    return histories


def _in_natural_order(by_type: dict[str, list[Run]]) -> dict[str, list[Run]]:
    """Returns the runs with the machines in natural order, so that the order of files and rows changes no model."""
    return {
        machine_type: sorted(runs, key=lambda run: (natural_order(run.machine), run.machine))
        for machine_type, runs in by_type.items()
    }


def _from_other_data(given: DataSelection, form: str, only: str | None) -> Histories:
    """Returns the histories in data that is no table."""
    match form:
        case "plant":
            source = f"plant model, {given.machines} machines a type, seed {given.seed}"
            return Histories(from_plant(given.types, given.machines, given.seed), source)
        case "cmapss":
            source = f"C-MAPSS: {describe_files(given.files)}"
            return Histories(from_cmapss(given.files, only or CMAPSS_TYPE), source, clock=False)
        case _:
            stored = from_store(given.files, only, given.run_to_failure, given.machine_ids)
            return Histories(stored, f"store: {', '.join(map(str, given.files)) or 'of the settings'}")


@contextlib.contextmanager
def _files_named(files: Sequence[Path]) -> Generator[None]:
    """Adds the names of the files to errors of the block that name only the row."""
    try:
        yield
    except TableError as error:
        named = ", ".join(map(str, files))
        first = TableError(error.row, error.column, f"{error.description} (in {named})")
        raise first.with_others(error.others) from error


def _from_table(given: DataSelection, only: str | None) -> Histories:
    source = f"table: {describe_files(given.files)}"
    declared = given.declared
    plain = DeclaredColumns(written=declared.written, all_words=declared.all_words, usual_type=declared.usual_type)
    if declared == plain and all(is_long_csv(file) for file in given.files):
        if only is None:
            raise HistoryError("give the type of these machines with --machine-type")
        table_notes = TableNotes()
        with _files_named(given.files):
            runs = from_csv(given.files, only, given.run_to_failure, declared.written, table_notes)
        return Histories(runs, source, notes=table_notes.describe())
    found = read_histories(given.files, replace(declared, machine_type=only), given.run_to_failure)
    return Histories(found.runs, source, found.life, found.notes, found.categories, found.clock, found.joined)


def refuse_table_options(declared: DeclaredColumns, form: str) -> None:
    """Raises TableRoleError for options that would have no effect, since the data is no table."""
    same = DeclaredColumns(written=declared.written, all_words=declared.all_words, excluded=declared.excluded)
    names = [each.name for each in fields(declared) if getattr(declared, each.name) != getattr(same, each.name)]
    if names:
        words = "--healthy, --failure-value, --ignore"
        options = [words if name == "states" else f"--{name.replace('_', '-')}" for name in names]
        raise TableRoleError(f"{', '.join(options)}: for tables only, and the data has the format {form}; leave it out")


def _exclude(by_type: dict[str, list[Run]], excluded: Sequence[str]) -> dict[str, list[Run]]:
    """Returns the runs without these sensors. Raises TableRoleError if there is none of the name."""
    available = {name for runs in by_type.values() for run in runs for name in run.columns}
    left_out = {name: find_name(name, available) for name in excluded}
    unknown = next((name for name, found in left_out.items() if found is None), None)
    if unknown is not None:
        raise TableRoleError(f"--exclude names {unknown!r}; there are {', '.join(sorted(available))}")
    return _with_columns(by_type, available - set(left_out.values()))


def _with_columns(by_type: dict[str, list[Run]], kept: Container[str | None]) -> dict[str, list[Run]]:
    return {
        machine_type: [
            replace(run, columns={name: values for name, values in run.columns.items() if name in kept}) for run in runs
        ]
        for machine_type, runs in by_type.items()
    }


def _select_sensors(by_type: dict[str, list[Run]], sensors: Sequence[str], life: str | None) -> dict[str, list[Run]]:
    """Returns the runs with only these sensors, and with the columns of life and failures."""
    available = {name for runs in by_type.values() for run in runs for name in run.columns}
    chosen = {name: find_name(name, available) for name in sensors}
    unknown = [name for name, found in chosen.items() if found is None]
    if unknown:
        raise HistoryError(f"there is no sensor {unknown[0]!r}; there are {', '.join(sorted(available))}")
    axes = {name for name in available if name.lower() in AXES}
    return _with_columns(by_type, {*chosen.values(), *axes, FAULT, life})
