"""Loads histories for a trained model: its sensors by their names whatever their capitals, its categories by words."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from aurum.commands.categories import Words, recode
from aurum.commands.table_names import find_name, listed
from aurum.commands.training_data import DataSelection, load_histories
from aurum.prediction.model.card import ModelCard
from aurum.prediction.model.features import Matrix, Steps, features_of_windows, steps_of, window_of
from aurum.prediction.model.model import CorruptModelError, Model, load_model
from aurum.prediction.model.model_files import read_serving
from aurum.readings.history import Run


class ModelDataError(ValueError):
    """There is no such model, machine or sensor, or the data does not fit it. The message names what there is."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The runs of a machine type with its model.

    Attributes:
        model: The model.
        runs: The runs, with the names and codes of the model.
        clock: Whether their times are those of a clock.
    """

    model: Model
    runs: list[Run]
    clock: bool


def load_with_models(given: DataSelection, root: Path, version: str | None) -> dict[str, Loaded]:
    """Returns the runs of each machine type, with the model of the type, and prints what was inferred.

    Args:
        given: The data.
        root: The folder of the models.
        version: The version of the model; None for the champion.

    Raises:
        HistoryError, TableError, TableRoleError, UnknownStateError: The data cannot be read.
        ModelDataError: There is no model for a machine type, or it is damaged.
    """
    histories = load_histories(given)
    notes = list(histories.notes)
    found = {}
    for machine_type, runs in histories.by_type.items():
        model = _load_model(root, machine_type, version)
        fitted = fit_to_model(runs, model.card, histories.categories, notes)
        found[machine_type] = Loaded(model, fitted, histories.clock)
    for note in notes:
        print(note, file=sys.stderr)
    return found


def fit_to_model(runs: Sequence[Run], card: ModelCard, categories: Mapping[str, Words], notes: list[str]) -> list[Run]:
    """Returns runs whose sensors have the names, and whose categories the codes, of a model.

    Args:
        runs: The runs.
        card: The card of the model.
        categories: The words of each sensor of the runs whose values stand for words.
        notes: Gets what was renamed, and words that the model does not know.

    Raises:
        ModelDataError: A sensor has words, and the model was trained on numbers.
    """
    settings = card.regimes.columns if card.regimes else []
    wanted = list(dict.fromkeys((*card.sensors, *settings, *([] if card.axis == "time" else [card.axis]))))
    available = {name for run in runs for name in run.columns}
    names = {name: found for name in wanted if name not in available and (found := find_name(name, available))}
    unknown: dict[str, list[str]] = {}
    fitted = []
    for run in runs:
        columns = dict(run.columns)
        for name, found in names.items():
            if found in columns:
                columns[name] = columns.pop(found)
        for name in wanted:
            words = categories.get(names.get(name, name))
            if words is None or name not in columns:
                continue
            if name not in card.categories:
                raise ModelDataError(
                    f"sensor {name} has words ({listed(words)}), and model {card.machine_type} {card.version} was "
                    f"trained on its numbers"
                )
            columns[name], unknown[name] = recode(columns[name], words, card.categories[name].words)
        fitted.append(replace(run, columns=columns))
    if names:
        renamed = [f"{found} is {name}" for name, found in names.items()]
        notes.append(f"columns with other capitals than in the model: {listed(renamed)}")
    for name, words_of_name in unknown.items():
        if words_of_name:
            notes.append(
                f"{name}: the model does not know {listed(words_of_name)}, which count as no reading; it knows "
                f"{listed(card.categories[name].words)}"
            )
    return fitted


def last_runs(runs: Sequence[Run]) -> list[Run]:
    """Returns the last run of each machine."""
    return list({run.machine: run for run in runs}.values())


def latest_features(model: Model, run: Run) -> tuple[Matrix, Steps] | None:
    """Returns the features of a run at its last reading, as one row, and its steps; None without any reading."""
    columns = {name: (run.timestamps, run.columns[name]) for name in model.spec.queried if name in run.columns}
    steps = steps_of(columns, model.spec)
    return (features_of_windows([window_of(steps)]), steps) if len(steps.ages) else None


def _load_model(root: Path, machine_type: str, version: str | None) -> Model:
    serving = read_serving(root, machine_type)
    if serving is None and version is None:
        available = ", ".join(sorted(path.parent.name for path in root.glob("*/active.json"))) or "none"
        raise ModelDataError(
            f"there is no model for machine type {machine_type!r} in {root}; there are models for: {available} "
            f"(--machine-type)"
        )
    try:
        return load_model(root / machine_type / (version or (serving.version if serving else "")))
    except CorruptModelError as error:
        raise ModelDataError(str(error)) from error
