"""Readings of many series in columns: grouped, sorted, and with the rank that counts."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.ingestion.cassandra.reading_columns import ReadingColumns
from aurum.ingestion.cassandra.schema import group_of
from aurum.ingestion.series_index import SeriesIndex
from aurum.readings.batch import Batch, Series, SeriesKeys

names = st.sampled_from([("m", "s"), ("m", "t"), ("n", "s"), ("o", "u")])
readings = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 99)), min_size=1, max_size=5)
batches = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.integers(1, 9), st.dictionaries(names, readings, min_size=1)),
    min_size=1,
    max_size=8,
    unique_by=lambda each: each[:2],
)


def batch(source: str, sequence: int, content: dict[tuple[str, str], list[tuple[int, int]]]) -> Batch:
    series = [
        Series(*key, np.array([at for at, _ in points]), np.array([float(value) for _, value in points]))
        for key, points in content.items()
    ]
    return Batch.from_series(source, sequence, series)


@given(batches, st.booleans())
@settings(deadline=None)
def test_columns_keep_the_readings_of_highest_rank(sent: list[Any], consecutive: bool) -> None:
    """As a dictionary does, for batches in any order. Consecutive batches have the rank of the last of them."""
    series, columns = SeriesIndex(), ReadingColumns()
    expected: dict[tuple[str, str], dict[int, tuple[tuple[str, int], float]]] = {}
    sequences: dict[str, set[int]] = {}
    for source, sequence, content in sent:
        columns.add_batch(series, batch(source, sequence, content), (1, source, sequence))
        sequences.setdefault(source, set()).add(sequence)
        for key, points in content.items():
            known = expected.setdefault(key, {})
            for at, value in points:
                if at not in known or (source, sequence) >= known[at][0]:
                    known[at] = (source, sequence), float(value)

    def last(source: str, sequence: int) -> int:
        while consecutive and sequence + 1 in sequences[source]:
            sequence += 1
        return sequence

    found: dict[tuple[str, str], dict[int, tuple[tuple[str, int], float]]] = {}
    for group, part in columns.packed(series, consecutive=consecutive):
        end = 0
        for number, length in zip(part.numbers.tolist(), part.lengths.tolist(), strict=True):
            start, end = end, end + length
            key = series.key_of(number)
            assert group_of(key[0]) == group
            ranks = part.ranks.between(start, end)
            runs = np.repeat(np.arange(len(ranks.lengths)), ranks.lengths).tolist()
            rank_of = [(ranks.sources[ranks.places[run]][1], int(ranks.sequences[run])) for run in runs]
            values = zip(rank_of, part.values[start:end].tolist(), strict=True)
            found[key] = dict(zip(part.timestamps[start:end].tolist(), values, strict=True))
            assert list(found[key]) == sorted(found[key])
    assert found == {
        key: {at: ((source, last(source, sequence)), value) for at, ((source, sequence), value) in known.items()}
        for key, known in expected.items()
    }
    for key, known in expected.items():
        number = series.number_of(key)
        assert number is not None
        of_series = columns.of_series(number)
        assert of_series is not None
        assert dict(zip(of_series[0].tolist(), of_series[1].tolist(), strict=True)) == {
            at: value for at, (_, value) in known.items()
        }


def test_columns_group_more_series_than_16_bits_count() -> None:
    series, columns = SeriesIndex(), ReadingColumns()
    keys = SeriesKeys([(f"m{number // 10}", f"s{number % 10}") for number in range(70_000)])
    ones = np.ones(len(keys), np.int32)
    for sequence in (1, 2):
        times, values = np.full(len(keys), sequence), np.arange(len(keys), dtype=np.float64)
        each = Batch("a", sequence, keys, ones, times, values, ones.astype(np.bool_), b"")
        columns.add_batch(series, each, (1, "a", sequence))
    seen = 0
    for group, part in columns.packed(series):
        assert part.lengths.tolist() == [2] * len(part.numbers)
        assert part.timestamps.tolist() == [1, 2] * len(part.numbers)
        assert part.values.tolist() == np.repeat(part.numbers, 2).tolist()
        assert {group_of(series.key_of(number)[0]) for number in part.numbers.tolist()} == {group}
        seen += len(part.numbers)
    assert seen == len(keys)
