"""Naive baselines, and the skill of predictions against them.

The baselines know no sensor. The RUL has two: the median life minus the age, and the mean remaining life. The risk has
one: the share of rows within the horizon of a failure. Each is taken from training rows only. The interval of a skill
comes from resampling whole machines or lives (bootstrap; Efron, 1979).
"""

from dataclasses import dataclass

import numpy as np

from aurum.prediction.model.card import Quantity, Skill
from aurum.prediction.training.table import Bools, Floats, Indices, Outcomes, Table

MEDIAN_LIFE, MEAN_LEFT, BASE_RATE = "median life minus age", "mean remaining life", "base rate"
_RESAMPLES = 2000
_AT_A_TIME = 250
_SEED = 0  # so that the same errors give the same interval


@dataclass(frozen=True, slots=True)
class Baselines:
    """Naive predictions, with one element of each array for each row.

    Attributes:
        risk: The base rate of the training rows.
        by_age: The median life of the training lives minus the age, from 0 to the cap; NaN without lives.
        mean_left: The mean RUL of the training rows; NaN without lives.
    """

    risk: Floats
    by_age: Floats
    mean_left: Floats

    @classmethod
    def empty(cls, rows: int) -> "Baselines":
        """Returns baselines of so many rows, to be filled."""
        return cls(*(np.full(rows, np.nan) for _ in range(3)))

    def fill(self, table: Table, target: Outcomes, training: Bools, rows: Bools) -> None:
        """Predicts the selected rows from the training rows."""
        known = training & target.known
        self.risk[rows] = target.soon[known].mean() if known.any() else 0.0
        if target.left is None:
            return
        left = target.left[training]
        if not np.isnan(left).all():
            self.mean_left[rows] = np.nanmean(left)
        life = median_life(table, training)
        if life is not None:
            self.by_age[rows] = np.clip(life - table.age[rows], 0.0, target.cap)

    def select(self, rows: Bools) -> "Baselines":
        """Returns the baselines of the selected rows."""
        return Baselines(self.risk[rows], self.by_age[rows], self.mean_left[rows])


def median_life(table: Table, rows: Bools) -> float | None:
    """Returns the median life of the failed runs among the selected rows; None without such a run."""
    failed = rows & table.failed
    if not failed.any():
        return None
    runs, first = np.unique(table.run[failed], return_index=True)
    lives = (table.age + table.left)[failed][first]
    return float(np.median(lives)) if len(runs) else None


def skill_of_risk(probabilities: Floats, soon: Bools, naive: Floats, group: Indices) -> Skill:
    """Returns the Brier skill score of probabilities against a base rate (Brier, 1950)."""
    model, baseline = (probabilities - soon) ** 2, (naive - soon) ** 2
    return _skill("risk", BASE_RATE, model, baseline, group)


def skill_of_rul(rul: Floats, left: Floats, naive: Floats, baseline: str, group: Indices) -> Skill | None:
    """Returns the skill of predicted RULs by the root mean square error, or None if no row has a true RUL."""
    known = ~np.isnan(left) & ~np.isnan(naive)
    if not known.any():
        return None
    model, naive_errors = (rul[known] - left[known]) ** 2, (naive[known] - left[known]) ** 2
    return _skill("rul", baseline, model, naive_errors, group[known])


def _skill(quantity: Quantity, baseline: str, model: Floats, naive: Floats, group: Indices) -> Skill:
    """Returns the skill by squared errors. The RUL is compared by their roots."""
    root = quantity == "rul"
    _, index = np.unique(group, return_inverse=True)
    groups = int(index.max()) + 1
    of_model, of_naive, rows = (
        np.bincount(index, weights=each, minlength=groups) for each in (model, naive, np.ones(len(model)))
    )
    random = np.random.default_rng(_SEED)
    parts = [
        _ratio(of_model[drawn].sum(axis=1), of_naive[drawn].sum(axis=1), root)
        for drawn in (random.integers(0, groups, (_AT_A_TIME, groups)) for _ in range(_RESAMPLES // _AT_A_TIME))
    ]
    low, high = np.quantile(np.concatenate(parts), (0.025, 0.975))
    errors = [float(each.sum() / rows.sum()) for each in (of_model, of_naive)]
    if root:
        errors = [float(np.sqrt(each)) for each in errors]
    overall = float(_ratio(of_model.sum(keepdims=True), of_naive.sum(keepdims=True), root)[0])
    return Skill(
        quantity=quantity,
        baseline=baseline,
        measure="RMSE" if root else "Brier score",
        error=round(errors[0], 5),
        baseline_error=round(errors[1], 5),
        skill=round(overall, 5),
        low=round(min(float(low), overall), 5) if groups > 1 else min(0.0, round(overall, 5)),
        high=round(max(float(high), overall), 5),
        groups=groups,
    )


def _ratio(model: Floats, naive: Floats, root: bool) -> Floats:
    """Returns 1 - model / naive; 0 where both are perfect."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(naive > 0, model / naive, np.where(model > 0, np.inf, 1.0))
    bounded: Floats = np.maximum(1 - (np.sqrt(ratio) if root else ratio), -99.0)
    return bounded
