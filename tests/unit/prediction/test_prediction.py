"""Prediction: identical features in training and serving, model accuracy, the registry, and rejected models."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river.drift import ADWIN

from aurum.heuristics.shift import assess_by_shift
from aurum.prediction.model.calibration import LEVELS
from aurum.prediction.model.features import FeatureSpec, features_of, features_of_windows, steps_of, window_of
from aurum.prediction.model.model import CorruptModelError, load_model
from aurum.prediction.model.model_files import write_model
from aurum.prediction.serving.mean_changes import MeanChanges
from aurum.prediction.serving.predictor import Predictor
from aurum.prediction.serving.registry import ModelRegistry
from aurum.prediction.training.calibration_fit import calibrate_interval, calibrate_risk
from aurum.readings.history import FAULT, OPERATING_HOURS, Run
from aurum.runtime.errors import AurumError, FailedPreconditionError, NotFoundError, UnavailableError
from aurum_sim.machine_types import MACHINE_TYPES, PUMP
from aurum_sim.plant_model import MachineGroup, run_to_failure
from tests.support.models import pump_version


def spec_of(run: Run) -> FeatureSpec:
    sensors = tuple(name for name in run.columns if name not in (OPERATING_HOURS, FAULT))
    return FeatureSpec(OPERATING_HOURS, 1.0, sensors)


@pytest.fixture(scope="module")
def run() -> Run:
    return run_to_failure(PUMP, 1, seed=3)[0]


def test_serving_and_training_features_are_identical(run: Run) -> None:
    spec = spec_of(run)
    columns = {name: (run.timestamps, run.columns[name]) for name in spec.queried}
    steps = steps_of(columns, spec)
    trained = features_of(steps)
    for end in range(5, len(run.timestamps), 7):
        latest = {
            name: (at[max(0, end - 220) : end], values[max(0, end - 220) : end])
            for name, (at, values) in columns.items()
        }
        served = steps_of(latest, spec)
        row = int(np.searchsorted(steps.ages, served.ages[-1]))
        several = features_of_windows([window_of(served), window_of(steps)])
        assert np.array_equal(several[0], trained[row], equal_nan=True)


@given(st.lists(st.one_of(st.none(), st.floats(-1e3, 1e3)), min_size=1, max_size=220))
@settings(deadline=None)
def test_window_statistics_ignore_missing_readings(values: list[float | None]) -> None:
    spec = FeatureSpec("cycle", 1.0, ("x",))
    at = np.arange(len(values), dtype=np.int64)
    column = np.array([np.nan if value is None else value for value in values])
    steps = steps_of({"cycle": (at, at.astype(float)), "x": (at, column)}, spec)
    known = column[~np.isnan(column)]
    if not len(known):
        assert not len(steps.ages)
        return
    named = dict(zip(spec.names, features_of(steps)[-1].tolist(), strict=True))
    # The window ends with the last step that any sensor has, which here is x's last reading.
    end = int(np.flatnonzero(~np.isnan(column))[-1]) + 1
    for length in (8, 64, 192):
        steps_in = np.arange(max(0, end - length), end)
        steps_in = steps_in[~np.isnan(column[steps_in])]
        window = column[steps_in]
        assert np.isclose(named[f"x.mean_{length}"], window.mean())
        if length == 64:
            assert np.isclose(named["x.std_64"], window.std(), atol=1e-9)
        if length > 8 and len(window) > 1:
            slope = np.polyfit(steps_in - steps_in.mean(), window, 1)[0]
            assert np.isclose(named[f"x.slope_{length}"], slope, atol=1e-6)
    assert named["x.last"] == column[end - 1]


def test_life_counter_reset_starts_a_new_run() -> None:
    spec = FeatureSpec(OPERATING_HOURS, 1.0, ("x",))
    at = np.arange(10, dtype=np.int64)
    hours = np.array([5.0, 6, 7, 8, 9, 0, 1, 2, 3, 4])
    steps = steps_of({OPERATING_HOURS: (at, hours), "x": (at, hours)}, spec)
    assert steps.ages.tolist() == [1, 2, 3, 4, 5]


def test_simulated_history_is_reproducible_by_seed() -> None:
    first, second = (run_to_failure(PUMP, 2, seed=5) for _ in range(2))
    assert all(
        np.array_equal(a.columns[name], b.columns[name], equal_nan=True)
        for a, b in zip(first, second, strict=True)
        for name in a.columns
    )
    assert not np.array_equal(first[0].columns["power_kw"], run_to_failure(PUMP, 2, seed=6)[0].columns["power_kw"])


@pytest.mark.parametrize("kind", MACHINE_TYPES.values(), ids=list(MACHINE_TYPES))
def test_simulated_machines_fail_and_are_repaired(kind: object) -> None:
    group = MachineGroup(kind, 30, np.random.default_rng(1))  # type: ignore[arg-type]
    assert len(group.kind.modes) >= 2
    assert len(group.sensors) == 10
    faults = resets = 0
    before = group.hours.copy()
    missing = 0
    for _ in range(1500):
        step = group.step(1.0)
        faults += int(step.values[:, -1].sum())
        resets += int((group.hours < before).sum())
        missing += int((~step.present).sum())
        before = group.hours.copy()
    assert faults > 0
    assert resets > 0
    assert missing > 0


def test_trained_model_predicts_fresh_runs_accurately(models: Path) -> None:
    registry = ModelRegistry(models)
    model = registry.active("pump")
    assert model is not None
    fresh = run_to_failure(PUMP, 8, seed=99)
    risks, lives, inside = [], [], []
    for run in fresh:
        steps = steps_of({name: (run.timestamps, run.columns[name]) for name in model.spec.queried}, model.spec)
        result = model.predict(features_of(steps)[3:])
        truth = np.minimum(steps.ages[-1] - steps.ages[3:], model.card.rul_cap)
        inside.append((truth >= result.quantiles[:, 0] - 1e-9) & (truth <= result.quantiles[:, -1] + 1e-9))
        risks.append(result.risk[truth <= model.card.horizon / 2].mean() - result.risk[: len(truth) // 3].mean())
        lives.append(np.abs(result.rul - truth).mean())
        assert ((result.risk > 0) & (result.risk < 1)).all()
        assert ((result.anomaly >= 0) & (result.anomaly <= 1)).all()
        assert (np.diff(result.quantiles, axis=1) >= 0).all()
    assert min(risks) > 0.3
    assert np.mean(lives) < 0.2 * model.card.rul_cap
    assert 0.7 < np.concatenate(inside).mean() <= 1.0
    assert model.card.features == list(model.spec.names)
    assert "is a label of the outcome" in model.card.data.dropped_columns[FAULT]


@pytest.mark.parametrize("name", ["risk.txt", "rul.txt", "forest.txt", "card.json"])
def test_corrupt_model_file_is_reported_by_name(models: Path, tmp_path: Path, name: str) -> None:
    version = json.loads((models / "pump" / "active.json").read_text())["version"]
    folder = tmp_path / "pump" / version
    folder.mkdir(parents=True)
    for file in (models / "pump" / version).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / name).write_bytes((folder / name).read_bytes()[:-100])
    with pytest.raises(CorruptModelError, match=name):
        load_model(folder)


def test_registry_handles_champion_shadow_and_rollback(tmp_path: Path) -> None:
    first = pump_version(tmp_path, "first")
    registry = ModelRegistry(tmp_path)
    second = pump_version(tmp_path, "second")
    assert [loaded.card.version for loaded in registry.refresh()] == [second]
    assert registry.refresh() == []
    third = pump_version(tmp_path, "third", activate=False)
    assert registry.refresh() == []
    assert registry.set_shadow("pump", third).shadow
    shadow = registry.shadow("pump")
    assert shadow is not None
    assert shadow.card.version == third
    assert registry.roll_back("pump").card.version == first
    assert registry.roll_back("pump").card.version == second
    listed = {entry.card.version: (entry.active, entry.shadow, entry.previous) for entry in registry.list()}
    assert listed == {first: (False, False, True), second: (True, False, False), third: (False, True, False)}
    again = ModelRegistry(tmp_path)
    assert again.active("pump").card.version == second  # type: ignore[union-attr]
    assert again.activate("pump", third).active
    assert again.shadow("pump") is None
    with pytest.raises(FailedPreconditionError, match="cannot be its own shadow"):
        again.set_shadow("pump", third)
    with pytest.raises(NotFoundError, match="no model version nowhere"):
        again.activate("pump", "nowhere")


def test_model_with_unknown_features_is_rejected(tmp_path: Path) -> None:
    first = pump_version(tmp_path, "first")
    registry = ModelRegistry(tmp_path)
    folder = tmp_path / "pump" / first
    card = json.loads((folder / "card.json").read_text())
    card["version"] = "other"
    card["features"] = ["age", *(f"{name}.median" for name in card["sensors"])]
    other = {"card.json": json.dumps(card), **{name: (folder / name).read_text() for name in card["files"]}}
    write_model(tmp_path, "pump", "other", other)
    with pytest.raises(FileExistsError, match="not replaced"):
        write_model(tmp_path, "pump", "other", other)
    with pytest.raises(FailedPreconditionError, match=r"model pump other was trained on other features.*\.median"):
        registry.activate("pump", "other")
    assert registry.active("pump").card.version == first  # type: ignore[union-attr]
    write_model(tmp_path, "motor", "other", {**other, "card.json": (folder / "card.json").read_text()})
    with pytest.raises(NotFoundError):
        registry.activate("motor", "other")
    (folder / "card.json").write_text(json.dumps({**card, "format": 1}))
    with pytest.raises(CorruptModelError, match="of an earlier version"):
        load_model(folder)


async def test_prediction_batch_fails_without_ingestion(models: Path) -> None:
    class Reader:
        def __init__(self, error: AurumError) -> None:
            self._error = error

        async def machine_types(self, machine_ids: Sequence[str]) -> list[AurumError]:
            return [self._error for _ in machine_ids]

    unknown, away = NotFoundError("no such machine"), UnavailableError("the breaker is open")
    assert await Predictor(Reader(unknown), ModelRegistry(models)).predict(["m"]) == [unknown]  # type: ignore[arg-type]
    with pytest.raises(UnavailableError):
        await Predictor(Reader(away), ModelRegistry(models)).predict(["m"])  # type: ignore[arg-type]


def test_risk_and_interval_calibrations_are_accurate() -> None:
    rng = np.random.default_rng(1)
    truth = rng.random(5000)
    outcomes = rng.random(5000) < truth
    calibrated = calibrate_risk(np.log(truth / (1 - truth)), outcomes)
    grid = np.linspace(-4, 4, 50)
    probabilities = calibrated(grid)
    assert (np.diff(probabilities) >= 0).all()
    assert np.abs(probabilities - 1 / (1 + np.exp(-grid))).max() < 0.12
    assert 0 < probabilities.min() < probabilities.max() < 1
    predictions = rng.random(5000) * 100
    interval = calibrate_interval(predictions, predictions + rng.normal(0, 5, 5000))
    quantiles = interval(predictions)
    fresh = predictions + rng.normal(0, 5, 5000)
    assert 0.87 < ((fresh >= quantiles[:, 0]) & (fresh <= quantiles[:, -1])).mean() < 0.93
    for index, level in enumerate(LEVELS):
        assert abs((fresh[predictions > 20] <= quantiles[predictions > 20, index]).mean() - level) < 0.03


def test_shift_rule_detects_change_since_start() -> None:
    at = np.arange(100, dtype=np.int64)
    rng = np.random.default_rng(1)
    calm, moved = rng.normal(10, 1, 100), rng.normal(10, 1, 100) + np.where(at > 80, 15, 0)
    still, shifted = assess_by_shift({"x": (at, calm)}), assess_by_shift({"x": (at, moved), "y": (at, calm)})
    assert still is not None
    assert shifted is not None
    assert still.risk < 0.3 < shifted.risk
    assert next(iter(shifted.shifts)) == "x"
    assert assess_by_shift({"x": (at[:5], calm[:5])}) is None


@given(st.lists(st.tuples(st.floats(-10, 10), st.integers(1, 2000)), min_size=1, max_size=6), st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_mean_changes_match_adwin(levels: list[tuple[float, int]], seed: int) -> None:
    noise = np.random.default_rng(seed)
    ours, theirs = MeanChanges(), ADWIN()
    for value in (value for level, length in levels for value in noise.normal(level, 1, length).tolist()):
        theirs.update(value)
        assert ours.update(value) == theirs.drift_detected


def test_mean_shift_is_detected() -> None:
    means = MeanChanges()
    assert not any(means.update(0.0) for _ in range(500))
    assert any(means.update(1.0) for _ in range(500))
