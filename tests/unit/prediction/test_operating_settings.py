"""Detection of operating settings: narrow bands that change repeatedly and do not correlate with age."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from aurum.prediction.training.regimes_fit import find_settings, fit_regimes
from aurum.readings.history import Run

Floats = npt.NDArray[np.float64]
NAN = float("nan")


def run_of(**columns: Sequence[float] | Floats) -> Run:
    count = len(next(iter(columns.values())))
    there = {name: np.array(values, dtype=np.float64) for name, values in columns.items()}
    return Run("m", True, np.arange(count, dtype=np.int64), there)


def is_setting(*runs: Sequence[float] | Floats) -> bool:
    return find_settings([run_of(x=values) for values in runs], ["x"]) == ("x",)


def between(*bands: float, count: int = 100) -> Floats:
    """A reading in each band by turns."""
    return np.resize(np.array(bands, dtype=np.float64), count)


def noise(count: int, width: float, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).uniform(-width, width, count)


def test_settings_are_found_among_sensors_in_order() -> None:
    columns = {"b": between(0, 10), "wear": np.linspace(0, 1, 100), "a": between(5, 6, 7), "random": noise(100, 1)}
    runs = [run_of(**columns), run_of(**columns)]
    assert find_settings(runs, ["wear", "b", "random", "a"]) == ("b", "a")
    assert find_settings(runs, ["wear", "random"]) == ()
    assert find_settings(runs, ["a"]) == ("a",)


@pytest.mark.parametrize("scale", [1e-6, 0.1, 1.0, 1e6])
def test_setting_detection_is_independent_of_unit(scale: float) -> None:
    steady = between(0, 10) + noise(100, 0.01)
    worn = between(0, 10) + np.linspace(0, 0.01, 100)
    assert is_setting(scale * steady)
    assert not is_setting(scale * worn)
    assert is_setting(scale * between(0, 1))
    assert is_setting(scale * between(0.1, 0.7, count=99))


@pytest.mark.parametrize("values", [[3.0] * 100, [NAN] * 100, []], ids=["constant", "no number", "no reading"])
def test_column_with_at_most_one_value_is_no_setting(values: list[float]) -> None:
    assert not is_setting(values)


@pytest.mark.parametrize(("bands", "found"), [(1, False), (2, True), (3, True), (12, True), (13, False)])
def test_setting_has_two_to_twelve_bands(bands: int, found: bool) -> None:
    assert is_setting(between(*range(bands), count=20 * bands)) == found


@pytest.mark.parametrize(("count", "found"), [(100, True), (101, False), (200, False)])
def test_setting_band_requires_one_percent_of_readings(count: int, found: bool) -> None:
    values = between(0, 10, count=count)
    values[count // 2] = 20
    assert is_setting(values) == found


@pytest.mark.parametrize(("low", "found"), [((-1.0, 0.0, 1.0), True), ((-1.0, 1.0), True), ((-1.5, 0.0, 1.5), False)])
def test_setting_band_deviates_by_at_most_one_percent(low: tuple[float, ...], found: bool) -> None:
    """Of the range, which is 100 here: 0.8, exactly 1 and 1.2."""
    values = between(0, low[0] + 100, count=96)
    values[0::2] = between(*low, count=48)
    assert is_setting(values) == found


@pytest.mark.parametrize("place", [0, 1, 2])
def test_every_band_of_a_setting_is_checked(place: int) -> None:
    values = between(0, 50, 100, count=300)
    assert is_setting(values)
    wide = values.copy()
    wide[place::3] += np.linspace(-4, 4, 100)[np.random.default_rng(1).permutation(100)]
    assert not is_setting(wide)
    worn = values.copy()
    worn[place::3] += np.linspace(-0.5, 0.5, 100)
    assert not is_setting(worn)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("share", "found"), [(0.05, True), (0.3, False)])
def test_setting_does_not_correlate_with_age(share: float, sign: int, found: bool) -> None:
    """Of 4000 readings the limit is a correlation of 0.1; share is about what these have."""
    off = noise(4000, 0.1) + sign * share * (np.arange(4000) / 4000 - 0.5) * 0.2
    assert is_setting(between(0, 20, 50, count=4000) + off) == found


@pytest.mark.parametrize(("count", "found"), [(101, True), (1001, False)])
def test_few_readings_may_correlate_with_age_by_chance(count: int, found: bool) -> None:
    age = np.linspace(-1, 1, count)
    steady = np.where(np.arange(count) % 4 < 2, 1.0, -1.0)
    off = steady + 0.6 * age
    assert is_setting(between(0, 50, count=count) + 0.1 * off) == found


def test_age_is_relative_to_each_life() -> None:
    """A sensor that wears in each life, whatever the lives' lengths."""
    lives = [between(0, 50, count=count) + np.linspace(0, 0.3, count) for count in (40, 200)]
    assert not is_setting(*lives)
    lives[0] = between(0, 50, count=40) + noise(40, 0.3)
    lives[1] = between(0, 50, count=200) + noise(200, 0.3)
    assert is_setting(*lives)


