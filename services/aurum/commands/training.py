"""`aurum train`: trains a model for each machine type in the data."""

import sys
import time
from dataclasses import replace
from pathlib import Path

from aurum.commands.progress import progress_bar
from aurum.commands.training_data import DataSelection, load_histories
from aurum.prediction.model.card import ModelCard
from aurum.prediction.model.model_files import make_champion, write_model
from aurum.prediction.model.skill import describe_skill, lacking_skill, refusal
from aurum.prediction.training.report import REPORT, report
from aurum.prediction.training.specification import rows_in_memory
from aurum.prediction.training.train import TrainingDataError, TrainingOptions, train


def train_all(
    given: DataSelection,
    out: Path,
    options: TrainingOptions,
    *,
    with_report: bool,
    activate: bool,
    force: bool = False,
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

    Raises:
        HistoryError, TableError, TableRoleError, UnknownStateError: The data cannot be read.
        TrainingDataError: The data of some types is not suitable. The message names each of them.
    """
    histories = load_histories(given)
    for note in histories.notes:
        print(note, file=sys.stderr)
    failed: list[TrainingDataError] = []
    for machine_type, runs in histories.by_type.items():
        started = time.monotonic()
        chosen = replace(options, life=options.life or histories.life, categories=histories.categories)
        try:
            with progress_bar(f"Training {machine_type}") as update:
                model, contents = train(machine_type, runs, histories.source, chosen, update)
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
        if (most := rows_in_memory(model.spec, chosen)) < (readings := sum(len(run.timestamps) for run in runs)):
            print(
                f"{machine_type}: {readings} readings were thinned out to {card.data.rows} rows, since "
                f"{f'--rows allows {most}' if most == chosen.rows else f'--memory {chosen.memory} MB holds {most}'}"
            )
        for line in describe_search(card):
            print(f"{machine_type}: {line}")
        verdict = _verdict(refused, activate=activate, force=force)
        print(f"{machine_type}: {verdict}{summary(card)}; {folder} ({time.monotonic() - started:.1f} s)")
    if failed:
        raise TrainingDataError("; ".join(map(str, failed)))


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
