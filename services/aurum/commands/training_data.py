"""The histories that a command was given, whatever form they have."""

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
from aurum.readings.history import AXES, FAULT, Run
from aurum.readings.tables import TableError


@dataclass(frozen=True, slots=True)
class DataSelection:
    """What a command was told of its data. form: plant, cmapss, csv or store; None to look at the files. left_file: a
    line a machine with the life left at its last reading, as C-MAPSS has it. sensors: only these; by default all."""

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
    """by_type: machine type → runs. source: for the card. life: the sensor that counts life, if it was told. said: what
    was inferred of the data, in words."""

    by_type: dict[str, list[Run]]
    source: str
    life: str | None = None
    said: Sequence[str] = ()


def load_histories(given: DataSelection) -> Histories:
    """Raises HistoryError, TableError, TableRoleError."""
    form = given.form or (detect_format(given.files[0]) if given.files else "plant")
    only = given.types[0] if given.types else None
    if form in ("cmapss", "csv") and len(given.types) > 1:
        raise HistoryError("one --machine-type is for all machines of these files")
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
        raise TableError(error.row, error.column, f"{error.description} (in {named})") from error
    if given.left_file:
        histories = replace(histories, by_type=_with_remaining_lives(histories.by_type, given.left_file))
    if given.sensors:
        histories = replace(histories, by_type=_select_sensors(histories.by_type, given.sensors, histories.life))
    return histories


def _from_table(given: DataSelection, only: str | None) -> Histories:
    source = f"table: {describe_files(given.files)}"
    if all(is_long_csv(file) for file in given.files):
        if only is None:
            raise HistoryError("say with --machine-type what machines these are")
        return Histories({only: from_csv(given.files, only, given.run_to_failure)[only]}, source)
    by_type, life, notes = read_histories(given.files, replace(given.declared, machine_type=only), given.run_to_failure)
    return Histories(by_type, source, given.declared.life and life, notes)


def _select_sensors(by_type: dict[str, list[Run]], sensors: Sequence[str], life: str | None) -> dict[str, list[Run]]:
    """The runs with these sensors alone, and with what counts life and tells failures."""
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
        raise HistoryError(f"{file} is to have one number a line: {error}") from error
    if left.shape != (len(runs),):
        raise HistoryError(f"{file} has {left.size} numbers, and there are {len(runs)} runs; it needs one of each")
    given = iter(left.tolist())
    return {
        name: [Run(run.machine_id, True, run.timestamps, run.columns, next(given)) for run in runs_of_type]
        for name, runs_of_type in by_type.items()
    }
