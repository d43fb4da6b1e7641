"""Trains the models of risk and RUL: by cross-validation for evaluation and calibration, then on all rows."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Lock

import lightgbm as lgb
import numpy as np

from aurum.prediction.model import card as parts
from aurum.prediction.model.age_blend import AgeBlend
from aurum.prediction.model.calibration import COVERAGE, LEVELS
from aurum.prediction.model.features import FeatureSpec
from aurum.prediction.model.model import RISK, RUL
from aurum.prediction.training.age_fit import fit_age_blend
from aurum.prediction.training.boosting import binned, fit_trees, raw_scores
from aurum.prediction.training.calibration_fit import calibrate_interval, calibrate_risk, fit_lower_tail
from aurum.prediction.training.monotone import monotone_features
from aurum.prediction.training.search import choose_recipe
from aurum.prediction.training.skill import Baselines
from aurum.prediction.training.specification import TrainingOptions
from aurum.prediction.training.table import Bools, Floats, Indices, Outcomes, Table
from aurum.prediction.training.task import Recipe, Task
from aurum.prediction.training.validation import FOLDS, HeldOut, evaluate_by_folds, folds_of, split_by_time

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
        spec: How the features are computed.
        recipe: How it was trained.
        age_blend: The RUL by age alone, if it counts.
        search: How that was chosen, if it was.
    """

    files: dict[str, str]
    risk: parts.RiskPart
    interval: parts.IntervalPart | None
    evaluation: parts.Evaluation
    gain: Floats
    monotone: tuple[int, ...]
    spec: FeatureSpec
    recipe: Recipe
    age_blend: AgeBlend | None
    search: parts.SearchPart | None


@dataclass(frozen=True, slots=True)
class Scores:
    """The raw scores of the risk and the RUL of rows that were not used for training."""

    risk: Floats
    rul: Floats | None


def fit_outcomes(task: Task, options: TrainingOptions, progress: Progress) -> Fit:
    """Chooses how to train, trains and calibrates the models of risk and RUL, and evaluates by cross-validation."""
    table, target, spec = task.table, task.target, task.spec
    recipe, search = choose_recipe(task, options, lambda share, what: progress(0.1 + 0.25 * share, what))
    options = recipe.options
    group = table.group if len(np.unique(table.group)) >= FOLDS else table.run
    by = "machine" if group is table.group else "run, since there are fewer than five machines"
    fold = folds_of(group, options.seed)
    progress(0.35, "monotone features")
    monotone = monotone_features(table, target, spec.names, fold, options)
    score = np.zeros(len(table))
    rul = np.zeros(len(table))
    baselines = Baselines.empty(len(table))
    folds = int(fold.max()) + 1
    done = 0
    counting = Lock()

    def fit_fold(each: int) -> None:
        nonlocal done
        test = fold == each
        found = fit_and_score(task, recipe, monotone, ~test, test)
        score[test] = found.risk
        if found.rul is not None:
            rul[test] = found.rul
        baselines.fill(table, target, ~test, test)
        with counting:
            done += 1
            progress(0.4 + 0.4 * done / folds, f"cross-validation, fold {done} of {folds}")

    everything = np.ones(len(table), dtype=bool)

    def fit_everything() -> tuple[FeatureSpec, lgb.Booster, lgb.Booster | None, tuple[int, ...]]:
        derived = recipe.derived(task, everything)
        features = task.features(derived)
        constraints = _padded(monotone, features)
        return (
            replace(spec, derived=derived),
            *_fit_both(features, target, everything, constraints, options),
            constraints,
        )

    progress(0.4, f"cross-validation on {len(table)} rows")
    with ThreadPoolExecutor(max(1, min(options.threads, folds + 1)), thread_name_prefix="fold") as threads:
        final = threads.submit(fit_everything)
        list(threads.map(fit_fold, range(folds)))
        fitted_spec, risk, life, constraints = final.result()
    progress(0.82, "calibration")
    age_blend = None
    if recipe.age_weight > 0 and target.left is not None:
        age_blend = fit_age_blend(table, target.left, everything, recipe.age_weight)
    held_out = _held_out(table, target, score, rul, rows=target.known, group=group, baselines=baselines)
    protocol = f"{fold.max() + 1}-fold cross-validation by {by}; each fold is calibrated with the others"
    calibration = calibrate_risk(held_out.score, held_out.soon)
    interval = None
    files = {RISK: risk.model_to_string()}
    gain = _gain(risk)
    if life is not None and target.left is not None:
        interval = _interval_part(rul, target.left, target.cap, group)
        files[RUL] = life.model_to_string()
        gain = (gain + _gain(life)) / 2
    return Fit(
        files,
        parts.RiskPart(scores=calibration.scores.tolist(), probabilities=calibration.probabilities.tolist()),
        interval,
        evaluate_by_folds(held_out, fold[target.known], protocol, target.cap),
        gain,
        constraints,
        fitted_spec,
        recipe,
        age_blend,
        search,
    )


