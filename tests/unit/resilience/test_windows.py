"""Breaker windows: counted calls, expiry, clearing and resizing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.resilience.windows import ConsecutiveWindow, Counts, CountWindow, TimeWindow, Window


def filled(window: Window, *calls: tuple[float, str]) -> Window:
    """Records calls at their times: o is one that was good, f failed, s was slow, b both."""
    for now, kind in calls:
        window.record(now, kind in "fb", kind in "sb")
    return window


def test_consecutive_failures_end_with_success() -> None:
    window = ConsecutiveWindow()
    seen = []
    for kind in "fsbof":
        filled(window, (0.0, kind))
        seen.append(window.counts(0.0))
    assert seen == [Counts(1, 1), Counts(2, 2), Counts(3, 3), Counts(0, 0), Counts(1, 1)]
    other = window.copy()
    filled(other, (0.0, "f"))
    assert (window.counts(0.0), other.counts(0.0)) == (Counts(1, 1, 0), Counts(2, 2, 0))
    window.clear()
    assert window.counts(0.0) == Counts()


def test_count_window_drops_oldest_call() -> None:
    window = CountWindow(3)
    seen = []
    for kind in "bfsoob":
        filled(window, (0.0, kind))
        seen.append(window.counts(0.0))
    assert seen == [
        Counts(1, 1, 1),
        Counts(2, 2, 1),
        Counts(3, 2, 2),
        Counts(3, 1, 1),
        Counts(3, 0, 1),
        Counts(3, 1, 1),
    ]


@pytest.mark.parametrize("before", ["", "f", "bbbbb"])
def test_cleared_count_window_is_empty(before: str) -> None:
    window = filled(CountWindow(3), *((0.0, kind) for kind in before))
    window.clear()
    assert window.counts(0.0) == Counts(0, 0, 0)
    assert filled(window, (0.0, "s"), (0.0, "f")).counts(0.0) == Counts(2, 1, 1)
    assert filled(window, (0.0, "o"), (0.0, "o")).counts(0.0) == Counts(3, 1, 0)


@pytest.mark.parametrize(
    ("calls", "size", "kept"),
    [
        ("fsb", 9, Counts(3, 2, 2)),
        ("fsb", 2, Counts(2, 1, 2)),
        ("fsbo", 1, Counts(1, 0, 0)),
        ("oosfb", 2, Counts(2, 2, 1)),
        ("", 2, Counts(0, 0, 0)),
    ],
)
def test_resized_count_window_keeps_latest_calls(calls: str, size: int, kept: Counts) -> None:
    window = CountWindow(4)
    filled(window, *((0.0, kind) for kind in calls))
    other = window.resized(size)
    assert other.counts(0.0) == kept
    for _ in range(size):
        filled(other, (0.0, "o"))
    assert other.counts(0.0) == Counts(size, 0, 0)


def test_time_window_counts_each_kind_of_call() -> None:
    window = filled(TimeWindow(10.0), (0.0, "o"), (0.5, "f"), (3.0, "s"), (9.9, "b"))
    assert window.counts(9.99) == Counts(4, 2, 2)
    assert window.counts(10.0) == Counts(2, 1, 2)
    assert window.counts(12.99) == Counts(2, 1, 2)
    assert window.counts(13.0) == Counts(1, 1, 1)
    assert window.counts(18.99) == Counts(1, 1, 1)
    assert window.counts(19.0) == Counts(0, 0, 0)


@pytest.mark.parametrize("later", [19.0, 20.0, 25.0, 1000.0])
def test_time_window_is_empty_after_a_long_pause(later: float) -> None:
    window = filled(TimeWindow(10.0), *((float(now), "b") for now in range(10)))
    assert window.counts(9.0) == Counts(10, 10, 10)
    assert window.counts(later) == Counts(0, 0, 0)
    assert filled(window, (later, "f")).counts(later) == Counts(1, 1, 0)


def test_time_window_counts_late_calls_as_current() -> None:
    window = filled(TimeWindow(10.0), (50.0, "f"), (42.0, "s"))
    assert window.counts(59.9) == Counts(2, 1, 1)
    assert window.counts(60.0) == Counts(0, 0, 0)


def test_cleared_time_window_accepts_earlier_calls() -> None:
    window = filled(TimeWindow(10.0), (50.0, "f"), (50.0, "s"))
    window.clear()
    assert window.counts(50.0) == Counts(0, 0, 0)
    window.clear()
    filled(window, (20.0, "b"))
    assert window.counts(29.9) == Counts(1, 1, 1)
    assert window.counts(30.0) == Counts(0, 0, 0)


def grown() -> TimeWindow:
    window = TimeWindow(10.0)
    filled(window, (0.5, "f"), (3.5, "s"), (9.5, "b"))
    return window


def test_longer_time_window_keeps_all_calls() -> None:
    longer = grown().resized(20.0, 9.5)
    assert longer.seconds == 20.0
    seen = [longer.counts(now) for now in (9.5, 19.9, 20.0, 21.9, 22.0, 27.9, 28.0)]
    assert seen == [Counts(3, 2, 2)] * 2 + [Counts(2, 1, 2)] * 2 + [Counts(1, 1, 1)] * 2 + [Counts()]


@pytest.mark.parametrize(
    ("seconds", "kept"),
    [(9.6, Counts(3, 2, 2)), (9.0, Counts(2, 1, 2)), (6.5, Counts(2, 1, 2)), (6.0, Counts(1, 1, 1))],
)
def test_shortened_time_window_keeps_recent_calls(seconds: float, kept: Counts) -> None:
    window = grown()
    assert window.resized(seconds, 9.5).counts(9.5) == kept
    assert window.counts(9.5) == Counts(3, 2, 2)


def test_resized_time_window_drops_expired_calls() -> None:
    assert grown().resized(100.0, 12.0).counts(12.0) == Counts(2, 1, 2)
    assert grown().resized(100.0, 50.0).counts(50.0) == Counts()
    empty = TimeWindow(10.0).resized(5.0, 100.0)
    assert filled(empty, (3.0, "f")).counts(3.0) == Counts(1, 1, 0)


@given(st.lists(st.tuples(st.integers(0, 4000), st.sampled_from("ofsb")), max_size=30), st.sampled_from([5, 10, 40]))
@settings(max_examples=50)
def test_time_window_of_same_size_is_a_copy(calls: list[tuple[int, str]], later: int) -> None:
    window = TimeWindow(10.0)
    filled(window, *((at / 100, kind) for at, kind in sorted(calls)))
    other = window.resized(10.0, 40.25)
    assert other.counts(40.25) == window.counts(40.25)
    assert other.counts(40.25 + later) == window.counts(40.25 + later)
