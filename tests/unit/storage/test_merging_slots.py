"""Replicas that merge slots, blocks and days in Cassandra, at the same moment, or killed while they do it."""

import contextlib
import itertools
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.ingestion import series_reader
from aurum.ingestion.cassandra import merging, summaries
from aurum.ingestion.cassandra.batch_rows import encode_batch, encode_members
from aurum.ingestion.cassandra.block_cache import BlockCache
from aurum.ingestion.cassandra.compaction import merge_day
from aurum.ingestion.cassandra.merging import Merger
from aurum.ingestion.cassandra.open_slots import OpenSlot
from aurum.ingestion.cassandra.schema import GROUPS, PERIOD_US, group_of, slot_bucket
from aurum.ingestion.cassandra.series import CassandraSeries, SegmentsChangedError, StoredSeries, read_unheld
from aurum.ingestion.cassandra.session import CassandraSession
from aurum.ingestion.cassandra.sources import received_in_tables
from aurum.ingestion.series_index import SeriesIndex
from aurum.readings.batch import Batch, Series
from aurum.runtime.time_units import DAY_US
from aurum.storage import sequence_ranges
from tests.support.cassandra.tables import Session, Tables

DAY = 20_000
START = DAY * DAY_US
END = START + 2 * DAY_US
SOURCES = ("a", "b")
Readings = dict[tuple[str, str], dict[int, float]]


class KilledError(Exception):
    """The replica was killed."""


def session(tables: Tables, before: Callable[[str], None] = lambda name: None) -> CassandraSession:
    return cast("CassandraSession", Session(tables, before))


def write(tables: Tables, slot: int, source: str, sequence: int, readings: Readings) -> None:
    """Stores a batch, as a replica does."""
    series = [
        Series(*key, np.array(sorted(points), np.int64), np.array([points[at] for at in sorted(points)]), True)
        for key, points in readings.items()
    ]
    batch = Batch.from_series(source, sequence, series)
    tables.execute("add_slot", (slot,))
    row = (source, sequence, 1 + SOURCES.index(source), encode_members(batch.keys.machine_ids), encode_batch(batch))
    tables.execute("add_batch", (slot, slot_bucket(source), *row))


def stored(tables: Tables, key: tuple[str, str], before: Callable[[str], None] = lambda name: None) -> dict[int, float]:
    """The readings that a query gets, on a replica that holds nothing in memory."""
    reader, series = session(tables, before), SeriesIndex()
    slots = [OpenSlot(row.slot, columns=None) for row in reader.rows("slots", ())]
    columns = read_unheld(reader, series, slots, key)
    number = series.number_of(key)
    found = columns.of_series(number) if number is not None else None
    source = StoredSeries(CassandraSeries(reader, *key), BlockCache(reader), [found] if found else [])
    points = series_reader.read(source, START, END, points=0, last=0)
    return dict(zip(points.timestamps.tolist(), points.values.tolist(), strict=True))


def query(tables: Tables, key: tuple[str, str], before: Callable[[str], None] = lambda name: None) -> dict[int, float]:
    """The same, with the attempts of the store."""
    for _ in range(20):
        try:
            return stored(tables, key, before)
        except SegmentsChangedError:
            continue
    raise AssertionError("the readings are always being merged")


def merge_everything(tables: Tables, before: Callable[[str], None] = lambda name: None) -> None:
    """One round of the housekeeping of a replica, for all that there is."""
    replica = session(tables, before)
    merger = Merger(replica, SeriesIndex(), 0)
    for row in list(replica.rows("slots", ())):
        merger.merge_slot(row.slot)
    for group in range(GROUPS):
        for row in list(replica.rows("periods", (group, 0, 2**31 - 1))):
            merger.merge_blocks((group, row.period))


