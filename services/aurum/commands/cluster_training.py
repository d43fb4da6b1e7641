"""Prepares training on a cluster: its workers read the histories and compute their features.

All histories are read once, part by part, and only a summary of each part comes back. The specification of the features
is derived here from the histories of a sample of the machines. Then the workers compute the features of a sample. Each
sample contains all machines if they fit into the memory that the options allow.
"""

import itertools
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from aurum.commands.categories import MOST_WORDS, Words, category_note, ordered_words
from aurum.commands.dask_cluster import Cluster
from aurum.commands.histories import HistoryError
from aurum.commands.history_parts import (
    Events,
    Machine,
    MachineFeatures,
    MachineSummary,
    Part,
    PartSummary,
    Wanted,
    events_of,
    in_order,
    parts_of,
    read_machines,
    summarize,
    tabulate_machines,
)
from aurum.commands.joined_events import notes_on, together
from aurum.commands.left_files import with_remaining_lives
from aurum.commands.machine_sampling import sample_machines
from aurum.commands.table_names import listed
from aurum.commands.training_data import DataSelection, without_failure_note
from aurum.prediction.model.card import ModelKind
from aurum.prediction.model.features import FeatureSpec
from aurum.prediction.training.columns import NOT_COMMON, ages_of
from aurum.prediction.training.digests import digest_of
from aurum.prediction.training.specification import derive_specification, kind_of, rows_in_memory
from aurum.prediction.training.table import join_machines
from aurum.prediction.training.train import Progress, TrainingData, TrainingDataError, TrainingOptions
from aurum.readings.history import Run

