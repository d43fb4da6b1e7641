"""Averaging of readings into steps of a machine's current life: readings included, and boundaries of steps."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from aurum.prediction.model.features import TIME, FeatureSpec, Steps, hours_of_time, steps_of
from aurum.prediction.model.regimes import Regimes
from aurum.readings.batch import Column
from aurum.runtime.time_units import HOUR_US

NAN = float("nan")


def column(times: Sequence[int], values: Sequence[float]) -> Column:
    return np.array(times, dtype=np.int64), np.array(values, dtype=np.float64)


def counting(lives: Sequence[float], first: int = 0) -> Column:
    """A counter that is read at each µs from the first on."""
    return column(range(first, first + len(lives)), lives)


def steps(columns: Mapping[str, Column], *sensors: str, step: float = 1.0, axis: str = "cycle") -> Steps:
    return steps_of(columns, FeatureSpec(axis, step, sensors))


def means(found: Steps) -> list[list[float]]:
    """Of each sensor; -1 where there is none, since NaN equals nothing."""
    told: list[list[float]] = np.nan_to_num(found.means.T, nan=-1.0).tolist()
    return told


def test_steps_average_each_sensor_at_its_own_times() -> None:
    columns = {
        "cycle": counting([0, 1, 2, 3, 4, 5, 6, 7]),
        "x": column([0, 1, 2, 3, 6], [1, 3, 5, 8, 9]),
        "y": column([2, 3, 5], [10, 30, 50]),
        "z": column([1, 2], [7, 4]),
    }
    found = steps(columns, "x", "y", "z", step=2.0)
    assert found.ages.tolist() == [2.0, 4.0, 6.0, 8.0]
    assert found.ages.dtype == found.means.dtype == np.float64
    assert means(found) == [[2, 6.5, -1, 9], [-1, 20, 50, -1], [7, 4, -1, -1]]
    assert found.counted


def test_steps_begin_with_the_first_reading_of_any_sensor() -> None:
    columns = {"cycle": counting(range(10)), "x": column([5, 8], [1, 2]), "y": column([4, 6], [3, 4])}
    found = steps(columns, "x", "y")
    assert found.ages.tolist() == [5, 6, 7, 8, 9]
    assert means(found) == [[-1, 1, -1, -1, 2], [3, -1, 4, -1, -1]]


def test_steps_support_fractional_lengths() -> None:
    found = steps({"cycle": counting([0.0, 0.2, 0.5, 1.1]), "x": counting([1, 3, 5, 7])}, "x", step=0.25)
    assert found.ages.tolist() == [0.25, 0.5, 0.75, 1.0, 1.25]
    assert means(found) == [[2, -1, 5, -1, 7]]


@pytest.mark.parametrize("equal_arrays", [True, False])
def test_steps_are_equal_for_equal_and_identical_times(equal_arrays: bool) -> None:
    times, values = column([0, 1, 3], [1, 2, 3])
    other = times.copy() if equal_arrays else times
    found = steps({"cycle": counting([0, 1, 2, 3]), "x": (times, values), "y": (other, values * 2)}, "x", "y")
    assert means(found) == [[1, 2, -1, 3], [2, 4, -1, 6]]


def test_sensors_with_different_times_are_averaged_separately() -> None:
    columns = {"cycle": column([0, 10, 20], [0, 1, 2]), "x": column([0, 10, 20], [1, 2, 3])}
    found = steps({**columns, "y": column([0, 1, 2], [4, 5, 6])}, "x", "y")
    assert means(found) == [[1, 2, 3], [5, -1, -1]]


def test_missing_sensors_keep_their_column_in_steps() -> None:
    columns = {"cycle": counting([0, 1]), "empty": column([], []), "x": counting([4, 5])}
    found = steps(columns, "gone", "empty", "x", "away")
    assert means(found) == [[-1, -1], [-1, -1], [4, 5], [-1, -1]]


def test_steps_end_at_last_non_nan_reading() -> None:
    found = steps({"cycle": counting(range(5)), "x": counting([NAN, 1, NAN, 3, NAN])}, "x")
    assert found.ages.tolist() == [2, 3, 4]
    assert means(found) == [[1, -1, 3]]


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"x": counting([1, 2])},
        {"cycle": counting([NAN, NAN]), "x": counting([1, 2])},
        {"cycle": counting([1, 2]), "x": counting([NAN, NAN])},
        {"cycle": counting([1, 2]), "z": counting([1, 2])},
    ],
    ids=["nothing", "no counter", "counter without numbers", "sensor without numbers", "other sensors"],
)
def test_steps_are_empty_without_counter_or_readings(columns: dict[str, Column]) -> None:
    found = steps(columns, "x", "y", "w")
    assert found.ages.shape == (0,)
    assert found.means.shape == (0, 3)
    assert found.counted


def test_time_axis_counts_hours_but_not_age() -> None:
    hours = [0, 1, 2, 4]
    columns = {"x": column([hour * HOUR_US for hour in hours], [1, 3, 5, 7])}
    found = steps(columns, "x", step=2.0, axis=TIME)
    assert found.ages.tolist() == [2, 4, 6]
    assert means(found) == [[2, 5, 7]]
    assert not found.counted
    assert hours_of_time(np.array([0, HOUR_US // 2, 3 * HOUR_US])).tolist() == [0.0, 0.5, 3.0]
    nothing = steps({}, "x", axis=TIME)
    assert nothing.means.shape == (0, 1)
    assert not nothing.counted


@pytest.mark.parametrize("first", [-3, 0, 1, 50])
def test_steps_include_all_readings_without_counter_reset(first: int) -> None:
    found = steps({"cycle": counting([0, 0.5, 0.5, 2], first), "x": counting([1, 2, 6, 4], first)}, "x")
    assert found.ages.tolist() == [1, 2, 3]
    assert means(found) == [[3, -1, 4]]


@pytest.mark.parametrize("first", [0, 1, 50])
@pytest.mark.parametrize("before", [[7.0], [5.0, 6.0], [4.0, 2.0, 9.0, 0.0, 8.0]])
def test_steps_begin_at_last_counter_reset(first: int, before: list[float]) -> None:
    lives = [*before, 0, 1, 2]
    values = [100.0] * len(before) + [1, NAN, 3]
    found = steps({"cycle": counting(lives, first), "x": counting(values, first)}, "x")
    assert found.ages.tolist() == [1, 2, 3]
    assert means(found) == [[1, -1, 3]]


def test_unchanged_counter_does_not_start_a_new_life() -> None:
    found = steps({"cycle": counting([5, 6, 6, 7]), "x": counting([1, 2, 4, 8])}, "x")
    assert found.ages.tolist() == [6, 7, 8]
    assert means(found) == [[1, 3, 8]]


def test_counter_is_interpolated_between_its_readings() -> None:
    found = steps({"cycle": column([0, 10, 20], [0, NAN, 2]), "x": column([0, 6, 12, 18], [1, 2, 3, 4])}, "x")
    assert means(found) == [[1.5, 3.5]]


def test_readings_outside_counter_range_use_its_end_values() -> None:
    found = steps({"cycle": column([10, 20], [3, 4]), "x": column([1, 10, 20, 35], [1, 3, 5, 6])}, "x")
    assert found.ages.tolist() == [4, 5]
    assert means(found) == [[2, 5.5]]


def test_steps_average_readings_relative_to_their_regime() -> None:
    regimes = Regimes(
        ("mode",),
        np.array([[0.0], [10.0]]),
        np.array([10.0]),
        ("y", "x"),
        np.array([[0.0, 100.0], [50.0, 500.0]]),
        np.array([[1.0, 10.0], [2.0, 100.0]]),
    )
    columns = {
        "cycle": counting([0, 1, 2, 3]),
        "mode": column([1, 2], [0, 10]),
        "x": counting([100, 120, 700, 400]),
        "y": column([1, 3], [4, 52]),
    }
    found = steps_of(columns, FeatureSpec("cycle", 1.0, ("x", "y"), regimes))
    assert found.ages.tolist() == [2, 3, 4]
    assert found.means.T[0].tolist() == [2, 2, -1]
    assert found.means.T[1][[0, 2]].tolist() == [4, 1]
    assert np.isnan(found.means.T[1][1])
