"""Counters: what each fault of a meter becomes, and that consumption equals the truth whatever the meter did."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.sustainability.counters import Consumption, CounterRules, consumption
from aurum.sustainability.hourly import spread_increases

SECOND = 1_000_000
MINUTE = 60 * SECOND
START = 470_000 * 3600 * SECOND
AUTO = CounterRules()


def count(values: Sequence[float], rules: CounterRules = AUTO, minutes: Sequence[float] | None = None) -> Consumption:
    """Consumption of a counter that is read each minute, or at given minutes."""
    times = [START + round(minute * MINUTE) for minute in (minutes or range(len(values)))]
    return consumption(np.array(times, dtype=np.int64), np.array(values, dtype=float), rules)


def told(used: Consumption) -> list[tuple[str, float, float]]:
    """Kind, first minute and amount of each correction."""
    return [(each.kind, (each.start_us - START) / MINUTE, each.amount) for each in used.corrections]


RAMP = [1000.0, 1010.0, 1020.0]


@pytest.mark.parametrize(
    ("values", "total", "corrections"),
    [
        ([*RAMP, 0, 1040], 40, [("false_reading", 3, 1020)]),
        ([*RAMP, 0, 0, 0, 1060], 60, [("false_reading", 3, 1020)]),
        ([*RAMP, 7, 0, 3, 1060, 0, 1070], 70, [("false_reading", 3, 1020), ("false_reading", 7, 1060)]),
        ([*RAMP, 0, 1019, 1019, 1040], 40, [("false_reading", 3, 1020)]),
        ([*RAMP, 400, 1040], 40, [("false_reading", 3, 620)]),
        ([*RAMP, 1019, 1019.5, 1030], 30, [("jitter", 3, 1)]),
        ([*RAMP, 918, 919, 920], 22, [("jitter", 3, 102)]),
        ([3, 4, 5, 4, 5, 6], 3, [("false_reading", 3, 1)]),
        ([*RAMP, 5, 15, 25], 45, [("restart", 3, 5)]),
        ([*RAMP, 0, 10, 20], 40, [("restart", 3, 0)]),
        ([*RAMP, -1, 10, 20], 41, [("restart", 3, 0)]),
        ([*RAMP, 300, 310], 30, [("replacement", 3, 300)]),
        ([65_500, 65_520, 4, 24], 60, [("wrap", 2, 20)]),
        ([2**32 - 20, 2**32 - 1, 4, 24], 44, [("wrap", 2, 5)]),
        ([65_500, 65_520, 4.5, 24], 44, [("restart", 2, 4.5)]),
        ([50_000, 50_020, 4, 24], 44, [("restart", 2, 4)]),
        ([7, 14, 20, 3, 10, 17, 24], 37, [("restart", 3, 3)]),
    ],
)
def test_fault_of_a_counter_is_corrected_and_told(
    values: list[float], total: float, corrections: list[tuple[str, float, float]]
) -> None:
    used = count(values)
    assert used.increases.sum() == pytest.approx(total)
    assert (used.increases >= 0).all()
    assert used.decreases.tolist() == [0] * len(used.increases)
    assert told(used) == [(kind, at, pytest.approx(amount)) for kind, at, amount in corrections]


@pytest.mark.parametrize(("recovered_minute", "total"), [(720 + 2, 40), (720 + 2 + 1 / 60, 20 + 100_040)])
def test_drop_must_recover_within_its_time(recovered_minute: float, total: float) -> None:
    """From the reading before it to the one after it."""
    used = count([100_000, 100_010, 100_020, 0, 100_040], minutes=[0, 1, 2, 3, recovered_minute])
    assert used.increases.sum() == total


def test_counter_without_recovery_time_restarts_at_each_drop() -> None:
    assert count([20, 10, 20, 10, 20], CounterRules(recovery_seconds=0.0)).increases.tolist() == [10] * 4
    assert count([20, 10, 20]).increases.tolist() == [0]


def test_declared_modulus_is_passed() -> None:
    rules = CounterRules(modulus=1000.0)
    assert count([900, 950, 40, 90], rules).increases.tolist() == [50, 90, 50]
    assert count([500, 550, 40, 90], rules).increases.tolist() == [50, 40, 50]  # by 490, which is more than a third
    assert count([1900, 1950, 40, 90], rules).increases.tolist() == [50, 40, 50]  # is above the modulus
    assert count([65_530, 65_532, 4], CounterRules(detects_registers=False)).increases.tolist() == [2, 4]


def test_replacement_is_recognised_by_the_usual_rate() -> None:
    """Ten times the usual rate is still a restart, also over a longer time."""
    assert told(count([*RAMP, 102, 112])) == [("restart", 3, 102)]  # a tenth of the level
    assert told(count([*RAMP, 102.1, 112])) == [("replacement", 3, 102.1)]
    assert told(count([600, 610, 620, 99, 109])) == [("restart", 3, 99)]  # less than ten times the rate
    assert told(count([600, 610, 620, 101, 111])) == [("replacement", 3, 101)]
    assert told(count([*RAMP, 199], minutes=[0, 1, 2, 4])) == [("restart", 4, 199)]
    assert told(count([1000, 300])) == [("restart", 1, 300)]  # no rate is known
    assert told(count([*RAMP, 300], minutes=[0, 1, 2, 723])) == [("restart", 723, 300)]


@pytest.mark.parametrize(
    ("values", "drawn", "fed_in", "kinds"),
    [
        ([1000, 1010, 1005, 995, 1002], 17, 15, []),
        ([5, 3, -1, -4, -2], 2, 9, []),
        ([1000, 1010, 1005, 0, 1000], 10, 10, ["false_reading"]),
        ([1000, 1010, 1005, 3, 8], 18, 5, ["restart"]),
        ([1000, 1010, 1005, 500, 495], 10, 515, []),
    ],
)
def test_counter_of_both_ways_separates_feed_in(
    values: list[float], drawn: float, fed_in: float, kinds: list[str]
) -> None:
    used = count(values, CounterRules(both_ways=True))
    assert (used.increases.sum(), used.decreases.sum()) == (drawn, fed_in)
    assert [each.kind for each in used.corrections] == kinds


def test_counter_of_both_ways_passes_its_modulus_both_ways() -> None:
    rules = CounterRules(modulus=1000.0, both_ways=True)
    for values, drawn, fed_in in (([980, 990, 10, 20], 40, 0), ([20, 10, 990, 960], 0, 60)):
        used = count(values, rules)
        assert (used.increases.sum(), used.decreases.sum()) == (drawn, fed_in)
        assert [each.kind for each in used.corrections] == ["wrap"]


def test_readings_that_are_no_number_are_ignored() -> None:
    used = count([1, np.nan, 3, np.inf, 4, -np.inf])
    assert used.increases.tolist() == [2, 1]
    assert used.times.tolist() == [START, START + 2 * MINUTE, START + 4 * MINUTE]
    for few in ([], [5.0], [np.nan, 5.0]):
        assert len(count(few).increases) == 0


def test_many_false_readings_are_found_in_one_pass() -> None:
    """Nested falls are told once, and a long series takes no quadratic time."""
    values = np.arange(100_000.0) + 1e6
    values[1:-1:2] = np.arange(49_999.0)
    used = count(values.tolist(), CounterRules(recovery_seconds=1e9))
    assert used.increases.sum() == 99_999
    assert len(used.corrections) == 49_999


@dataclass
class Meter:
    """What happened at a machine, and what its meter showed."""

    truth: float
    minutes: list[int]
    shown: list[float]
    rules: CounterRules


LARGEST_STEP = 50  # of a minute to ten
SURE_LEVEL = 2000  # more than three times it in ten minutes at ten times the rate


@st.composite
def meters(draw: st.DrawFn) -> Meter:
    """A meter with faults within the documented bounds."""
    steps = draw(st.lists(st.tuples(st.integers(1, 10), st.integers(0, LARGEST_STEP)), min_size=2, max_size=120))
    modulus = draw(st.sampled_from([0, 10_000, 65_536]))
    level = draw(st.integers(SURE_LEVEL, 9_000) if modulus < 65_536 else st.integers(60_000, 65_535))
    minutes, counts = [0], [level]
    replaced = draw(st.integers(1, len(steps) - 1)) if not modulus and draw(st.booleans()) else None
    for index, (lasted, used) in enumerate(steps):
        if index == replaced:
            level = 0
        level += used
        minutes.append(minutes[-1] + lasted)
        counts.append(level % modulus if modulus else level)
    shown = [float(each) for each in counts]
    faulty = set()
    highest = modulus - 500 if modulus else float("inf")
    for index in draw(st.lists(st.integers(1, len(steps) - 1), unique=True, max_size=40)):
        if (
            index != replaced
            and SURE_LEVEL <= min(counts[index - 1 : index + 2]) <= max(counts[index - 1 : index + 2]) <= highest
        ):
            shown[index] = draw(st.sampled_from([0.0, 0.0, shown[index] - 0.5, shown[index] - 5]))
            faulty.add(index)
    near = {index + offset for index in faulty for offset in (-1, 0, 1)}
    lost = set()
    if draw(st.booleans()):
        begins = draw(st.integers(1, len(steps)))
        lost = {index for index in range(begins, min(begins + 20, len(steps))) if index not in near}
        lost -= {replaced, (replaced or 0) + 1} if replaced is not None else set()
    kept = [index for index in range(len(shown)) if index not in lost]
    rules = CounterRules(float(modulus)) if modulus == 10_000 else AUTO
    return Meter(
        float(sum(used for _, used in steps)),
        [minutes[index] for index in kept],
        [shown[index] for index in kept],
        rules,
    )


@given(meters())
@settings(deadline=None, max_examples=300)
def test_consumption_equals_truth_despite_faults(meter: Meter) -> None:
    used = count(meter.shown, meter.rules, meter.minutes)
    assert used.increases.sum() == pytest.approx(meter.truth), meter


@given(meters(), st.data())
@settings(deadline=None, max_examples=100)
def test_order_and_repetition_of_readings_do_not_matter(meter: Meter, data: st.DataObject) -> None:
    readings = list(zip(meter.minutes, meter.shown, strict=True))
    others = data.draw(st.permutations(readings + data.draw(st.lists(st.sampled_from(readings), max_size=20))))
    expected = count(meter.shown, meter.rules, meter.minutes)
    found = count([value for _, value in others], meter.rules, [minute for minute, _ in others])
    assert found.times.tolist() == expected.times.tolist()
    assert found.increases.tolist() == expected.increases.tolist()
    assert found.corrections == expected.corrections


GAP, RECOVERY = 5, 15  # minutes


def sum_between(
    minutes: list[int], values: list[float], begin: int, end: int, rules: CounterRules
) -> tuple[float, float]:
    """Sums a range from the readings that an account reads: those around it, and the next ones beyond a gap."""
    low, high = begin - max(2 * RECOVERY, GAP), end + max(RECOVERY, GAP)
    chosen = [index for index, minute in enumerate(minutes) if low <= minute < high]
    if all(minutes[index] > begin for index in chosen):
        latest = max((minute for minute in minutes if minute < low), default=None)
        chosen += [index for index, minute in enumerate(minutes) if minute == latest]
    if all(minutes[index] < end for index in chosen):
        earliest = min((minute for minute in minutes if minute >= high), default=None)
        chosen += [index for index, minute in enumerate(minutes) if minute == earliest]
    chosen.sort()
    used = count([values[index] for index in chosen], rules, [minutes[index] for index in chosen])
    edges = START + begin * MINUTE, START + end * MINUTE
    drawn, fed_in = (
        spread_increases(used.times, steps, *edges, GAP * 60.0).total for steps in (used.increases, used.decreases)
    )
    return drawn, fed_in


counts = st.one_of(st.integers(0, 20), st.integers(90, 130), st.sampled_from([0, 0, 100, 1000, 65_530, 65_535]))


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 1, 1, 2, 5, 20, 70]), counts), min_size=2, max_size=60),
    st.lists(st.integers(0, 400), min_size=3, max_size=3, unique=True),
    st.booleans(),
    st.sampled_from([None, 130.0]),
)
@settings(deadline=None, max_examples=500)
def test_sums_of_adjacent_ranges_add_up(
    readings: list[tuple[int, int]], bounds: list[int], both_ways: bool, modulus: float | None
) -> None:
    """For any readings, also those that no meter would show."""
    rules = CounterRules(modulus, recovery_seconds=RECOVERY * 60.0, both_ways=both_ways)
    minutes = np.cumsum([step for step, _ in readings]).tolist()
    values = [float(value) for _, value in readings]
    begin, middle, end = sorted(bounds)
    whole = sum_between(minutes, values, begin, end, rules)
    first = sum_between(minutes, values, begin, middle, rules)
    second = sum_between(minutes, values, middle, end, rules)
    assert np.add(first, second).tolist() == pytest.approx(list(whole), abs=1e-6)