_VALUE_BYTES = 8
_MOST_NOTES = 20


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a cluster has found in all parts.

    Attributes:
        machines: The summary of each machine, in the order of training.
        parts: The part that has each machine.
        life: The sensor that counts life, if a table has one.
        categories: The words of each sensor whose values stand for words.
        notes: What was inferred from the data, as text.
        events: The columns of the tables of failures and maintenance.
        left: The life left at the last readings of machines, if a file tells it.
    """

    machines: dict[Machine, MachineSummary]
    parts: dict[Machine, Part]
    life: str | None = None
    categories: Mapping[str, Words] = field(default_factory=dict)
    notes: Sequence[str] = ()
    events: Events = field(default_factory=dict)
    left: Mapping[Machine, float] = field(default_factory=dict)

    def types(self) -> list[str]:
        """Returns the machine types, sorted."""
        return sorted({machine_type for machine_type, _ in self.machines})

    def of_type(self, machine_type: str) -> dict[str, MachineSummary]:
        """Returns the machines of a type by their ids, in the order of training."""
        return {each[1]: summary for each, summary in self.machines.items() if each[0] == machine_type}


def survey(cluster: Cluster, given: DataSelection, progress: Progress) -> Inventory:
    """Reads all histories once and returns what they contain.

    Raises:
        HistoryError: The data cannot be divided or read.
        TableRoleError: A table of failures or maintenance cannot be joined, or an option does not fit the data.
        SchedulerError: Workers have ended again and again.
    """
    parts = parts_of(given)
    events = events_of(given.declared)
    found: dict[int, PartSummary] = {}
    calls = [(part,) for part in parts]
    for index, summary in cluster.results(summarize, calls, [part.name for part in parts], events):
        found[index] = summary
        progress(len(found) / len(parts), f"{len(found)} of {len(parts)} parts read")
    inventory = replace(_inventory(parts, [found[index] for index in range(len(parts))]), events=events)
    return inventory if given.left_file is None else _with_left(inventory, given.left_file)


def prepare(
    cluster: Cluster, machine_type: str, found: Inventory, options: TrainingOptions, progress: Progress
) -> tuple[TrainingData, str]:
    """Returns what a model of a machine type is trained on, and which machines these are, as text.

    Raises:
        TrainingDataError: The histories are not suitable.
        HistoryError: They cannot be read.
        SchedulerError: Workers have ended again and again.
    """
    machines = found.of_type(machine_type)
    kind = _kind_of(machine_type, machines)
    raw = {each: sum(summary.readings) * len(summary.columns) * _VALUE_BYTES for each, summary in machines.items()}
    most_bytes = options.memory * 1_000_000
    examined = sample_machines(raw, most_bytes, options.seed)
    every = max(1, -(-sum(raw[each] for each in examined) // most_bytes))
    progress(0.0, f"columns of {len(examined)} machines")
    histories = _histories(
        cluster,
        _divide(machine_type, examined, found, kind),
        every,
        found.events,
        lambda share, what: progress(0.03 * share, what),
    )
    common = frozenset.intersection(*(summary.columns for summary in machines.values()))
    spec, dropped = derive_specification([_with_columns(run, common) for run in histories], options)
    dropped |= dict.fromkeys(sorted({name for run in histories for name in run.columns} - common), NOT_COMMON)
    del histories
    rows = {each: _rows(summary, spec) for each, summary in machines.items()}
    most_rows = rows_in_memory(spec, options)
    chosen = sample_machines(rows, most_rows, options.seed)
    used = {each: summary for each, summary in machines.items() if each in chosen}
    if (kind_of_sample := _kind_of(machine_type, used)) != kind:
        raise TrainingDataError(
            f"{machine_type}: {_describe(len(used), len(machines))} fits into --memory {options.memory} MB or --rows, "
            f"and it allows only a model of the kind {kind_of_sample}, while all machines allow {kind}; allow more "
            f"memory"
        )
    stride = max(1, -(-sum(rows[each] for each in used) // most_rows))
    progress(0.04, f"features of {len(used)} machines")
    features = _features(
        cluster,
        _divide(machine_type, used, found, kind),
        spec,
        stride,
        found.events,
        lambda share, what: progress(0.04 + 0.06 * share, what),
    )
    runs = [run for of_machine in features for run in of_machine.ends]
    digest = digest_of([each for of_machine in features for each in of_machine.digests])
    lives = [len(of_machine.ends) for of_machine in features]
    table = join_machines([of_machine.table for of_machine in features], lives, spec)
    return TrainingData(kind, runs, spec, dropped, table, digest), _describe(len(used), len(machines))


def _histories(cluster: Cluster, wanted: Sequence[Wanted], every: int, events: Events, progress: Progress) -> list[Run]:
    """Returns one of `every` readings of machines, in the order of training."""
    runs: dict[Machine, list[Run]] = {}
    calls = [(each, every) for each in wanted]
    for done, (_, some) in enumerate(cluster.results(read_machines, calls, _names(wanted), events), start=1):
        runs |= some
        progress(done / len(calls), f"histories of {len(runs)} machines")
    return [run for machine in in_order(list(runs)) for run in runs[machine]]


def _features(
    cluster: Cluster, wanted: Sequence[Wanted], spec: FeatureSpec, stride: int, events: Events, progress: Progress
) -> list[MachineFeatures]:
    """Returns the features of machines, in the order of training."""
    features: dict[Machine, MachineFeatures] = {}
    calls = [(each, spec, stride) for each in wanted]
    for done, (_, some) in enumerate(cluster.results(tabulate_machines, calls, _names(wanted), events), start=1):
        features |= some
        progress(done / len(calls), f"features of {len(features)} machines")
    return [features[machine] for machine in in_order(list(features))]


def _names(wanted: Sequence[Wanted]) -> list[str]:
    return [each.part.name for each in wanted]


def _divide(machine_type: str, wanted: Container[str], found: Inventory, kind: ModelKind) -> list[Wanted]:
    """Returns some machines of a type by the parts that have them."""
    by_part: dict[str, tuple[Part, set[Machine]]] = {}
    for machine in found.machines:
        if machine[0] == machine_type and machine[1] in wanted:
            part = found.parts[machine]
            by_part.setdefault(part.name, (part, set()))[1].add(machine)
    return [
        Wanted(
            part,
            frozenset(machines),
            found.categories,
            kind,
            {each: found.left[each] for each in machines if each in found.left},
        )
        for part, machines in by_part.values()
    ]


def _with_left(found: Inventory, file: Path) -> Inventory:
    """Adds the remaining lives in a file. Raises HistoryError if they cannot be matched to the machines."""
    by_type = {each: [run for one in found.of_type(each).values() for run in one.ends] for each in found.types()}
    joined, note = with_remaining_lives(by_type, file)
    machines: dict[Machine, MachineSummary] = {}
    left: dict[Machine, float] = {}
    for machine_type, runs in joined.items():
        given = iter(runs)
        for machine, summary in found.of_type(machine_type).items():
            ends = list(itertools.islice(given, len(summary.ends)))
            machines[machine_type, machine] = replace(summary, ends=ends)
            if ends[-1] is not summary.ends[-1]:
                left[machine_type, machine] = ends[-1].left
    notes = [*without_failure_note(found.notes), note]
    return replace(found, machines={each: machines[each] for each in found.machines}, left=left, notes=notes)


def _inventory(parts: Sequence[Part], summaries: Sequence[PartSummary]) -> Inventory:
    """Joins what was found in parts. Raises HistoryError if a machine is in two of them."""
    of_machine: dict[Machine, Part] = {}
    machines: dict[Machine, MachineSummary] = {}
    words: dict[str, set[str]] = {}
    notes: dict[str, None] = {}
    for part, summary in zip(parts, summaries, strict=True):
        for machine in summary.machines:
            if machine in of_machine:
                raise HistoryError(
                    f"machine {machine[1]} is in {of_machine[machine].name} and in {part.name}; on a cluster, all rows "
                    f"of a machine must be in one file, or in files of a folder that is named machine_id=..., as "
                    f"`aurum export` writes them"
                )
            of_machine[machine] = part
        machines |= summary.machines
        notes |= dict.fromkeys(summary.notes)
        for name, of_part in summary.categories.items():
            words.setdefault(name, set()).update(of_part)
    lives = sorted({summary.life for summary in summaries if summary.machines and summary.life is not None})
    if len(lives) > 1:
        raise HistoryError(f"files count life in different columns, {' and '.join(lives)}; name one with --life")
    _check_words(parts, summaries)
    categories = {name: ordered_words(sorted(each)) for name, each in words.items() if 1 < len(each) <= MOST_WORDS}
    unused = sorted(set(words) - set(categories))
    notes |= dict.fromkeys(notes_on(together([joined for summary in summaries for joined in summary.joined])))
    shown = [*notes, *(category_note(name, each) for name, each in categories.items())]
    if unused:
        shown.append(f"{listed(unused)}: text column, not used")
    if len(shown) > _MOST_NOTES:
        shown[_MOST_NOTES:] = [f"and {len(shown) - _MOST_NOTES} more notes of this kind"]
    return Inventory(
        {machine: machines[machine] for machine in in_order(list(machines))},
        of_machine,
        lives[0] if lives else None,
        categories,
        shown,
    )


def _with_columns(run: Run, kept: frozenset[str]) -> Run:
    return replace(run, columns={name: values for name, values in run.columns.items() if name in kept})


def _kind_of(machine_type: str, machines: Mapping[str, MachineSummary]) -> ModelKind:
    runs = [run for summary in machines.values() for run in summary.ends]
    return kind_of(machine_type, runs, sum(sum(summary.readings) for summary in machines.values()))


def _rows(summary: MachineSummary, spec: FeatureSpec) -> int:
    """Returns about how many rows a machine has: its steps, each of which has a reading at least."""
    rows = 0
    for run, readings in zip(summary.ends, summary.readings, strict=True):
        ages = ages_of(run, spec.axis)
        rows += min(readings, int((ages[-1] - ages[0]) / spec.step) + 2) if ages[-1] >= ages[0] else readings
    return rows


def _check_words(parts: Sequence[Part], summaries: Sequence[PartSummary]) -> None:
    """Raises HistoryError if a column has words in one part and numbers in another."""
    with_words = {
        name: (part, words)
        for part, each in zip(parts, summaries, strict=True)
        for name, words in each.categories.items()
    }
    for part, summary in zip(parts, summaries, strict=True):
        for name in sorted(summary.numbers & with_words.keys()):
            other, words = with_words[name]
            raise HistoryError(
                f"column {name} has numbers in {part.name} and words in {other.name} ({listed(words)}); correct one of "
                f"them, or leave the column out with --exclude"
            )


def _describe(used: int, machines: int) -> str:
    if used == machines:
        return f"all {machines} machines"
    return f"a sample of {used} of {machines} machines"
