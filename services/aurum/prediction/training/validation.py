"""Evaluates predictions on machines that a model has not seen: by folds of whole machines, and on later lives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from aurum.prediction.model import card as parts
from aurum.prediction.training.calibration_fit import (
    average_precision,
    calibrate_interval,
    calibrate_risk,
    calibration_curve,
    expected_calibration_error,
)
from aurum.prediction.training.skill import MEAN_LEFT, MEDIAN_LIFE, Baselines, skill_of_risk, skill_of_rul
from aurum.prediction.training.table import Bools, Floats, Indices

FOLDS = 5
_RESAMPLES = 100
_POINTS = 400
_WARNED_AT = 0.5
_WARNED_FOR = 3  # steps in a row


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Uncalibrated predictions for rows that were not used for training, and the true outcomes.

    Attributes:
        score: Raw risk scores.
        soon: Whether the failure is within the horizon.
        rul: Predicted RUL; None if there are no lives.
        left: True RUL, NaN if it is not known; None if there are no lives.
        group: The machine of each row.
        run: The run of each row. The rows of a run are in chronological order.
        failed: Whether the row's run ended in a failure.
        baselines: Naive predictions, against which the skill is measured; None to not measure it.
    """

    score: Floats
    soon: Bools
    rul: Floats | None
    left: Floats | None
    group: Indices
    run: Indices
    failed: Bools
    baselines: Baselines | None = None


def folds_of(group: Indices, seed: int, folds: int = FOLDS) -> Indices:
    """Returns the fold of each row. All rows of a machine are in one fold, and machines are spread evenly."""
    machines = np.unique(group)
    order = np.random.default_rng(seed).permutation(len(machines))
    fold_of_machine = np.empty(int(machines.max()) + 1, dtype=np.intp)
    fold_of_machine[machines[order]] = np.arange(len(machines)) % folds
    return fold_of_machine[group]


def evaluate_by_folds(held_out: HeldOut, fold: Indices, protocol: str, cap: float) -> parts.Evaluation:
    """Evaluates predictions; each fold is calibrated with the others."""
    probabilities = np.zeros(len(held_out.soon))
    inside = np.zeros(len(held_out.soon), dtype=bool)
    for held_out_fold in np.unique(fold):
        test = fold == held_out_fold
        probabilities[test] = calibrate_risk(held_out.score[~test], held_out.soon[~test])(held_out.score[test])
        if held_out.rul is not None and held_out.left is not None:
            has_rul = ~np.isnan(held_out.left)
            others = ~test & has_rul
            machines = len(np.unique(held_out.group[others]))
            calibration = calibrate_interval(held_out.rul[others], held_out.left[others], cap, machines)
            quantiles = np.minimum(calibration(held_out.rul[test]), cap)
            inside[test] = within(held_out.left[test], quantiles[:, 0], quantiles[:, -1])
    return evaluate(held_out, probabilities, inside, protocol)


def evaluate(held_out: HeldOut, probabilities: Floats, inside: Bools, protocol: str) -> parts.Evaluation:
    """Computes all metrics with confidence intervals.

    Args:
        held_out: The predictions and true outcomes.
        probabilities: The calibrated risk of each row.
        inside: Whether the true RUL of each row is within the predicted interval.
        protocol: How the predictions were made, as text for the model card.
    """
    measures = _measures(held_out, probabilities, inside)
    groups = np.unique(held_out.group)
    rows_of = [np.flatnonzero(held_out.group == group) for group in groups]
    rng = np.random.default_rng(0)
    resampled: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(_RESAMPLES):
        rows = np.concatenate([rows_of[index] for index in rng.integers(0, len(groups), len(groups))])
        for name, measure in measures.items():
            value = measure(rows)
            if value is not None and np.isfinite(value):
                resampled[name].append(value)
    everything = np.arange(len(held_out.soon))
    values = {name: measure(everything) for name, measure in measures.items()}
    lead, warned = _lead_time(held_out, probabilities)
    curve = calibration_curve(probabilities, held_out.soon)
    return parts.Evaluation(
        protocol=protocol,
        metrics=parts.Metrics(
            rul_rmse=_rounded(values.get("rul_rmse")),
            rul_mae=_rounded(values.get("rul_mae")),
            interval_coverage=_rounded(values.get("interval_coverage")),
            risk_brier=_rounded(values["risk_brier"]) or 0.0,
            risk_ece=_rounded(values["risk_ece"]) or 0.0,
            risk_average_precision=_rounded(values["risk_average_precision"]) or 0.0,
            risk_base_rate=round(float(held_out.soon.mean()), 5),
            lead_time=_rounded(lead),
            warned_share=_rounded(warned),
        ),
        confidence={
            name: (
                round(float(np.quantile(values_of_metric, 0.025)), 5),
                round(float(np.quantile(values_of_metric, 0.975)), 5),
            )
            for name, values_of_metric in resampled.items()
            if values_of_metric
        },
        calibration=[
            parts.CalibrationPoint(told=round(each.predicted, 5), true=round(each.observed, 5), rows=each.rows)
            for each in curve
        ],
        points=_points(held_out),
        skill=_skills(held_out, probabilities),
    )


