"""Chooses for each category whether trees split its words by their order or one by one, by cross-validation."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from aurum.prediction.training.boosting import binned, fit_trees, raw_scores
from aurum.prediction.training.specification import TrainingOptions
from aurum.prediction.training.table import Indices, Outcomes, Table
from aurum.prediction.training.validation import FOLDS, folds_of

_LEAST_WORDS = 3  # with two, both splits are the same
_LEAST_GAIN = 0.001  # share of the error, below which the order is kept
_ROUNDS = 60


def one_hot_features(table: Table, target: Outcomes, names: Sequence[str], options: TrainingOptions) -> tuple[int, ...]:
    """Returns the features that trees split word by word (one-hot), since held-out machines are predicted better.

    The error is that of the RUL if the model is trained on lives, else the logarithmic loss of the risk.

    Args:
        table: The training rows.
        target: Their outcomes.
        names: The names of the features.
        options: The categories, the seed and how trees are fitted.
    """
    candidates = [
        names.index(f"{sensor}.last")
        for sensor, words in sorted(options.categories.items())
        if len(words) >= _LEAST_WORDS and f"{sensor}.last" in names
    ]
    if not candidates:
        return ()
    group = table.group if len(np.unique(table.group)) >= FOLDS else table.run
    fold = folds_of(group, options.seed)
    chosen: tuple[int, ...] = ()
    least = _error(table, target, fold, replace(options, one_hot=chosen))
    for index in candidates:
        error = _error(table, target, fold, replace(options, one_hot=(*chosen, index)))
        if error < (1 - _LEAST_GAIN) * least:
            chosen, least = (*chosen, index), error
    return chosen


def _error(table: Table, target: Outcomes, fold: Indices, options: TrainingOptions) -> float:
    """Returns the error on held-out folds."""
    options = replace(options, rounds=min(options.rounds, _ROUNDS))
    lives = target.left is not None
    truths = target.left if target.left is not None else target.soon.astype(np.float64)
    rows = ~np.isnan(truths) & (target.known | lives)
    errors = []
    for each in range(int(fold.max()) + 1):
        fitted, test = rows & (fold != each), rows & (fold == each)
        if not test.any() or not fitted.any():
            continue
        objective = "regression" if lives else "binary"
        booster = fit_trees(binned(table.features[fitted], options), truths[fitted], objective, options)
        scores = raw_scores(booster, table.features[test])
        if lives:
            errors.append((np.clip(scores, 0, target.cap) - truths[test]) ** 2)
        else:
            errors.append(np.logaddexp(0.0, np.where(truths[test] > 0.5, -scores, scores)))
    return float(np.concatenate(errors).mean()) if errors else 0.0
