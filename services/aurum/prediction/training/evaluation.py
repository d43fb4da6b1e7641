"""Evaluates a model on histories that it was not trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aurum.prediction.model.card import Evaluation, ModelCard
from aurum.prediction.model.model import Model
from aurum.prediction.training.skill import Baselines
from aurum.prediction.training.table import Bools, Floats, Table, outcomes_of, tabulate
from aurum.prediction.training.validation import HeldOut, evaluate, within
from aurum.readings.history import Run

_ROWS = 50_000


def _baselines(card: ModelCard, table: Table, rows: Bools) -> Baselines | None:
    """Returns the baselines by the training data of a model; None for the model of an earlier version."""
    if card.evaluation is None or (card.kind == "rul" and card.median_life is None):
        return None
    count = int(rows.sum())
    life = np.nan if card.median_life is None else card.median_life
    unknown = np.full(count, np.nan)
    return Baselines(
        np.full(count, card.evaluation.metrics.risk_base_rate),
        np.clip(life - table.age[rows], 0.0, card.rul_cap),
        unknown,
    )


class EvaluationDataError(ValueError):
    """The histories are not suitable to evaluate a model. The message says what is needed."""


@dataclass(frozen=True, slots=True)
class LastReadings:
    """Errors of the RUL at the last reading of each failed run whose true RUL is known.

    Attributes:
        runs: Number of these runs.
        rmse: Root mean square error, in the unit of the RUL.
        score: NASA's asymmetric score (Saxena et al., 2008).
        coverage: Share of the true values within the predicted interval.
    """

    runs: int
    rmse: float
    score: float
    coverage: float


def nasa_score(errors: Floats) -> float:
    """Returns the score of Saxena et al. (2008) for errors = predicted - true RUL. Late predictions cost more."""
    return float(np.where(errors < 0, np.exp(-errors / 13) - 1, np.exp(errors / 10) - 1).sum())


def evaluate_model(model: Model, runs: Sequence[Run]) -> tuple[Evaluation, LastReadings | None]:
    """Evaluates a model on some runs.

    Returns:
        The evaluation on all rows, and the errors at the last readings, or None if no true RUL is known.

    Raises:
        EvaluationDataError: The data lacks sensors or failures, or the model was trained without failures.
    """
    card = model.card
    lacking = sorted({name for name in model.spec.queried for run in runs if name not in run.columns})
    if lacking:
        raise EvaluationDataError(
            f"model {card.machine_type} {card.version} needs sensors that the data lacks: {', '.join(lacking)}"
        )
    if card.kind == "anomaly":
        raise EvaluationDataError(
            f"model {card.machine_type} {card.version} has seen no failures and cannot be evaluated; train it on "
            f"histories with failures"
        )
    table = tabulate(runs, model.spec, _ROWS)
    outcomes = outcomes_of(table, card.kind, card.rul_cap, card.horizon)
    rows = outcomes.known
    if not outcomes.soon.any() or outcomes.soon[rows].all():
        raise EvaluationDataError("all rows of the data are in one class, so the risk cannot be evaluated")
    predicted = model.predict(table.features[rows])
    risk = predicted.risk if predicted.risk is not None else np.zeros(int(rows.sum()))
    left = None if outcomes.left is None else outcomes.left[rows]
    inside = np.zeros(len(risk), dtype=bool)
    if left is not None and predicted.quantiles is not None:
        inside = within(left, predicted.quantiles[:, 0], predicted.quantiles[:, -1])
    held_out = HeldOut(
        risk,
        outcomes.soon[rows],
        predicted.rul,
        left,
        table.group[rows],
        table.run[rows],
        table.failed[rows],
        _baselines(card, table, rows),
    )
    evaluation = evaluate(held_out, risk, inside, f"all rows of {len(runs)} given runs")
    if left is None or predicted.rul is None or predicted.quantiles is None:
        return evaluation, None
    last = np.flatnonzero(np.append(np.diff(held_out.run) != 0, True) & ~np.isnan(left) & held_out.failed)
    if not len(last):
        return evaluation, None
    errors = predicted.rul[last] - left[last]
    return evaluation, LastReadings(
        len(last), float(np.sqrt((errors**2).mean())), nasa_score(errors), float(inside[last].mean())
    )
