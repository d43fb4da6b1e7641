"""`aurum train`: trains a model for each machine type in the data."""

import contextlib
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from aurum.commands.categories import Words
from aurum.commands.progress import progress_bar
from aurum.commands.training_data import DataSelection, load_histories
from aurum.prediction.model.card import ModelCard
from aurum.prediction.model.model import Model
from aurum.prediction.model.model_files import make_champion, write_model
from aurum.prediction.model.skill import describe_skill, lacking_skill, refusal
from aurum.prediction.training.report import REPORT, report
from aurum.prediction.training.specification import rows_in_memory
from aurum.prediction.training.train import Progress, TrainingDataError, TrainingOptions, train, train_on
from aurum.readings.history import Run

Trainer = Callable[[str, TrainingOptions, Progress], tuple[Model, dict[str, str], list[str]]]
"""Trains a model of a machine type. Returns the model, the contents of its files, and what to tell."""


@dataclass(frozen=True, slots=True)
class Trainable:
    """Data that models can be trained on.

    Attributes:
        types: The machine types.
        train: Trains a model of one of them.
        life: The sensor that counts life, if a table has one.
        categories: The words of each sensor whose values stand for words.
        notes: What was inferred from the data.
    """

    types: Sequence[str]
    train: Trainer
    life: str | None
    categories: Mapping[str, Words]
    notes: Sequence[str]


def train_all(
    given: DataSelection,
    out: Path,
    options: TrainingOptions,
    *,
    with_report: bool,
    activate: bool,
    force: bool = False,
    scheduler: str | None = None,
) -> None:
    """Trains a model for each machine type and saves it.

    If the data of a type is not suitable, the other types are trained nevertheless.

    Args:
        given: The training data.
        out: The folder of the models.
        options: How to train.
        with_report: Whether to write a report beside each model.
        activate: Whether to make each model with skill the champion of its type.
        force: Whether to make models without skill champions as well.
        scheduler: The address of a Dask scheduler, whose workers read the data; None to read it here.

    Raises:
        HistoryError, TableError, TableRoleError, UnknownStateError: The data cannot be read.
        TrainingDataError: The data of some types is not suitable. The message names each of them.
        SchedulerError: The cluster cannot be used.
    """
    failed: list[TrainingDataError] = []
    with _data_here(given) if scheduler is None else _data_of_cluster(given, scheduler) as data:
        for note in data.notes:
            print(note, file=sys.stderr)
        for machine_type in data.types:
            started = time.monotonic()
            chosen = replace(options, life=options.life or data.life, categories=data.categories)
            try:
                with progress_bar(f"Training {machine_type}") as update:
                    model, contents, told = data.train(machine_type, chosen, update)
            except TrainingDataError as error:
                failed.append(error)
                continue
            card = model.card
            if with_report:
                contents = {**contents, REPORT: report(card)}
            folder = write_model(out, machine_type, card.version, contents)
            refused = refusal(card)
            if activate and (force or not refused):
                make_champion(out, machine_type, card.version, forced=force and bool(lacking_skill(card)))
            verdict = _verdict(refused, activate=activate, force=force)
            print(f"{machine_type}: {verdict}{summary(card)}; {folder} ({time.monotonic() - started:.1f} s)")
            for line in (*told, *describe_search(card)):
                print(f"{machine_type}: {line}")
    if failed:
        raise TrainingDataError("; ".join(map(str, failed)))


@contextlib.contextmanager
def _data_here(given: DataSelection) -> Generator[Trainable]:
    """Yields data that this process reads."""
    histories = load_histories(given)

    def train_type(
        machine_type: str, options: TrainingOptions, progress: Progress
    ) -> tuple[Model, dict[str, str], list[str]]:
        runs = histories.by_type[machine_type]
        model, contents = train(machine_type, runs, histories.source, options, progress)
        return model, contents, _describe_thinning(model, runs, options)

    yield Trainable(list(histories.by_type), train_type, histories.life, histories.categories, histories.notes)


@contextlib.contextmanager
def _data_of_cluster(given: DataSelection, address: str) -> Generator[Trainable]:
    """Yields data that the workers of a Dask scheduler read."""
    # Not needed without a cluster
    from aurum.commands.cluster_training import prepare, survey  # noqa: PLC0415
    from aurum.commands.dask_cluster import connect  # noqa: PLC0415

    with connect(address) as cluster:
        with progress_bar("Reading histories on the cluster") as update:
            found = survey(cluster, given, update)

        files = [file.name for file in given.files]
        place = f"{len(files)} files" if len(files) > 1 else files[0] if files else "the store of the settings"

        def train_type(
            machine_type: str, options: TrainingOptions, progress: Progress
        ) -> tuple[Model, dict[str, str], list[str]]:
            data, machines = prepare(cluster, machine_type, found, options, progress)
            source = f"{place}, read by a cluster: {machines}"
            model, contents = train_on(machine_type, data, source, options, progress)
            return model, contents, [f"trained on {machines}"]

        yield Trainable(found.types(), train_type, found.life, found.categories, found.notes)


def _describe_thinning(model: Model, runs: Sequence[Run], options: TrainingOptions) -> list[str]:
    """Returns why not all readings are rows, as lines."""
    most = rows_in_memory(model.spec, options)
    readings = sum(len(run.timestamps) for run in runs)
    if most >= readings:
        return []
    reason = f"--rows allows {most}" if most == options.rows else f"--memory {options.memory} MB holds {most}"
    return [f"{readings} readings were thinned out to {model.card.data.rows} rows, since {reason}"]


def describe_search(card: ModelCard) -> list[str]:
    """Returns what was tried to find out how to train, and what was chosen, as lines."""
    search = card.search
    if search is None:
        return []
    first, *others = search.trials
    tried = ", ".join(
        [f"{first.name} {first.error:.4g}"]
        + [f"{each.name} {each.error:.4g}{' (better, kept)' * each.chosen}" for each in others]
    )
    lines = [f"tried by {search.protocol}, {search.measure}: {tried}"]
    lines.append(f"chosen: {', '.join(f'{name} {value:g}' for name, value in search.chosen.items())}")
    if search.not_tried:
        lines.append(
            f"not tried, since the budget of {search.seconds_allowed:g} s was used up: {', '.join(search.not_tried)}"
        )
    return lines


def _verdict(refused: str, *, activate: bool, force: bool) -> str:
    """Returns what is said first about a model without skill; empty for any other."""
    if not refused:
        return ""
    if activate and force:
        return f"ACTIVATED WITHOUT SKILL: {refused}; its answers are labelled. "
    return f"NOT ACTIVATED: {refused}; train it on more or other data, or use --force. "


def summary(card: ModelCard) -> str:
    """Returns the quality of a model in one line, its skill first."""
    if card.evaluation is None:
        return f"no failures in {card.data.runs} runs, so the model provides anomaly scores only"
    measured = card.evaluation.metrics
    parts = [*describe_skill(card), f"{card.data.failures} failures"]
    if measured.rul_mae is not None:
        parts.append(f"RUL mean absolute error {measured.rul_mae:.3g} {card.unit} (cap {card.rul_cap:g})")
    if measured.interval_coverage is not None:
        parts.append(f"interval coverage {measured.interval_coverage:.0%}")
    within = f" within {card.horizon:g} {card.unit}" if card.horizon else ""
    parts.append(f"risk{within} calibration error {measured.risk_ece:.1%}")
    return ", ".join(parts)
