"""Fitting of operating regimes: selection of settings, their combinations, and sensor statistics in each."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pytest

from aurum.prediction.model.regimes import Regimes
from aurum.prediction.training.regimes_fit import fit_regimes
from aurum.readings.history import Run

Floats = npt.NDArray[np.float64]
NAN = float("nan")


def runs_of(columns: Mapping[str, Sequence[float] | Floats], *cuts: int) -> list[Run]:
    """One run, or several if it is cut."""
    parts = {name: np.split(np.array(values, dtype=np.float64), cuts) for name, values in columns.items()}
    return [
        Run(
            f"m{index}",
            True,
            np.arange(len(next(iter(parts.values()))[index])),
            {n: p[index] for n, p in parts.items()},
        )
        for index in range(len(cuts) + 1)
    ]


def fitted(settings: Mapping[str, Sequence[float] | Floats], **sensors: Sequence[float] | Floats) -> Regimes:
    found = fit_regimes(runs_of({**settings, **sensors}), list(settings), list(sensors))
    assert found is not None
    return found


def noise(count: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).normal(0, 1, count)


def test_regimes_have_means_and_deviations_of_sensors() -> None:
    mode = [100.0, 110, 120, 100, 110, 120, 101, NAN]
    heat = [1.0, 20, 300, 3, 24, 300, 8, 999]
    flow = [5.0, NAN, 0, NAN, NAN, 6, 7, 999]
    runs = runs_of({"mode": mode, "heat": heat, "flow": flow}, 3, 5)
    found = fit_regimes(runs, ["mode"], ["heat", "flow"])
    assert found is not None
    assert found.columns == ("mode",)
    assert found.sensors == ("heat", "flow")
    assert found.centers.ravel().tolist() == pytest.approx([100, 101, 110, 120])
    assert found.scale.tolist() == [20]
    assert found.mean.tolist() == [[2, 5], [8, 7], [22, 0], [300, 3]]
    assert found.deviation.tolist() == [[1, np.inf], [np.inf, np.inf], [2, 1], [np.inf, 3]]


def test_regime_scale_is_range_of_each_setting() -> None:
    first, second = np.resize([0.0, 0.5], 40), np.resize([0.0, 0.0, 300.0, 300.0], 40)
    found = fitted({"a": first, "b": second}, heat=first * 4 + second)
    assert found.columns == ("a", "b")
    assert found.scale.tolist() == [0.5, 300]
    assert found.centers.tolist() == [[0, 0], [0, 300], [0.5, 0], [0.5, 300]]
    assert found.mean.ravel().tolist() == [0, 300, 2, 302]


def test_regimes_require_settings_and_sensors() -> None:
    runs = runs_of({"mode": [0.0, 1.0] * 20, "heat": [0.0, 1.0] * 20})
    assert fit_regimes(runs, ["mode"], ["heat"]) is not None
    assert fit_regimes(runs, [], ["heat"]) is None
    assert fit_regimes(runs, ["mode"], []) is None
    assert fit_regimes(runs, [], []) is None


def test_readings_with_missing_settings_have_no_regime() -> None:
    first, second = np.resize([0.0, 1.0], 40), np.resize([0.0, 0.0, 1.0, 1.0], 40)
    heat = first * 10 + second * 100
    first[0] = second[1] = first[3] = second[3] = NAN
    heat[[0, 1, 3]] = 5000
    found = fitted({"a": first, "b": second}, heat=heat)
    assert found.mean.ravel().tolist() == [0, 100, 10, 110]
    assert found.centers.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


@pytest.mark.parametrize(
    ("first", "second", "found"), [(1, 1, False), (2, 1, True), (3, 8, True), (4, 6, True), (5, 5, False)]
)
def test_number_of_regimes_is_between_2_and_24(first: int, second: int, found: bool) -> None:
    a, b = (each.ravel() for each in np.meshgrid(np.arange(first) * 1.0, np.arange(second) * 1.0))
    a, b = np.tile(a, 4), np.tile(b, 4)
    regimes = fit_regimes(runs_of({"a": a, "b": b, "heat": a + 10 * b}), ["a", "b"], ["heat"])
    assert (regimes is not None) == found
    assert regimes is None or len(regimes.centers) == first * second


@pytest.mark.parametrize(("count", "regimes"), [(200, [0, 10, 20]), (202, [0, 10]), (400, [0, 10])])
def test_regime_requires_one_percent_of_readings(count: int, regimes: list[float]) -> None:
    mode = np.resize([0.0, 10.0], count)
    mode[[50, 51]] = 20
    found = fitted({"mode": mode}, heat=mode)
    assert found.centers.ravel().tolist() == regimes


@pytest.mark.parametrize("every", [2, 50])
def test_setting_that_explains_nothing_defines_no_regimes(every: int) -> None:
    first, second = np.resize([0.0, 0.0, 10.0, 10.0], 200), np.zeros(200)
    second[::every] = 1
    assert fitted({"a": first, "b": second}, heat=first + noise(200)).columns == ("a",)
    assert fitted({"a": first, "b": second}, heat=first + noise(200) + 2000 * second).columns == ("a", "b")


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["a", "z_setting"], "z_setting"),
        (["a", "Z_SETTING"], "Z_SETTING"),
        (["z", "b"], "b"),
        (["setting_2", "setting_1"], "setting_1"),
        (["z", "b", "m", "setting"], "setting"),
    ],
)
def test_redundant_setting_is_excluded(names: list[str], chosen: str) -> None:
    mode = np.resize([0.0, 10.0], 40)
    assert fitted(dict.fromkeys(names, mode * 2), heat=mode).columns == (chosen,)


def test_settings_that_add_regimes_are_kept_in_order() -> None:
    first, second = np.resize([0.0, 1.0], 48), np.resize([0.0, 0.0, 1.0, 1.0], 48)
    settings = {"c": second, "setting": first, "b": first + 5, "d": first * 2}
    found = fitted(settings, heat=first + second)
    assert found.columns == ("setting", "c")
    assert len(found.centers) == 4


@pytest.mark.parametrize(("low", "regimes"), [(1.9, 2), (2.0, 2), (2.1, 3)])
def test_setting_bands_are_separated_by_two_percent_of_range(low: float, regimes: int) -> None:
    mode = np.resize([0.0, low, 100.0], 60)
    found = fitted({"mode": mode}, heat=mode)
    assert len(found.centers) == regimes
    assert found.centers[-1, 0] == 100
    assert found.centers[0, 0] == pytest.approx(low / 2 if regimes == 2 else 0)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_regime_dependence_is_independent_of_sensor_unit(unit: float) -> None:
    mode = np.resize([0.0, 10.0, 20.0], 90)
    runs = runs_of({"mode": mode, "random": unit * noise(90), "moved": unit * (noise(90) + mode)})
    assert fit_regimes(runs, ["mode"], ["random"]) is None
    assert fit_regimes(runs, ["mode"], ["moved"]) is not None


@pytest.mark.parametrize(("distance", "found"), [(1.2, False), (1.45, True)])
def test_regimes_explain_30_percent_of_sensor_variance(distance: float, found: bool) -> None:
    """Two regimes at such a distance explain d²/4 of d²/4 + 1, which is 0.26 and 0.34."""
    mode = np.resize([0.0, 1.0], 80)
    even = np.resize([1.0, 1.0, -1.0, -1.0], 80)
    runs = runs_of({"mode": mode, "heat": distance * mode + even})
    assert (fit_regimes(runs, ["mode"], ["heat"]) is not None) == found


def test_regimes_must_explain_most_sensors() -> None:
    mode = np.resize([0.0, 10.0, 20.0], 90)
    columns = {"mode": mode, "a": mode, "b": mode + noise(90), "c": noise(90, 2), "d": noise(90, 3)}
    runs = runs_of(columns)
    assert fit_regimes(runs, ["mode"], ["a", "b", "c"]) is not None
    assert fit_regimes(runs, ["mode"], ["a", "c", "d"]) is None


@pytest.mark.parametrize(
    ("mean", "spread", "silent"),
    [
        (0.0, 1e-9, True),
        (0.0, 1.5e-9, False),
        (0.0, 1e-10, True),
        (0.0, 0.5, False),
        (1000.0, 1e-7, True),
        (-1000.0, 1e-7, True),
        (1000.0, 1e-5, False),
    ],
)
def test_nearly_constant_sensor_has_infinite_deviation(mean: float, spread: float, silent: bool) -> None:
    mode = np.resize([0.0, 1.0], 8)
    heat = np.where(mode > 0, 50.0, mean + spread * np.resize([1.0, 1.0, -1.0, -1.0], 8))
    found = fitted({"mode": mode}, heat=heat)
    assert np.isinf(found.deviation).ravel().tolist() == [silent, True]
    assert silent or found.deviation[0, 0] == pytest.approx(spread, rel=1e-5)


def test_sensor_unread_in_regime_has_neutral_statistics() -> None:
    mode = np.resize([0.0, 1.0], 40)
    heat = np.where(mode > 0, NAN, np.resize([4.0, 4.0, 8.0, 8.0], 40))
    found = fitted({"mode": mode}, heat=heat, flow=mode, other=mode * 2)
    assert found.mean[:, 0].tolist() == [6, 0]
    assert found.deviation[:, 0].tolist() == [2, 1]
