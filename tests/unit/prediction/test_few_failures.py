"""Models of machine types of which few failures were observed."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum.prediction.model.lifetime import Lifetime
from aurum.prediction.model.model import Model
from aurum.prediction.training.evaluation import evaluate_model
from aurum.prediction.training.train import TrainingDataError, TrainingOptions, train
from aurum.readings.history import OPERATING_HOURS
from aurum_sim.machine_types import PUMP
from aurum_sim.plant_model import run_to_failure

OPTIONS = TrainingOptions(rows=2000, rounds=30)
LIVES = run_to_failure(PUMP, 24, 4, step_hours=4.0)


def trained(failures: int, censored: int = 2) -> Model:
    """A model of some lives that ended in a failure, and of the first halves of others."""
    halves = [
        replace(
            run,
            failed=False,
            timestamps=run.timestamps[: len(run.timestamps) // 2],
            columns={name: values[: len(values) // 2] for name, values in run.columns.items()},
        )
        for run in LIVES[failures : failures + censored]
    ]
    return train("pump", [*LIVES[:failures], *halves], "test", OPTIONS)[0]


@pytest.mark.parametrize("failures", [2, 3, 5])
def test_few_failures_give_honest_intervals(failures: int) -> None:
    model = trained(failures)
    assert model.card.lifetime is not None
    assert model.card.lifetime.failures == failures
    measured, _ = evaluate_model(model, LIVES[10:])
    assert measured.metrics.interval_coverage is not None
    assert measured.metrics.interval_coverage >= 0.8


def test_intervals_narrow_with_more_failures() -> None:
    def width(model: Model) -> float:
        predicted = model.lifetime and Lifetime(model.lifetime.shapes, model.lifetime.scales, 50, 5000)
        assert predicted
        quantiles = predicted(np.array([0.0]))[2]
        return float(quantiles[0, -1] - quantiles[0, 0])

    assert width(trained(5)) < width(trained(2))


def test_age_explains_the_risk_of_a_lifetime_model() -> None:
    model = trained(4)
    row = np.zeros(len(model.spec.names))
    row[0] = 400.0
    contributions = model.contributions(row)
    assert contributions[0] > 0
    assert not contributions[1:].any()


def test_few_failures_without_a_life_counter_are_refused() -> None:
    runs = [
        replace(run, columns={name: values for name, values in run.columns.items() if name != OPERATING_HOURS})
        for run in LIVES[:3]
    ]
    with pytest.raises(TrainingDataError, match="without a column that counts life from each overhaul"):
        train("pump", runs, "test", OPTIONS)


@given(
    st.lists(st.tuples(st.floats(0.5, 8), st.floats(10, 1000)), min_size=1, max_size=5),
    st.lists(st.floats(0, 5000), min_size=1, max_size=5),
)
def test_survival_falls_with_time_and_quantiles_rise(sample: list[tuple[float, float]], ages: list[float]) -> None:
    shapes, scales = np.array(sample).T
    model = Lifetime(shapes, scales, 20.0, 300.0)
    survived = model.survival(np.array(ages), np.linspace(0, 300, 20))
    assert (np.diff(survived, axis=1) <= 1e-9).all()
    np.testing.assert_allclose(survived[:, 0], 1)
    risk, rul, quantiles = model(np.array(ages))
    assert ((risk >= 0) & (risk <= 1)).all()
    assert ((rul >= 0) & (rul <= 300)).all()
    assert (np.diff(quantiles, axis=1) >= 0).all()


def test_runs_without_failures_are_not_a_lifetime() -> None:
    healthy = [replace(run, failed=False) for run in LIVES[:4]]
    model, _ = train("pump", healthy, "test", OPTIONS)
    assert model.card.kind == "anomaly"
    assert not model.predicts_risk