def _skills(held_out: HeldOut, probabilities: Floats) -> list[parts.Skill] | None:
    """Returns the skill against each baseline."""
    naive = held_out.baselines
    if naive is None:
        return None
    skills = [skill_of_risk(probabilities, held_out.soon, naive.risk, held_out.group)]
    if held_out.rul is not None and held_out.left is not None:
        for name, values in ((MEDIAN_LIFE, naive.by_age), (MEAN_LEFT, naive.mean_left)):
            skill = skill_of_rul(held_out.rul, held_out.left, values, name, held_out.group)
            if skill is not None:
                skills.append(skill)
    return skills


def within(truths: Floats, lower: Floats, upper: Floats) -> Bools:
    """Returns which true values are within their interval, including its bounds."""
    inside: Bools = (truths >= lower - 1e-9) & (truths <= upper + 1e-9)
    return inside


def _measures(held_out: HeldOut, probabilities: Floats, inside: Bools) -> dict[str, Callable[[Indices], float | None]]:
    """Returns the metrics as functions of the rows that count."""
    soon = held_out.soon
    measures: dict[str, Callable[[Indices], float | None]] = {
        "risk_brier": lambda rows: float(((probabilities[rows] - soon[rows]) ** 2).mean()),
        "risk_ece": lambda rows: expected_calibration_error(probabilities[rows], soon[rows]),
        "risk_average_precision": lambda rows: (
            average_precision(probabilities[rows], soon[rows]) if soon[rows].any() else None
        ),
    }
    if held_out.rul is None or held_out.left is None:
        return measures
    has_rul = ~np.isnan(held_out.left)
    errors = np.where(has_rul, held_out.rul - np.where(has_rul, held_out.left, 0.0), np.nan)
    of_rul: dict[str, Callable[[Indices], float]] = {
        "rul_rmse": lambda rows: float(np.sqrt(np.mean(errors[rows] ** 2))),
        "rul_mae": lambda rows: float(np.abs(errors[rows]).mean()),
        "interval_coverage": lambda rows: float(inside[rows].mean()),
    }
    return measures | {name: _where_known(measure, has_rul) for name, measure in of_rul.items()}


def _where_known(measure: Callable[[Indices], float], known: Bools) -> Callable[[Indices], float | None]:
    """Returns a metric of the rows whose RUL is known; None if there are none, as in some resampled sets."""

    def measure_known(rows: Indices) -> float | None:
        rows = rows[known[rows]]
        return measure(rows) if len(rows) else None

    return measure_known


def _lead_time(held_out: HeldOut, probabilities: Floats) -> tuple[float | None, float | None]:
    """Returns the median life left at the first lasting warning, and the share of failures with such a warning."""
    if held_out.left is None:
        return None, None
    leads, failures = [], 0
    for run in np.unique(held_out.run[held_out.failed]):
        rows = np.flatnonzero(held_out.run == run)
        failures += 1
        high = probabilities[rows] >= _WARNED_AT
        steady = np.convolve(high, np.ones(_WARNED_FOR), "full")[: len(rows)] >= min(_WARNED_FOR, len(rows))
        if steady.any():
            leads.append(float(held_out.left[rows[int(steady.argmax())]]))
    return (float(np.median(leads)) if leads else None), (len(leads) / failures if failures else None)


def _points(held_out: HeldOut) -> list[parts.RulPoint]:
    """Returns predicted and true RUL of a few hundred rows, spread evenly."""
    if held_out.rul is None or held_out.left is None:
        return []
    rows_with_rul = np.flatnonzero(~np.isnan(held_out.left))
    chosen = (
        rows_with_rul[np.linspace(0, len(rows_with_rul) - 1, min(_POINTS, len(rows_with_rul))).astype(int)]
        if len(rows_with_rul)
        else rows_with_rul
    )
    return [
        parts.RulPoint(truth=round(float(held_out.left[row]), 4), predicted=round(float(held_out.rul[row]), 4))
        for row in chosen
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else round(float(value), 5)


def split_by_time(begins: Sequence[int], ends: Sequence[int]) -> tuple[list[int], list[int]] | None:
    """Splits runs by time, so that the second part began after all runs of the first part had ended.

    Args:
        begins: Start of each run in µs.
        ends: End of each run in µs.

    Returns:
        The indices of the runs for training and for evaluation, or None if one part has fewer than three.
    """
    cut = int(np.quantile(np.array(ends), 0.6))
    before = [index for index, end in enumerate(ends) if end <= cut]
    after = [index for index, begin in enumerate(begins) if begin > cut]
    return (before, after) if len(after) >= 3 and len(before) >= 3 else None
