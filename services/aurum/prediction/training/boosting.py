"""Fits boosted trees to a table."""

from collections.abc import Sequence

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from aurum.prediction.training.specification import TrainingOptions

Floats = npt.NDArray[np.float64]

_LEAF_SHARE, _SMALLEST_LEAF, _LARGEST_LEAF = 100, 5, 40  # least rows of a leaf: 1/100 of all, within these bounds
_MOST_WORDS = 64  # of a category that is split word by word
_PARAMETERS = {
    "learning_rate": 0.05,
    "num_leaves": 24,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 1.0,
    "max_bin": 127,
    "verbosity": -1,
    "deterministic": True,
    "force_row_wise": True,
}


def fit_trees(
    features: Floats,
    target: npt.NDArray[np.generic],
    objective: str,
    options: TrainingOptions,
    *,
    monotone: Sequence[int] = (),
) -> lgb.Booster:
    """Fits one boosted model.

    Args:
        features: features[row, feature].
        target: The value to predict of each row.
        objective: LightGBM's objective.
        options: Seed, threads and number of trees.
        monotone: For each feature 1 if the prediction may only rise with it, -1 if it may only fall, else 0.
    """
    parameters = {
        **_PARAMETERS,
        "objective": objective,
        "seed": options.seed,
        "num_threads": options.threads,
        "min_data_in_leaf": min(max(len(features) // _LEAF_SHARE, _SMALLEST_LEAF), _LARGEST_LEAF),
    }
    if options.one_hot:
        parameters["max_cat_to_onehot"] = _MOST_WORDS
        monotone = [0 if index in options.one_hot else sign for index, sign in enumerate(monotone)]
    if any(monotone):
        parameters |= {"monotone_constraints": list(monotone), "monotone_constraints_method": "intermediate"}
    data = lgb.Dataset(features, target, free_raw_data=True, categorical_feature=list(options.one_hot))
    return lgb.train(parameters, data, num_boost_round=options.rounds)


def raw_scores(booster: lgb.Booster, features: Floats) -> Floats:
    """Returns the raw score of each row of features[row, feature]."""
    return np.asarray(booster.predict(features, raw_score=True), dtype=np.float64)
