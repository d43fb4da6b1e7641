"""Energy baselines compared with textbook formulas, their limits, and the fields of computed savings."""

import re

import numpy as np
import pytest

from aurum.sustainability.baseline import Baseline, BaselineError, by_day, fit_baseline, savings

X = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0])
NOISE = np.array([0.5, -0.5, 0.2, -0.2, 0.4, -0.1, -0.3, 0.1, 0.3, -0.6, 0.4, -0.2])
ENERGY = 20 + 3 * X + NOISE
LINE = Baseline(("x",), 5.0, (2.0,), (9.0,), 0.9, 0.1, 30, ((0.0, 10.0),))
FLAT = Baseline((), 8.0, (), (), 0.0, 0.1, 30, ())


def test_baseline_of_one_variable_matches_textbook() -> None:
    n, dx, dy = len(X), X - X.mean(), ENERGY - ENERGY.mean()
    slope = float((dx * dy).sum() / (dx**2).sum())
    intercept = float(ENERGY.mean() - slope * X.mean())
    squares = float(((ENERGY - intercept - slope * X) ** 2).sum())
    variance = squares / (n - 2)
    found = fit_baseline(ENERGY, {"x": X})
    assert found.variables == ("x",)
    assert found.intercept == pytest.approx(intercept)
    assert found.coefficients == pytest.approx((slope,))
    assert found.t == pytest.approx((slope / (variance / float((dx**2).sum())) ** 0.5,))
    assert found.r_squared == pytest.approx(1 - (squares / float((dy**2).sum())) * (n - 1) / (n - 2))
    assert found.cv_rmse == pytest.approx(variance**0.5 / float(ENERGY.mean()))
    assert found.intervals == 12
    assert found.ranges == ((1.0, 12.0),)


def test_baseline_of_two_variables_has_statistics_for_each() -> None:
    """The second one repeats four values in turn, so that it is independent of the first."""
    x = np.repeat(np.arange(6.0), 4)
    z = np.tile([-3.0, -1.0, 1.0, 3.0], 6)
    noise = np.tile([0.5, -0.5, -0.5, 0.5], 6)  # which is independent of both
    found = fit_baseline(10 + 2 * x - 4 * z + noise, {"x": x, "z": z})
    assert found.variables == ("x", "z")
    assert found.intercept == pytest.approx(10)
    assert found.coefficients == pytest.approx((2, -4))
    variance = 24 * 0.25 / 21
    assert found.t == pytest.approx((2 / (variance / 70) ** 0.5, -4 / (variance / 120) ** 0.5))
    assert found.r_squared == pytest.approx(1 - variance / ((4 * 70 + 16 * 120 + 6) / 23))
    assert found.cv_rmse == pytest.approx(variance**0.5 / 15)
    assert (found.intervals, found.ranges) == (24, ((0.0, 5.0), (-3.0, 3.0)))


def test_baseline_without_variables_is_the_mean() -> None:
    found = fit_baseline(np.array([1.0, 3.0, 1.0, 3.0, 1.0, 3.0]), {})
    assert (found.variables, found.coefficients, found.t, found.ranges) == ((), (), (), ())
    assert found.intercept == pytest.approx(2)
    assert found.r_squared == pytest.approx(0)
    assert found.cv_rmse == pytest.approx((6 / 5) ** 0.5 / 2)
    assert found.intervals == 6
    assert found.expected_energy({}).tolist() == pytest.approx(2)


def test_cv_rmse_of_fed_in_energy_is_positive() -> None:
    assert fit_baseline(-ENERGY, {"x": X}).cv_rmse == pytest.approx(fit_baseline(ENERGY, {"x": X}).cv_rmse)


def test_cv_rmse_with_zero_mean_is_infinite() -> None:
    assert fit_baseline(np.array([1.0, -1.0] * 3), {}).cv_rmse == float("inf")


