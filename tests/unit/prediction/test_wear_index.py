"""The wear index and deviations: what they are, and that training and serving compute them alike."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.prediction.fleet.model_group import same_features
from aurum.prediction.model.age_blend import AgeBlend
from aurum.prediction.model.features import (
    WINDOW,
    Derived,
    FeatureSpec,
    features_of,
    features_of_windows,
    steps_of,
    window_features,
    window_of,
)
from aurum.prediction.model.model import load_model
from aurum.prediction.model.model_files import write_model
from aurum.prediction.model.wear_index import WearIndex
from aurum.prediction.training.age_fit import fit_age_blend
from aurum.prediction.training.table import tabulate
from aurum.prediction.training.train import TrainingOptions, train
from aurum.prediction.training.wear_index_fit import design, fit_wear_index
from aurum.readings.history import Run

Floats = npt.NDArray[np.float64]
NAN = float("nan")
SENSORS = ("a", "b", "c")
SPEC = FeatureSpec("cycle", 1.0, SENSORS)


def worn(seed: int, *, gaps: float = 0.0, count: int = 8) -> list[Run]:
    """Lives whose sensors a and b show wear in opposite directions under much noise; c shows none."""
    rng = np.random.default_rng(seed)
    runs = []
    for number in range(count):
        length = int(rng.integers(40, 260))
        wear = np.linspace(0, 1, length)
        columns = {
            "cycle": np.arange(1.0, length + 1),
            "a": 100 + 5 * wear + rng.normal(0, 4, length),
            "b": -3 - wear + rng.normal(0, 0.8, length),
            "c": rng.normal(0, 1, length),
        }
        for name in SENSORS:
            columns[name][rng.random(length) < gaps] = NAN
        runs.append(Run(f"m{number}", True, np.arange(length, dtype=np.int64), columns))
    return runs


def fitted(runs: list[Run]) -> WearIndex:
    table = tabulate(runs, SPEC, 10_000)
    index = fit_wear_index(table, table.left, np.ones(len(table), dtype=bool), 3)
    assert index is not None
    return index


def test_wear_index_rises_with_wear_in_all_sensors() -> None:
    index = fitted(worn(1))
    assert index.weight[0] > 0
    assert index.weight[1] < 0
    assert index.share.sum() == pytest.approx(1)
    assert index.share[2] < 0.1
    assert index(np.array([[105.0, -4.0, 0.0], [100.0, -3.0, 0.0]])).tolist() == sorted(
        index(np.array([[105.0, -4.0, 0.0], [100.0, -3.0, 0.0]])).tolist(), reverse=True
    )


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_wear_index_is_independent_of_units(unit: float) -> None:
    runs = worn(2)
    scaled = [Run(run.machine_id, True, run.timestamps, {**run.columns, "a": run.columns["a"] * unit}) for run in runs]
    rows = np.array([[103.0, -3.5, 0.2], [99.0, -3.0, -1.0]])
    assert fitted(scaled)(rows * [unit, 1, 1]) == pytest.approx(fitted(runs)(rows), rel=1e-6)


def test_wear_index_does_not_see_other_rows() -> None:
    runs = worn(3)
    table = tabulate(runs, SPEC, 10_000)
    rows = table.group < 5
    changed = np.where(rows, table.left, table.left * -100)
    first, second = (fit_wear_index(table, left, rows, 3) for left in (table.left, changed))
    assert first is not None
    assert second is not None
    assert np.array_equal(first.weight, second.weight)


def test_wear_index_needs_half_of_its_weight() -> None:
    index = WearIndex(np.array([1.0, 2.0, 3.0]), np.array([2.0, 1.0, -1.0]), np.array([0.5, 0.3, 0.2]))
    values = np.array([[2.0, 3, 4], [2.0, NAN, NAN], [NAN, 3, 4], [NAN, 3, NAN], [NAN, NAN, NAN]])
    assert np.array_equal(index(values), [2.0, 2.0, 0.0, NAN, NAN], equal_nan=True)


def test_wear_index_leaves_words_out() -> None:
    table = tabulate(worn(8), SPEC, 10_000)
    index = fit_wear_index(table, table.left, np.ones(len(table), dtype=bool), 3, [0])
    assert index is not None
    assert index.share[0] == 0
    values = np.array([[1.0, -3.0, 0.0], [NAN, -3.0, 0.0]])
    assert index(values)[0] == index(values)[1]


def test_sensors_without_relation_give_no_index() -> None:
    table = tabulate(worn(4), SPEC, 10_000)
    everything = np.ones(len(table), dtype=bool)
    assert fit_wear_index(table, np.full(len(table), 5.0), everything, 3) is None
    assert fit_wear_index(table, np.full(len(table), NAN), everything, 3) is None


@pytest.mark.parametrize("deviations", [False, True])
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32), gaps=st.sampled_from([0.0, 0.05, 0.6]))
def test_derived_features_are_equal_in_training_and_serving(deviations: bool, seed: int, gaps: float) -> None:
    runs = worn(seed, gaps=gaps, count=2)
    table = tabulate(runs, SPEC, 10_000)
    derived = Derived(fitted(runs), deviations)
    spec = FeatureSpec("cycle", 1.0, SENSORS, None, derived)
    trained = design(table, derived)
    assert trained.shape[1] == len(spec.names)
    whole, windows = [], []
    for run in runs:
        steps = steps_of({name: (run.timestamps, run.columns[name]) for name in spec.queried}, spec)
        whole.append(features_of(steps))
        windows.append(window_of(steps))
    assert np.array_equal(trained, np.vstack(whole), equal_nan=True)
    served = features_of_windows(windows)
    assert np.array_equal(served, np.vstack([rows[-1] for rows in whole]), equal_nan=True)
    by_array = window_features(
        np.stack([each.means for each in windows]), np.array([each.age for each in windows]), derived
    )
    assert by_array.tobytes() == served.tobytes()


def test_deviation_is_recent_mean_less_mean_of_window() -> None:
    values = np.append(np.zeros(WINDOW - 8), np.ones(8))
    columns = {"cycle": np.arange(1.0, WINDOW + 1), **dict.fromkeys(SENSORS, values)}
    spec = FeatureSpec("cycle", 1.0, SENSORS, None, Derived(None, True))
    at = np.arange(WINDOW, dtype=np.int64)
    row = features_of(steps_of({name: (at, column) for name, column in columns.items()}, spec))[-1]
    named = dict(zip(spec.names, row.tolist(), strict=True))
    assert named["a.deviation"] == pytest.approx(1 - 8 / WINDOW)


def test_specifications_with_other_indices_differ() -> None:
    first, second = (fitted(worn(seed)) for seed in (1, 2))
    specs = [
        FeatureSpec("cycle", 1.0, SENSORS, None, derived)
        for derived in (Derived(), Derived(None, True), Derived(first), Derived(second))
    ]
    for one, each in enumerate(specs):
        for two, other in enumerate(specs):
            assert same_features(each, other) == (one == two)


def test_age_blend_is_mean_of_trees_and_age() -> None:
    blend = AgeBlend(0.25, np.array([0.0, 10.0]), np.array([10.0, 0.0]))
    assert blend(np.array([4.0, 4.0, 4.0, 4.0]), np.array([0.0, 5.0, 99.0, NAN])).tolist() == [5.5, 4.25, 3.0, 4.0]


def test_age_blend_falls_with_age_up_to_the_cap() -> None:
    table = tabulate(worn(5, count=30), SPEC, 10_000)
    left = np.minimum(table.left, 60.0)
    blend = fit_age_blend(table, left, np.ones(len(table), dtype=bool), 0.5)
    assert blend is not None
    assert (np.diff(blend.left) <= 0).all()
    assert (np.diff(blend.ages) > 0).all()
    assert 0 <= blend.left[-1] < blend.left[0] <= 60
    assert fit_age_blend(table, left * NAN, np.ones(len(table), dtype=bool), 0.5) is None


def test_model_of_previous_format_is_loaded(tmp_path: Path) -> None:
    _, files = train("engine", worn(6), "test", TrainingOptions(rows=500, rounds=10, search=False))
    card = json.loads(files["card.json"])
    older = {k: v for k, v in card.items() if k not in ("wear_index", "deviations", "age_blend", "search")} | {
        "format": 2
    }
    model = load_model(write_model(tmp_path, "engine", "old", {**files, "card.json": json.dumps(older)}))
    assert model.card.format == 2
    assert model.spec.derived == Derived()
    rows = np.zeros((2, len(model.spec.names)))
    assert model.predict(rows).rul is not None
