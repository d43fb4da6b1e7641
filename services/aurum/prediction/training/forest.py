"""An isolation forest (Liu, Ting and Zhou, 2008), trained by scikit-learn and evaluated by LightGBM's library.

Therefore serving does not need scikit-learn, and scoring a row takes microseconds. The raw score is the mean path
length. Unusual rows have short paths.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_TREES = 64
_SAMPLES = 256  # rows of each tree; Liu et al. found no benefit of more
_MISSING_IS_NAN = 2 << 2 | 2  # LightGBM's decision type: numerical, NaN goes to the left


def fit_forest(rows: Floats, seed: int) -> str:
    """Trains a forest and returns it in LightGBM's model format. rows[row, feature] must be finite."""
    from sklearn.ensemble import IsolationForest  # noqa: PLC0415 - installed for training only

    forest = IsolationForest(n_estimators=_TREES, max_samples=min(_SAMPLES, len(rows)), random_state=seed).fit(rows)
    blocks = [
        _tree(index, estimator.tree_, columns)
        for index, (estimator, columns) in enumerate(zip(forest.estimators_, forest.estimators_features_, strict=True))
    ]
    width = rows.shape[1]
    head = [
        "tree",
        "version=v4",
        "num_class=1",
        "num_tree_per_iteration=1",
        "label_index=0",
        f"max_feature_idx={width - 1}",
        "objective=regression",
        f"feature_names={' '.join(f'Column_{index}' for index in range(width))}",
        f"feature_infos={' '.join(['[-1e+300:1e+300]'] * width)}",
        f"tree_sizes={' '.join(str(len(block.encode())) for block in blocks)}",
        "",
        "",
    ]
    return "\n".join(head) + "".join(blocks) + "end of trees\n"


def path_length(rows: int) -> float:
    """Returns the mean path length of an unsuccessful search in a binary search tree of so many rows.

    It is added to the depth of a leaf with that many rows.
    """
    if rows <= 1:
        return 0.0
    if rows == 2:
        return 1.0
    return 2.0 * (math.log(rows - 1.0) + np.euler_gamma) - 2.0 * (rows - 1.0) / rows


def _tree(number: int, tree: Any, columns: npt.NDArray[np.intp]) -> str:
    inner: list[int] = []
    leaves: list[tuple[int, int]] = []  # node, depth
    stack = [(0, 0)]
    while stack:
        node, depth = stack.pop()
        if tree.children_left[node] == -1:
            leaves.append((node, depth))
            continue
        inner.append(node)
        stack += [(int(tree.children_right[node]), depth + 1), (int(tree.children_left[node]), depth + 1)]
    index = {node: position for position, node in enumerate(inner)}
    index |= {node: -position - 1 for position, (node, _) in enumerate(leaves)}  # LightGBM numbers leaves ~position
    values = [float(depth + path_length(int(tree.n_node_samples[node]))) / _TREES for node, depth in leaves]
    lines: dict[str, Sequence[object]] = {
        "num_leaves": [len(leaves)],
        "num_cat": [0],
        "split_feature": [int(columns[tree.feature[node]]) for node in inner],
        "split_gain": [1] * len(inner),
        "threshold": [repr(float(tree.threshold[node])) for node in inner],
        "decision_type": [_MISSING_IS_NAN] * len(inner),
        "left_child": [index[int(tree.children_left[node])] for node in inner],
        "right_child": [index[int(tree.children_right[node])] for node in inner],
        "leaf_value": [repr(value) for value in values],
        "leaf_weight": [1] * len(leaves),
        "leaf_count": [int(tree.n_node_samples[node]) for node, _ in leaves],
        "internal_value": [0] * len(inner),
        "internal_weight": [1] * len(inner),
        "internal_count": [int(tree.n_node_samples[node]) for node in inner],
        "is_linear": [0],
        "shrinkage": [1],
    }
    return f"Tree={number}\n" + "\n".join(f"{key}={_text(each)}" for key, each in lines.items()) + "\n\n\n"


def _text(values: Sequence[object]) -> str:
    return " ".join(map(str, values))
