"""Regimes: assignment of readings to the nearest one, relative values, and settings over time."""

from collections.abc import Sequence

import numpy as np
import pytest

from aurum.prediction.model.regimes import Regimes, settings_at

NAN = float("nan")


def regimes_of(centers: Sequence[Sequence[float]], scale: Sequence[float]) -> Regimes:
    columns = ("first", "second", "third")[: len(scale)]
    count = len(centers)
    mean = np.arange(2.0 * count).reshape(count, 2) * 10
    deviation = np.arange(2.0 * count).reshape(count, 2) + 2
    return Regimes(columns, np.array(centers), np.array(scale), ("heat", "flow"), mean, deviation)


def test_reading_belongs_to_the_nearest_regime() -> None:
    regimes = regimes_of([[0.0], [10.0], [30.0]], [30.0])
    readings = np.array([[-50.0], [0.0], [4.9], [5.1], [19.0], [21.0], [99.0]])
    assert regimes.nearest(readings).tolist() == [0, 0, 0, 1, 1, 2, 2]


def test_distance_to_regime_is_scaled_per_setting() -> None:
    regimes = regimes_of([[0.0, 0.0], [100.0, 1.0]], [100.0, 1.0])
    readings = np.array([[40.0, 0.5], [60.0, 0.5], [10.0, 0.95], [90.0, 0.05], [-10.0, 0.9], [20.0, 2.0]])
    assert regimes.nearest(readings).tolist() == [0, 1, 1, 0, 0, 1]


def test_regime_distance_is_symmetric_in_each_column() -> None:
    regimes = regimes_of([[0.0, 0.0], [1.0, -1.0], [5.0, 5.0]], [1.0, 1.0])
    assert regimes.nearest(np.array([[0.1, -0.1], [0.9, -0.9], [4.0, 6.0], [-8.0, 8.0]])).tolist() == [0, 1, 2, 0]


def test_regime_is_unknown_if_any_setting_is_missing() -> None:
    regimes = regimes_of([[0.0, 0.0], [1.0, 1.0]], [1.0, 1.0])
    readings = np.array([[NAN, 1.0], [1.0, 1.0], [1.0, NAN], [NAN, NAN], [0.0, 0.0]])
    found = regimes.nearest(readings)
    assert found.tolist() == [-1, 1, -1, -1, 0]
    assert found.dtype.kind == "i"


def test_values_are_scaled_by_deviation_of_their_regime() -> None:
    regimes = regimes_of([[0.0], [1.0]], [1.0])
    at = np.array([0, 1, -1, 0, 1])
    heat = regimes.relative("heat", np.array([4.0, 32.0, 5.0, NAN, 20.0]), at)
    assert np.isnan(heat).tolist() == [False, False, True, True, False]
    assert heat[[0, 1, 4]].tolist() == [2.0, 3.0, 0.0]
    assert heat.dtype == np.float64
    flow = regimes.relative("flow", np.array([13.0, 25.0]), np.array([0, 1]))
    assert flow.tolist() == [1.0, -1.0]


def test_settings_use_latest_reading_at_each_time() -> None:
    regimes = regimes_of([[0.0, 0.0]], [1.0, 1.0])
    columns = {
        "first": (np.array([10, 20, 30]), np.array([1.0, 2.0, 3.0])),
        "second": (np.array([15, 20, 25]), np.array([7.0, NAN, 9.0])),
    }
    found = settings_at(regimes, columns, np.array([9, 10, 11, 19, 20, 24, 25, 99]))
    assert np.nan_to_num(found[:, 0], nan=-1).tolist() == [-1, 1, 1, 1, 2, 2, 2, 3]
    assert np.nan_to_num(found[:, 1], nan=-1).tolist() == [-1, -1, -1, 7, 7, 7, 9, 9]
    assert found.dtype == np.float64


@pytest.mark.parametrize("gone", [None, [], [NAN, NAN]], ids=["no column", "no reading", "no number"])
def test_settings_without_readings_stay_unknown(gone: list[float] | None) -> None:
    regimes = regimes_of([[0.0, 0.0, 0.0]], [1.0, 1.0, 1.0])
    columns = {"second": (np.array([5]), np.array([4.0]))}
    if gone is not None:
        columns["first"] = np.arange(len(gone)), np.array(gone)
    found = settings_at(regimes, columns, np.array([4, 5, 6]))
    assert np.nan_to_num(found, nan=-1).tolist() == [[-1, -1, -1], [-1, 4, -1], [-1, 4, -1]]
