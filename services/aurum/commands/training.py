"""`aurum train`: a model for each machine type in the data."""

import sys
import time
from dataclasses import replace
from pathlib import Path

from aurum.commands.progress import progress_bar
from aurum.commands.training_data import DataSelection, load_histories
from aurum.prediction.model.card import ModelCard
from aurum.prediction.model.model_files import make_champion, write_model
from aurum.prediction.training.report import REPORT, report
from aurum.prediction.training.train import TrainingDataError, TrainingOptions, train


def train_all(given: DataSelection, out: Path, options: TrainingOptions, *, with_report: bool, activate: bool) -> None:
    """Trains and saves. Raises HistoryError, TableError, TableRoleError, TrainingDataError.

    A type that cannot be trained is named at the end; the others are trained all the same.
    """
    histories = load_histories(given)
    for note in histories.said:
        print(note, file=sys.stderr)
    failed: list[TrainingDataError] = []
    for machine_type, runs in histories.by_type.items():
        started = time.monotonic()
        chosen = replace(options, life=options.life or histories.life)
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
        if activate:
            make_champion(out, machine_type, card.version)
        print(f"{machine_type}: {summary(card)}; {folder} ({time.monotonic() - started:.1f} s)")
    if failed:
        raise TrainingDataError("; ".join(map(str, failed)))


def summary(card: ModelCard) -> str:
    """A model in one sentence."""
    if card.evaluation is None:
        return f"no failures in {card.data.runs} runs, so it knows what is usual and tells no risk of its own"
    measured = card.evaluation.metrics
    parts = [f"{card.data.failures} failures"]
    if measured.rul_mae is not None:
        parts.append(f"RUL within {measured.rul_mae:.3g} {card.unit} on average (up to {card.rul_cap:g})")
    if measured.interval_coverage is not None:
        parts.append(f"{measured.interval_coverage:.0%} of intervals hold")
    within = f" within {card.horizon:g} {card.unit}" if card.horizon else ""
    parts.append(f"risk{within} off by {measured.risk_ece:.1%}")
    return ", ".join(parts)
