"""Detection of sensors whose unit changes between runs, and the units named in the error."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from aurum.prediction.training.columns import UnitChangeError, check_units
from aurum.readings.history import Run

NAN = float("nan")


def runs_of(**machines: Sequence[float]) -> list[Run]:
    """A machine has a run of these readings."""
    return [
        Run(name, True, np.arange(len(values), dtype=np.int64), {"x": np.array(values, dtype=np.float64)})
        for name, values in machines.items()
    ]


def at(*medians: float) -> list[Run]:
    """A run for each of these readings."""
    return runs_of(**{f"m{number}": [median] for number, median in enumerate(medians)})


def refused(runs: Sequence[Run]) -> str:
    """As what units it is refused; empty if it is not."""
    try:
        check_units(runs, ["x"])
    except UnitChangeError as error:
        return str(error).partition("as if in ")[2].partition(";")[0]
    return ""


def test_unit_change_error_names_sensor_machines_and_values() -> None:
    runs = runs_of(b=[10.1], d=[50.2], a=[9.9], e=[50.6], c=[10.0], f=[50.4])
    with pytest.raises(UnitChangeError) as caught:
        check_units(runs, ["x"])
    assert str(caught.value) == (
        "sensor x changes its unit: it is about 10 in a and 50.4 in e, as if in °C and °F; convert one to the other, "
        "or leave the column out"
    )


@pytest.mark.parametrize(
    ("other", "units"),
    [
        (50.0, "°C and °F"),
        (283.15, "°C and K"),
        (145.038, "bar and psi"),
        (1000.0, "bar and kPa"),
        (68.9476, "psi and kPa"),
        (254.0, "inch and mm"),
        (10_000.0, "kW and W (or another factor of 1000)"),
        (600.0, "hours and minutes (or another factor of 60)"),
        (36.0, "m/s and km/h"),
        (20.0, ""),
        (90.0, ""),
        (10.0, ""),
    ],
)
def test_unit_conversion_is_recognized(other: float, units: str) -> None:
    assert refused(at(10, 10, other, other)) == units
    assert refused(at(other, 10, other, 10, other)) == units


@pytest.mark.parametrize(("high", "found"), [(96.9, False), (97.0, True), (103.0, True), (103.1, False)])
def test_unit_conversion_tolerance_is_three_percent(high: float, found: bool) -> None:
    assert (refused(at(0.1, 0.1, high, high)) != "") == found


@pytest.mark.parametrize("low", [0.5, 1.0, 2.0])
def test_unit_change_is_detected_for_small_values(low: float) -> None:
    assert refused(at(low, low, low * 14.5038, low * 14.5038)) == "bar and psi"


@pytest.mark.parametrize("low", [[0, 0], [-1, 1, 1], [-5, -5]])
def test_unit_change_is_not_reported_for_nonpositive_values(low: list[float]) -> None:
    other = float(np.median(low)) * 1.8 + 32
    assert refused(at(*low, other, other)) == ""


@pytest.mark.parametrize(("machines", "found"), [((2, 2), True), ((1, 3), False), ((3, 1), False), ((1, 2), False)])
def test_unit_change_requires_two_stretches_of_each_unit(machines: tuple[int, int], found: bool) -> None:
    low, high = machines
    assert (refused(at(*[10.0] * low, *[50.0] * high)) != "") == found


@pytest.mark.parametrize(("count", "found"), [(39, False), (40, True), (80, True)])
def test_run_of_forty_readings_has_four_stretches(count: int, found: bool) -> None:
    values = [10.0] * math.ceil(count / 2) + [50.0] * (count // 2)
    assert (refused(runs_of(m=values)) != "") == found
    if not found:
        assert refused(runs_of(m=values, n=values)) == ""


def test_unit_change_is_not_reported_for_single_stretch() -> None:
    assert refused(at(10)) == ""
    assert refused(at(NAN)) == ""
    assert refused(at()) == ""


@pytest.mark.parametrize("high", [68.9, 69.0, 69.1])
def test_unit_groups_differ_by_six_lower_deviations(high: float) -> None:
    """Those of 13 and 27 deviate by 7: 6 of them from 27 is 69."""
    assert (refused(at(13, 27, high, high)) != "") == (high >= 69)


@pytest.mark.parametrize(
    ("high", "found"),
    [([52, 84], True), ([60, 76], True), ([46, 46, 68, 90, 90], False), ([50, 58, 68, 78, 86], True)],
)
def test_unit_groups_differ_by_two_upper_deviations(high: list[float], found: bool) -> None:
    """From 20 to 52 it is exactly 2 deviations of 52 and 84."""
    assert (refused(at(20, 20, *high)) == "°C and °F") == found


def test_unit_groups_are_split_at_widest_gap() -> None:
    assert refused(at(9, 10, 11, 48, 50, 52)) == "°C and °F"
    assert refused(at(9, 10, 10, 11, 12, 49, 51)) == "°C and °F"
    assert refused(at(9, 10, 49, 50, 50, 51, 52)) == "°C and °F"


def test_missing_readings_do_not_hide_a_unit_change() -> None:
    runs = runs_of(a=[NAN, 10, 10, NAN], b=[10], c=[NAN], d=[NAN, 50], e=[50, NAN, NAN], f=[NAN, NAN])
    assert refused(runs) == "°C and °F"


def test_unit_of_each_sensor_is_checked() -> None:
    calm, empty, few = [10.0] * 4, [NAN] * 4, [NAN, NAN, 3.0, NAN]
    changed = [10.0, 10.0, 50.0, 50.0]
    other = [10.0, 10.0, 20.0, 20.0]
    columns = {"calm": calm, "empty": empty, "few": few, "other": other, "bad": changed}
    runs = [Run(f"m{n}", True, np.arange(1), {k: np.array([v[n]]) for k, v in columns.items()}) for n in range(4)]
    check_units(runs, ["calm", "empty", "few", "other"])
    for first in ("calm", "empty", "few", "other"):
        with pytest.raises(UnitChangeError, match="sensor bad changes its unit"):
            check_units(runs, [first, "bad"])
