"""The risk by failure mode, learned from failures whose mode is recorded."""

from dataclasses import replace

import numpy as np
import pytest

from aurum.prediction.model.model import Model
from aurum.prediction.training.table import outcomes_of, tabulate
from aurum.prediction.training.train import TrainingOptions, train
from aurum.readings.history import Run
from aurum_sim.machine_types import PUMP
from aurum_sim.plant_model import run_to_failure

OPTIONS = TrainingOptions(rows=2000, rounds=30)


@pytest.fixture(scope="module")
def lives() -> list[Run]:
    return run_to_failure(PUMP, 30, 4, step_hours=2.0)


@pytest.fixture(scope="module")
def model(lives: list[Run]) -> Model:
    return train("pump", lives, "test", OPTIONS)[0]


def test_mode_of_unseen_failures_is_told_before_they_happen(model: Model) -> None:
    unseen = run_to_failure(PUMP, 30, 5, step_hours=2.0)
    table = tabulate(unseen, model.spec, 4000)
    outcomes = outcomes_of(table, "rul", model.card.rul_cap, model.card.horizon)
    predicted = model.predict(table.features)
    assert predicted.causes is not None
    assert predicted.risk is not None
    assert model.causes is not None
    np.testing.assert_allclose(predicted.causes.sum(axis=1), predicted.risk, rtol=1e-9)
    told = np.array(model.causes.modes)[predicted.causes.argmax(axis=1)]
    truth = np.array([run.mode for run in unseen])[table.run]
    right = (told == truth)[outcomes.soon].mean()
    majority = max(np.mean(truth[outcomes.soon] == mode) for mode in model.causes.modes)
    assert right > max(0.8, majority)
    assert model.card.causes is not None
    assert model.card.causes.accuracy > model.card.causes.majority


def test_modes_that_sensors_do_not_tell_apart_have_base_rates(lives: list[Run]) -> None:
    rng = np.random.default_rng(1)
    named = [replace(run, mode="a" if rng.random() < 0.7 else "b") for run in lives]
    model, _ = train("pump", named, "test", OPTIONS)
    part = model.card.causes
    assert part is not None
    assert np.abs(part.coefficients).max() == 0
    shares = np.exp(part.intercepts)
    assert shares.sum() == pytest.approx(1)
    assert shares[0] == pytest.approx((part.failures["a"] + 1) / (len(lives) + 2))


def test_rare_modes_are_put_together(lives: list[Run]) -> None:
    modes = ["a"] * 20 + ["b"] * 8 + ["rare", "rarer"]
    model, _ = train("pump", [replace(run, mode=mode) for run, mode in zip(lives, modes, strict=True)], "t", OPTIONS)
    assert model.card.causes is not None
    assert model.card.causes.failures == {"a": 20, "b": 8, "other": 2}


@pytest.mark.parametrize("modes", [[""] * 30, ["a"] * 30, ["a"] * 29 + ["b"]])
def test_no_modes_are_told_without_two_of_them(lives: list[Run], modes: list[str]) -> None:
    model, _ = train("pump", [replace(run, mode=mode) for run, mode in zip(lives, modes, strict=True)], "t", OPTIONS)
    assert model.card.causes is None
    assert model.predict(np.zeros((1, len(model.spec.names)))).causes is None