def finish_everything(tables: Tables, before: Callable[[str], None] = lambda name: None) -> None:
    """The same, and all periods and days are over."""
    merge_everything(tables, before)
    replica = session(tables, before)
    merger = Merger(replica, SeriesIndex(), 0)
    for group in range(GROUPS):
        for row in list(replica.rows("periods", (group, 0, 2**31 - 1))):
            for day in set(merger.finish_period((group, row.period)).days):
                merge_day(replica, day, 0, over=True)


points = st.dictionaries(
    st.sampled_from([START + offset for offset in (0, 1, 2, PERIOD_US, DAY_US)]),
    st.floats(allow_nan=False, allow_infinity=False),
    min_size=1,
    max_size=3,
)
keys = st.sampled_from([("m", "s"), ("m", "t"), ("n", "s")])
batches = st.lists(
    st.tuples(st.sampled_from(SOURCES), st.dictionaries(keys, points, min_size=1, max_size=3)), min_size=1, max_size=7
)


class Plant:
    """Batches that arrive, what queries should find of them, and replicas that merge them."""

    def __init__(self, sent: list[Any], data: st.DataObject) -> None:
        self.tables = Tables()
        self.waiting = list(sent)
        self.expected: dict[tuple[str, str], dict[int, tuple[tuple[str, int], float]]] = {}
        self._data = data
        self._sequences = dict.fromkeys(SOURCES, 0)

    def arrive(self) -> None:
        source, readings = self.waiting.pop()
        self._sequences[source] += 1
        rank = (source, self._sequences[source])
        # In two slots if the sender had no answer
        for slot in self._data.draw(st.sampled_from([(1,), (2,), (3,), (1, 2)])):
            write(self.tables, slot, *rank, readings)
        for key, values in readings.items():
            known = self.expected.setdefault(key, {})
            for at, value in values.items():
                if at not in known or rank >= known[at][0]:
                    known[at] = rank, value

    def merge(self, depth: int) -> None:
        """A replica merges. Between its statements another one does, batches arrive, or it is killed."""

        def before(name: str) -> None:
            if self._data.draw(st.integers(0, 9)):
                return
            what = self._data.draw(st.integers(0, 3))
            if what == 0 and self.waiting:
                self.arrive()
            elif what == 1 and depth:
                self.merge(depth - 1)
            elif what == 2:
                raise KilledError

        with contextlib.suppress(KilledError):
            self._data.draw(st.sampled_from([merge_everything, finish_everything]))(self.tables, before)

    def check(self) -> None:
        for key, known in self.expected.items():
            assert query(self.tables, key) == {at: value for at, (_, value) in known.items()}
        for source, last in self._sequences.items():
            waiting = {row["sequence"] for row in self.tables.rows["batches"].values() if row["source"] == source}
            received = received_in_tables(session(self.tables), source, 0)
            for sequence in range(1, last + 1):
                assert sequence in waiting or sequence_ranges.contains(received, sequence)

    def check_summaries(self) -> None:
        for key, known in self.expected.items():
            series = SeriesIndex()
            found = summaries.read_groups(session(self.tables), series, [group_of(key[0])])
            joined = summaries.as_list(series, summaries.join([part for _, part in found]))
            (summary,) = [each for each in joined if (each.machine_id, each.sensor) == key]
            newest = max(known)
            assert (summary.first_us, summary.last_us, summary.last_value) == (min(known), newest, known[newest][1])


@given(batches, st.data())
@settings(deadline=None, max_examples=60)
def test_slots_merged_by_replicas_lose_no_reading(sent: list[Any], data: st.DataObject) -> None:
    """However merges of two replicas, kills and batches interleave, a query finds what counts, and each batch is known
    to be stored."""
    plant = Plant(sent, data)
    while plant.waiting:
        plant.arrive()
        plant.merge(1)
        plant.check()
    for _ in range(2):
        finish_everything(plant.tables)
        plant.check()
    assert plant.tables.rows["batches"] == plant.tables.rows["blocks"] == {}
    plant.check_summaries()
    for group in range(GROUPS):
        summaries.join_group(session(plant.tables), SeriesIndex(), group)
    plant.check_summaries()


