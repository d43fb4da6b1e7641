"""Selection of training columns: counters, constants and columns that leak the outcome are dropped."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from aurum.prediction.model.features import TIME
from aurum.prediction.training.columns import ages_of, select_columns
from aurum.readings.history import Run
from aurum.runtime.time_units import HOUR_US

Floats = npt.NDArray[np.float64]
Numbers = Sequence[float] | npt.NDArray[Any]
NAN = float("nan")


def run_of(name: str, columns: Mapping[str, Numbers], *, failed: bool = True, left: float = 0) -> Run:
    there = {each: np.array(values, dtype=np.float64) for each, values in columns.items()}
    count = len(next(iter(there.values())))
    return Run(name, failed, (7 + np.arange(count, dtype=np.int64)) * HOUR_US, there, left)


def reason(*columns: Numbers, failed: bool = False) -> str | None:
    """Why a column x of these runs is dropped; y is there to be kept."""
    runs = [
        run_of(f"m{n}", {"x": each, "y": np.arange(len(each)) ** 2.0}, failed=failed) for n, each in enumerate(columns)
    ]
    return select_columns(runs, TIME).dropped.get("x")


def test_column_selection_reports_reason_for_each_column() -> None:
    first: dict[str, list[float]] = {
        "cycle": [1, 2, 3, 4, 5],
        "z": [1, 5, 2, 7, 3],
        "FAULT": [0, 0, 0, 1, 1],
        "a": [4, 4, 1, 3, 4],
        "still": [2, NAN, 2, 2, 2],
        "empty": [NAN] * 5,
        "hours": [3, 1, 2, 9, 9],
        "total": [2, 4, 6, 8, 10],
        "Run_Number": [3, 3, 3, 4, 4],
        "only_here": [1, 2, 1, 2, 1],
    }
    second: dict[str, list[float]] = {
        **{name: values[:4] for name, values in first.items() if name != "only_here"},
        "and_here": [1, 2, 3, 5],
    }
    found = select_columns([run_of("m", first, failed=False), run_of("n", second, failed=False)], "cycle")
    assert found.sensors == ("a", "z")
    assert list(found.dropped.items()) == [
        ("and_here", "is not in every run"),
        ("only_here", "is not in every run"),
        ("FAULT", "is a label of the outcome"),
        ("Run_Number", "numbers the lives"),
        ("empty", "is constant"),
        ("hours", "counts life"),
        ("still", "is constant"),
        ("total", "counts life"),
    ]


@pytest.mark.parametrize("failed", [True, False])
def test_column_selection_does_not_require_failures(failed: bool) -> None:
    runs = [run_of(str(n), {"x": [1, 4, 2, 3, n], "label": [0, 1, 0, 1, n]}, failed=failed) for n in range(3)]
    found = select_columns(runs, TIME)
    assert found.sensors == ("x",)
    assert found.dropped == {"label": "is a label of the outcome"}


@pytest.mark.parametrize(
    ("columns", "counts"),
    [
        ([[0, 0.5, 1, 1.5]], True),
        ([[0, 0.5, 1]], False),
        ([[0, 0.5, 1], [4, 5]], False),
        ([[0, 0.5, 1], [0, 7, 14, 21], [5, 6, 7, 8]], True),
        ([[0, 7, 14, 21], [0, 7, 14, 22]], False),
        ([[0, 1, 2.5, 3.5, 4.5]], False),
        ([[3, 2, 1, 0]], False),
        ([[0, 1, 2, 2, 3]], False),
        ([[0, 1, 2, NAN, 4]], False),
        ([[0, 1e6, 2e6 + 1, 3e6 + 1]], True),
        ([[0, 1e6, 2e6 + 2, 3e6 + 2]], False),
    ],
)
def test_life_counter_grows_by_constant_increment(columns: list[list[float]], counts: bool) -> None:
    assert (reason(*columns) == "counts life") == counts


def test_ages_come_from_counter_or_hours_since_first_reading() -> None:
    run = run_of("m", {"cycle": [5, 6, 9]})
    assert ages_of(run, "cycle").tolist() == [5, 6, 9]
    assert ages_of(run, TIME).tolist() == [0, 1, 2]
    assert ages_of(run_of("m", {"cycle": [5]}), TIME).tolist() == [0]


LEAK = "leaks the outcome: alone it explains {}% of the variance of the RUL of held-out machines"


def told(
    tell: Callable[[Floats, int], Floats],
    lengths: Sequence[int] = (20, 20, 20, 20),
    *,
    axis: str = "cycle",
    unit: float = 1.0,
    left: float = 0.0,
    healthy: int = 0,
) -> str | None:
    """Why a column is dropped that tells the life left, of runs of these lengths. left: of each, more than of the one
    before."""
    runs = []
    for number, length in enumerate(lengths):
        truth = np.arange(length - 1.0, -1, -1) + number * left
        columns: dict[str, Numbers] = {"cycle": np.arange(length) * unit, "x": tell(truth, number), "y": truth % 7}
        runs.append(run_of(f"m{number}", columns, left=unit * number * left))
    for number in range(healthy):
        columns = {"cycle": np.arange(9) * unit, "x": np.arange(9) ** 2.0, "y": np.arange(9) % 7}
        runs.append(run_of(f"h{number}", columns, failed=False))
    found = select_columns(runs, axis)
    return found.dropped.get("x")


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("healthy", [0, 2])
def test_column_encoding_remaining_life_leaks(sign: int, healthy: int) -> None:
    for unit in (1e-3, 1.0):
        assert told(lambda left, _: sign * left**2, unit=unit, healthy=healthy) == LEAK.format("100.0")
    assert told(lambda left, _: sign * left**2, axis=TIME) == LEAK.format("100.0")


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize(("off", "leaks"), [(1.5, True), (2.0, False)])
def test_column_leaks_above_98_percent_explained_life(off: float, leaks: bool, unit: float) -> None:
    """It is right for the machines with even numbers, and off for the others, by turns: off² of a variance of 133, but
    at both ends, beyond which nothing was fitted."""

    def tell(left: Floats, number: int) -> Floats:
        return left + (number % 2) * off * np.where(left % 2, 1, -1) + 100

    found = told(tell, (40, 40, 40, 40), unit=unit)
    assert found == (LEAK.format("98.4") if leaks else None)


def test_column_of_noise_does_not_leak() -> None:
    rng = np.random.default_rng(1)
    assert told(lambda left, _: rng.normal(0, 1, len(left))) is None
    assert told(lambda left, number: left if number % 2 else rng.normal(0, 1, len(left))) is None
    assert told(lambda left, number: rng.normal(0, 1, len(left)) if number % 2 else left) is None


@pytest.mark.parametrize(("machines", "leaks"), [(3, False), (4, True), (5, True)])
def test_leak_detection_requires_four_failures(machines: int, leaks: bool) -> None:
    assert (told(lambda left, _: left**2, [20] * machines, healthy=3) is not None) == leaks


@pytest.mark.parametrize(("gone", "leaks"), [(0, True), (1, False)])
def test_leak_detection_requires_forty_readings(gone: int, leaks: bool) -> None:
    def tell(left: Floats, number: int) -> Floats:
        return np.where((left < gone) & (number == 1), NAN, left**2)

    assert (told(tell, [10] * 4) is not None) == leaks


def test_leak_is_evaluated_on_alternate_machines() -> None:
    """Lives of 0, 2, 4 are fitted, where long ones are; those of 1, 3, 5 are short."""
    assert told(lambda left, _: left**2, [20, 20, 40, 20, 40, 20]) == LEAK.format("100.0")
    assert told(lambda left, _: left**2, [20, 40, 20, 40, 20, 40]) is None


def test_leak_detection_includes_life_left_after_run() -> None:
    assert told(lambda left, _: left**2, [20] * 6, left=5.0) is not None
    assert told(lambda left, number: left - 5.0 * number, [20] * 6, left=5.0) is None


def test_leak_is_detected_despite_missing_readings() -> None:
    assert told(lambda left, number: np.where(left % 4 == number, NAN, left), [40] * 4) == LEAK.format("100.0")
    runs = []
    for number in range(4):
        cycle = np.arange(20.0)
        cycle[number] = NAN
        runs.append(run_of(str(number), {"cycle": cycle, "x": np.arange(20.0) ** 2, "y": np.arange(20) % 7}))
    assert select_columns(runs, "cycle").dropped["x"] == LEAK.format("100.0")


@pytest.mark.parametrize("gone", [0, 1])
def test_leak_is_not_reported_without_comparison_machines(gone: int) -> None:
    assert told(lambda left, number: left**2 if number % 2 != gone else left * NAN, [40] * 4) is None


def test_lives_of_two_readings_may_leak() -> None:
    assert told(lambda left, number: left + 0.01 * number, [2] * 20) is not None


def test_single_readings_at_failure_do_not_leak() -> None:
    assert told(lambda left, number: left + number**2, [1] * 40) is None


@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_column_varying_only_on_healthy_machines_does_not_leak() -> None:
    assert told(lambda left, _: np.full(len(left), 5.0), healthy=2) is None
