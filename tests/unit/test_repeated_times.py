"""The number of readings of a table that replace one of the same sensor and time."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from aurum.readings.batch import Series
from aurum.readings.repeated_times import RepeatedTimes

BLOCKS = st.lists(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30)), min_size=1, max_size=12), min_size=1, max_size=40
)


def block_of(rows: list[tuple[str, int]]) -> list[Series]:
    return [
        Series("m", sensor, np.array([at for name, at in rows if name == sensor]), np.ones(1))
        for sensor in sorted({name for name, _ in rows})
    ]


@given(BLOCKS)
def test_repeated_times_are_counted_over_blocks(blocks: list[list[tuple[str, int]]]) -> None:
    times = RepeatedTimes()
    seen: set[tuple[str, int]] = set()
    for rows in blocks:
        replaces = times.record(block_of(rows))
        assert replaces or not seen & set(rows)
        seen |= set(rows)
    assert times.exact
    assert times.count == sum(map(len, blocks)) - len(seen)


@given(BLOCKS)
def test_count_beyond_the_memory_is_a_lower_limit(blocks: list[list[tuple[str, int]]]) -> None:
    times = RepeatedTimes(max_times=10)
    for rows in blocks:
        times.record(block_of(rows))
    actual = sum(map(len, blocks)) - len({row for rows in blocks for row in rows})
    assert times.count == actual if times.exact else times.count <= actual


def test_count_of_a_table_in_order_is_exact_beyond_the_memory() -> None:
    times = RepeatedTimes(max_times=10)
    for start in range(0, 1000, 20):
        assert not times.record(block_of([("a", at) for at in range(start, start + 20)]))
    assert (times.exact, times.count) == (True, 0)
    times.record(block_of([("a", 5)]))
    assert not times.exact
