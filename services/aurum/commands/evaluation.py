"""`aurum evaluate` and `aurum explain`: apply a model to histories from files."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aurum.commands.model_data import ModelDataError, last_runs, latest_features, load_with_models
from aurum.commands.training_data import DataSelection
from aurum.prediction.model.card import Evaluation, ModelCard
from aurum.prediction.model.model import Model
from aurum.prediction.training.anomaly_evaluation import AnomalyEvaluation, evaluate_anomalies
from aurum.prediction.training.evaluation import LastReadings, evaluate_model
from aurum.prediction.training.healthy_time import ANOMALY
from aurum.readings.history import Run


@dataclass(frozen=True, slots=True)
class AnomalyLabels:
    """How alarms are evaluated.

    Attributes:
        column: The column that labels anomalies over time; None for `anomaly`, if there is one.
        false_alarms: Allowed false alarms for each machine and month.
    """

    column: str | None
    false_alarms: float


def evaluate_files(
    given: DataSelection, root: Path, version: str | None, labels: AnomalyLabels, *, as_json: bool = False
) -> None:
    """Prints the metrics of the models.

    Raises:
        ModelDataError: See `load_with_models`, whose errors of reading data are raised too.
        EvaluationDataError: The data is not suitable to evaluate a model.
    """
    documents = []
    for machine_type, loaded in load_with_models(given, root, version).items():
        model, runs = loaded.model, loaded.runs
        document: dict[str, Any] = {}
        column = labels.column or (ANOMALY if all(ANOMALY in run.columns for run in runs) else None)
        if column is not None:
            found = evaluate_anomalies(model, runs, column, labels.false_alarms)
            document["alarms"] = _alarms_document(found, labels.false_alarms)
            if not as_json:
                _print_alarms(model, found, labels.false_alarms)
        if column is None or model.card.kind != "anomaly":
            evaluation, last = evaluate_model(model, runs)
            document |= _document(model.card, evaluation, last)
            if not as_json:
                _print_evaluation(machine_type, model.card, evaluation, last)
        documents.append({"machine_type": machine_type, "version": model.card.version, **document})
    if as_json:
        print(json.dumps({"evaluations": documents}, indent=1))


def explain_files(given: DataSelection, root: Path, version: str | None, machine: str | None, top: int) -> None:
    """Prints the predictions of machines at their last readings with the strongest factors. Raises ModelDataError."""
    shown = 0
    for loaded in load_with_models(given, root, version).values():
        for run in last_runs(loaded.runs):
            if machine in (None, run.machine):
                _print_explanation(loaded.model, run, top)
                shown += 1
    if not shown:
        raise ModelDataError(f"the data has no machine {machine!r}")


def truths_text(card: ModelCard) -> str | None:
    """Returns how true values above the cap of the RUL count; None for a model without RUL."""
    if card.kind != "rul":
        return None
    return f"true RUL above the model's cap of {card.rul_cap:g} {card.unit} counts as {card.rul_cap:g}"


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


def _alarms_document(found: AnomalyEvaluation, false_alarms: float) -> dict[str, Any]:
    """Returns what `_print_alarms` prints as a JSON object."""
    rates = {"precision": found.precision, "false_alarms_a_day": found.false_alarms_a_day}
    return {"allowed_false_alarms_a_month": false_alarms, **asdict(found), **rates}


def _print_evaluation(machine_type: str, card: ModelCard, evaluation: Evaluation, last: LastReadings | None) -> None:
    unit = card.unit
    print(f"{machine_type} {card.version}: {evaluation.protocol}")
    if (truths := truths_text(card)) is not None:
        print(f"  {truths}")
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


def _document(card: ModelCard, evaluation: Evaluation, last: LastReadings | None) -> dict[str, Any]:
    """Returns what `_print_evaluation` prints as a JSON object."""
    return {
        "machine_type": card.machine_type,
        "version": card.version,
        "kind": card.kind,
        "unit": card.unit,
        "rul_cap": card.rul_cap if card.kind == "rul" else None,
        "horizon": card.horizon if card.kind == "rul" else None,
        "truths": truths_text(card),
        "protocol": evaluation.protocol,
        "metrics": evaluation.metrics.model_dump(),
        "confidence": evaluation.confidence,
        "skill": [skill.model_dump() for skill in evaluation.skill or ()],
        "last_readings": None
        if last is None
        else {"runs": last.runs, "rul_rmse": last.rmse, "nasa_score": last.score, "interval_coverage": last.coverage},
    }


def _print_explanation(model: Model, run: Run, top: int) -> None:
    found = latest_features(model, run)
    if found is None:
        raise ModelDataError(f"{run.machine_id} has no reading of the model's sensors {', '.join(model.spec.queried)}")
    row, _ = found
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
