"""Window features: statistics, missing readings, and the rows returned."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.prediction.model import features
from aurum.prediction.model.features import (
    STATISTICS,
    WINDOW,
    FeatureSpec,
    Steps,
    features_of,
    features_of_windows,
    window_features,
    window_of,
)

NAN = float("nan")


def steps_of_values(
    *sensors: Sequence[float] | npt.NDArray[np.float64], counted: bool = True, first: float = 1.0
) -> Steps:
    return Steps(np.arange(len(sensors[0]), dtype=np.float64) + first, np.array(sensors, dtype=np.float64).T, counted)


def last_row(*sensors: Sequence[float]) -> dict[str, float]:
    """The features of the last step by name; sensors are called x, y, z."""
    spec = FeatureSpec("cycle", 1.0, ("x", "y", "z")[: len(sensors)])
    return dict(zip(spec.names, features_of(steps_of_values(*sensors))[-1].tolist(), strict=True))


def expected(values: npt.NDArray[np.float64]) -> list[float]:
    """The statistics of a sensor's steps up to the last one, as they are described."""
    at = np.arange(len(values), dtype=np.float64)
    there = ~np.isnan(values)
    said = {"last": values[there][-1] if there.any() else NAN}
    for length in (8, 64, 192):
        part = there & (at >= len(values) - length)
        known, places = values[part], at[part] - at[part].mean() if part.any() else at[part]
        said[f"mean_{length}"] = known.mean() if len(known) else NAN
        said[f"std_{length}"] = known.std() if len(known) else NAN
        said[f"slope_{length}"] = (places * known).sum() / (places**2).sum() if len(known) > 1 else NAN
    if there.any() and not there[-192:].any():
        said["last"] = NAN
    return [said[name] for name in STATISTICS]


@given(st.integers(1, 210), st.integers(1, 3), st.sampled_from([0.0, 0.3, 0.95]), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=25)
def test_features_match_reference_statistics(count: int, sensors: int, holes: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(5, 2, (sensors, count))
    values[rng.random((sensors, count)) < holes] = NAN
    found = features_of(steps_of_values(*values))
    assert found.shape == (count, 1 + 7 * sensors)
    assert found.dtype == np.float64
    for row in {0, count // 2, count - 1}:
        assert found[row, 0] == row + 1
        told = [each for sensor in values for each in expected(sensor[: row + 1])]
        assert np.allclose(found[row, 1:], told, atol=1e-9, equal_nan=True)


def test_features_of_one_reading_have_no_slope() -> None:
    row = last_row([4.0], [NAN])
    known = {name: value for name, value in row.items() if not np.isnan(value)}
    assert known == {"age": 1, "x.last": 4, "x.mean_8": 4, "x.mean_64": 4, "x.std_64": 0, "x.mean_192": 4}


def test_slope_is_known_from_two_adjacent_readings() -> None:
    row = last_row([1.0, 4.0, 4.5], [NAN, 9.0, 7.0])
    assert row["x.slope_64"] == pytest.approx(1.75)
    assert row["y.slope_64"] == row["y.slope_192"] == pytest.approx(-2.0)
    assert row["y.std_64"] == pytest.approx(1.0)


@pytest.mark.parametrize(("length", "ago"), [(8, 7), (8, 8), (64, 63), (64, 64), (192, 191), (192, 192)])
def test_window_contains_exactly_its_number_of_steps(length: int, ago: int) -> None:
    values = [*[NAN] * 5, 6.0, *[NAN] * ago]
    row = last_row(values, [2.0] * len(values))
    inside = ago < length
    assert np.isnan(row[f"x.mean_{length}"]) != inside
    assert np.isnan(row["x.last"]) == (ago >= 192)
    if length == 64:
        assert np.isnan(row["x.std_64"]) != inside
    assert row["y.last"] == 2


def test_features_are_returned_for_requested_rows() -> None:
    steps = steps_of_values(np.random.default_rng(1).normal(0, 1, 300), first=11.0)
    every = features_of(steps)
    assert every.shape == (300, 8)
    assert every[:, 0].tolist() == list(range(11, 311))
    rows = np.array([299, 4, 0, 130])
    assert np.array_equal(features_of(steps, rows), every[rows], equal_nan=True)
    assert np.array_equal(features_of(steps, np.array([0])), every[:1], equal_nan=True)


@pytest.mark.parametrize("sensors", [1, 2, 3])
def test_features_without_rows_have_all_columns(sensors: int) -> None:
    steps = steps_of_values(*[[1.0, 2.0]] * sensors)
    assert features_of(steps, np.empty(0, dtype=np.intp)).shape == (0, 1 + 7 * sensors)


def test_age_is_nan_without_life_counter() -> None:
    counted, timed = (steps_of_values([1.0, 2.0, 5.0], counted=counted, first=7.0) for counted in (True, False))
    assert features_of(counted)[:, 0].tolist() == [7, 8, 9]
    assert np.isnan(features_of(timed)[:, 0]).all()
    assert features_of(timed).dtype == np.float64
    assert np.array_equal(features_of(counted)[:, 1:], features_of(timed)[:, 1:], equal_nan=True)
    assert window_of(counted)[0] == 9
    assert np.isnan(window_of(timed)[0])


@pytest.mark.parametrize("count", [1, 2, 191, 192, 193, 250])
def test_window_ends_with_the_last_step(count: int) -> None:
    steps = steps_of_values(np.arange(count, dtype=np.float64), np.arange(count, dtype=np.float64) * 2.0)
    age, window, _ = window_of(steps)
    kept = min(count, 192)
    assert age == count
    assert window.shape == (192, 2)
    assert window.dtype == np.float64
    assert np.isnan(window[: 192 - kept]).all()
    assert np.array_equal(window[192 - kept :], steps.means[count - kept :])


def test_features_preserve_order_of_windows() -> None:
    machines = [steps_of_values([1.0, 2.0, 4.0]), steps_of_values([8.0], first=5.0), steps_of_values([3.0] * 200)]
    found = features_of_windows([window_of(each) for each in machines])
    assert found[:, 0].tolist() == [3, 5, 200]
    for row, machine in zip(found, machines, strict=True):
        assert np.array_equal(row, features_of(machine)[-1], equal_nan=True)


def test_features_without_steps_have_all_columns() -> None:
    assert features_of(steps_of_values([])).shape == (0, 8)


@given(seed=st.integers(0, 2**32))
def test_windows_without_gaps_have_the_same_features(seed: int) -> None:
    """The features of a window do not depend on whether another one beside it has missing steps."""
    chance = np.random.default_rng(seed)
    windows = chance.normal(0, 10.0 ** chance.integers(-3, 8), (6, WINDOW, 3))
    ages = chance.random(6)
    alone = window_features(windows, ages)
    gapped = np.concatenate([windows, windows])
    gapped[6:, chance.integers(0, WINDOW)] = np.nan
    together = window_features(gapped, np.concatenate([ages, ages]))
    assert together[:6].tobytes() == alone.tobytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "_of_whole_windows", features._of_windows)
        assert window_features(windows, ages).tobytes() == alone.tobytes()
