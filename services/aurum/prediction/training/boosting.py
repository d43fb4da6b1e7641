"""Fits boosted trees to a table."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from aurum.prediction.training.specification import TrainingOptions

Floats = npt.NDArray[np.float64]

_LEAF_SHARE, _SMALLEST_LEAF, _LARGEST_LEAF = 100, 5, 40  # least rows of a leaf: 1/100 of all, within these bounds
_MOST_WORDS = 64  # of a category that is split word by word
_FIRST_TREE, _END_OF_TREES = "Tree=0\n", "end of trees"
_TREE = re.compile(r"^Tree=\d+\n", re.MULTILINE)
_SIZES = re.compile(r"^tree_sizes=.*$", re.MULTILINE)
_LARGEST_LEAF_OF_LARGE = 100
_RATE = 0.05
TRIAL_SPEED = 2
"""How many times faster than usual the models of trials learn, with fewer trees."""
_LARGE = 30_000  # rows from which fewer, larger trees predict as well
_PATIENCE = 15  # rounds without improvement before a fit is stopped
_PARAMETERS: dict[str, object] = {
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 1.0,
    "max_bin": 63,
    "verbosity": -1,
    "deterministic": True,
    "force_row_wise": True,
}


@dataclass(frozen=True, slots=True)
class Binned:
    """Rows whose values are sorted into bins at the first fit, once for all models of the same rows.

    Attributes:
        data: The rows in LightGBM's form.
        rows: The number of rows.
    """

    data: lgb.Dataset
    rows: int


def binned(features: Floats, options: TrainingOptions) -> Binned:
    """Returns features[row, feature] in the form in which models are fitted to them."""
    data = lgb.Dataset(features, free_raw_data=True, categorical_feature=list(options.one_hot))
    return Binned(data, len(features))


def fit_trees(
    features: Binned,
    target: npt.NDArray[np.generic],
    objective: str,
    options: TrainingOptions,
    *,
    monotone: Sequence[int] = (),
) -> lgb.Booster:
    """Fits one boosted model.

    Args:
        features: The rows. Only one model at a time may be fitted to them.
        target: The value to predict of each row.
        objective: LightGBM's objective.
        options: Seed, threads and number of trees.
        monotone: For each feature 1 if the prediction may only rise with it, -1 if it may only fall, else 0.
    """
    rounds = options.rounds if features.rows < _LARGE else -(-options.rounds * 5 // 8)
    features.data.set_label(target)
    boosters = [
        lgb.train(
            _parameters(features.rows, objective, replace(options, seed=options.seed + seed), monotone),
            features.data,
            num_boost_round=rounds,
        )
        for seed in range(options.seeds)
    ]
    return boosters[0] if len(boosters) == 1 else average_boosters(boosters)


def fit_and_validate(
    fitted: Binned, unseen: lgb.Dataset, objective: str, options: TrainingOptions
) -> tuple[lgb.Booster, Floats]:
    """Fits one boosted model until its loss on unseen rows has not fallen for some rounds.

    It learns TRIAL_SPEED times as fast as that of `fit_trees`, with as many times fewer trees.

    Args:
        fitted: The rows to fit to, with their labels.
        unseen: Other rows with their labels, as validation data of `fitted`.
        objective: LightGBM's objective.
        options: Seed, threads and greatest number of trees.

    Returns:
        The model, and its loss on the unseen rows by number of trees: the mean square or the logarithmic loss.
    """
    losses: dict[str, dict[str, list[float]]] = {}
    booster = lgb.train(
        _parameters(fitted.rows, objective, options, ()) | {"learning_rate": _RATE * TRIAL_SPEED},
        fitted.data,
        num_boost_round=-(-options.rounds // TRIAL_SPEED),
        valid_sets=[unseen],
        callbacks=[lgb.record_evaluation(losses), lgb.early_stopping(_PATIENCE, verbose=False)],
    )
    (of_rounds,) = next(iter(losses.values())).values()
    return booster, np.array(of_rounds)


def _parameters(rows: int, objective: str, options: TrainingOptions, monotone: Sequence[int]) -> dict[str, object]:
    parameters = {
        **_PARAMETERS,
        "objective": objective,
        "seed": options.seed,
        "learning_rate": _RATE if rows < _LARGE else 1.6 * _RATE,
        "num_leaves": 24 if rows < _LARGE else 31,
        "feature_fraction": options.feature_fraction,
        "num_threads": 1,  # folds run side by side instead
        "min_data_in_leaf": min(
            max(rows // _LEAF_SHARE, _SMALLEST_LEAF), _LARGEST_LEAF if rows < _LARGE else _LARGEST_LEAF_OF_LARGE
        ),
    }
    if options.one_hot:
        parameters["max_cat_to_onehot"] = _MOST_WORDS
        monotone = [0 if index in options.one_hot else sign for index, sign in enumerate(monotone)]
    if any(monotone):
        parameters |= {"monotone_constraints": list(monotone), "monotone_constraints_method": "intermediate"}
    return parameters


def raw_scores(booster: lgb.Booster, features: Floats, rounds: int | None = None) -> Floats:
    """Returns the raw score of each row of features[row, feature], of the first `rounds` trees or of all."""
    scores = booster.predict(features, raw_score=True, num_iteration=rounds or -1, num_threads=1)
    return np.asarray(scores, dtype=np.float64)


def average_boosters(boosters: Sequence[lgb.Booster]) -> lgb.Booster:
    """Returns one model whose raw score is the mean of the raw scores of several models of the same features."""
    texts = [booster.model_to_string() for booster in boosters]
    head = texts[0][: texts[0].index(_FIRST_TREE)]
    tail = texts[0][texts[0].index(_END_OF_TREES) :]
    blocks = [
        block
        for text in texts
        for block in _TREE.split(text[text.index(_FIRST_TREE) : text.index(_END_OF_TREES)])
        if block
    ]
    trees = [f"Tree={number}\n{_scaled(block, 1 / len(boosters))}" for number, block in enumerate(blocks)]
    sizes = " ".join(str(len(tree.encode())) for tree in trees)
    head = _SIZES.sub(f"tree_sizes={sizes}", head)
    return lgb.Booster(model_str=head + "".join(trees) + tail)


def _scaled(block: str, factor: float) -> str:
    """Returns the text of a tree with its values multiplied by a factor."""
    lines = block.split("\n")
    for index, line in enumerate(lines):
        name, equals, values = line.partition("=")
        if equals and name in ("leaf_value", "internal_value") and values:
            lines[index] = f"{name}={' '.join(repr(float(value) * factor) for value in values.split())}"
    return "\n".join(lines)
