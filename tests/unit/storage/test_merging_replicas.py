"""Replicas that merge one day of a series in Cassandra at the same moment, having seen different segments of it."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum.ingestion import series_reader
from aurum.ingestion.cassandra.compaction import merge_day
from aurum.ingestion.cassandra.schema import BLOCK, merged_source, source_of
from aurum.ingestion.cassandra.series import CassandraSeries, SegmentsChangedError
from aurum.ingestion.cassandra.session import CassandraSession
from aurum.runtime.time_units import DAY_US
from aurum.storage.segment import pack

MACHINE, SENSOR, DAY = "m", "s", 20_000
PLACE = (MACHINE, SENSOR, DAY)
START = DAY * DAY_US
Key = tuple[Any, ...]


class Tables:
    """The tables of segments and of received sequences: of rows with the same key the one written last stays."""

    def __init__(self) -> None:
        self.segments: dict[Key, tuple[Any, ...]] = {}  # key → end, count, data
        self.received: set[tuple[str, int]] = set()

    def write(self, source: str, sequence: int, readings: dict[int, float], order: int = 1) -> None:
        """Stores a batch, as a replica does."""
        at = np.array(sorted(readings), np.int64)
        values = np.array([readings[each] for each in sorted(readings)])
        key = (*PLACE, int(at[0]), order, source, sequence)
        self.segments[key] = (int(at[-1]), len(at), pack(at, values))
        self.received.add((source, sequence))

    def stored(self) -> dict[int, float]:
        """The readings that a query gets."""
        series = CassandraSeries(cast("CassandraSession", Session(self)), MACHINE, SENSOR)
        found = series_reader.read(series, START, START + DAY_US, points=0, last=0)
        return dict(zip(found.timestamps.tolist(), found.values.tolist(), strict=True))


class Session:
    """A session of one replica. before: called with the name of each statement before it is executed."""

    def __init__(self, tables: Tables, before: Callable[[str], None] = lambda name: None) -> None:
        self._tables, self._before = tables, before

    def rows(self, name: str, parameters: Sequence[Any]) -> list[Any]:
        return self.rows_for_each(name, [parameters])[0]

    def rows_for_each(self, name: str, parameters: Sequence[Sequence[Any]]) -> list[list[Any]]:
        self._before(name)
        return [self._answer(name, tuple(each)) for each in parameters]

    def _answer(self, name: str, given_: tuple[Any, ...]) -> list[Any]:
        segments = self._tables.segments
        match name:
            case "days":
                return [SimpleNamespace(day=day) for day in sorted({key[2] for key in segments})]
            case "segment_keys":
                return [_row(key, segments[key]) for key in sorted(segments) if key[:3] == given_]
            case "segments_between":
                low, high = given_[3:]
                return [
                    _row(key, row) for key, row in segments.items() if key[:3] == given_[:3] and low <= key[3] <= high
                ]
            case "segment":
                return [_row(given_, segments[given_])] if given_ in segments else []
            case "received":
                source, block = given_
                found = (sequence for known, sequence in self._tables.received if known == source)
                return [SimpleNamespace(sequence=sequence) for sequence in found if sequence // BLOCK == block]
            case "received_ranges" | "periods":
                pass
            case "add_segment":
                segments[given_[:7]] = given_[7:10]
            case "drop_segment":
                segments.pop(given_, None)
            case _:
                raise AssertionError(name)
        return []


def _row(key: Key, row: tuple[Any, ...]) -> Any:
    names = ("start_us", "source_us", "source", "sequence", "end_us", "count", "data")
    return SimpleNamespace(**dict(zip(names, (*key[3:], *row), strict=True)))


def merge(tables: Tables, before: Callable[[str], None] = lambda name: None) -> int:
    return merge_day(cast("CassandraSession", Session(tables, before)), PLACE, 0, over=True)


def test_slower_replica_does_not_replace_a_larger_merge() -> None:
    """A replica that has not seen a batch merges the others while another merges all: no reading is lost."""
    tables = Tables()
    tables.write("a", 1, {START: 1.0, START + 9: 1.0})
    tables.write("a", 3, {START + 1: 3.0})
    expected = {START: 1.0, START + 9: 1.0, START + 1: 3.0, START + 2: 2.0}

    def meanwhile(name: str) -> None:
        if name == "add_segment":  # the slower replica has read and is about to write
            tables.write("a", 2, {START + 2: 2.0})
            assert merge(tables) == 3
            assert tables.stored() == expected

    assert merge(tables, meanwhile) == 2
    assert tables.stored() == expected
    merge(tables)
    assert tables.stored() == expected
    assert len(tables.segments) == 1


def test_replicas_that_merge_the_same_segments_write_one_row() -> None:
    """Two replicas that have seen the same segments write the same row, as does one that was killed and begins anew."""
    tables = Tables()
    for sequence in (1, 2, 3):
        tables.write("a", sequence, {START + sequence: float(sequence)})

    class KilledError(Exception):
        """The replica was killed."""

    def meanwhile(name: str) -> None:
        if name == "drop_segment":
            raise KilledError

    with pytest.raises(KilledError):
        merge(tables, meanwhile)
    (merged,) = {key for key in tables.segments if "#" in key[5]}
    before = tables.segments[merged]
    unmerged = {key: row for key, row in tables.segments.items() if key != merged}
    tables.segments.pop(merged)
    assert merge(tables) == 3
    assert tables.segments == {merged: before}
    tables.segments |= unmerged  # of the killed replica
    assert merge(tables) == 4
    assert tables.stored() == {START + sequence: float(sequence) for sequence in (1, 2, 3)}


batches = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.dictionaries(st.integers(0, 6), st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=4),
    ),
    min_size=2,
    max_size=8,
)


@given(batches, st.data())
def test_merging_replicas_lose_and_reorder_no_reading(sent: list[Any], data: st.DataObject) -> None:
    """However the steps of two merges and the arrival of batches interleave, a query finds what counts."""
    tables, sequences = Tables(), {"a": 0, "b": 0}
    expected: dict[int, tuple[tuple[Any, ...], float]] = {}
    waiting = list(sent)

    def arrive() -> None:
        source, readings = waiting.pop()
        sequences[source] += 1
        at = {START + offset: value for offset, value in readings.items()}
        tables.write(source, sequences[source], at, order=1 if source == "a" else 2)
        for each, value in at.items():
            rank = (source, sequences[source])
            if each not in expected or rank > expected[each][0]:
                expected[each] = rank, value

    def interleaved(depth: int) -> Callable[[str], None]:
        def before(name: str) -> None:
            what = data.draw(st.integers(0, 3))
            if what == 0 and waiting:
                arrive()
            elif what == 1 and depth:
                merge(tables, interleaved(depth - 1))

        return before

    arrive()
    while waiting:
        arrive()
        merge(tables, interleaved(1))
        assert tables.stored() == {at: value for at, (_, value) in expected.items()}


def test_merging_twice_finds_missing_segments() -> None:
    """A query whose segments are merged away between listing and reading is told to begin anew."""
    tables = Tables()
    for sequence in (1, 2):
        tables.write("a", sequence, {START + sequence: 1.0})
    session = Session(tables, lambda name: merge(tables) if name == "segment" else None)  # type: ignore[arg-type]
    series = CassandraSeries(cast("CassandraSession", session), MACHINE, SENSOR)
    with pytest.raises(SegmentsChangedError):
        series_reader.read(series, START, START + DAY_US, points=0, last=0)


def test_key_of_a_merged_segment_names_its_source() -> None:
    parts = [(*PLACE, START, 1, "a/b:c", 1), (*PLACE, START, 1, "a/b:c", 2)]
    assert source_of(merged_source("a/b:c", parts)) == "a/b:c"
    assert source_of("a/b:c") == "a/b:c"
    assert merged_source("a", parts) == merged_source("a", parts[::-1])
    assert merged_source("a", parts) != merged_source("a", parts[:1])
