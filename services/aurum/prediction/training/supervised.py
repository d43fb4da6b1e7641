"""Trains the models of risk and RUL: by cross-validation for evaluation and calibration, then on all rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import lightgbm as lgb
import numpy as np

from aurum.prediction.model import card as parts
from aurum.prediction.model.calibration import COVERAGE, LEVELS
from aurum.prediction.model.features import FeatureSpec
from aurum.prediction.model.model import RISK, RUL
from aurum.prediction.training.boosting import fit_trees, raw_scores
from aurum.prediction.training.calibration_fit import calibrate_interval, calibrate_risk
from aurum.prediction.training.monotone import monotone_features
from aurum.prediction.training.skill import Baselines
from aurum.prediction.training.specification import TrainingOptions
from aurum.prediction.training.table import Bools, Floats, Indices, Outcomes, Table
from aurum.prediction.training.validation import FOLDS, HeldOut, evaluate_by_folds, folds_of, split_by_time
from aurum.readings.history import Run

Progress = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class Fit:
    """The result of the training.

    Attributes:
        files: The texts of the trees by file name.
        risk: The calibration of the risk.
        interval: The calibration of the RUL's interval, if there are lives.
        evaluation: The evaluation by cross-validation.
        gain: The share of each feature in the gain of the trees.
        monotone: The constraint of each feature, see `monotone_features`.
    """

    files: dict[str, str]
    risk: parts.RiskPart
    interval: parts.IntervalPart | None
    evaluation: parts.Evaluation
    gain: Floats
    monotone: tuple[int, ...]


def fit_outcomes(
    table: Table, target: Outcomes, spec: FeatureSpec, options: TrainingOptions, progress: Progress
) -> Fit:
    """Trains and calibrates the models of risk and RUL, and evaluates them by cross-validation."""
    group = table.group if len(np.unique(table.group)) >= FOLDS else table.run
    by = "machine" if group is table.group else "run, since there are fewer than five machines"
    fold = folds_of(group, options.seed)
    monotone = monotone_features(table, target, spec.names, fold, options)
    score = np.zeros(len(table))
    rul = np.zeros(len(table))
    baselines = Baselines.empty(len(table))
    for each in range(int(fold.max()) + 1):
        progress(0.15 + 0.6 * each / (fold.max() + 1), "cross-validation")
        test = fold == each
        risk_part, rul_part = _fit_both(table, target, ~test, monotone, options)
        baselines.fill(table, target, ~test, test)
        score[test] = raw_scores(risk_part, table.features[test])
        if rul_part is not None:
            rul[test] = np.clip(raw_scores(rul_part, table.features[test]), 0, target.cap)
    progress(0.8, "final model")
    everything = np.ones(len(table), dtype=bool)
    risk, life = _fit_both(table, target, everything, monotone, options)
    held_out = _held_out(table, target, score, rul, rows=target.known, group=group, baselines=baselines)
    protocol = f"{fold.max() + 1}-fold cross-validation by {by}; each fold is calibrated with the others"
    calibration = calibrate_risk(held_out.score, held_out.soon)
    interval = None
    files = {RISK: risk.model_to_string()}
    gain = _gain(risk)
    if life is not None and target.left is not None:
        has_rul = ~np.isnan(target.left)
        interval_calibration = calibrate_interval(
            rul[has_rul], target.left[has_rul], target.cap, len(np.unique(group[has_rul]))
        )
        interval = parts.IntervalPart(
            coverage=COVERAGE,
            levels=LEVELS.round(4).tolist(),
            edges=interval_calibration.edges.tolist(),
            residuals=interval_calibration.residuals.tolist(),
        )
        files[RUL] = life.model_to_string()
        gain = (gain + _gain(life)) / 2
    return Fit(
        files,
        parts.RiskPart(scores=calibration.scores.tolist(), probabilities=calibration.probabilities.tolist()),
        interval,
        evaluate_by_folds(held_out, fold[target.known], protocol, target.cap),
        gain,
        monotone,
    )


def _held_out(
    table: Table,
    target: Outcomes,
    score: Floats,
    rul: Floats,
    *,
    rows: Bools,
    group: Indices,
    baselines: Baselines,
) -> HeldOut:
    """Returns the held-out predictions and true outcomes of the selected rows."""
    lives = target.left is not None
    return HeldOut(
        score[rows],
        target.soon[rows],
        rul[rows] if lives else None,
        target.left[rows] if target.left is not None else None,
        group[rows],
        table.run[rows],
        table.failed[rows],
        baselines.select(rows),
    )


def _fit_both(
    table: Table, target: Outcomes, rows: Bools, monotone: Sequence[int], options: TrainingOptions
) -> tuple[lgb.Booster, lgb.Booster | None]:
    """Fits the trees of risk and, if there are lives, of RUL, to the selected rows."""
    of_risk = rows & target.known
    risk = fit_trees(
        table.features[of_risk],
        target.soon[of_risk],
        "binary",
        options,
        monotone=[-each for each in monotone],
    )
    if target.left is None:
        return risk, None
    of_life = rows & ~np.isnan(target.left)
    features, left = table.features[of_life], target.left[of_life]
    return risk, fit_trees(features, left, "regression", options, monotone=monotone)


def evaluate_later_lives(
    runs: Sequence[Run], table: Table, target: Outcomes, monotone: Sequence[int], options: TrainingOptions
) -> parts.Evaluation | None:
    """Trains on lives that ended early, and evaluates on those that began later.

    Each half of the later lives is calibrated with the other half. Returns None if there are too few lives or failures.
    """
    split = split_by_time([int(run.timestamps[0]) for run in runs], [int(run.timestamps[-1]) for run in runs])
    if split is None:
        return None
    before, after = (np.isin(table.run, part) for part in split)
    soon = target.soon[before & target.known]
    if not soon.any() or soon.all() or not target.soon[after].any():
        return None
    risk, life = _fit_both(table, target, before, monotone, options)
    score = np.zeros(len(table))
    rul = np.zeros(len(table))
    score[after] = raw_scores(risk, table.features[after])
    if life is not None:
        rul[after] = np.clip(raw_scores(life, table.features[after]), 0, target.cap)
    baselines = Baselines.empty(len(table))
    baselines.fill(table, target, before, after)
    rows = after & target.known
    halves = table.run[rows] % 2
    if len(np.unique(halves)) < 2 or any(not target.soon[rows][halves == half].any() for half in (0, 1)):
        return None
    held_out = _held_out(table, target, score, rul, rows=rows, group=table.run, baselines=baselines)
    return evaluate_by_folds(
        held_out,
        halves,
        f"trained on {len(split[0])} lives that had ended before the other {len(split[1])} began",
        target.cap,
    )


def _gain(booster: lgb.Booster) -> Floats:
    """Returns the share of each feature in the gain of the trees."""
    gain = np.asarray(booster.feature_importance("gain"), dtype=np.float64)
    share: Floats = gain / max(float(gain.sum()), 1e-12)
    return share