@pytest.mark.parametrize("variables", [0, 1, 2])
def test_baseline_needs_six_intervals_per_coefficient(variables: int) -> None:
    needed = 6 * (variables + 1)
    rng = np.random.default_rng(1)
    columns = {name: rng.uniform(0, 10, needed) for name in ("a", "b")[:variables]}
    energy = rng.uniform(50, 60, needed)
    assert fit_baseline(energy, columns).intervals == needed
    told = "".join(f", {name}" for name in columns)
    problem = (
        f"the baseline period has {needed - 1} intervals in which energy{told} are known; "
        f"at least {needed} are required: choose a longer period"
    )
    with pytest.raises(BaselineError, match=f"^{re.escape(problem)}$"):
        fit_baseline(energy[1:], {name: values[1:] for name, values in columns.items()})


def test_interval_with_missing_value_is_excluded() -> None:
    energy, x, z = (np.append(each, [7.0, 8.0, 9.0]) for each in (np.tile(ENERGY, 2), np.tile(X, 2), np.tile(NOISE, 2)))
    energy[24], x[25], z[26] = np.nan, np.nan, np.nan
    found = fit_baseline(energy, {"x": x, "z": z})
    clean = fit_baseline(energy[:24], {"x": x[:24], "z": z[:24]})
    assert found == clean
    assert found.intervals == 24


def test_only_constant_variables_are_dropped_from_baseline() -> None:
    found = fit_baseline(ENERGY, {"constant": np.full(12, 7.0), "x": X / 100})
    assert found.variables == ("x",)
    assert found.ranges == ((0.01, 0.12),)
    assert fit_baseline(ENERGY, {"constant": np.zeros(12)}).variables == ()


def test_baseline_with_missing_values_requires_longer_period() -> None:
    with pytest.raises(BaselineError, match="has 0 intervals in which energy, x are known; at least 6 are required:"):
        fit_baseline(np.full(12, np.nan), {"x": X})
    with pytest.raises(
        BaselineError, match="has 1 intervals in which energy, x, y are known; at least 6 are required:"
    ):
        fit_baseline(ENERGY, {"x": X, "y": np.array([1.0, *[np.nan] * 11])})


def test_constant_energy_is_rejected_with_reason() -> None:
    with pytest.raises(BaselineError) as caught:
        fit_baseline(np.full(12, 4.0), {"x": X})
    assert str(caught.value) == ("the energy of the baseline period does not vary, so no model can be fitted to it")


def test_energy_varying_by_one_unit_yields_baseline() -> None:
    assert fit_baseline(np.array([4.0, 5.0] * 6), {"x": X}).intervals == 12


def test_collinear_baseline_variables_are_reported() -> None:
    x = np.arange(18.0)
    with pytest.raises(BaselineError) as caught:
        fit_baseline(x + 1, {"x": x, "still": np.ones(18), "twice": 2 * x})
    assert str(caught.value) == "the variables x, twice are collinear in the baseline period; remove one of the meters"


def test_expected_energy_depends_on_each_variable() -> None:
    baseline = Baseline(("x", "z"), 5.0, (2.0, -3.0), (9.0, 9.0), 0.9, 0.1, 30, ((0.0, 1.0), (0.0, 1.0)))
    found = baseline.expected_energy({"z": np.array([1.0, 0.0, np.nan]), "x": np.array([10.0, 20.0, 1.0])})
    assert found[:2].tolist() == [22, 45]
    assert np.isnan(found[2])


def test_expected_energy_without_variables_equals_intercept() -> None:
    assert FLAT.expected_energy({}).shape == ()
    found = FLAT.expected_energy({"x": np.zeros(3)})
    assert found.tolist() == [8, 8, 8]
    found += 1  # it is the caller's own
    assert found.tolist() == [9, 9, 9]


def test_baseline_with_missing_coefficient_is_rejected() -> None:
    broken = Baseline(("x", "z"), 5.0, (2.0,), (9.0,), 0.9, 0.1, 30, ((0.0, 1.0),))
    with pytest.raises(ValueError, match="zip"):
        broken.expected_energy({"x": np.zeros(2), "z": np.zeros(2)})


