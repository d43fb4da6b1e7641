"""Training keeps windows in single precision if that loses nothing of what the sensors tell."""

import numpy as np
import pytest

from aurum.prediction.training.specification import TrainingOptions, derive_specification
from aurum.readings.batch import Values
from aurum.readings.history import Run

HOUR = 3_600_000_000
COUNT = 60


def specification(values: Values) -> bool:
    """Whether the means of a model of two machines with this sensor, and one of the usual kind, are single."""
    chance = np.random.default_rng(3)
    times = 1_700_000_000_000_000 + np.arange(COUNT) * HOUR
    runs = [
        Run(f"m-{number}", False, times, {"usual": chance.normal(60, 2, COUNT), "other": values * (1 + number)})
        for number in (0, 1)
    ]
    spec, _ = derive_specification(runs, TrainingOptions())
    assert set(spec.sensors) == {"usual", "other"}
    return spec.single


@pytest.mark.parametrize(
    ("values", "single"),
    [
        pytest.param(np.random.default_rng(1).normal(0, 1e-6, COUNT), True, id="small"),
        pytest.param(1e5 + np.random.default_rng(1).normal(0, 100, COUNT), True, id="large with large changes"),
        pytest.param(np.where(np.arange(COUNT) % 7 < 3, 0.0, 1.0), True, id="switch"),
        pytest.param(1e8 + np.random.default_rng(1).normal(0, 1, COUNT), False, id="large with small changes"),
        pytest.param(np.append(np.random.default_rng(1).normal(0, 1, COUNT - 1), 1e9), False, id="a far outlier"),
        pytest.param(np.append(np.random.default_rng(1).normal(0, 1, COUNT - 1), np.nan), True, id="missing"),
    ],
)
def test_windows_are_single_if_changes_stay_visible(values: Values, single: bool) -> None:
    assert specification(values) is single
