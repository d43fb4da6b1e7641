"""Training from tables: lives, labels, censored and healthy machines, operating regimes, and rejected data."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aurum.commands.histories import HistoryError
from aurum.commands.table_roles import DeclaredColumns, TableRoleError
from aurum.commands.training_data import DataSelection, load_histories
from aurum.prediction.model.features import features_of, features_of_windows, steps_of, window_of
from aurum.prediction.model.model import Model
from aurum.prediction.model.trees import Trees, TreesError
from aurum.prediction.training.evaluation import EvaluationDataError, evaluate_model
from aurum.prediction.training.forest import fit_forest, path_length
from aurum.prediction.training.report import report
from aurum.prediction.training.train import TrainingDataError, TrainingOptions, train
from aurum.readings.history import FAULT, Run
from aurum.readings.tables import TableError
from aurum_sim.machine_types import PUMP
from aurum_sim.plant_model import run_to_failure

HOUR = 3_600_000_000
OPTIONS = TrainingOptions(rows=4000, rounds=60, search=False)


def life(number: int, rng: np.random.Generator, *, regimes: bool = False, begins: int = 0, **more: object) -> Run:
    """A life of 60 to 120 cycles with wear in two sensors; under three settings that hide it, if there are regimes."""
    length = int(rng.integers(60, 120))
    wear = np.linspace(0, 1, length) ** 2
    columns = {
        "cycle": np.arange(1.0, length + 1),
        "heat": 50 + 8 * wear + rng.normal(0, 0.5, length),
        "noise": rng.normal(0, 1, length),
        "flow": 20 - 4 * wear + rng.normal(0, 0.3, length),
    }
    if regimes:
        setting = rng.integers(0, 3, length)
        columns["setting"] = np.array([0.0, 20.0, 42.0])[setting] + rng.normal(0, 0.001, length)
        columns["heat"] += 1000.0 * setting  # wear is lost in it
        columns["flow"] *= 1.0 + setting
    return Run(f"m{number:02d}", True, begins + np.arange(length, dtype=np.int64) * HOUR, columns)


def lives(count: int, seed: int = 1, *, regimes: bool = False) -> list[Run]:
    rng = np.random.default_rng(seed)
    return [life(number, rng, regimes=regimes) for number in range(count)]


def csv_of(path: Path, header: str, rows: list[str]) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def given(path: Path, *types: str, run_to_failure: bool = False, **declared: str) -> DataSelection:
    return DataSelection(None, [path], types, run_to_failure, DeclaredColumns(**declared))  # type: ignore[arg-type]


def test_wear_is_learned_across_operating_regimes() -> None:
    model, _ = train("engine", lives(30, regimes=True), "test", OPTIONS)
    assert model.spec.regimes is not None
    assert model.spec.regimes.columns == ("setting",)
    assert len(model.spec.regimes.centers) == 3
    assert "operating regimes" in model.card.data.dropped_columns["setting"]
    plain, _ = train("engine", lives(30), "test", OPTIONS)
    assert plain.spec.regimes is None
    with_regimes, without = (each.card.evaluation.metrics.rul_rmse for each in (model, plain))  # type: ignore[union-attr]
    assert with_regimes is not None
    assert without is not None
    assert with_regimes < 1.5 * without
    fresh, last = evaluate_model(model, lives(10, seed=2, regimes=True))
    assert fresh.metrics.rul_rmse is not None
    assert fresh.metrics.rul_rmse < 2 * without
    assert last is not None
    assert last.runs == 10


def test_regime_features_match_in_serving_and_training() -> None:
    model, _ = train("engine", lives(12, regimes=True), "test", OPTIONS)
    run = lives(1, seed=5, regimes=True)[0]
    columns = {name: (run.timestamps, run.columns[name]) for name in model.spec.queried}
    assert "setting" in columns
    steps = steps_of(columns, model.spec)
    whole = features_of(steps)
    for end in range(3, len(run.timestamps), 9):
        served = steps_of({name: (at[:end], values[:end]) for name, (at, values) in columns.items()}, model.spec)
        assert np.array_equal(features_of_windows([window_of(served)])[0], whole[end - 1], equal_nan=True)


def test_leaking_and_constant_columns_are_dropped() -> None:
    runs = lives(12)
    for run in runs:
        length = len(run.timestamps)
        left = np.arange(length - 1.0, -1, -1)
        told = {
            "health": 100 - left + np.random.default_rng(0).normal(0, 0.5, length),
            "service_due": (left < 5).astype(float),
            "odometer": np.arange(length) * 7.5,
            "still": np.full(length, 3.0),
            "rul": left,
        }
        run.columns.update(told)
    model, _ = train("engine", runs, "test", OPTIONS)
    reasons = model.card.data.dropped_columns
    assert "leaks the outcome" in reasons["health"]
    assert "same distance before each" in reasons["service_due"]
    assert reasons["odometer"] == "counts life"
    assert reasons["still"] == "is constant"
    assert reasons["rul"] == "is a label of the outcome"
    assert model.card.sensors == ["flow", "heat", "noise"]
    assert {name.lstrip("-").split(".")[0] for name in model.card.monotone} <= {"flow", "heat"}


def test_runs_without_failures_train_an_anomaly_model() -> None:
    runs = [Run(run.machine_id, False, run.timestamps, run.columns) for run in lives(6)]
    model, files = train("engine", runs, "test", OPTIONS)
    assert model.card.kind == "anomaly"
    assert set(files) == {"card.json", "forest.txt"}
    usual = features_of(steps_of({n: (runs[0].timestamps, runs[0].columns[n]) for n in model.spec.queried}, model.spec))
    odd = usual.copy()
    odd[:, model.anomaly.columns] *= 3.0
    told = model.predict(usual)
    assert told.risk is None
    assert told.rul is None
    assert told.anomaly.mean() < 0.7
    assert model.predict(odd).anomaly.min() > 0.99
    with pytest.raises(EvaluationDataError, match="has seen no failures"):
        evaluate_model(model, lives(3))


def test_labelled_rows_train_a_classifier_without_leaks(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = []
    for number in range(600):
        torque = rng.normal(40, 10)
        failed = torque + rng.normal(0, 4) > 52
        mode = int(failed and rng.random() < 0.7)
        rows.append(f"P{number},{'LMH'[number % 3]},{torque:.2f},{rng.normal(300, 2):.2f},{int(failed)},{mode}")
    table = csv_of(tmp_path / "mill.csv", "Product ID,Type,Torque [Nm],Air temperature [K],Machine failure,TWF", rows)
    histories = load_histories(given(table))
    assert set(histories.by_type) == {"mill"}
    assert any("machines by 'Product ID'" in said for said in histories.notes)
    assert "Type: category of 3 words, L, M, H" in histories.notes
    options = replace(OPTIONS, categories=histories.categories)
    model, _ = train("mill", histories.by_type["mill"], histories.source, options)
    assert model.card.kind == "classification"
    assert "leaks the outcome" in model.card.data.dropped_columns["TWF"]
    assert model.card.sensors == ["Type", "air_temperature_k", "torque_nm"]
    measured = model.card.evaluation.metrics  # type: ignore[union-attr]
    assert measured.risk_average_precision > 3 * measured.risk_base_rate
    assert measured.rul_rmse is None
    assert "<svg" in report(model.card)


def test_censored_lives_are_included_in_training() -> None:
    runs = lives(14)
    short = [
        Run(f"s{i}", False, run.timestamps[:30], {n: v[:30] for n, v in run.columns.items()})
        for i, run in enumerate(lives(6, 9))
    ]
    model, _ = train("engine", [*runs, *short], "test", OPTIONS)
    assert model.card.kind == "rul"
    assert model.card.data.runs == 20
    assert model.card.data.failures == 14


def test_later_lives_are_evaluated_separately() -> None:
    rng = np.random.default_rng(4)
    runs = [life(number, rng, begins=number * 130 * HOUR) for number in range(25)]
    model, _ = train("engine", runs, "test", OPTIONS)
    assert model.card.later_lives is not None
    assert "had ended before" in model.card.later_lives.protocol
    page = report(model.card)
    assert "On later lives" in page
    assert page.count("<svg") == 5


def test_serving_forest_matches_scikit_learn() -> None:
    from sklearn.ensemble import IsolationForest

    rng = np.random.default_rng(0)
    rows = rng.normal(0, 1, (500, 4))
    trees = Trees(fit_forest(rows, seed=3))
    grown = IsolationForest(n_estimators=64, max_samples=256, random_state=3).fit(rows)
    fresh = rng.normal(0, 2, (200, 4)).astype(np.float32).astype(np.float64)
    expected = -grown.score_samples(fresh)
    ours = 2 ** (-trees(fresh) / path_length(256))
    assert np.allclose(ours, expected, atol=1e-6)
    assert np.allclose([trees(row[None, :])[0] for row in fresh], trees(fresh))
    with pytest.raises(TreesError, match="3 features, and the trees were trained on 4"):
        trees(fresh[:, :3])


HEAD = "unit,cycle,heat,flow"


def table_of(runs: list[Run]) -> list[str]:
    return [
        f"{run.machine_id},{cycle:g},{heat:.3f},{flow:.3f}"
        for run in runs
        for cycle, heat, flow in zip(run.columns["cycle"], run.columns["heat"], run.columns["flow"], strict=True)
    ]


def test_table_columns_are_recognized_or_declared(tmp_path: Path) -> None:
    table = csv_of(tmp_path / "fans.csv", HEAD, table_of(lives(8)))
    histories = load_histories(given(table, run_to_failure=True))
    model, _ = train("fans", histories.by_type["fans"], histories.source, OPTIONS)
    assert (model.card.kind, model.card.axis, model.card.unit) == ("rul", "cycle", "cycles")
    left = csv_of(
        tmp_path / "left.csv",
        f"{HEAD},RUL",
        [f"{row},{99 - index % 10}" for index, row in enumerate(table_of(lives(8)))],
    )
    assert all(run.failed and run.left > 0 for run in load_histories(given(left, "fans")).by_type["fans"])
    only = load_histories(DataSelection(None, [table], ["fans"], True, sensors=["heat"])).by_type["fans"]
    assert set(only[0].columns) == {"cycle", "heat"}
    with pytest.raises(HistoryError, match="there is no sensor 'heap'; there are cycle, flow, heat"):
        load_histories(DataSelection(None, [table], ["fans"], True, sensors=["heap"]))
    declared = csv_of(tmp_path / "d.csv", "wer;wann;heat", [f"a;{n};{n}" for n in range(1, 60)])
    run = load_histories(given(declared, "x", unit="wer", life="wann")).by_type["x"][0]
    assert (run.machine_id, len(run.timestamps), run.failed) == ("a", 59, False)


def test_table_parts_are_combined(tmp_path: Path) -> None:
    rows = table_of(lives(8))
    parts = [csv_of(tmp_path / f"{n}.csv", HEAD, part) for n, part in enumerate((rows[:300], rows[300:]))]
    whole = load_histories(given(csv_of(tmp_path / "all.csv", HEAD, rows), "x", run_to_failure=True)).by_type["x"]
    put = load_histories(DataSelection(None, parts, ["x"], True)).by_type["x"]
    assert [run.machine_id for run in put] == [run.machine_id for run in whole]
    assert all(np.array_equal(a.columns["heat"], b.columns["heat"]) for a, b in zip(put, whole, strict=True))
    csv_of(parts[1], HEAD, [*rows[300:305], "zz,1,hot,3", *rows[305:]])
    with pytest.raises(TableError, match=r"row 7, heat: 'hot' is not a number \(in 1.csv\)"):
        load_histories(DataSelection(None, parts, ["x"], True))
    csv_of(parts[1], "unit,cycle,cold,flow", rows[300:])
    with pytest.raises(TableRoleError, match="different columns: only one of them has the column 'cold'"):
        load_histories(DataSelection(None, parts, ["x"], True))


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (["a,1,5,6", "a,2,5,6", "a,1,7,8"], r"row 4, cycle: machine a already has a row with this time, row 2"),
        (["a,1,5,6", "a,2,hot,6", "a,3,5,6"], r"row 3, heat: 'hot' is not a number"),
        (["a,1,5,6", "a,2,5", "a,3,5,6"], r"row 3"),
        ([], r"the table has no data"),
        (["a,1,5,inf", "a,2,5,6"], r"row 2, flow: is infinite"),
    ],
)
def test_invalid_training_table_names_row_and_column(tmp_path: Path, rows: list[str], problem: str) -> None:
    table = csv_of(tmp_path / "t.csv", HEAD, rows)
    with pytest.raises(TableError, match=problem):
        load_histories(given(table, "x", run_to_failure=True))


def in_fahrenheit(run: Run) -> Run:
    return Run(run.machine_id, run.failed, run.timestamps, {**run.columns, "heat": run.columns["heat"] * 1.8 + 32})


@pytest.mark.parametrize(
    ("runs", "problem"),
    [
        ([Run("m", False, np.arange(5), {"x": np.arange(5.0)})], r"5 rows of 1 runs; .* at least 50 rows"),
        (lives(1), r"1 of 1 runs end in a failure, and at least 6 are needed"),
        ([*lives(8), *map(in_fahrenheit, lives(8, 3))], r"heat changes its unit: .* as if in °C and °F"),
        (
            [Run(f"m{i}", True, np.arange(1), {"x": np.array([float(i)])}) for i in range(80)],
            r"in one class, failed; at least 6 that did not fail",
        ),
        (
            [Run(f"m{i}", True, np.arange(60) * HOUR, {"x": np.ones(60)}) for i in range(8)],
            r"no sensor is left .*x is constant",
        ),
    ],
    ids=["five rows", "few failures", "units", "one class", "constant"],
)
def test_insufficient_training_data_is_rejected_with_reason(runs: list[Run], problem: str) -> None:
    with pytest.raises(TrainingDataError, match=problem):
        train("engine", runs, "test", OPTIONS)


def test_training_is_reproducible_by_seed() -> None:
    runs = run_to_failure(PUMP, 8, seed=1)
    first, second = (train("pump", runs, "test", TrainingOptions(rows=2000, rounds=30))[1] for _ in range(2))
    assert all(first[name] == second[name] for name in ("risk.txt", "rul.txt", "forest.txt"))


def test_evaluation_names_missing_sensor() -> None:
    model, _ = train("engine", lives(8), "test", OPTIONS)
    lacking = [
        Run(r.machine_id, True, r.timestamps, {n: v for n, v in r.columns.items() if n != "flow"}) for r in lives(8)
    ]
    with pytest.raises(EvaluationDataError, match="sensors that the data lacks: flow"):
        evaluate_model(model, lacking)
    assert isinstance(model, Model)
    assert FAULT not in model.card.features