def test_query_during_a_merge_finds_all_readings() -> None:
    """A query that reads while everything is moved on between any two of its statements finds each reading."""
    moved = 0
    while True:
        moved += 1
        tables = Tables()
        for sequence in range(1, 4):
            write(tables, sequence, "a", sequence, {("m", "s"): {START + sequence: float(sequence)}})
        merge_everything(tables)
        write(tables, 9, "a", 4, {("m", "s"): {START + 4: 4.0}})
        statements = itertools.count(1)

        def before(name: str, *, moved: int = moved, tables: Tables = tables, count: Any = statements) -> None:
            if next(count) == moved:
                finish_everything(tables)

        assert query(tables, ("m", "s"), before) == {START + each: float(each) for each in range(1, 5)}
        if next(statements) <= moved:
            break  # the query has fewer statements
    assert moved > 10


def test_blocks_of_a_level_become_one_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks are merged level by level, and a series with many readings becomes a segment."""
    monkeypatch.setattr(merging, "LONG", 20)
    tables = Tables()
    merger = Merger(session(tables), SeriesIndex(), 0)
    place = (group_of("m"), START // PERIOD_US)
    for sequence in range(1, merging.FAN_IN + 1):
        readings = {
            ("m", "s"): {START + sequence: 1.0},
            ("m", "t"): {START + 2 * sequence + each: 2.0 for each in (0, 1)},
        }
        write(tables, sequence, "a", sequence, readings)
        assert merger.merge_slot(sequence).places == [place]
    assert {key[2] for key in tables.rows["blocks"]} == {0}
    merged = merger.merge_blocks(place)
    assert merged.blocks == merging.FAN_IN
    assert [key[2] for key in tables.rows["blocks"]] == [1]
    assert [key[:2] for key in tables.rows["segments"]] == [("m", "t")]
    assert len(query(tables, ("m", "s"))) == merging.FAN_IN
    assert len(query(tables, ("m", "t"))) == 2 * merging.FAN_IN


def test_blocks_that_exceed_memory_are_merged_by_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "_AT_ONCE", 10)
    tables = Tables()
    merger = Merger(session(tables), SeriesIndex(), 0)
    names = [f"m{number}" for number in range(400) if group_of(f"m{number}") == 7]
    for sequence in range(1, 17):
        write(tables, sequence, "a", sequence, {(name, "s"): {START + sequence: 1.0} for name in names})
        merger.merge_slot(sequence)
    assert merger.merge_blocks((7, START // PERIOD_US)).blocks >= 16
    assert {key[2] for key in tables.rows["blocks"]} == {1}
    for name in names:
        assert len(query(tables, (name, "s"))) == 16


def test_damaged_rows_stay_and_hide_no_other_ones() -> None:
    """A damaged batch or block is reported, stays in its table, and the others are merged and found."""
    tables = Tables()
    for sequence in (1, 2):
        write(tables, 1, "a", sequence, {("m", "s"): {START + sequence: float(sequence)}})
    (damaged,) = [row for row in tables.rows["batches"].values() if row["sequence"] == 1]
    damaged["data"] = damaged["data"][:-3]
    merge_everything(tables)
    assert [row["sequence"] for row in tables.rows["batches"].values()] == [1]
    assert query(tables, ("m", "s")) == {START + 2: 2.0}
    write(tables, 2, "a", 3, {("m", "s"): {START + 3: 3.0}})
    (block,) = tables.rows["blocks"].values()
    block["head"] = block["head"][:-1] + bytes([block["head"][-1] ^ 1])
    merge_everything(tables)
    assert query(tables, ("m", "s")) == {START + 3: 3.0}
    finish_everything(tables)
    assert [row is block for row in tables.rows["blocks"].values()] == [True]
    assert query(tables, ("m", "s")) == {START + 3: 3.0}
    assert received_in_tables(session(tables), "a", 0) == [(2, 3)]
