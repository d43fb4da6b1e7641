"""Rows for model fitting: selection of steps and runs, and the outcomes of their machines."""

import numpy as np
import pytest

from aurum.prediction.model.features import FeatureSpec, features_of, steps_of
from aurum.prediction.training.table import Outcomes, Table, outcomes_of, tabulate
from aurum.readings.history import Run

NAN = float("nan")
SPEC = FeatureSpec("cycle", 1.0, ("x", "y"))


def run_of(name: str, count: int, *, failed: bool = True, left: float = 0.0, first: float = 0.0) -> Run:
    at = np.arange(count, dtype=np.float64)
    columns = {"cycle": at + first, "x": at * 1.5, "y": at**2}
    return Run(name, failed, np.arange(count, dtype=np.int64), columns, left)


def test_training_rows_include_machine_outcome() -> None:
    runs = [run_of("a/1", 3), run_of("b", 2, failed=False), run_of("a/2", 3, left=4.0, first=10.0)]
    table = tabulate(runs, SPEC, 100)
    assert len(table) == 8
    assert table.left.tolist() == [2, 1, 0, 1, 0, 6, 5, 4]
    assert table.failed.tolist() == [True] * 3 + [False] * 2 + [True] * 3
    assert table.share.tolist() == pytest.approx([0, 0.5, 1, 0, 1, 0, 1 / 6, 2 / 6])
    assert table.group.tolist() == [0, 0, 0, 1, 1, 0, 0, 0]
    assert table.run.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert table.features[:, 0].tolist() == [1, 2, 3, 1, 2, 11, 12, 13]
    assert table.features[:, 1].tolist() == [0, 1.5, 3, 0, 1.5, 0, 1.5, 3]


def test_training_rows_have_features_of_their_steps() -> None:
    run = run_of("a", 9)
    table = tabulate([run], SPEC, 3)
    columns = {name: (run.timestamps, values) for name, values in run.columns.items()}
    assert np.array_equal(table.features, features_of(steps_of(columns, SPEC))[[2, 5, 8]], equal_nan=True)


@pytest.mark.parametrize(
    ("most", "ages"),
    [
        (16, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 2, 3, 4, 5]),
        (15, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 2, 3, 4, 5]),
        (14, [2, 4, 6, 8, 10, 1, 3, 5]),
        (7, [1, 4, 7, 10, 2, 5]),
        (5, [1, 4, 7, 10, 2, 5]),
        (1, [10, 5]),
    ],
)
def test_training_rows_are_thinned_evenly_and_keep_run_ends(most: int, ages: list[int]) -> None:
    table = tabulate([run_of("a", 10), run_of("b", 5)], SPEC, most)
    assert table.features[:, 0].tolist() == ages
    assert table.share[table.left == 0].tolist() == [1, 1]


def test_single_step_run_yields_training_row() -> None:
    table = tabulate([run_of("a", 1, first=5.0), run_of("b", 1, left=0.25)], SPEC, 10)
    assert table.features[:, 0].tolist() == [6, 1]
    assert table.share.tolist() == [0, 0]
    assert table.left.tolist() == [0, 0.25]


def test_runs_without_readings_are_excluded() -> None:
    empty = run_of("a", 2)
    empty.columns["x"][:] = empty.columns["y"][:] = NAN
    table = tabulate([empty, run_of("b", 2)], SPEC, 10)
    assert table.group.tolist() == [1, 1]
    assert table.run.tolist() == [1, 1]


@pytest.mark.parametrize("runs", [[], [run_of("a", 0)]], ids=["no run", "no reading"])
def test_empty_training_table_has_all_columns(runs: list[Run]) -> None:
    table = tabulate(runs, SPEC, 10)
    assert len(table) == 0
    assert table.features.shape == (0, len(SPEC.names))
    kinds = {"left": "f", "failed": "b", "share": "f", "group": "i", "run": "i"}
    for name, kind in kinds.items():
        assert getattr(table, name).shape == (0,)
        assert getattr(table, name).dtype.kind == kind


def table_of(left: list[float], failed: list[bool]) -> Table:
    count = len(left)
    whole = np.zeros(count, dtype=np.intp)
    return Table(np.empty((count, 3)), np.array(left), np.array(failed), np.zeros(count), whole, whole, np.zeros(count))


LEFT = [0.0, 9.0, 10.0, 11.0, 29.0, 30.0, 31.0]


def outcome(*, failed: bool, kind: str = "rul") -> Outcomes:
    return outcomes_of(table_of(LEFT, [failed] * len(LEFT)), kind, 30.0, 10.0)  # type: ignore[arg-type]


def test_remaining_life_of_failed_machines_is_capped() -> None:
    found = outcome(failed=True)
    assert found.left is not None
    assert found.left.tolist() == [0, 9, 10, 11, 29, 30, 30]
    assert found.soon.tolist() == [True, True, True, False, False, False, False]
    assert found.known.tolist() == [True] * 7
    assert (found.cap, found.horizon) == (30.0, 10.0)


def test_remaining_life_of_healthy_machines_is_known_from_cap() -> None:
    found = outcome(failed=False)
    assert found.left is not None
    assert np.nan_to_num(found.left, nan=-1).tolist() == [-1, -1, -1, -1, -1, 30, 30]
    assert not found.soon.any()
    assert found.known.tolist() == [False, False, False, True, True, True, True]


@pytest.mark.parametrize("kind", ["classification", "anomaly"])
def test_class_outcomes_have_no_remaining_life(kind: str) -> None:
    table = table_of([0.0, 0.0, 0.5, 1.0], [True, False, True, True])
    found = outcomes_of(table, kind, 30.0, 10.0)  # type: ignore[arg-type]
    assert found.left is None
    assert found.soon.tolist() == [True, False, False, False]
    assert found.known.dtype == np.bool_
    assert found.known.tolist() == [True] * 4
    assert (found.cap, found.horizon) == (0.0, 0.0)
