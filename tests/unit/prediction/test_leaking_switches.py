"""Detection of binary columns that leak the outcome: set only at failures or at a fixed distance before them."""

from collections.abc import Sequence

import numpy as np
import pytest

from aurum.prediction.model.features import TIME
from aurum.prediction.training.columns import select_columns
from aurum.readings.history import Run
from aurum.runtime.time_units import HOUR_US

LEAK = "leaks the outcome: it is set only at failures, or at the same distance before each of them"
NAN = float("nan")


def switched(before: float, *, life: int = 100, failed: bool = True, missing: bool = False) -> Run:
    """A life of that many cycles, and a switch on from that distance before its end; never if that is negative."""
    cycle = np.arange(life + 1.0)
    switch = np.where((cycle >= life - before) & (before >= 0), 5.0, 2.0)
    if missing:
        switch[[3, 4]] = NAN
        cycle = cycle.copy()
        cycle[[5, 6]] = NAN
    columns = {"cycle": cycle, "switch": switch, "heat": np.arange(life + 1) % 7.0}
    return Run("m", failed, np.arange(life + 1, dtype=np.int64) * HOUR_US, columns)


def reason(runs: Sequence[Run], axis: str = "cycle") -> str | None:
    return select_columns(runs, axis).dropped.get("switch")


@pytest.mark.parametrize("axis", ["cycle", TIME])
@pytest.mark.parametrize("missing", [True, False])
def test_switch_at_the_same_distance_from_failures_leaks(axis: str, missing: bool) -> None:
    assert reason([switched(10, missing=missing, life=90 + n) for n in range(6)], axis) == LEAK


@pytest.mark.parametrize(("count", "leaks"), [(5, False), (6, True), (7, True)])
def test_switch_leak_requires_six_failed_machines(count: int, leaks: bool) -> None:
    runs = [switched(10) for _ in range(count)]
    never = [switched(-1, failed=failed) for failed in (True, False, True)]
    assert (reason([*runs, *never]) is not None) == leaks


def test_switch_set_on_healthy_machines_does_not_leak() -> None:
    runs = [switched(10) for _ in range(8)]
    assert reason([*runs, switched(10, failed=False)]) is None
    assert reason([*runs, switched(-1, failed=False)]) == LEAK


@pytest.mark.parametrize(("off", "leaks"), [(0, True), (2, True), (3, False), (20, False)])
def test_switch_at_varying_distance_does_not_leak(off: int, leaks: bool) -> None:
    """The limit is a deviation of 3 % of the life, which is 100."""
    runs = [switched(30 + sign * off) for sign in (1, -1, 1, -1, 1, -1)]
    assert (reason(runs) == LEAK) == leaks


@pytest.mark.parametrize(("before", "leaks"), [(0, True), (49, True), (50, False), (80, False)])
def test_switch_long_before_the_failure_does_not_leak(before: int, leaks: bool) -> None:
    assert (reason([switched(before) for _ in range(6)]) == LEAK) == leaks


@pytest.mark.parametrize("axis", ["cycle", TIME])
@pytest.mark.parametrize(("healthy", "leaks"), [(3, True), (0, False)])
def test_switch_of_single_readings_leaks_with_healthy_machines(axis: str, healthy: int, leaks: bool) -> None:
    def reading(switch: float, *, failed: bool, heat: float) -> Run:
        columns = {"cycle": np.array([100.0]), "switch": np.array([switch]), "heat": np.array([heat])}
        return Run("m", failed, np.array([HOUR_US]), columns)

    runs = [reading(1.0, failed=True, heat=n) for n in range(7)] + [reading(0.0, failed=True, heat=3)]
    runs += [reading(0.0, failed=False, heat=n) for n in range(healthy)]
    assert (reason(runs, axis) == LEAK) == leaks


def test_column_with_three_levels_is_not_a_switch() -> None:
    runs = [switched(10) for _ in range(6)]
    for number, run in enumerate(runs):
        run.columns["switch"][(run.columns["cycle"] < 50) & (number % 2 == 0)] = 0.0
    assert reason(runs) is None
