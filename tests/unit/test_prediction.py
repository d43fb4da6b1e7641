"""Features are the same in training and in serving; models say what their cards promise and refuse to be corrupt."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.prediction.calibration import calibrate_interval, calibrate_risk
from aurum.prediction.features import FeatureSpec, features_of, features_of_windows, steps_of, window_of
from aurum.prediction.model import CorruptModelError, load_model
from aurum.prediction.predictor import Predictor
from aurum.prediction.registry import ModelRegistry
from aurum.prediction.training import TrainingDataError, TrainingOptions, save, train
from aurum.readings.history import FAULT, OPERATING_HOURS, Run
from aurum.rules.shift import assess
from aurum.runtime.errors import AurumError, NotFoundError, UnavailableError
from aurum_sim.machine_types import MACHINE_TYPES, PUMP
from aurum_sim.plant_model import MachineGroup, run_to_failure


def spec_of(run: Run) -> FeatureSpec:
    sensors = tuple(name for name in run.columns if name not in (OPERATING_HOURS, FAULT))
    return FeatureSpec(OPERATING_HOURS, 1.0, sensors)


@pytest.fixture(scope="module")
def run() -> Run:
    return run_to_failure(PUMP, 1, seed=3)[0]


def test_serving_computes_the_same_features_as_training_bit_by_bit(run: Run) -> None:
    spec = spec_of(run)
    columns = {name: (run.timestamps, run.columns[name]) for name in spec.queried}
    steps = steps_of(columns, spec)
    trained = features_of(steps)
    for end in range(5, len(run.timestamps), 7):
        latest = {
            name: (at[max(0, end - 60) : end], values[max(0, end - 60) : end]) for name, (at, values) in columns.items()
        }
        served = steps_of(latest, spec)
        row = int(np.searchsorted(steps.ages, served.ages[-1]))
        several = features_of_windows([window_of(served), window_of(steps)])
        assert np.array_equal(several[0], trained[row], equal_nan=True)


@given(st.lists(st.one_of(st.none(), st.floats(-1e3, 1e3)), min_size=1, max_size=40))
@settings(deadline=None)
def test_statistics_are_those_of_the_readings_there_are(values: list[float | None]) -> None:
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
    window = column[: int(np.flatnonzero(~np.isnan(column))[-1]) + 1][-32:]
    window = window[~np.isnan(window)]
    assert named["x.last"] == window[-1]
    assert np.isclose(named["x.mean_32"], window.mean())
    assert np.isclose(named["x.std_32"], window.std(), atol=1e-9)
    assert (named["x.min_32"], named["x.max_32"]) == (window.min(), window.max())


def test_a_reset_of_the_life_counter_starts_a_new_run() -> None:
    spec = FeatureSpec(OPERATING_HOURS, 1.0, ("x",))
    at = np.arange(10, dtype=np.int64)
    hours = np.array([5.0, 6, 7, 8, 9, 0, 1, 2, 3, 4])
    steps = steps_of({OPERATING_HOURS: (at, hours), "x": (at, hours)}, spec)
    assert steps.ages.tolist() == [1, 2, 3, 4, 5]


def test_the_same_seed_gives_the_same_history() -> None:
    first, second = (run_to_failure(PUMP, 2, seed=5) for _ in range(2))
    assert all(
        np.array_equal(a.columns[name], b.columns[name], equal_nan=True)
        for a, b in zip(first, second, strict=True)
        for name in a.columns
    )
    assert not np.array_equal(first[0].columns["power_kw"], run_to_failure(PUMP, 2, seed=6)[0].columns["power_kw"])


@pytest.mark.parametrize("kind", MACHINE_TYPES.values(), ids=list(MACHINE_TYPES))
def test_machines_wear_fail_and_are_repaired(kind: object) -> None:
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


def test_a_trained_model_keeps_its_promises(models: Path) -> None:
    registry = ModelRegistry(models)
    model = registry.active("pump")
    assert model is not None
    fresh = run_to_failure(PUMP, 8, seed=99)
    risks, lives, inside = [], [], []
    for run in fresh:
        steps = steps_of({name: (run.timestamps, run.columns[name]) for name in model.spec.queried}, model.spec)
        result = model.predict(features_of(steps)[3:])
        truth = np.minimum(steps.ages[-1] - steps.ages[3:], model.card.rul_cap)
        inside.append((truth >= result.lower - 1e-9) & (truth <= result.upper + 1e-9))
        risks.append(result.risk[truth <= model.card.horizon / 2].mean() - result.risk[: len(truth) // 3].mean())
        lives.append(np.abs(result.rul - truth).mean())
        assert ((result.risk > 0) & (result.risk < 1)).all()
        assert ((result.anomaly >= 0) & (result.anomaly <= 1)).all()
        assert (result.lower <= result.upper).all()
    assert min(risks) > 0.3
    assert np.mean(lives) < 0.2 * model.card.rul_cap
    assert 0.7 < np.concatenate(inside).mean() <= 1.0
    assert model.card.features == list(model.spec.names)
    assert "tells the outcome" in model.card.data.dropped_columns[FAULT]


@pytest.mark.parametrize("name", ["risk.txt", "rul.txt", "card.json"])
def test_a_corrupt_model_is_named(models: Path, tmp_path: Path, name: str) -> None:
    version = json.loads((models / "pump" / "active.json").read_text())["version"]
    folder = tmp_path / "pump" / version
    folder.mkdir(parents=True)
    for file in (models / "pump" / version).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / name).write_bytes((folder / name).read_bytes()[:-100])
    with pytest.raises(CorruptModelError, match=name):
        load_model(folder)


def test_a_new_version_serves_and_an_old_one_can_come_back(tmp_path: Path) -> None:
    runs = run_to_failure(PUMP, 8, seed=1)
    folders = [save(tmp_path, *train("pump", runs, "test", TrainingOptions(seed=seed))) for seed in (1,)]
    registry = ModelRegistry(tmp_path)
    first = registry.active("pump")
    assert first is not None
    assert first.card.version == folders[0].name
    model, files = train("pump", run_to_failure(PUMP, 8, seed=2), "test", TrainingOptions())
    save(tmp_path, model, files)
    assert [loaded.card.version for loaded in registry.refresh()] == [model.card.version]
    assert registry.refresh() == []
    registry.activate("pump", first.card.version)
    again = ModelRegistry(tmp_path).active("pump")
    assert again is not None
    assert again.card.version == first.card.version
    assert len(registry.list()) == 2


async def test_a_batch_fails_as_one_where_ingestion_cannot_be_asked(models: Path) -> None:
    class Reader:
        def __init__(self, error: AurumError) -> None:
            self._error = error

        async def machine_types(self, machine_ids: Sequence[str]) -> list[AurumError]:
            return [self._error for _ in machine_ids]

    unknown, away = NotFoundError("no such machine"), UnavailableError("the breaker is open")
    assert await Predictor(Reader(unknown), ModelRegistry(models)).predict(["m"]) == [unknown]  # type: ignore[arg-type]
    with pytest.raises(UnavailableError):
        await Predictor(Reader(away), ModelRegistry(models)).predict(["m"])  # type: ignore[arg-type]


def test_data_without_failures_says_what_would_do() -> None:
    runs = [Run("m", False, np.arange(5), {"x": np.arange(5.0)}) for _ in range(10)]
    with pytest.raises(TrainingDataError, match="0 of 10 runs end in a failure"):
        train("pump", runs, "test", TrainingOptions())


def test_calibrations() -> None:
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
    interval = calibrate_interval(predictions, predictions + rng.normal(0, 5, 5000), 0.9)
    lower, upper = interval(predictions)
    fresh = predictions + rng.normal(0, 5, 5000)
    assert 0.87 < ((fresh >= lower) & (fresh <= upper)).mean() < 0.93


def test_the_rule_sees_a_machine_move_from_its_beginning() -> None:
    at = np.arange(100, dtype=np.int64)
    rng = np.random.default_rng(1)
    calm, moved = rng.normal(10, 1, 100), rng.normal(10, 1, 100) + np.where(at > 80, 15, 0)
    still, shifted = assess({"x": (at, calm)}), assess({"x": (at, moved), "y": (at, calm)})
    assert still is not None
    assert shifted is not None
    assert still.risk < 0.3 < shifted.risk
    assert next(iter(shifted.shifts)) == "x"
    assert assess({"x": (at[:5], calm[:5])}) is None
