"""Divides histories into parts that are read independently of each other, and computes what training needs of a part.

A part has whole machines: the files of one machine, one file with several machines, or some machines of a store. The
functions of a part run on the workers of a cluster; nothing here depends on how they get there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from aurum.commands.categories import Words, category_note, recode
from aurum.commands.histories import HistoryError, detect_format
from aurum.commands.joined_events import JoinedEvents
from aurum.commands.state_words import UnknownStateError
from aurum.commands.stores import list_store
from aurum.commands.table_columns import read_columns
from aurum.commands.table_files import type_by_files
from aurum.commands.table_names import natural_order
from aurum.commands.table_roles import DeclaredColumns, TableRoleError
from aurum.commands.training_data import DataSelection, Histories, load_part, refuse_table_options
from aurum.prediction.model.card import ModelKind
from aurum.prediction.model.features import TIME, FeatureSpec
from aurum.prediction.training.digests import digest_of_run
from aurum.prediction.training.healthy_time import healthy_parts
from aurum.prediction.training.table import Table, tabulate_every
from aurum.readings.history import AXES, Run
from aurum.readings.tables import TableError

_MACHINE_FOLDER = "machine_id="  # the folder of a machine in an export
_MACHINES_AT_ONCE = 8  # of a store, in a part

Machine = tuple[str, str]
"""The type and the id of a machine."""
Events = Mapping[Path, Mapping[str, Any]]
"""The columns of the tables of failures and maintenance."""


@dataclass(frozen=True, slots=True)
class Part:
    """Histories that are read together.

    Attributes:
        name: What it is, for messages.
        given: How it is read.
    """

    name: str
    given: DataSelection


@dataclass(frozen=True, slots=True)
class Wanted:
    """Machines of a part that a model is trained on.

    Attributes:
        part: The part.
        machines: The machines.
        categories: The words of each sensor in the whole data, whose codes are used.
        kind: The kind of model, which for anomalies learns from healthy time only.
        left: The life left at the last readings of a machine, if a file tells it.
    """

    part: Part
    machines: frozenset[Machine]
    categories: Mapping[str, Words]
    kind: ModelKind
    left: Mapping[Machine, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MachineSummary:
    """What is known of the history of a machine without the history itself.

    Attributes:
        ends: The first and the last reading of each run, with the columns that may count life.
        readings: The number of readings of each run.
        columns: The columns that all of its runs have.
    """

    ends: list[Run]
    readings: list[int]
    columns: frozenset[str]


@dataclass(frozen=True, slots=True)
class MachineFeatures:
    """What a model is trained on of a machine.

    Attributes:
        ends: The first and the last reading of each run.
        table: The features of its runs.
        digests: The digest of each run.
    """

    ends: list[Run]
    table: Table
    digests: list[str]


@dataclass(frozen=True, slots=True)
class PartSummary:
    """What is known of a part.

    Attributes:
        machines: The summary of each machine.
        life: The sensor that counts life, if a table has one.
        categories: The words of each sensor whose values stand for words.
        numbers: The sensors with numbers.
        notes: What was inferred from the data, as text.
        joined: What became of the events of other tables.
    """

    machines: dict[Machine, MachineSummary]
    life: str | None = None
    categories: Mapping[str, Words] = field(default_factory=dict)
    numbers: frozenset[str] = frozenset()
    notes: Sequence[str] = ()
    joined: Sequence[JoinedEvents] = ()


def parts_of(given: DataSelection) -> list[Part]:
    """Divides the data that a command is given into parts.

    Raises:
        HistoryError: The data allows no division.
        TableRoleError: An option does not fit the data.
    """
    form = given.form or (detect_format(given.files[0]) if given.files else "plant")
    if form not in ("csv", "store"):
        raise HistoryError(
            f"a cluster reads tables and stores, and the data has the format {form}; train it without --scheduler"
        )
    declared = given.declared
    given = replace(given, form=form, left_file=None)  # which concerns all machines together
    if form == "store":
        refuse_table_options(declared, form)
        return _parts_of_stores(given)
    unique = [file.resolve() for file in given.files]
    usual_type = type_by_files(unique, declared.machine_by_file)
    given = replace(given, declared=replace(declared, usual_type=usual_type, all_words=True))
    groups: dict[Path, list[Path]] = {}
    for file in unique:
        of_machine = file.parent if file.parent.name.startswith(_MACHINE_FOLDER) else file
        groups.setdefault(of_machine, []).append(file)
    return [Part(str(place), replace(given, files=files)) for place, files in groups.items()]


def _parts_of_stores(given: DataSelection) -> list[Part]:
    only = given.types[0] if given.types else None
    parts = []
    stores: Sequence[Path | None] = given.files or [None]
    for store in stores:
        place = store.resolve() if store else None
        machines = [record.machine_id for record in list_store(place, only)]
        for start in range(0, len(machines), _MACHINES_AT_ONCE):
            some = machines[start : start + _MACHINES_AT_ONCE]
            parts.append(
                Part(
                    f"{', '.join(some)} of {place or 'the store of the settings'}",
                    replace(given, files=[place] if place else [], machine_ids=frozenset(some)),
                )
            )
    if not parts:
        places = ", ".join(map(str, given.files)) or "the store of the settings"
        raise HistoryError(f"{places} has no machine {f'of type {only!r}' if only else 'with a type'}")
    return parts


def events_of(declared: DeclaredColumns) -> Events:
    """Reads the tables of failures and maintenance, which are joined to all parts.

    Raises:
        TableRoleError: One of them cannot be read.
    """
    events = {}
    for file in (declared.failures, declared.maintenance):
        if file is not None:
            try:
                events[file] = read_columns(file, declared.written, declared.encoding)
            except TableError as error:
                raise TableRoleError(f"{file}, {error}") from error
    return events


def summarize(part: Part, events: Events) -> PartSummary:
    """Reads a part. Raises HistoryError if it cannot be read.

    Args:
        part: The part.
        events: See `events_of`.
    """
    histories = _read(part, events)
    machines: dict[Machine, MachineSummary] = {}
    for machine, runs in _by_machine(histories).items():
        machines[machine] = MachineSummary(
            [_ends_of(run, histories.life) for run in runs],
            [len(run.timestamps) for run in runs],
            frozenset.intersection(*(frozenset(run.columns) for run in runs)),
        )
    words = histories.categories
    numbers = {
        name
        for runs in histories.by_type.values()
        for run in runs
        for name, values in run.columns.items()
        if name not in words and not np.isnan(values).all()
    }
    of_words = tuple(category_note(name, of_name) for name, of_name in words.items())  # not those of the whole data
    notes = [note for note in histories.notes if note not in of_words]
    return PartSummary(machines, histories.life, words, frozenset(numbers), notes, histories.joined)


def read_machines(wanted: Wanted, every: int, events: Events) -> dict[Machine, list[Run]]:
    """Returns the runs of machines of a part.

    Args:
        wanted: The machines.
        every: Of so many readings one is returned, and always the last reading of a run.
        events: See `events_of`.

    Raises:
        HistoryError: The part cannot be read.
    """
    histories = _read(wanted.part, events)
    found = {}
    for machine, of_machine in _by_machine(histories).items():
        if machine in wanted.machines:
            runs = [_recoded(run, histories.categories, wanted.categories) for run in of_machine]
            if machine in wanted.left:
                runs[-1] = replace(runs[-1], failed=True, left=wanted.left[machine])
            if wanted.kind == "anomaly":
                runs = healthy_parts(runs)
            found[machine] = [_thinned(run, every) for run in runs]
    return found


def tabulate_machines(wanted: Wanted, spec: FeatureSpec, stride: int, events: Events) -> dict[Machine, MachineFeatures]:
    """Returns the features of machines of a part, with a row for each `stride` steps; errors as `read_machines`."""
    life = None if spec.axis == TIME else spec.axis
    return {
        machine: MachineFeatures(
            [_ends_of(run, life) for run in runs],
            tabulate_every(runs, spec, stride),
            [digest_of_run(run) for run in runs],
        )
        for machine, runs in read_machines(wanted, 1, events).items()
    }


def in_order(machines: Sequence[Machine]) -> list[Machine]:
    """Returns machines in the order in which one process trains on them."""
    return sorted(machines, key=lambda machine: (natural_order(machine[1]), machine[1]))


def _read(part: Part, events: Events) -> Histories:
    """Returns the histories of a part. Errors are such that a process can pass them to another one."""
    try:
        return load_part(replace(part.given, declared=replace(part.given.declared, events=events)))
    except (HistoryError, TableError, TableRoleError, UnknownStateError, OSError) as error:
        raise HistoryError(f"{part.name} cannot be read by a worker: {error}") from None


def _by_machine(histories: Histories) -> dict[Machine, list[Run]]:
    found: dict[Machine, list[Run]] = {}
    for machine_type, runs in histories.by_type.items():
        for run in runs:
            if len(run.timestamps):
                found.setdefault((machine_type, run.machine), []).append(run)
    return found


def _ends_of(run: Run, life: str | None) -> Run:
    """Returns the first and the last reading of a run. The life at these is the least and the greatest known one."""
    ends = np.unique([0, len(run.timestamps) - 1])
    columns = {}
    for name, values in run.columns.items():
        if name.lower() in AXES or name == life:
            known = values[~np.isnan(values)]
            column = values[ends].copy()
            if len(known) and len(ends) > 1:
                column[:] = known.min(), known.max()
            columns[name] = column
    return replace(run, timestamps=run.timestamps[ends], columns=columns)


def _thinned(run: Run, every: int) -> Run:
    if every == 1:
        return run
    kept = np.arange(len(run.timestamps) - 1, -1, -every)[::-1]
    columns = {name: values[kept] for name, values in run.columns.items()}
    return replace(run, timestamps=run.timestamps[kept], columns=columns)


def _recoded(run: Run, words: Mapping[str, Words], known: Mapping[str, Words]) -> Run:
    """Returns a run with the codes of the whole data, without words that are no category there."""
    columns = dict(run.columns)
    for name, values in run.columns.items():
        if name in words:
            del columns[name]
            if name in known:
                columns[name] = recode(values, words[name], known[name])[0]
    return replace(run, columns=columns)