def _interval_part(rul: Floats, left: Floats, cap: float, group: Indices) -> parts.IntervalPart:
    """Calibrates the intervals of the RUL by held-out estimates; `left` is NaN where the true RUL is unknown."""
    known = ~np.isnan(left)
    calibration = calibrate_interval(rul[known], left[known], cap, len(np.unique(group[known])))
    tail = fit_lower_tail(calibration, rul[known], left[known], group[known], cap)
    return parts.IntervalPart(
        coverage=COVERAGE,
        levels=LEVELS.round(4).tolist(),
        edges=calibration.edges.tolist(),
        residuals=calibration.residuals.tolist(),
        tail=parts.TailPart(level=tail.level, mean=tail.mean, lives=tail.lives),
    )


def fit_and_score(task: Task, recipe: Recipe, monotone: Sequence[int], fitted: Bools, unseen: Bools) -> Scores:
    """Trains on some rows, everything that depends on the outcome included, and predicts others."""
    table, target = task.table, task.target
    features = task.features(recipe.derived(task, fitted))
    risk, life = _fit_both(features, target, fitted, _padded(monotone, features), recipe.options)
    scores = raw_scores(risk, features[unseen])
    if life is None or target.left is None:
        return Scores(scores, None)
    rul = np.clip(raw_scores(life, features[unseen]), 0, target.cap)
    blend = fit_age_blend(table, target.left, fitted, recipe.age_weight) if recipe.age_weight > 0 else None
    return Scores(scores, rul if blend is None else blend(rul, table.features[unseen, 0]))


def _padded(monotone: Sequence[int], features: Floats) -> tuple[int, ...]:
    """Returns the constraints with none for the derived features, which follow those of the sensors."""
    return (*monotone, *[0] * (features.shape[1] - len(monotone))) if any(monotone) else tuple(monotone)


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
    features: Floats, target: Outcomes, rows: Bools, monotone: Sequence[int], options: TrainingOptions
) -> tuple[lgb.Booster, lgb.Booster | None]:
    """Fits the trees of risk and, if there are lives, of RUL, to the selected rows."""
    of_risk = rows & target.known
    rows_of_risk = binned(features[of_risk], options)
    risk = fit_trees(
        rows_of_risk,
        target.soon[of_risk],
        "binary",
        options,
        monotone=[-each for each in monotone],
    )
    if target.left is None:
        return risk, None
    of_life = rows & ~np.isnan(target.left)
    # Lives that were observed to their end have both outcomes, so their rows are binned once
    same = np.array_equal(of_risk, of_life)
    rows_of_life = rows_of_risk if same else binned(features[of_life], options)
    return risk, fit_trees(rows_of_life, target.left[of_life], "regression", options, monotone=monotone)


def evaluate_later_lives(task: Task, fit: Fit) -> parts.Evaluation | None:
    """Trains on lives that ended early, and evaluates on those that began later.

    Each half of the later lives is calibrated with the other half. Returns None if there are too few lives or failures.
    """
    runs, table, target = task.runs, task.table, task.target
    split = split_by_time([int(run.timestamps[0]) for run in runs], [int(run.timestamps[-1]) for run in runs])
    if split is None:
        return None
    before, after = (np.isin(table.run, part) for part in split)
    soon = target.soon[before & target.known]
    if not soon.any() or soon.all() or not target.soon[after].any():
        return None
    found = fit_and_score(task, fit.recipe, fit.monotone[: len(task.spec.names)], before, after)
    score = np.zeros(len(table))
    rul = np.zeros(len(table))
    score[after] = found.risk
    if found.rul is not None:
        rul[after] = found.rul
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
