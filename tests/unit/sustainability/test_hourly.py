"""Hourly amounts of rates and counters: gap limits, partial hours, and steps at hour boundaries."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.sustainability.counters import CounterRules, consumption
from aurum.sustainability.energy import power_of_current, specific_consumption
from aurum.sustainability.hourly import (
    HOUR_US,
    LONGEST_BRIDGE_US,
    HourlyAmounts,
    add_zero_crossings,
    empty_hours,
    integrate,
    spread_increases,
    sum_hours,
)
from aurum.sustainability.water import water_usage_effectiveness

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 470_000
START = HOUR * HOUR_US
GAP = 1200.0  # seconds


def hourly_increases(times: np.ndarray, counts: np.ndarray, start: int, end: int, gap: float) -> HourlyAmounts:
    used = consumption(times, counts, CounterRules())
    return spread_increases(used.times, used.increases, start, end, gap)


def at(minutes: list[float]) -> np.ndarray:
    return START + np.array([round(each * MINUTE) for each in minutes], dtype=np.int64)


def test_range_inside_hours_counts_partial_hours() -> None:
    times = at([*range(0, 181, 10)])
    hourly = integrate(times, np.full(19, 12.0), START + 10 * MINUTE, START + 140 * MINUTE, GAP)
    assert hourly.first == HOUR
    assert hourly.in_range.tolist() == [3000, 3600, 1200]
    assert hourly.covered.tolist() == pytest.approx([3000, 3600, 1200])
    assert hourly.amount.tolist() == pytest.approx([10, 12, 4])
    assert hourly.total == pytest.approx(26)


def test_range_ending_on_hour_has_no_extra_hour() -> None:
    hourly = empty_hours(START, START + 2 * HOUR_US)
    assert (len(hourly.amount), len(hourly.covered), len(hourly.in_range)) == (2, 2, 2)
    later = integrate(at([]), np.array([]), START, START + 2 * HOUR_US + 1, GAP)
    assert later.in_range.tolist() == [3600, 3600, 1e-6]


def test_range_within_one_hour_has_single_hour() -> None:
    hourly = integrate(at([0, 20, 40, 60]), np.full(4, 6.0), START + 15 * MINUTE, START + 45 * MINUTE, GAP)
    assert hourly.first == HOUR
    assert hourly.in_range.tolist() == [1800]
    assert hourly.amount.tolist() == pytest.approx([3])


def test_ramp_across_hours_is_split_at_hour_boundary() -> None:
    hourly = integrate(at([50, 70]), np.array([0.0, 60.0]), START, START + 2 * HOUR_US, GAP)
    assert hourly.amount.tolist() == pytest.approx([2.5, 7.5])  # mean of 15 kW, then of 45 kW, for ten minutes each
    assert hourly.covered.tolist() == pytest.approx([600, 600])


def test_hours_outside_readings_are_not_covered() -> None:
    hourly = integrate(at([130, 140, 150]), np.full(3, 6.0), START, START + 5 * HOUR_US, GAP)
    assert hourly.amount.tolist() == pytest.approx([0, 0, 2, 0, 0])
    assert hourly.covered.tolist() == pytest.approx([0, 0, 1200, 0, 0])
    assert hourly.in_range.tolist() == [3600] * 5
    assert hourly.coverage == pytest.approx(1 / 15)


def test_readings_outside_range_are_ignored() -> None:
    hourly = integrate(at([*range(-120, 241, 20)]), np.full(19, 3.0), START, START + HOUR_US, GAP)
    assert hourly.amount.tolist() == pytest.approx([3])
    assert hourly.covered.tolist() == pytest.approx([3600])
    before = integrate(at([-60, -50, -40]), np.full(3, 3.0), START, START + 2 * HOUR_US, GAP)
    assert before.amount.tolist() == before.covered.tolist() == [0, 0]
    assert before.amount.dtype == before.covered.dtype == np.float64


@pytest.mark.parametrize(("excess_us", "covered"), [(-1, 1200), (0, 1200), (1, 0)])
def test_gap_is_covered_up_to_longest_allowed_gap(excess_us: int, covered: int) -> None:
    times = at([10, 30])
    times[1] += excess_us
    hourly = integrate(times, np.array([6.0, 6.0]), START, START + HOUR_US, GAP)
    assert hourly.covered[0] == pytest.approx(covered, abs=1e-5)
    assert hourly.amount[0] == pytest.approx(6 * covered / 3600, abs=1e-5)


@pytest.mark.parametrize(
    ("minutes", "covered"), [([0, 30, 40, 50], 1200), ([0, 10, 40, 50], 1200), ([0, 10, 20, 50], 1200), ([0, 50], 0)]
)
def test_each_gap_is_evaluated_by_its_own_length(minutes: list[float], covered: int) -> None:
    hourly = integrate(at(minutes), np.full(len(minutes), 6.0), START, START + HOUR_US, GAP)
    assert hourly.covered.tolist() == pytest.approx([covered])


def test_nan_reading_is_treated_as_missing() -> None:
    hourly = integrate(at([0, 10, 20]), np.array([6.0, np.nan, 18.0]), START, START + HOUR_US, GAP)
    assert hourly.amount.tolist() == pytest.approx([4])
    assert hourly.covered.tolist() == pytest.approx([1200])


@pytest.mark.parametrize("values", [[], [5.0], [np.nan, 5.0]])
def test_fewer_than_two_readings_yield_no_amount(values: list[float]) -> None:
    for sums in (integrate, hourly_increases):
        hourly = sums(at([10, 20][: len(values)]), np.array(values), START + MINUTE, START + 2 * HOUR_US, GAP)
        assert hourly.first == HOUR
        assert hourly.amount.tolist() == hourly.covered.tolist() == [0, 0]
        assert hourly.in_range.tolist() == [3540, 3600]
        assert hourly.coverage == 0
        assert hourly.estimate is None


@pytest.mark.parametrize("minute", [0, 20, 60])
def test_one_microsecond_interval_is_covered(minute: int) -> None:
    """Also after a gap, and where it begins with the range, a reading or an hour."""
    begins = START + minute * MINUTE
    times = np.array([begins - 25 * MINUTE, begins, begins + 1], dtype=np.int64)
    hourly = integrate(times, np.full(3, 3.6e9), START, START + 2 * HOUR_US, GAP)
    covered = [0.0, 0.0]
    covered[minute // 60] = 1e-6
    assert hourly.covered.tolist() == pytest.approx(covered)
    assert hourly.amount.tolist() == pytest.approx([each * 1e6 for each in covered])


def test_interval_starting_at_range_end_is_excluded() -> None:
    end = START + HOUR_US
    hourly = integrate(np.array([end, end + 1]), np.full(2, 3.6e9), START, end, GAP)
    assert hourly.amount.tolist() == hourly.covered.tolist() == [0]


@pytest.mark.parametrize(("known_minutes", "estimate"), [(30, 12.0), (29, None), (60, 12.0)])
def test_estimate_requires_half_coverage(known_minutes: int, estimate: float | None) -> None:
    minutes: list[float] = [*range(0, known_minutes - 1, 10), known_minutes]
    hourly = integrate(at(minutes), np.full(len(minutes), 12.0), START, START + HOUR_US, GAP)
    assert hourly.estimate == (None if estimate is None else pytest.approx(estimate))


def test_two_counter_readings_yield_their_difference() -> None:
    hourly = hourly_increases(at([50, 70]), np.array([1000.0, 1008.0]), START, START + 2 * HOUR_US, GAP)
    assert hourly.amount.tolist() == pytest.approx([4, 4])
    assert hourly.covered.tolist() == pytest.approx([600, 600])
    assert hourly.first == HOUR


def test_unchanged_counter_adds_nothing() -> None:
    hourly = hourly_increases(at([0, 10, 20, 30]), np.array([70.0, 70.0, 76.0, 76.0]), START, START + HOUR_US, GAP)
    assert hourly.amount.tolist() == pytest.approx([6])


@pytest.mark.parametrize(("last", "amount"), [(99.0, 0.0), (90.0, 0.0), (89.0, 89.0), (0.0, 0.0), (101.0, 1.0)])
def test_falling_counter_restarts_unless_it_falls_little(last: float, amount: float) -> None:
    hourly = hourly_increases(at([0, 10]), np.array([100.0, last]), START, START + HOUR_US, GAP)
    assert hourly.amount.tolist() == pytest.approx([amount])


def test_counter_step_across_gap_is_bridged() -> None:
    """What was counted is known, when it was is not."""
    hourly = hourly_increases(at([0, 10, 45, 55]), np.array([0.0, 1.0, 50.0, 52.0]), START, START + HOUR_US, GAP)
    assert hourly.amount.tolist() == pytest.approx([52])
    assert hourly.covered.tolist() == pytest.approx([1200], abs=1e-5)
    assert hourly.bridged == pytest.approx(35 * 60)
    assert hourly.estimate == pytest.approx(52 * 60 / 55)
    twice = sum_hours([hourly, hourly], START, START + HOUR_US)
    assert (twice.bridged, twice.estimate) == (pytest.approx(70 * 60), pytest.approx(104 * 60 / 55))


@pytest.mark.parametrize(("excess_us", "amount"), [(0, 100.0), (1, 0.0)])
def test_counter_step_across_long_gap_is_not_counted(excess_us: int, amount: float) -> None:
    times = np.array([START, START + LONGEST_BRIDGE_US + excess_us])
    hourly = hourly_increases(times, np.array([5.0, 105.0]), START, START + 24 * 8 * HOUR_US, GAP)
    assert hourly.total == pytest.approx(amount)
    assert (hourly.estimate is None) is (amount == 0)


def test_nan_counter_reading_is_skipped() -> None:
    hourly = hourly_increases(at([0, 10, 20]), np.array([5.0, np.nan, 9.0]), START, START + HOUR_US, GAP)
    assert hourly.amount.tolist() == pytest.approx([4])


@pytest.mark.parametrize(("minute", "amounts"), [(10, [9.0, 0.0]), (60, [0.0, 4.0]), (120, [0.0, 0.0])])
def test_counter_increase_at_once_counts_at_its_time(minute: int, amounts: list[float]) -> None:
    """At the start of an hour it belongs to that hour, and at the end of the range to the next one."""
    times, counts = at([minute, minute, minute, minute + 10]), np.array([3.0, 3.0, 7.0, 7.0])
    if minute == 10:
        counts[-1] = 12.0
    hourly = hourly_increases(times, counts, START, START + 2 * HOUR_US, GAP)
    assert hourly.amount.tolist() == pytest.approx(amounts)


def test_counter_step_does_not_leak_into_hour_before() -> None:
    hourly = hourly_increases(at([40, 60, 80]), np.array([0.0, 0.0, 1.2e9]), START, START + 2 * HOUR_US, GAP)
    assert hourly.amount.tolist() == [0, pytest.approx(1.2e9)]


def test_zero_crossing_separates_signs_of_a_rate() -> None:
    times, rates = add_zero_crossings(at([0, 5, 20]), np.array([30.0, np.nan, -30.0]), GAP)
    assert times.tolist() == at([0, 10, 20]).tolist()
    both = [integrate(times, np.maximum(sign * rates, 0.0), START, START + HOUR_US, GAP).total for sign in (1, -1)]
    assert both == pytest.approx([2.5, 2.5])


def test_zero_crossing_leaves_a_gap_open() -> None:
    times, rates = add_zero_crossings(at([0, 21]), np.array([30.0, -30.0]), GAP)
    assert (times.tolist(), rates.tolist()) == (at([0, 21]).tolist(), [30.0, -30.0])


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 1000)), min_size=2, max_size=40))
@settings(deadline=None, max_examples=50)
def test_counter_total_equals_its_increase(steps: list[tuple[int, int]]) -> None:
    minutes, counts = (np.cumsum(column).tolist() for column in zip(*steps, strict=True))
    hourly = hourly_increases(at(minutes), np.array(counts, dtype=float), START, START + 24 * HOUR_US, GAP)
    assert hourly.total == pytest.approx(counts[-1] - counts[0], rel=1e-6, abs=1e-4)
    assert hourly.covered.sum() == pytest.approx((minutes[-1] - minutes[0]) * 60)


def test_empty_hourly_result_is_zero_for_each_hour() -> None:
    hourly = empty_hours(START + MINUTE, START + 3 * HOUR_US)
    assert hourly.first == HOUR
    assert hourly.amount.tolist() == hourly.covered.tolist() == hourly.in_range.tolist() == [0, 0, 0]
    assert hourly.coverage == 0
    assert hourly.estimate is None


def test_sum_of_machines_adds_amounts_and_coverage() -> None:
    one = HourlyAmounts(HOUR, np.array([1.0, 2.0]), np.array([100.0, 200.0]), np.array([3600.0, 1800.0]))
    two = HourlyAmounts(HOUR, np.array([10.0, 20.0]), np.array([1000.0, 600.0]), np.array([1800.0, 3600.0]))
    both = sum_hours([one, two], START, START + 2 * HOUR_US)
    assert both.first == HOUR
    assert both.amount.tolist() == [11, 22]
    assert both.covered.tolist() == [1100, 800]
    assert both.in_range.tolist() == [5400, 5400]
    none = sum_hours([], START, START + 2 * HOUR_US)
    assert (none.first, none.in_range.tolist()) == (HOUR, [0, 0])


def test_hourly_mean_uses_only_covered_time() -> None:
    times = at([0, 10, 60, 61, 125, 125 + 0.5 / 60])
    means = integrate(times, np.array([10.0, 20.0, 7.0, 9.0, 4.0, 4.0]), START, START + 4 * HOUR_US, GAP).means
    assert means[:3].tolist() == pytest.approx([15, 8, 4])  # of ten minutes, a minute, half a second
    assert np.isnan(means[3])
    assert means.dtype == np.float64


def test_mean_of_partial_hour_excludes_time_outside_range() -> None:
    means = integrate(
        at([0, 20, 40, 60]), np.array([0.0, 60.0, 60.0, 0.0]), START + 20 * MINUTE, START + HOUR_US, GAP
    ).means
    assert means.tolist() == pytest.approx([45])
    assert np.isnan(integrate(at([0, 21]), np.array([1.0, 1.0]), START, START + HOUR_US, GAP).means).all()


@pytest.mark.parametrize(
    ("phases", "kilowatts"), [(1, [0, 0.2, 2.0]), (3, [0, 0.2 * math.sqrt(3), 2.0 * math.sqrt(3)])]
)
def test_power_follows_current_voltage_and_power_factor(phases: int, kilowatts: list[float]) -> None:
    power = power_of_current(np.array([0.0, 1.0, 10.0]), 250, 0.8, phases)
    assert power.tolist() == pytest.approx(kilowatts)


@pytest.mark.parametrize("ratio", [specific_consumption, water_usage_effectiveness])
def test_ratio_requires_positive_denominator(ratio: Callable[[float, float], float | None]) -> None:
    assert ratio(3.0, 0.5) == 6
    assert ratio(3.0, 1e-9) == pytest.approx(3e9)
    assert ratio(0.0, 4.0) == 0
    assert ratio(3.0, 0.0) is None
    assert ratio(3.0, -0.5) is None
