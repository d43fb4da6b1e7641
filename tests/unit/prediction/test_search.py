"""The choice of how to train by cross-validation, its budget, and what is reported of it."""

import json
from dataclasses import replace
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pytest

from aurum.commands.training import describe_search
from aurum.prediction.fleet.model_group import same_features
from aurum.prediction.model.model import CorruptModelError, load_model
from aurum.prediction.model.model_files import write_model
from aurum.prediction.model.trees import Trees
from aurum.prediction.training.boosting import average_boosters, binned, fit_trees, raw_scores
from aurum.prediction.training.report import report
from aurum.prediction.training.specification import derive_specification, rows_in_memory
from aurum.prediction.training.train import TrainingOptions, train
from aurum.readings.history import Run

HOUR = 3_600_000_000
OPTIONS = TrainingOptions(rows=3000, rounds=40)


def ageing(count: int, seed: int, *, shows: bool, follow: bool = False) -> list[Run]:
    """Lives of nearly the same length. Six noisy sensors show wear, or nothing does."""
    rng = np.random.default_rng(seed)
    runs = []
    begins = 0
    for number in range(count):
        length = int(rng.integers(60, 200)) if shows else int(rng.integers(98, 103))
        wear = np.linspace(0, 1, length) ** 2 if shows else np.zeros(length)
        columns = {"cycle": np.arange(1.0, length + 1)}
        columns |= {f"s{each}": wear * 2 + rng.normal(0, 1, length) for each in range(6)}
        at = begins + np.arange(length, dtype=np.int64) * HOUR
        runs.append(Run(f"m{number:02d}", True, at, columns))
        begins = int(at[-1]) + HOUR if follow else 0
    return runs


def test_wear_in_many_noisy_sensors_is_summed_up() -> None:
    model, _ = train("engine", ageing(20, 1, shows=True), "test", OPTIONS)
    search = model.card.search
    assert search is not None
    errors = {each.name: each.error for each in search.trials}
    assert errors["wear index"] < 0.95 * errors["as usual"]
    assert search.chosen["wear_index"] == 1
    assert "wear_index.mean_8" in model.card.features
    assert "by machine" in search.protocol
    assert model.card.evaluation is not None
    plain, _ = train("engine", ageing(20, 1, shows=True), "test", replace(OPTIONS, search=False))
    assert plain.card.search is None
    assert plain.card.evaluation is not None
    assert model.card.evaluation.metrics.rul_rmse < plain.card.evaluation.metrics.rul_rmse  # type: ignore[operator]


def test_age_counts_where_sensors_show_nothing() -> None:
    model, _ = train("engine", ageing(12, 2, shows=False), "test", OPTIONS)
    assert model.card.search is not None
    assert model.card.search.chosen["age_weight"] >= 0.5
    blend = model.card.age_blend
    assert blend is not None
    assert blend.weight == model.card.search.chosen["age_weight"]
    row = np.full((2, len(model.spec.names)), np.nan)
    row[:, 0] = 10.0, 95.0
    told = model.predict(row)
    assert told.rul is not None
    assert told.rul[0] > told.rul[1]
    assert model.card.evaluation is not None
    assert model.card.evaluation.metrics.rul_rmse is not None
    assert model.card.evaluation.metrics.rul_rmse < 4.0


def test_later_lives_judge_the_way_to_train() -> None:
    model, _ = train("engine", ageing(20, 3, shows=True, follow=True), "test", OPTIONS)
    assert model.card.search is not None
    assert model.card.search.protocol.startswith("trained on 12 lives that had ended before the other")


def test_search_does_not_depend_on_threads() -> None:
    runs = ageing(8, 4, shows=True)
    first, second = (train("engine", runs, "test", replace(OPTIONS, threads=count))[1] for count in (1, 3))
    assert first["rul.txt"] == second["rul.txt"]
    assert first["risk.txt"] == second["risk.txt"]


def test_budget_without_time_tries_nothing_more() -> None:
    model, _ = train("engine", ageing(8, 5, shows=True), "test", replace(OPTIONS, budget=0.0))
    search = model.card.search
    assert search is not None
    assert search.seconds_allowed == 0
    assert [each.name for each in search.trials if "age" not in each.name] == ["as usual"]
    assert "wear index" in search.not_tried
    assert "3 seeds" in search.not_tried
    lines = describe_search(model.card)
    assert "budget of 0 s" in lines[-1]
    assert "wear index" in lines[-1]
    assert "not tried within 0 s" in report(model.card)


def test_budget_with_time_tries_seeds_as_well() -> None:
    model, _ = train("engine", ageing(8, 6, shows=True), "test", replace(OPTIONS, rounds=10, budget=1e6))
    search = model.card.search
    assert search is not None
    assert "3 seeds" in {each.name for each in search.trials}
    assert not search.not_tried
    assert "chosen: " in describe_search(model.card)[1]


@pytest.mark.parametrize("objective", ["regression", "binary"])
def test_average_of_models_has_the_mean_score(objective: str) -> None:
    rng = np.random.default_rng(7)
    features = rng.normal(size=(400, 4))
    target = (features[:, 0] + rng.normal(size=400) > 0).astype(float)
    options = [TrainingOptions(rounds=12, seed=seed) for seed in (1, 2, 3)]
    boosters = [fit_trees(binned(features, each), target, objective, each, monotone=[1, 0, 0, 0]) for each in options]
    averaged = average_boosters(boosters)
    expected = np.mean([raw_scores(each, features) for each in boosters], axis=0)
    assert raw_scores(averaged, features) == pytest.approx(expected)
    served = Trees(averaged.model_to_string())
    assert served(features) == pytest.approx(expected)
    assert served.contributions(features[0]).shape == (4,)
    assert isinstance(averaged, lgb.Booster)


def test_memory_bounds_the_rows() -> None:
    runs = ageing(8, 8, shows=True)
    spec, _ = derive_specification(runs, OPTIONS)
    assert rows_in_memory(spec, TrainingOptions(memory=64)) * 8 * len(spec.names) < 64e6
    assert rows_in_memory(spec, TrainingOptions(memory=6400)) > 90 * rows_in_memory(spec, TrainingOptions(memory=64))
    assert rows_in_memory(spec, TrainingOptions(rows=500)) == 500
    assert rows_in_memory(spec, TrainingOptions(memory=1)) == 1000
    model, _ = train("engine", runs, "test", TrainingOptions(rounds=10, search=False))
    assert model.card.data.rows == sum(len(run.timestamps) for run in runs)


def test_model_with_index_is_loaded_unchanged(tmp_path: Path) -> None:
    model, files = train("engine", ageing(12, 9, shows=True), "test", OPTIONS)
    assert model.spec.derived.index is not None
    loaded = load_model(write_model(tmp_path, "engine", "new", files))
    assert same_features(loaded.spec, model.spec)
    card = json.loads(files["card.json"])
    card["wear_index"]["weight"] = [1.0]
    with pytest.raises(CorruptModelError, match="wear index"):
        load_model(write_model(tmp_path, "engine", "odd", {**files, "card.json": json.dumps(card)}))
