"""Learns from failures whose mode is recorded how the risk is divided among the modes."""

import collections
import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from aurum.prediction.model.card import CausePart
from aurum.prediction.model.causes import standardize_causes
from aurum.prediction.training.table import Bools, Floats, Indices, Table
from aurum.readings.history import Run

OTHER = "other"  # modes of fewer failures than are needed
_LEAST_OF_MODE = 2  # failures
_MOST_MODES = 12
_FOLDS = 10
_STRENGTH = 1.0  # of the coefficients, per failure; smaller values are shrunken more towards the base rates
_PRIOR = 1.0  # failures of each mode that are assumed before any was seen


def fit_causes(  # noqa: PLR0917
    runs: Sequence[Run], table: Table, soon: Bools, healthy: Bools, columns: Sequence[int], seed: int
) -> CausePart | None:
    """Fits the shares of the failure modes.

    Each failure counts alike, however many rows it has. If the features do not tell the modes of held-out failures
    better than the base rates do, the shares are the base rates.

    Args:
        runs: The lives.
        table: Their rows.
        soon: Which rows are within the horizon of a failure.
        healthy: Which rows are of healthy machines.
        columns: The features that may tell modes apart.
        seed: Seed of the division into folds.

    Returns:
        The shares, or None if fewer than two modes have enough failures.
    """
    modes = _modes(runs)
    if modes is None:
        return None
    named = np.array([run.mode in modes or (bool(run.mode) and OTHER in modes) for run in runs])
    rows = np.flatnonzero(soon & named[table.run])
    group = table.run[rows]
    kind = np.array([modes.index(runs[run].mode) if runs[run].mode in modes else modes.index(OTHER) for run in group])
    if len(np.unique(kind)) < len(modes):
        return None
    reference = table.features[healthy][:, columns]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column without values
        mean = np.nan_to_num(np.nanmean(reference, axis=0))
        scale = np.nan_to_num(np.nanstd(reference, axis=0), nan=1.0)
    scale[scale < 1e-12] = 1.0
    features = standardize_causes(table.features[rows][:, columns], mean, scale)
    failures = {int(run): int(kind[group == run][0]) for run in np.unique(group)}
    counts = np.bincount(list(failures.values()), minlength=len(modes))
    base = (counts + _PRIOR) / (counts + _PRIOR).sum()
    accuracy, better = _validate(features, kind, group, failures, len(modes), seed)
    coefficients, intercepts = np.zeros((len(modes), len(columns))), np.log(base)
    if better:
        coefficients, intercepts = _fit(features, kind, group, len(modes))
    return CausePart(
        modes=list(modes),
        columns=list(columns),
        mean=mean.tolist(),
        scale=scale.tolist(),
        coefficients=coefficients.tolist(),
        intercepts=intercepts.tolist(),
        failures={mode: int(count) for mode, count in zip(modes, counts, strict=True)},
        accuracy=round(accuracy, 4),
        majority=round(float(counts.max() / counts.sum()), 4),
    )


def _modes(runs: Sequence[Run]) -> tuple[str, ...] | None:
    """Returns the modes with enough failures, the most frequent first; rarer ones are OTHER."""
    counts = collections.Counter(run.mode for run in runs if run.failed and run.mode)
    frequent = [mode for mode, count in counts.most_common(_MOST_MODES) if count >= _LEAST_OF_MODE]
    rest = sum(counts.values()) - sum(counts[mode] for mode in frequent)
    modes = (*frequent, OTHER) if rest >= _LEAST_OF_MODE and OTHER not in frequent else tuple(frequent)
    return modes if len(modes) > 1 else None


def _fit(features: Floats, kind: Indices, group: Indices, modes: int) -> tuple[Floats, Floats]:
    """Returns coefficients[mode, feature] and intercepts[mode] of a penalized multinomial logistic regression."""
    _, inverse, sizes = np.unique(group, return_inverse=True, return_counts=True)
    model = LogisticRegression(C=_STRENGTH, max_iter=500)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, kind, sample_weight=1.0 / sizes[inverse])
    coefficients, intercepts = np.zeros((modes, features.shape[1])), np.full(modes, -20.0)
    if len(model.classes_) == 2:  # of which scikit-learn keeps the difference
        coefficients[model.classes_[1]], intercepts[model.classes_] = model.coef_[0], [0.0, model.intercept_[0]]
    else:
        coefficients[model.classes_], intercepts[model.classes_] = model.coef_, model.intercept_
    return coefficients, intercepts


def _validate(  # noqa: PLR0917
    features: Floats, kind: Indices, group: Indices, failures: dict[int, int], modes: int, seed: int
) -> tuple[float, bool]:
    """Predicts the modes of held-out failures.

    Returns:
        The share of them that is predicted correctly, and whether their mean log-likelihood exceeds that of the base
        rates of the other failures.
    """
    names = np.array(sorted(failures))
    fold = np.random.default_rng(seed).permutation(len(names)) % min(_FOLDS, len(names))
    right, gained = 0, 0.0
    for each in range(int(fold.max()) + 1):
        held_out = names[fold == each]
        others = ~np.isin(group, held_out)
        known = [failures[int(run)] for run in names[fold != each]]
        counts = np.bincount(known, minlength=modes) + _PRIOR
        base = counts / counts.sum()
        if len(set(known)) > 1:
            coefficients, intercepts = _fit(features[others], kind[others], group[others], modes)
        else:
            coefficients, intercepts = np.zeros((modes, features.shape[1])), np.log(base)
        for run in held_out:
            scores = features[group == run] @ coefficients.T + intercepts
            powers = np.exp(scores - scores.max(axis=1, keepdims=True))
            shares = (powers / powers.sum(axis=1, keepdims=True)).mean(axis=0)
            right += int(shares.argmax()) == failures[int(run)]
            truth = failures[int(run)]
            gained += float(np.log(max(shares[truth], 1e-3)) - np.log(base[truth]))
    return right / len(names), gained > 0
