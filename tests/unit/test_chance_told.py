"""The chance of a failure that an advice to wait tells, compared with what happens in simulated lives."""

import numpy as np
import numpy.typing as npt

from aurum.maintenance.advice import RulDistribution, cheapest_option, maintenance_options
from aurum.maintenance.costs import load_costs
from aurum.prediction.model.calibration import LEVELS, TAIL_LEVELS, LowerTail
from aurum.prediction.model.features import features_of, steps_of
from aurum.prediction.training.calibration_fit import calibrate_interval, fit_lower_tail
from aurum.prediction.training.train import TrainingOptions, train
from aurum_sim.machine_types import MACHINE_TYPES
from aurum_sim.plant_model import run_to_failure

Floats = npt.NDArray[np.float64]
_LIVES = 300  # of each type
_UNLIKELY = 0.001


def chances_of_waiting(name: str) -> tuple[list[float], list[bool]]:
    """Asks for advice at one moment of each of many lives that the model has not seen.

    Returns the chance of a failure that each advice to wait tells, and whether the machine failed before its end.
    """
    kind = MACHINE_TYPES[name]
    options = TrainingOptions(rows=4000, rounds=60, search=False)
    model, _ = train(name, run_to_failure(kind, 20, seed=11), "test", options)
    costs = load_costs().costs_for(name)
    assert costs is not None
    rng = np.random.default_rng(5)
    told, failed = [], []
    for run in run_to_failure(kind, _LIVES, seed=1001):
        steps = steps_of({sensor: (run.timestamps, run.columns[sensor]) for sensor in model.spec.queried}, model.spec)
        now = int(rng.integers(len(steps.ages)))
        found = model.predict(features_of(steps, np.array([now])))
        assert found.quantiles is not None
        assert found.tail is not None
        levels, values = np.concatenate([TAIL_LEVELS, LEVELS]), np.concatenate([found.tail[0], found.quantiles[0]])
        distribution = RulDistribution(levels, values, model.card.rul_cap, costs.life)
        best = cheapest_option(maintenance_options(distribution, costs, []))
        if best.when == "later":
            assert best.after is not None
            told.append(best.failure_probability)
            failed.append(bool(steps.ages[-1] - steps.ages[now] <= best.after))
    return told, failed


def likelihood_of_so_many(chances: Floats, count: int) -> tuple[float, float]:
    """Returns the probabilities of at most and of at least `count` events, which have these chances independently."""
    of_count = np.array([1.0])
    for chance in chances:
        of_count = np.convolve(of_count, [1 - chance, chance])
    return float(of_count[: count + 1].sum()), float(of_count[count:].sum())


def test_told_chance_of_failure_is_what_happens() -> None:
    asked = [chances_of_waiting(name) for name in ("pump", "cnc_mill", "conveyor")]
    told, failed = (np.concatenate(each) for each in zip(*asked, strict=True))
    assert len(told) > _LIVES * len(asked) / 2
    few, many = likelihood_of_so_many(told, int(failed.sum()))
    assert few > _UNLIKELY, f"told {told.mean():.2%}, and {failed.mean():.2%} failed"
    assert many > _UNLIKELY, f"told {told.mean():.2%}, and {failed.mean():.2%} failed"


def test_few_lives_make_an_early_failure_more_likely() -> None:
    """The quantiles ascend to the lowest of the interval, and are earlier the fewer lives there are to learn from."""
    lowest = np.array([0.5, 5.0, 80.0, 300.0])
    known, unsure = LowerTail(0.06, 10.0, 40.0)(lowest), LowerTail(0.09, 10.0, 4.0)(lowest)
    for quantiles in (known, unsure):
        assert (np.diff(quantiles, axis=1) >= 0).all()
        assert (quantiles >= 0).all()
        assert (quantiles <= lowest[:, None]).all()
    assert (unsure < known).all()


def test_lower_tail_contains_failures_of_other_machines() -> None:
    rng = np.random.default_rng(2)

    def lives(count: int) -> tuple[Floats, Floats, npt.NDArray[np.intp]]:
        machines = np.repeat(np.arange(count), 20)
        predicted = rng.uniform(50, 200, len(machines))
        return (
            predicted,
            predicted + np.repeat(rng.normal(0, 15, count), 20) + rng.normal(0, 5, len(machines)),
            machines,
        )

    predicted, truths, machines = lives(60)
    calibration = calibrate_interval(predicted, truths)
    tail = fit_lower_tail(calibration, predicted, truths, machines)
    unseen, happened, _ = lives(2000)
    quantiles = tail(calibration(unseen)[:, 0])
    for level, at in zip(TAIL_LEVELS, quantiles.T, strict=True):
        assert level / 5 < (happened < at).mean() + 1e-4 < 2.5 * level + 2e-4