def test_wear_in_band_is_detected_despite_missing_readings() -> None:
    worn = between(0, 50, count=400) + np.linspace(0, 0.3, 400)
    steady = between(0, 50, count=400) + noise(400, 0.3)
    for values, found in ((worn, False), (steady, True)):
        values[:150:3] = NAN
        assert is_setting(values) == found


def with_changes(changes: int) -> Floats:
    values = np.zeros(100)
    for each in range(changes):
        values[10 + 5 * each :] = 10.0 * (each % 2 == 0)
    return values


@pytest.mark.parametrize(
    ("changes", "found"), [([6], True), ([5], False), ([12, 0], True), ([11, 0], False), ([6, 6, 6], True)]
)
def test_setting_requires_six_changes_per_life_on_average(changes: list[int], found: bool) -> None:
    assert is_setting(*[with_changes(each) for each in changes]) == found


def test_missing_readings_are_not_counted_as_changes() -> None:
    values = with_changes(5)
    values[[3, 13, 50, 98]] = NAN
    assert not is_setting(values)
    values = with_changes(6)
    values[[3, 13, 50, 98]] = NAN
    assert is_setting(values)


def lives_of(seed: int, count: int = 30) -> list[Run]:
    """Lives under three settings, with a switch that wear makes more frequent, and a redundant setting."""
    rng = np.random.default_rng(seed)
    runs = []
    for _ in range(count):
        length = int(rng.integers(60, 120))
        setting = rng.integers(0, 3, length)
        wear = np.linspace(0, 1, length)
        worn = (setting == 1) & (rng.random(length) < 0.2 + 0.6 * wear)
        runs.append(
            run_of(
                setting=np.array([0.0, 20, 42])[setting],
                switch=np.where(worn, 0.03, 0.02),
                load=setting * 5.0,
                heat=100.0 * setting + wear + rng.normal(0, 1, length),
                flow=50.0 - 9 * setting + rng.normal(0, 1, length),
            )
        )
    return runs


@pytest.mark.parametrize("seed", range(3))
def test_switch_that_wears_is_no_setting(seed: int) -> None:
    runs = lives_of(seed)
    assert find_settings(runs, ["setting", "switch", "load"]) == ("setting", "load")
    regimes = fit_regimes(runs, ("setting", "load"), ["switch", "heat", "flow"])
    assert regimes is not None
    assert regimes.columns == ("setting",)
    assert len(regimes.centers) == 3


@pytest.mark.parametrize("seed", range(10))
def test_setting_chosen_at_random_does_not_move_with_age(seed: int) -> None:
    rng = np.random.default_rng(seed)
    runs = [run_of(x=rng.choice([0.0, 1.0, 5.0], int(rng.integers(30, 300)))) for _ in range(12)]
    assert find_settings(runs, ["x"]) == ("x",)


@pytest.mark.parametrize("present", [1.0, 0.7])
def test_setting_that_follows_wear_in_all_lives_is_no_setting(present: float) -> None:
    rng = np.random.default_rng(1)
    runs = []
    for _ in range(10):
        values = (rng.random(200) < np.linspace(0.3, 0.6, 200)).astype(float)
        values[rng.random(200) > present] = NAN
        runs.append(run_of(x=values))
    assert find_settings(runs, ["x"]) == ()