def test_baseline_with_missing_range_is_rejected() -> None:
    broken = Baseline(("x", "z"), 5.0, (2.0, 1.0), (9.0, 9.0), 0.9, 0.1, 30, ((0.0, 1.0),))
    with pytest.raises(ValueError, match="zip"):
        savings(broken, np.zeros(2), {"x": np.zeros(2), "z": np.zeros(2)})


def test_savings_include_every_field() -> None:
    x = np.array([1.0, 2.0, 3.0, np.nan, 5.0])
    found = savings(LINE, np.array([6.0, 10.0, np.nan, 1.0, 11.0]), {"x": x, "unused": np.full(5, np.nan)})
    assert found.expected == 7 + 9 + 15
    assert found.actual == 6 + 10 + 11
    assert found.savings == 4
    assert found.share == pytest.approx(4 / 31)
    assert found.cusum[[0, 1, 4]].tolist() == [1, 0, 4]
    assert np.isnan(found.cusum).tolist() == [False, False, True, True, False]
    assert (found.intervals, found.outside) == (3, 0)


def test_savings_are_computed_without_baseline_variables() -> None:
    found = savings(FLAT, np.array([7.0, 10.0, np.nan]), {})
    assert (found.expected, found.actual, found.savings, found.share) == (16, 17, -1, pytest.approx(-1 / 16))
    assert found.cusum[:2].tolist() == [1, -1]
    assert np.isnan(found.cusum[2])
    assert (found.intervals, found.outside) == (2, 0)


def test_savings_of_period_without_energy_are_zero() -> None:
    found = savings(LINE, np.full(2, np.nan), {"x": np.array([1.0, 2.0])})
    assert (found.expected, found.actual, found.savings, found.share) == (0, 0, 0, 0)
    assert (found.intervals, found.outside) == (0, 0)
    assert np.isnan(found.cusum).all()


def test_savings_share_is_computed_below_one_unit() -> None:
    tiny = Baseline((), 0.5, (), (), 0.0, 0.1, 30, ())
    assert savings(tiny, np.array([0.25, 0.5]), {}).share == pytest.approx(0.25)


@pytest.mark.parametrize(("x", "outside"), [(-0.1, 1), (0.0, 0), (10.0, 0), (10.1, 1)])
def test_interval_is_outside_only_beyond_baseline_range(x: float, outside: int) -> None:
    assert savings(LINE, np.array([1.0, 1.0]), {"x": np.array([x, 5.0])}).outside == outside


def test_interval_is_outside_if_any_variable_is_outside() -> None:
    baseline = Baseline(("x", "z"), 5.0, (2.0, 1.0), (9.0, 9.0), 0.9, 0.1, 30, ((0.0, 1.0), (0.0, 1.0)))
    values = {"x": np.array([9.0, 0.5, 9.0, 0.5, 9.0]), "z": np.array([0.5, 9.0, 9.0, 0.5, 0.5])}
    found = savings(baseline, np.array([1.0, 1.0, 1.0, 1.0, np.nan]), values)
    assert (found.outside, found.intervals) == (3, 4)  # what is not known is not outside


def test_days_are_summed_from_midnight_utc() -> None:
    hourly = np.array([1.0, 2.0, 10.0, 20.0, 30.0])
    assert by_day(24 * 7 + 22, hourly).tolist() == [3, 60]
    assert by_day(24 * 7 + 22, hourly, mean=True).tolist() == [1.5, 20]
    assert by_day(24 * 7 + 24, hourly).tolist() == [63]


def test_day_with_missing_hour_is_nan() -> None:
    hourly = np.ones(48)
    hourly[3] = np.nan
    for mean, whole in ((False, 24.0), (True, 1.0)):
        days = by_day(0, hourly, mean=mean)
        assert np.isnan(days[0])
        assert days[1:].tolist() == [whole]
