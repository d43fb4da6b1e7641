"""Loads the histories that a command is given, in any supported format."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

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
from aurum.commands.tabular_histories import DeclaredColumns, read_histories
from aurum.readings.csv_table import TableNotes, TableOptions
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
        declared: Columns that are named by options.
        machines: Simulated machines of each type.
        seed: Seed of the simulation.
        left_file: A file with the remaining life at each machine's last reading, one number per line, as in C-MAPSS.
        sensors: The sensors to use; all if empty.
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


@dataclass(frozen=True, slots=True)
class Histories:
    """Loaded histories.

    Attributes:
        by_type: The runs by machine type.
        source: Where the data comes from, for the model card.
        life: The sensor that counts life, if an option names it.
        notes: What was inferred from the data, as text.
    """

    by_type: dict[str, list[Run]]
    source: str
    life: str | None = None
    notes: Sequence[str] = ()


def load_histories(given: DataSelection) -> Histories:
    """Loads histories. Types select machines of the plant model or a store, and name the machines of other files.

    Raises:
        HistoryError: The files contain no usable history, or the selection does not fit them.
        TableError: A row cannot be read.
        TableRoleError: A column is missing.
    """
    form = given.form or (detect_format(given.files[0]) if given.files else "plant")
    only = given.types[0] if given.types else None
    if form in ("cmapss", "csv") and len(given.types) > 1:
        raise HistoryError("give only one --machine-type, since it applies to all machines of these files")
    try:
        match form:
            case "plant":
                source = f"plant model, {given.machines} machines a type, seed {given.seed}"
                histories = Histories(from_plant(given.types, given.machines, given.seed), source)
            case "cmapss":
                histories = Histories(
                    from_cmapss(given.files, only or CMAPSS_TYPE), f"C-MAPSS: {describe_files(given.files)}"
                )
            case "store":
                stored = from_store(given.files, only, given.run_to_failure)
                histories = Histories(stored, f"store: {', '.join(map(str, given.files))}")
            case _:
                histories = _from_table(given, only)
    except TableError as error:
        named = ", ".join(map(str, given.files))
        first = TableError(error.row, error.column, f"{error.description} (in {named})")
        raise first.with_others(error.others) from error
    if given.left_file:
        histories = replace(histories, by_type=_with_remaining_lives(histories.by_type, given.left_file))
    if given.sensors:
        histories = replace(histories, by_type=_select_sensors(histories.by_type, given.sensors, histories.life))
    return histories


def _from_table(given: DataSelection, only: str | None) -> Histories:
    source = f"table: {describe_files(given.files)}"
    if all(is_long_csv(file) for file in given.files):
        if only is None:
            raise HistoryError("give the type of these machines with --machine-type")
        table_notes = TableNotes()
        options = TableOptions(times=given.declared.times)
        runs = from_csv(given.files, only, given.run_to_failure, options, table_notes)
        return Histories(runs, source, notes=table_notes.describe())
    by_type, life, notes = read_histories(given.files, replace(given.declared, machine_type=only), given.run_to_failure)
    return Histories(by_type, source, given.declared.life and life, notes)


def _select_sensors(by_type: dict[str, list[Run]], sensors: Sequence[str], life: str | None) -> dict[str, list[Run]]:
    """Returns the runs with only these sensors, and with the columns of life and failures."""
    available = {name for runs in by_type.values() for run in runs for name in run.columns}
    unknown = [name for name in sensors if name not in available]
    if unknown:
        raise HistoryError(f"there is no sensor {unknown[0]!r}; there are {', '.join(sorted(available))}")
    kept_columns = {*sensors, *AXES, FAULT, life}
    return {
        machine_type: [
            replace(run, columns={name: values for name, values in run.columns.items() if name in kept_columns})
            for run in runs
        ]
        for machine_type, runs in by_type.items()
    }


def _with_remaining_lives(by_type: dict[str, list[Run]], file: Path) -> dict[str, list[Run]]:
    runs = [run for runs_of_type in by_type.values() for run in runs_of_type]
    try:
        left = np.loadtxt(file, ndmin=1)
    except ValueError as error:
        raise HistoryError(f"{file} must have one number per line: {error}") from error
    if left.shape != (len(runs),):
        raise HistoryError(f"{file} has {left.size} numbers for {len(runs)} runs; one number per run is required")
    given = iter(left.tolist())
    return {
        name: [Run(run.machine_id, True, run.timestamps, run.columns, next(given)) for run in runs_of_type]
        for name, runs_of_type in by_type.items()
    }
