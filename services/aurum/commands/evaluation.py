"""`aurum evaluate` and `aurum explain`: apply a model to histories from files."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aurum.commands.training_data import DataSelection, load_histories
from aurum.prediction.model.features import features_of_windows, steps_of, window_of
from aurum.prediction.model.model import CorruptModelError, Model, load_model
from aurum.prediction.model.model_files import read_serving
from aurum.prediction.training.anomaly_evaluation import AnomalyEvaluation, evaluate_anomalies
from aurum.prediction.training.evaluation import evaluate_model
from aurum.prediction.training.healthy_time import ANOMALY
from aurum.readings.history import Run


class EvaluationError(ValueError):
    """There is no such model, machine or sensor. The message names what there is."""


@dataclass(frozen=True, slots=True)
class AnomalyLabels:
    """How alarms are evaluated.

    Attributes:
        column: The column that labels anomalies over time; None for `anomaly`, if there is one.
        false_alarms: Allowed false alarms for each machine and month.
    """

    column: str | None
    false_alarms: float


def evaluate_files(given: DataSelection, root: Path, version: str | None, labels: AnomalyLabels) -> None:
    """Prints the metrics of the models. Raises EvaluationError, and the errors of loading and evaluating."""
    for machine_type, runs in _load_runs(given).items():
        model = _load_model(root, machine_type, version)
        column = labels.column or (ANOMALY if all(ANOMALY in run.columns for run in runs) else None)
        if column is not None:
            _print_alarms(model, evaluate_anomalies(model, runs, column, labels.false_alarms), labels.false_alarms)
            if model.card.kind == "anomaly":
                continue
        evaluation, last = evaluate_model(model, runs)
        unit = model.card.unit
        print(f"{machine_type} {model.card.version}: {evaluation.protocol}")
        for name, value in evaluation.metrics.model_dump().items():
            if value is not None:
                low, high = evaluation.confidence.get(name, (None, None))
                spread = "" if low is None else f"  (95 %: {low:.4g} to {high:.4g})"
                print(f"  {name:24} {value:.4g}{f' {unit}' if name in ('rul_rmse', 'rul_mae') else ''}{spread}")
        for skill in evaluation.skill or ():
            print(
                f"  skill of the {skill.quantity:11} {skill.skill:.3g}  (95 %: {skill.low:.3g} to {skill.high:.3g}) "
                f"against {skill.baseline}"
            )
        if last is not None:
            print(
                f"  at the last reading of {last.runs} runs: RMSE {last.rmse:.4g} {unit}, NASA score {last.score:.4g}, "
                f"interval coverage {last.coverage:.1%}"
            )


def _print_alarms(model: Model, found: AnomalyEvaluation, false_alarms: float) -> None:
    print(
        f"{model.card.machine_type} {model.card.version}: alarms on labelled anomalies, with {false_alarms:g} allowed "
        f"false alarms a month (threshold {found.threshold:.6g})"
    )
    precision, rate = found.precision, found.false_alarms_a_day
    lines = {
        "anomalies": f"{found.anomalies}, of which {found.detected} were detected",
        "alarms": f"{found.alarms}, of which {found.true_alarms} are true",
        "precision": "no alarms" if precision is None else f"{precision:.1%}",
        "false alarms a day": (
            "no healthy time" if rate is None else f"{rate:.3g} in {found.healthy_days:.3g} healthy days"
        ),
        "delay": "nothing detected" if found.delay_hours is None else f"{found.delay_hours:.3g} h (median)",
    }
    for name, value in lines.items():
        print(f"  {name:24} {value}")


def explain_files(given: DataSelection, root: Path, version: str | None, machine: str | None, top: int) -> None:
    """Prints the predictions of machines at their last readings with the strongest factors. Raises EvaluationError."""
    shown = 0
    for machine_type, runs in _load_runs(given).items():
        wanted = [run for run in _last_runs(runs) if machine in (None, run.machine)]
        if not wanted:
            continue
        model = _load_model(root, machine_type, version)
        for run in wanted:
            _print_explanation(model, run, top)
            shown += 1
    if not shown:
        raise EvaluationError(f"the data has no machine {machine!r}")


def _load_runs(given: DataSelection) -> dict[str, list[Run]]:
    histories = load_histories(given)
    for note in histories.notes:
        print(note, file=sys.stderr)
    return histories.by_type


def _last_runs(runs: Sequence[Run]) -> list[Run]:
    return list({run.machine: run for run in runs}.values())


def _load_model(root: Path, machine_type: str, version: str | None) -> Model:
    serving = read_serving(root, machine_type)
    if serving is None and version is None:
        available = ", ".join(sorted(path.parent.name for path in root.glob("*/active.json"))) or "none"
        raise EvaluationError(
            f"there is no model for machine type {machine_type!r} in {root}; there are models for: {available}"
        )
    try:
        return load_model(root / machine_type / (version or (serving.version if serving else "")))
    except CorruptModelError as error:
        raise EvaluationError(str(error)) from error


def _print_explanation(model: Model, run: Run, top: int) -> None:
    columns = {name: (run.timestamps, run.columns[name]) for name in model.spec.queried if name in run.columns}
    steps = steps_of(columns, model.spec)
    if not len(steps.ages):
        raise EvaluationError(f"{run.machine_id} has no reading of the model's sensors {', '.join(model.spec.queried)}")
    row = features_of_windows([window_of(steps)])
    predicted = model.predict(row)
    parts = [f"anomaly {predicted.anomaly[0]:.2f}"]
    if predicted.risk is not None:
        parts.insert(0, f"risk {predicted.risk[0]:.3f}")
    if predicted.rul is not None and predicted.quantiles is not None:
        low, high = predicted.quantiles[0, 0], predicted.quantiles[0, -1]
        parts.append(f"RUL {predicted.rul[0]:.4g} ({low:.4g} to {high:.4g}) {model.card.unit}")
    print(f"{run.machine_id}: {', '.join(parts)}")
    contributions = model.contributions(row[0])
    for index in np.argsort(-np.abs(contributions), kind="stable")[:top]:
        name, amount = model.spec.names[index], contributions[index]
        if amount:
            print(
                f"  {name} = {row[0, index]:.5g} {'raises' if amount > 0 else 'lowers'} the log-odds by "
                f"{abs(amount):.3g}"
            )
