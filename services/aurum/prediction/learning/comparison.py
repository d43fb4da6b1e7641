"""Compares models on what happened after the data that they were trained on, row by row on the same machines."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

from aurum.prediction.model.features import TIME, FeatureSpec, Steps, features_of, steps_of
from aurum.prediction.model.model import Model
from aurum.readings.history import Run
from aurum.runtime.time_units import HOUR_US

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

_RESAMPLES = 400
_ROWS_OF_RUN = 500  # of each life, evenly over it


@dataclass(frozen=True, slots=True)
class Quality:
    """The errors of one model on the compared rows.

    Attributes:
        brier: Mean squared error of the risk. Each life counts alike.
        skill: The share by which `brier` is less than that of the base rate of the same rows.
        rul_error: Mean absolute error of the RUL up to the cap; None if the model predicts none.
    """

    brier: float
    skill: float
    rul_error: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        lives: Lives with compared rows.
        failures: Those of them that ended in a failure.
        rows: The compared rows.
        candidate: The quality of the shadow model.
        champion: The quality of the champion; None if it cannot predict these machines.
        better: The share of resampled machines on which the candidate has the lower error, with 0.5 for equal ones.
        skilled: The share of resampled machines on which the candidate has skill.
    """

    lives: int
    failures: int
    rows: int
    candidate: Quality
    champion: Quality | None
    better: float
    skilled: float


@dataclass(frozen=True, slots=True)
class _Life:
    """The compared rows of one life: squared errors of each model, outcomes, and absolute errors of the RUL."""

    machine: str
    failed: bool
    soon: Bools
    errors: dict[str, Floats]
    rul_errors: dict[str, Floats]


def trained_until(model: Model) -> int:
    """Returns the time of the latest reading that a model was trained on, in µs since 1970."""
    card = model.card
    return card.data.until_us or int(datetime.fromisoformat(card.created).timestamp() * 1e6)


def has_risk(model: Model | None) -> bool:
    """Whether a model predicts a risk on lives, so that it can be compared."""
    return model is not None and model.card.kind == "rul" and model.predicts_risk


def compare(candidate: Model, champion: Model | None, runs: Sequence[Run], after_us: int) -> Comparison | None:
    """Compares a candidate with the champion on the readings after a time.

    Both are asked for the probability of a failure within the horizon of the champion, and for the RUL up to its cap. A
    row counts if it is known whether the failure was within the horizon.

    Args:
        candidate: The shadow model.
        champion: The champion, or None.
        runs: The lives of all machines of the type.
        after_us: Only rows after this time in µs since 1970 count, which neither model was trained on.

    Returns:
        The comparison, or None if there are no rows, or none of them is before a failure.
    """
    models = {"candidate": candidate}
    if champion is not None and has_risk(champion) and champion.card.axis == candidate.card.axis:
        models["champion"] = champion
    asked = models.get("champion", candidate).card
    lives = [life for run in runs if (life := _life(run, models, asked.horizon, asked.rul_cap, after_us)) is not None]
    soon = np.concatenate([life.soon for life in lives]) if lives else np.zeros(0, dtype=bool)
    if not soon.any() or soon.all():
        return None
    better, skilled = _resample(lives, "champion" in models)
    return Comparison(
        len(lives),
        sum(life.failed for life in lives),
        len(soon),
        _quality(lives, "candidate"),
        _quality(lives, "champion") if "champion" in models else None,
        better,
        skilled,
    )


def later_rows(model: Model, runs: Sequence[Run], after_us: int) -> Floats:
    """Returns the features of all rows after a time, features[row, feature], to measure drift."""
    parts = []
    for run in runs:
        steps, times = _steps_with_times(run, model.spec)
        rows = np.flatnonzero(times > after_us)
        if len(rows):
            parts.append(features_of(steps, rows))
    return np.vstack(parts) if parts else np.empty((0, len(model.spec.names)))


def _life(run: Run, models: dict[str, Model], horizon: float, cap: float, after_us: int) -> _Life | None:
    """Returns the compared rows of a life, or None if it has none."""
    errors, rul_errors = {}, {}
    soon = np.zeros(0, dtype=bool)
    chosen: Floats | None = None  # the same ages for each model
    for name, model in models.items():
        if any(sensor not in run.columns for sensor in model.spec.queried):
            return None
        steps, times = _steps_with_times(run, model.spec)
        if not len(steps.ages):
            return None
        left = steps.ages[-1] - steps.ages + run.left
        known = (times > after_us) & (run.failed | (left > horizon))
        if chosen is None:
            rows = np.flatnonzero(known)
            rows = rows[np.unique(np.linspace(0, len(rows) - 1, _ROWS_OF_RUN).astype(np.intp))] if len(rows) else rows
            chosen = steps.ages[rows]
        else:
            rows = np.clip(np.searchsorted(steps.ages, chosen), 0, len(steps.ages) - 1)
        if not len(rows):
            return None
        predicted = model.predict(features_of(steps, rows))
        soon = run.failed & (left[rows] <= horizon)
        risk = predicted.risk if predicted.risk is not None else np.zeros(len(rows))
        errors[name] = (risk - soon) ** 2
        truth = np.minimum(left[rows], cap)
        if predicted.rul is not None:
            off = np.abs(np.minimum(predicted.rul, cap) - truth)
            rul_errors[name] = off[run.failed | (left[rows] >= cap)]
    return _Life(run.machine, run.failed, soon, errors, rul_errors)


def _steps_with_times(run: Run, spec: FeatureSpec) -> tuple[Steps, Floats]:
    """Returns the steps of a life and the time at the end of each, in µs since 1970."""
    steps = steps_of({name: (run.timestamps, run.columns[name]) for name in spec.queried if name in run.columns}, spec)
    if spec.axis == TIME or spec.axis not in run.columns:
        return steps, steps.ages * HOUR_US
    life = run.columns[spec.axis]
    there = ~np.isnan(life)
    if not there.any():
        return steps, np.zeros(len(steps.ages))
    times: Floats = np.interp(steps.ages, life[there], run.timestamps[there].astype(np.float64))
    return steps, times


def _quality(lives: Sequence[_Life], name: str) -> Quality:
    brier = float(np.mean([life.errors[name].mean() for life in lives]))
    rul = [life.rul_errors[name].mean() for life in lives if len(life.rul_errors.get(name, ()))]
    return Quality(brier, 1 - brier / _base_brier(lives), float(np.mean(rul)) if rul else None)


def _base_brier(lives: Sequence[_Life]) -> float:
    """Returns the mean squared error of the best constant risk, which is the base rate."""
    rate = float(np.mean([life.soon.mean() for life in lives]))
    return max(rate * (1 - rate), 1e-12)


def _resample(lives: Sequence[_Life], with_champion: bool) -> tuple[float, float]:
    """Returns the shares of resampled machines on which the candidate is better, and on which it has skill."""
    machines = sorted({life.machine for life in lives})
    of_machine = {machine: [life for life in lives if life.machine == machine] for machine in machines}
    rng = np.random.default_rng(0)
    better = skilled = 0.0
    for _ in range(_RESAMPLES):
        drawn = [
            life for index in rng.integers(0, len(machines), len(machines)) for life in of_machine[machines[index]]
        ]
        own = float(np.mean([life.errors["candidate"].mean() for life in drawn]))
        skilled += own < _base_brier(drawn)
        if with_champion:
            other = float(np.mean([life.errors["champion"].mean() for life in drawn]))
            better += 1.0 if own < other else 0.5 if own == other else 0.0
    return better / _RESAMPLES if with_champion else 1.0, skilled / _RESAMPLES
