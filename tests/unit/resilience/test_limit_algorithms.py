"""Adaptive limit algorithms: when a sample is complete, and how it changes the limit."""

import pytest

from aurum.resilience.limit_algorithms import Aimd, LimitAlgorithm, Vegas
from aurum.resilience.status import OVERLOAD_OF_SELF, OVERLOAD_OF_TARGET


def sample(
    algorithm: LimitAlgorithm, began: float, seconds: float = 0.01, in_flight: int = 1000, dropped: bool = False
) -> bool:
    """Ten calls within a tenth of a second, the last of them dropped or not; whether the limit has changed."""
    for _ in range(9):
        assert not algorithm.ended(began, seconds, in_flight, False)
    return algorithm.ended(began + 0.125, seconds, in_flight, dropped)


def test_overload_codes_match_expected_set() -> None:
    assert frozenset({"DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "UNAVAILABLE"}) == OVERLOAD_OF_TARGET
    assert frozenset({"DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "CANCELLED"}) == OVERLOAD_OF_SELF


@pytest.mark.parametrize("kind", [Aimd, Vegas])
def test_sample_requires_ten_calls_and_a_tenth_of_a_second(kind: type[Aimd] | type[Vegas]) -> None:
    algorithm = kind(10, 2, 50)
    if kind is Vegas:
        sample(algorithm, -1.0)  # the first one says only how fast the target is
    few = [algorithm.ended(number * 0.5, 0.01, 10, False) for number in range(10)]
    assert few == [False] * 9 + [True]
    quick = [algorithm.ended(5.0 + number / 256, 0.01, 16, False) for number in range(25)]
    assert quick == [False] * 25
    assert algorithm.ended(5.0999, 0.01, 16, False) is False
    assert algorithm.ended(5.125, 0.01, 16, False) is True
    assert algorithm.ended(9.0, 0.01, 16, False) is False, "a new one has begun"


def test_sample_ends_at_exact_duration() -> None:
    algorithm = Aimd(10, 2, 50)
    for _ in range(20):
        assert not algorithm.ended(0.0, 0.01, 10, False)
    assert algorithm.ended(0.1, 0.01, 10, False)


def test_sample_with_dropped_call_needs_fewer_calls() -> None:
    algorithm = Aimd(10, 2, 50)
    assert not algorithm.ended(0.0, 0.01, 10, True)
    assert not algorithm.ended(0.09, 0.01, 10, False)
    assert algorithm.ended(0.1, 0.01, 10, False)
    assert algorithm.limit == 9.0
    assert not algorithm.ended(1.0, 0.01, 10, True)  # a sample begins with its first call, dropped or not
    assert algorithm.ended(1.125, 0.01, 10, True)
    assert algorithm.limit == pytest.approx(8.1)


@pytest.mark.parametrize(("in_flight", "limit"), [(4, 10), (5, 11), (6, 11), (10, 11)])
def test_aimd_grows_only_when_limit_is_used(in_flight: int, limit: int) -> None:
    algorithm = Aimd(10, 2, 50)
    assert sample(algorithm, 0.0, in_flight=in_flight) is (limit == 11)
    assert algorithm.limit == limit


def test_sample_uses_largest_number_in_flight() -> None:
    algorithm = Aimd(10, 2, 50)
    for number, in_flight in enumerate([1, 5, 1, 1, 1, 1, 1, 1, 1, 1]):
        algorithm.ended(number * 0.5, 0.01, in_flight, False)
    assert algorithm.limit == 11
    sample(algorithm, 10.0, in_flight=1)
    assert algorithm.limit == 11


def test_aimd_stays_between_its_bounds() -> None:
    algorithm = Aimd(10, 9, 11)
    assert [sample(algorithm, 0.0), sample(algorithm, 1.0)] == [True, False]
    assert algorithm.limit == 11
    dropped = [sample(algorithm, 2.0 + number, dropped=True) for number in range(4)]
    assert algorithm.limit == 9
    assert dropped == [True, False, False, False]  # 9.9, then 9
    assert Aimd(10, 9, 11).backoff == 0.9
    half = Aimd(8, 1, 9, backoff=0.5)
    sample(half, 0.0, dropped=True)
    assert half.limit == 4


@pytest.mark.parametrize(("seconds", "limit"), [(0.5, 11.0), (0.5625, 9.0)])
def test_aimd_treats_slow_calls_as_overload(seconds: float, limit: float) -> None:
    algorithm = Aimd(10, 2, 50, slow_seconds=0.5)
    sample(algorithm, 0.0, seconds=seconds)
    assert algorithm.limit == limit


def test_sample_mean_excludes_dropped_calls() -> None:
    slow = Aimd(10, 2, 50, slow_seconds=0.5)
    for number in range(10):
        slow.ended(number * 0.5, 0.25 if number else 2.0, 10, False)  # 0.425 in the mean
    assert slow.limit == 11
    vegas = Vegas(10, 2, 50)
    sample(vegas, 0.0)
    for _ in range(5):
        vegas.ended(1.0, 99.0, 10, True)
    vegas.ended(1.125, 0.01, 10, False)
    assert vegas.limit == 9
    sample(vegas, 2.0)
    assert vegas.limit == 15, "nothing waits"


@pytest.mark.parametrize(
    ("waiting", "change"), [(0.0, 6), (0.5, 6), (1.5, 1), (2.5, 0), (3.5, 0), (5.5, 0), (6.5, -1), (8.5, -1)]
)
def test_vegas_adjusts_limit_by_estimated_queue(waiting: float, change: int) -> None:
    """Of a limit of 10, whose step is 1: how many wait is rounded up."""
    algorithm = Vegas(10, 2, 50)
    assert sample(algorithm, 0.0, seconds=1.0) is False
    assert sample(algorithm, 1.0, seconds=1.0 / (1.0 - waiting / 10)) is (change != 0)
    assert algorithm.limit == 10 + change


@pytest.mark.parametrize(("limit", "step"), [(5, 1.0), (10, 1.0), (100, 2.0), (1000, 3.0)])
def test_vegas_steps_grow_with_its_limit(limit: int, step: float) -> None:
    for waiting, change in ((0.0, 6 * step), (step + 0.5, step), (6 * step + 0.5, -step)):
        if waiting < limit:
            algorithm = Vegas(limit, 1, 5000)
            sample(algorithm, 0.0, seconds=1.0)
            sample(algorithm, 1.0, seconds=1.0 / (1.0 - waiting / limit))
            assert algorithm.limit == pytest.approx(limit + change)
    algorithm = Vegas(limit, 1, 5000)
    sample(algorithm, 0.0)
    sample(algorithm, 1.0, dropped=True)
    assert algorithm.limit == pytest.approx(limit - step)


@pytest.mark.parametrize(("in_flight", "limit"), [(4, 10), (5, 16), (6, 16)])
def test_vegas_grows_only_when_limit_is_used(in_flight: int, limit: int) -> None:
    algorithm = Vegas(10, 2, 50)
    sample(algorithm, 0.0)
    sample(algorithm, 1.0, in_flight=in_flight)
    assert algorithm.limit == limit


def test_vegas_stays_between_its_bounds() -> None:
    algorithm = Vegas(10, 9, 13)
    sample(algorithm, 0.0, seconds=1.0)
    assert [sample(algorithm, 1.0, 1.0), sample(algorithm, 2.0, 1.0)] == [True, False]
    assert algorithm.limit == 13
    for number in range(5):
        sample(algorithm, 3.0 + number, seconds=1.0, dropped=True)
    assert algorithm.limit == 9
    sample(algorithm, 8.5, seconds=9.0)
    assert algorithm.limit == 9


def test_vegas_accepts_calls_of_zero_duration() -> None:
    algorithm = Vegas(10, 2, 50)
    sample(algorithm, 0.0, seconds=0.0)
    sample(algorithm, 1.0, seconds=0.0)
    assert algorithm.limit == 16


def test_vegas_halves_limit_for_a_sample_when_memory_expires() -> None:
    algorithm = Vegas(20, 4, 20, memory=10.0)
    limits = []
    for began in (0.0, 5.0, 9.9, 11.0, 12.0, 19.9, 20.9, 21.1, 22.0):
        sample(algorithm, began)
        limits.append(algorithm.limit)
    assert limits == [20, 20, 20, 10, 20, 20, 20, 10, 20]
    low = Vegas(5, 4, 20, memory=10.0)
    sample(low, 0.0)
    assert sample(low, 10.0) is True  # its time is up at 10.125
    assert low.limit == 4
    assert Vegas(20, 4, 20).memory == 10.0


def test_vegas_discards_minimum_latency_after_two_memories() -> None:
    algorithm = Vegas(10, 2, 50, memory=10.0)
    sample(algorithm, 0.0, seconds=0.1)
    changes = []
    for began in (1.0, 11.0, 12.0, 13.0, 22.0, 23.0, 24.0):
        before = algorithm.limit
        sample(algorithm, began, seconds=1.0)
        changes.append(algorithm.limit - before)
    # Ten times as slow as the least: it shrinks, until the fast time is forgotten, and it grows
    assert changes == [-1, -4.5, 4.5, -1, -4, 4, 6]
