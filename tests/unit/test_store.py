"""The SQLite store, the ledger and the tail: nothing is lost, nothing is kept twice, memory and disk agree."""

import asyncio
import contextlib
import random
import sqlite3
import threading
import weakref
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from aurum.ingestion.downsample import merge_parts, reduce_points
from aurum.ingestion.machine_state import MachineStates
from aurum.ingestion.machine_view import MachineState
from aurum.ingestion.plant_limits import PlantLimits
from aurum.ingestion.series_cache import CachedSeries
from aurum.ingestion.sqlite import compaction, schema, snapshot
from aurum.ingestion.sqlite import store as sqlite_store
from aurum.ingestion.sqlite.packing import Added
from aurum.ingestion.sqlite.readers import Readers
from aurum.ingestion.sqlite.store import SqliteOptions, SqliteStore
from aurum.ingestion.store import SMALL, Event, MachineRecord, SeriesSummary
from aurum.readings.batch import SEQUENCE_CLOSED, Batch, Series, now_us
from aurum.runtime.errors import InvalidArgumentError, PermissionDeniedError, ResourceExhaustedError, UnavailableError
from aurum.runtime.time_units import DAY_US
from aurum.storage import sequence_ranges
from aurum.storage.block_unpacking import BlockHead, unpack_blocks
from aurum.storage.database import NewerDatabaseError, connect
from aurum.storage.segment import pack
from tests.support.waiting import until

END = 2**62
STORED = "SELECT sum(count) FROM (SELECT count FROM segments UNION ALL SELECT count FROM blocks)"  # readings


def batch(sequence: int, at: list[int], values: list[float], source_id: str = "src", machine_id: str = "m") -> Batch:
    series = Series(machine_id, "s", np.array(at, dtype=np.int64), np.array(values, dtype=np.float64))
    return Batch.from_series(source_id, sequence, [series])


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore(SqliteOptions(tmp_path / "store.db"))
    await opened.start()
    yield opened
    await opened.close()


async def write(store: SqliteStore, *batches: Batch) -> list[tuple[int, int]]:
    writing = [await store.append_batch(each, wait=True) for each in batches]
    return [(written.accepted, written.duplicate) for written in await asyncio.gather(*writing)]


@given(st.lists(st.integers(1, 40), max_size=60))
def test_ledger_is_a_set_of_ranges(sequences: list[int]) -> None:
    ranges: list[sequence_ranges.Range] = []
    seen: set[int] = set()
    for sequence in sequences:
        assert sequence_ranges.contains(ranges, sequence) == (sequence in seen)
        if sequence not in seen:
            sequence_ranges.record(ranges, sequence)
            seen.add(sequence)
    covered = {value for first, last in ranges for value in range(first, last + 1)}
    assert covered == seen
    assert all(ranges[i][1] + 1 < ranges[i + 1][0] for i in range(len(ranges) - 1))


async def test_small_segments_are_merged(tmp_path: Path) -> None:
    store = SqliteStore(SqliteOptions(tmp_path / "store.db", recent_bytes=1))  # each batch is flushed
    await store.start()

    def segments() -> tuple[int, int]:
        with contextlib.closing(sqlite3.connect(tmp_path / "store.db")) as connection:
            count, readings = connection.execute(
                "SELECT count(*), sum(count) FROM (SELECT count FROM segments UNION ALL SELECT count FROM blocks)"
            ).fetchone()
        return count, readings or 0

    for sequence in range(1, 301):
        await write(store, batch(sequence, [sequence * 1000], [float(sequence)]))
    await until(lambda: segments()[1] == 300, "the readings are flushed")
    await until(lambda: segments()[0] < 16, "the segments are merged")
    assert (await store.read("m", "s", 0, END)).values.tolist() == [float(n) for n in range(1, 301)]
    assert (await store.read("m", "s", 0, END, last=5)).values.tolist() == [296, 297, 298, 299, 300]
    await store.close()


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 400), st.integers(-5, 5)), min_size=1, max_size=6), min_size=1, max_size=80
    ),
    st.sampled_from([1, 3000, 16_000_000]),
    st.randoms(use_true_random=False),
)
@settings(max_examples=25, deadline=None)
def test_merging_changes_no_answer(
    tmp_path_factory: pytest.TempPathFactory, sent: list[list[tuple[int, int]]], recent_bytes: int, order: random.Random
) -> None:
    """Whatever the order, the overlap and the flushes, the reading of the highest sequence counts at each time."""

    async def check() -> None:
        path = tmp_path_factory.mktemp("merge") / "store.db"
        opened = SqliteStore(SqliteOptions(path, recent_bytes=recent_bytes))
        await opened.start()
        try:
            expected: dict[int, float] = {}
            numbered = list(enumerate(sent, start=1))
            for _, readings in numbered:
                expected.update((at, float(value)) for at, value in readings)
            order.shuffle(numbered)
            for sequence, readings in numbered:
                await opened.append_batch(
                    batch(sequence, [at for at, _ in readings], [float(value) for _, value in readings]), wait=True
                )
                if order.random() < 0.1:  # started anew in between
                    await opened.close()
                    opened = SqliteStore(SqliteOptions(path, recent_bytes=recent_bytes))
                    await opened.start()
            await write(opened, batch(10_000, [500], [0.0]))
            expected[500] = 0.0
            for last in (0, 1, 7):
                points = await opened.read("m", "s", 0, END, last=last)
                want = sorted(expected.items())[-last:] if last else sorted(expected.items())
                assert list(zip(points.timestamps.tolist(), points.values.tolist(), strict=True)) == want
        finally:  # also when an example ends because it draws more than it may
            await opened.close()

    asyncio.run(check())


@given(st.lists(st.tuples(st.integers(0, 999), st.floats(-1e3, 1e3)), min_size=30, max_size=200), st.integers(1, 20))
def test_downsampled_points_keep_extremes_counts_and_sums(readings: list[tuple[int, float]], points: int) -> None:
    at, column = merge_parts([(np.array([a]), np.array([v])) for a, v in readings])
    result = reduce_points(at, column, 0, 1000, points)
    if result.counts is None or result.minima is None or result.maxima is None:
        assert len(at) <= points
        return
    assert result.counts.sum() == len(at)
    assert result.minima.min() == column.min()
    assert result.maxima.max() == column.max()
    assert np.isclose((result.values * result.counts).sum(), column.sum(), atol=1e-6)


async def test_full_write_queue_rejects_or_waits(tmp_path: Path) -> None:
    opened = SqliteStore(SqliteOptions(tmp_path / "store.db", queue_bytes=1))
    await opened.start()
    first = await opened.append_batch(batch(1, [1], [1]), wait=False)
    with pytest.raises(ResourceExhaustedError) as caught:
        await opened.append_batch(batch(2, [2], [2]), wait=False)
    assert caught.value.retry_after
    waiting = asyncio.create_task(write(opened, batch(2, [2], [2])))
    await first
    assert await asyncio.wait_for(waiting, 10) == [(1, 0)]
    await opened.close()


def test_store_of_newer_version_is_left_untouched(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    SqliteStore(SqliteOptions(path))
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(NewerDatabaseError, match="newer version"):
        SqliteStore(SqliteOptions(path))
    assert path.read_bytes() == before


def test_file_that_is_no_database_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_text("this is a letter, not a database" * 100)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        SqliteStore(SqliteOptions(path))


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 300), st.floats(-9, 9)), min_size=1, max_size=8), max_size=60),
    st.integers(1, 20),
    st.integers(0, 300),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 300), st.integers(1, 30)), max_size=5),
    st.integers(0, 200),
)
def test_tail_answers_like_the_store_or_not_at_all(
    arrivals: list[list[tuple[int, float]]],
    capacity: int,
    start: int,
    readings: list[tuple[int, int, int]],
    complete_from: int,
) -> None:
    """readings: after so many arrivals the store is asked for what it has since a time; then the tail may have more."""
    tail = CachedSeries(capacity, complete_from)
    everything: dict[int, float] = {}
    for number, arrival in enumerate(arrivals):
        tail.append_readings(
            np.array([at for at, _ in arrival], dtype=np.int64), np.array([value for _, value in arrival])
        )
        everything.update(arrival)
        for _, since, most in (each for each in readings if each[0] == number):
            stored = {at: value for at, value in sorted(everything.items()) if at >= since}
            tail.capacity = max(tail.capacity, most)
            tail.prepend_readings(
                np.array(list(stored), dtype=np.int64), np.array(list(stored.values())), tail.late, since
            )
    expected = [(at, value) for at, value in sorted(everything.items()) if at >= start]
    for held, wanted in (
        (tail.between(start, 1000), expected),
        (tail.last_readings(5, start, 1000), expected[-5:]),
    ):
        if held is not None:
            assert list(zip(held[0].tolist(), held[1].tolist(), strict=True)) == wanted


def test_tail_answers_after_loading_from_store() -> None:
    tail = CachedSeries(10, 6)
    tail.append_readings(np.array([6, 7]), np.array([6.0, 7.0]))
    assert tail.last_readings(4, 0, 100) is None
    tail.prepend_readings(np.array([3, 4, 5, 6]), np.array([3.0, 4.0, 5.0, 6.0]), tail.late, 3)
    held = tail.last_readings(4, 0, 100)
    assert held is not None
    assert held[0].tolist() == [4, 5, 6, 7]


def plant_with_a_tail(tail_bytes: int) -> tuple[MachineStates, MachineState]:
    """A machine with one reading, at 100, whose tail has 256 at first."""
    plant = MachineStates(PlantLimits(10), 256, tail_bytes)
    plant.apply_batch(batch(1, [100], [100.0]), 0)
    state = plant.get("m")
    tail = plant.tail(state, "s")
    assert tail is not None
    tail.prepend_readings(np.array([100]), np.array([100.0]), tail.late, 100)
    return plant, state


def test_growing_window_is_answered_from_memory() -> None:
    """A window that grows to 1,000 readings is answered from memory throughout."""
    plant, state = plant_with_a_tail(64_000_000)
    for at in range(101, 5000):
        plant.apply_batch(batch(at, [at], [float(at)]), 0)
        if at % 10 == 0:
            held = plant.cached_readings(state, "s", at - 999, at + 1, 0)
            assert held is not None, at
            assert held[0].tolist() == list(range(max(100, at - 999), at + 1))
    assert plant.cached_readings(state, "s", 100, 5000, 0) is None, "it has forgotten nothing"


def test_readings_asked_for_once_begin_no_tail() -> None:
    """A query that says so is answered from a tail that exists, and begins none."""
    plant, state = plant_with_a_tail(64_000_000)
    held = plant.cached_readings(state, "s", 100, 101, 1, once=True)
    assert held is not None
    assert held[1].tolist() == [100.0]
    plant.apply_batch(batch(2, [100], [1.0], machine_id="n"), 0)
    other = plant.get("n")
    assert plant.tail(other, "s", once=True) is None
    assert plant.cached_readings(other, "s", 0, 200, 1, once=True) is None
    assert plant.tail(other, "s", once=True) is None


def test_tail_makes_room_for_an_earlier_window() -> None:
    """After a restart the tail grows to hold a window that begins before it, within its bounds."""
    plant = MachineStates(PlantLimits(10), 256, 64_000_000)
    plant.load([MachineRecord("m", "pump", "", 0, "")], [SeriesSummary("m", "s", 100, 5000, 1.0)])
    state = plant.get("m")
    tail = plant.tail(state, "s")
    assert tail is not None
    assert not plant.extend_tail(state, tail, 4000), "nothing is known of their pace"
    for at in range(5001, 5021):
        plant.apply_batch(batch(at, [at], [float(at)]), 0)
    assert plant.cached_readings(state, "s", 4000, 5021, 0) is None
    assert plant.extend_tail(state, tail, 4000)
    stored = np.arange(4000, 5021)
    assert tail.capacity > len(stored)
    tail.prepend_readings(stored, stored.astype(float), tail.late, 4000)
    for start, end in ((4000, 5022), (4020, 5032)):
        plant.apply_batch(batch(end, [end - 1], [float(end - 1)]), 0)
        held = plant.cached_readings(state, "s", start, end, 0)
        assert held is not None
        assert (held[0][0], held[0][-1]) == (start, end - 1)
    assert not plant.extend_tail(state, tail, 0), "as many as are kept in no tail"


@pytest.mark.parametrize("tail_bytes", [10_000, 40_000])
def test_tail_growth_is_limited_in_bytes(tail_bytes: int) -> None:
    plant, state = plant_with_a_tail(tail_bytes)
    for at in range(101, 5000):
        plant.apply_batch(batch(at, [at], [float(at)]), 0)
        plant.cached_readings(state, "s", 0, at + 1, 0)
    tail = plant.tail(state, "s")
    assert tail is not None
    assert 2 * tail.capacity * 16 <= tail_bytes


VERSION_1 = """
CREATE TABLE application (name TEXT NOT NULL);
CREATE TABLE machines (machine_id TEXT PRIMARY KEY, machine_type TEXT NOT NULL, site TEXT NOT NULL,
    registered_us INTEGER NOT NULL, request_id TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE series (id INTEGER PRIMARY KEY, machine_id TEXT NOT NULL, sensor TEXT NOT NULL,
    UNIQUE (machine_id, sensor));
CREATE TABLE sources (id INTEGER PRIMARY KEY AUTOINCREMENT, source_id TEXT NOT NULL UNIQUE, seen_us INTEGER NOT NULL);
CREATE TABLE received (source INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    PRIMARY KEY (source, first)) WITHOUT ROWID;
CREATE TABLE segments (series INTEGER NOT NULL, start_us INTEGER NOT NULL, source INTEGER NOT NULL,
    sequence INTEGER NOT NULL, end_us INTEGER NOT NULL, count INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (series, start_us, source, sequence)) WITHOUT ROWID;
INSERT INTO application VALUES ('store');
INSERT INTO machines VALUES ('m', 'pump', 'a', 1, 'r');
INSERT INTO series VALUES (4, 'm', 's');
INSERT INTO sources VALUES (9, 'src', 5);
INSERT INTO received VALUES (9, 1, 2);
PRAGMA user_version = 1;
"""


async def test_store_of_version_1_is_upgraded(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    connection = sqlite3.connect(path)
    connection.executescript(VERSION_1)
    for sequence, (at, values) in enumerate([([10, 20], [1.0, 2.0]), ([15, 30], [5.0, 6.0])], start=1):
        data = pack(np.array(at), np.array(values))
        connection.execute("INSERT INTO segments VALUES (4, ?, 9, ?, ?, 2, ?)", (at[0], sequence, at[1], data))
    connection.commit()
    connection.close()
    store = SqliteStore(SqliteOptions(path))
    await store.start()
    assert (await store.read("m", "s", 0, END)).values.tolist() == [1, 5, 2, 6]
    assert await write(store, batch(2, [15], [5])) == [(0, 1)]
    assert await write(store, batch(3, [40], [7])) == [(1, 0)]
    assert [machine.machine_type for machine in await store.list_machines()] == ["pump"]
    (summary,) = await store.summaries()
    assert (summary.first_us, summary.last_us, summary.last_value) == (10, 40, 7.0)
    await store.close()


def _without_blocks(connection: sqlite3.Connection) -> None:
    """Makes a store of version 5 whose readings are in blocks one of version 4: a segment for each series."""
    for bucket, head, data in connection.execute("SELECT bucket, head, data FROM blocks").fetchall():
        joined, _ = unpack_blocks([(BlockHead(head), data)])
        assert joined is not None
        readings = joined.packed(bucket)
        for number, start, end in zip(readings.numbers, readings.ends - readings.lengths, readings.ends, strict=True):
            times, values = readings.timestamps[start:end], readings.values[start:end]
            ranks = readings.ranks.between(int(start), int(end))
            connection.execute(
                "INSERT INTO segments (series, start_us, source, sequence, end_us, count, data) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (int(number), int(times[0]), *ranks.highest, int(times[-1]), len(times), pack(times, values, ranks)),
            )
            connection.execute(
                "UPDATE series SET first_us = ?, last_us = ?, last_value = ? WHERE id = ?",
                (int(times[0]), int(times[-1]), float(values[-1]), int(number)),
            )
    for table in ("blocks", "damaged_blocks"):
        connection.execute(f"DROP TABLE {table}")


async def test_store_of_version_4_is_upgraded(tmp_path: Path) -> None:
    """Its segments stay as they are; the readings that come then are in blocks, and both are answered together."""
    path = tmp_path / "store.db"
    store = SqliteStore(SqliteOptions(path))
    await store.start()
    await write(store, batch(1, [10, 20], [1.0, 2.0]))
    await store.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        _without_blocks(connection)
        connection.execute("PRAGMA user_version = 4")
        connection.commit()
    store = SqliteStore(SqliteOptions(path))
    await store.start()
    await write(store, batch(2, [20, 30], [3.0, 4.0]))
    await store._flush()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        counts = connection.execute("SELECT (SELECT sum(count) FROM segments), (SELECT sum(count) FROM blocks)")
        assert counts.fetchone() == (2, 2)
    assert (await store.read("m", "s", 0, END)).values.tolist() == [1.0, 3.0, 4.0]
    (summary,) = await store.summaries()
    assert (summary.first_us, summary.last_us, summary.last_value) == (10, 30, 4.0)
    await store.close()


async def test_store_of_version_5_is_upgraded(tmp_path: Path) -> None:
    """Events of the plant from before there was an index by machine are found by their machine."""
    path = tmp_path / "store.db"
    store = SqliteStore(SqliteOptions(path))
    await store.start()
    await store.record_events([Event("alarm", "", at, f"{machine}~hot", b"") for at, machine in ((10, "m"), (20, "n"))])
    await store.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP INDEX events_about")
        connection.execute("PRAGMA user_version = 5")
        connection.commit()
    store = SqliteStore(SqliteOptions(path))
    await store.start()
    assert [event.at_us for event in await store.events_about("alarm", "m", 0, END, 10)] == [10]
    await store.close()


async def test_store_of_version_6_is_upgraded(tmp_path: Path) -> None:
    """That version did not store from which gateway the readings of a machine come."""
    path = tmp_path / "store.db"
    store = SqliteStore(SqliteOptions(path))
    await store.start()
    await store.register(MachineRecord("m", "pump", "a", 1, ""))
    await store.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE machine_gateways")
        connection.execute("PRAGMA user_version = 6")
        connection.commit()
    store = SqliteStore(SqliteOptions(path))
    await store.start()
    assert await store.gateways() == {}
    await store.record_gateways({"m": "hall-3"})
    assert await store.gateways() == {"m": "hall-3"}
    assert [each.machine_id for each in await store.list_machines()] == ["m"]
    await store.close()


async def test_store_of_version_2_is_upgraded(tmp_path: Path) -> None:
    """A source of before there were owners goes on, and then belongs to who goes on with it."""
    path = tmp_path / "store.db"
    store = SqliteStore(SqliteOptions(path))
    await store.start()
    await write(store, batch(1, [10], [1]))
    await store.record_events([Event("alarm", "", at, "x", b"") for at in (30, 10, 20)])
    await store.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE sources DROP COLUMN owner")
        connection.execute("DROP TABLE damaged_segments")
        connection.execute("DROP INDEX journal")
        connection.execute("ALTER TABLE events DROP COLUMN number")
        connection.execute("ALTER TABLE series DROP COLUMN last_source")
        connection.execute("ALTER TABLE series DROP COLUMN last_sequence")
        _without_blocks(connection)
        connection.execute("PRAGMA user_version = 2")
        connection.commit()
    store = SqliteStore(SqliteOptions(path))
    await store.start()
    assert await write(store, batch(1, [10], [1]).with_owner("site/a")) == [(0, 1)]
    assert await write(store, batch(2, [20], [2]).with_owner("site/a")) == [(1, 0)]
    with pytest.raises(PermissionDeniedError):
        await write(store, batch(3, [30], [3]).with_owner("site/b"))
    await store.record_events([Event("alarm", "", 5, "x", b"")])
    assert [event.at_us for event in await store.journal("alarm", 0, END, 10)] == [5, 30, 20, 10]
    await store.close()


async def test_readings_with_a_key_each_are_merged(tmp_path: Path) -> None:
    """Readings that came in a request with an Idempotency-Key each are one segment, not one each."""
    store = SqliteStore(SqliteOptions(tmp_path / "store.db"))
    await store.start()
    today = now_us() // DAY_US * DAY_US
    for part in range(20):
        sent = [batch(1, [today + part * 100 + at], [float(at)], f"key/{part}-{at}") for at in range(100)]
        await write(store, *sent)
        await store._flush()

    def segments() -> int:
        with contextlib.closing(sqlite3.connect(tmp_path / "store.db")) as connection:
            return int(connection.execute("SELECT count(*) FROM segments").fetchone()[0])

    await until(lambda: segments() < 20, "what is due is merged")
    assert len((await store.read("m", "s", 0, END)).values) == 2000
    await store.close()


def test_day_without_anything_to_merge_is_seldom_looked_at() -> None:
    """A day of segments that are too large to be merged yet is looked at ever more seldom as it grows."""
    compactor, looks, there = compaction.Compactor(), 0, 0
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as tables:
        tables.executescript(schema.SCHEMA)
        today = now_us() // DAY_US * DAY_US
        for source in range(4000):
            at = today + source
            tables.execute(
                "INSERT INTO segments VALUES (NULL, 1, ?, ?, 1, ?, ?, x'')",
                (at, source, at, SMALL),
            )
            compactor.record_added(Added(Counter({(1, today // DAY_US): 1})))
            while compactor.due:
                compactor.merge_next(tables, now_us())
                looks += 1
                there += source
    assert looks < 60
    assert there < 10 * 4000


async def test_events_go_after_90_days_but_maintenance_stays(tmp_path: Path) -> None:
    """Records and alarm rules stay for ever; other events go 90 days after they were recorded, whatever their time."""
    path = tmp_path / "store.db"
    long_ago = now_us() - 100 * DAY_US
    store = SqliteStore(SqliteOptions(path))
    await store.start()
    await store.record_events([Event(kind, "m", long_ago, "x", b"") for kind in ("prediction", "maintenance")])
    await store.record_events([Event("alarm_rules", "", 1, "x", b"")])
    await store.record_events([Event("alarm", "", at, "x", b"") for at in (long_ago, 1)])
    await store.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE events SET number = ? WHERE kind = 'prediction' OR at_us = 1", (long_ago,))
        connection.commit()
    store = SqliteStore(SqliteOptions(path))
    await store.start()

    def left() -> set[tuple[str, int]]:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            return set(connection.execute("SELECT kind, at_us FROM events").fetchall())

    await until(
        lambda: left() == {("maintenance", long_ago), ("alarm", long_ago), ("alarm_rules", 1)}, "the others are gone"
    )
    await store.close()


async def test_readings_older_than_retention_are_deleted(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    now = now_us()
    old = now - 10 * DAY_US
    store = SqliteStore(SqliteOptions(path))
    await store.start()
    await write(store, batch(1, [old, old + 1], [1, 2]), batch(2, [now - 1000, now], [3, 4]))
    await store.close()
    store = SqliteStore(SqliteOptions(path, retention=7.0))
    await store.start()

    def left() -> int:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            return int(connection.execute(STORED).fetchone()[0])

    await until(lambda: left() == 2, "the old readings are gone")
    assert (await store.read("m", "s", 0, END)).values.tolist() == [3, 4]
    await store.close()


async def test_source_with_very_many_gaps_is_never_locked_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its oldest gaps are closed, 5,000 at a time: what is below is refused, what is above is recognised, or new."""
    path = tmp_path / "store.db"
    store = SqliteStore(SqliteOptions(path))
    await store.start()
    closed = REGISTRY.get_sample_value("ingestion_sequence_gaps_closed_total") or 0
    for first in range(1, 12_001, 3000):  # with 10,001 ranges the 5,001 of 2 to 10,002 are closed, up to 10,003
        await write(store, *(batch(2 * number, [number], [1.0]) for number in range(first, first + 3000)))
    assert REGISTRY.get_sample_value("ingestion_sequence_gaps_closed_total") == closed + 5001
    assert [each.getMessage() for each in caplog.records if "gaps" in each.getMessage()] == [
        "source src left more than 10000 gaps in its sequences; sequences up to 10003 are refused from now on"
    ]
    for _ in range(2):
        for sequence in (1, 2, 10_002, 10_003):
            with pytest.raises(InvalidArgumentError, match="up to 10003 are closed") as caught:
                await write(store, batch(sequence, [5], [9.0]))
            assert caught.value.reason == SEQUENCE_CLOSED
            assert caught.value.violations[0].field == "batch.sequence"
            assert caught.value.metadata == {"source_id": "src", "sequence": str(sequence)}
        assert await write(store, batch(10_004, [5], [9.0]), batch(24_000, [5], [9.0])) == [(0, 1), (0, 1)]
        await store.close()
        store = SqliteStore(SqliteOptions(path))
        await store.start()
    assert await write(store, batch(10_005, [20_000], [2.0]), batch(30_001, [20_001], [3.0])) == [(1, 0), (1, 0)]
    assert await write(store, batch(1, [5], [9.0], "other")) == [(1, 0)]
    assert (await store.read("m", "s", 4, 7)).values.tolist() == [1.0, 9.0, 1.0]
    await store.close()


async def test_numbers_of_forgotten_sources_are_not_given_again(tmp_path: Path) -> None:
    """A source that is new when the last one is forgotten outranks what that one sent, also after a restart."""
    path = tmp_path / "store.db"
    for source, value in (("old", 1.0), ("new", 2.0)):
        store = SqliteStore(SqliteOptions(path))
        await store.start()
        await write(store, batch(9 if source == "old" else 1, [10], [value], source))
        await store._flush()
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE sources SET seen_us = 0")
            connection.commit()
        await store._run_maintenance("forgetting", store._prune)
        assert (await store.read("m", "s", 0, END)).values.tolist() == [value]
        (summary,) = await store.summaries()
        assert summary.last_value == value
        await store.close()


async def test_snapshot_ranks_requests_with_a_key_as_the_service(tmp_path: Path) -> None:
    """Of readings at the same time the service and a reader of its files choose the same, before a flush too."""
    path = tmp_path / "store.db"
    store = SqliteStore(SqliteOptions(path))
    await store.start()
    await write(store, batch(1, [10], [1.0], "key/1"), batch(1, [10], [2.0], "other"), batch(1, [10], [3.0], "key/2"))
    for _ in range(2):
        assert (await store.read("m", "s", 0, END)).values.tolist() == [2.0]
        with snapshot.open_snapshot(path) as beside:
            assert beside.series(("m", "s"))[1].tolist() == [2.0]
        await store._flush()
    await store.close()


@pytest.mark.parametrize("over", [False, True])
async def test_late_batch_finds_its_place_in_merged_segments(tmp_path: Path, over: bool) -> None:
    """What is missing when segments are merged, of a day that is over too, counts where its rank says when it comes."""
    day = now_us() // DAY_US * DAY_US - 2 * DAY_US * over
    store = SqliteStore(SqliteOptions(tmp_path / "store.db"))
    await store.start()
    sent = [batch(sequence, [day, day + sequence], [float(sequence)] * 2) for sequence in range(1, 21) if sequence != 7]
    for each in [*sent[:10], batch(1, [day + 30], [0.5], "other"), *sent[10:]]:
        await write(store, each)
        await store._flush()
    await write(store, batch(2, [day + 3, day + 30], [-1.0, -2.0], "other"))
    await store._flush()

    def segments() -> int:
        with contextlib.closing(sqlite3.connect(tmp_path / "store.db")) as connection:
            return int(connection.execute("SELECT count(*) FROM segments").fetchone()[0])

    await until(lambda: segments() < 16, "they are merged")
    late = [day, *(day + sequence for sequence in (5, 7, 9, 30))]
    await write(store, batch(7, late, [7.0] * 5))
    for _ in range(2):
        found = await store.read("m", "s", day, day + 100)
        values = dict(zip((found.timestamps - day).tolist(), found.values.tolist(), strict=True))
        assert values == {0: 20.0, **{at: float(at) for at in range(1, 21)}, 3: -1.0, 5: 7.0, 30: -2.0}
        await store._flush()
    await store.close()


async def test_senders_are_known_after_their_segments_merge(tmp_path: Path) -> None:
    """A segment of readings of several sources hides none of their owners."""
    day = now_us() // DAY_US * DAY_US - 2 * DAY_US
    store = SqliteStore(SqliteOptions(tmp_path / "store.db"))
    await store.start()
    await write(store, batch(1, [day], [0.5], "other").with_owner("site/b"))
    await store._flush()
    for sequence in range(1, 21):
        await write(store, batch(sequence, [day + sequence], [float(sequence)], "own").with_owner("site/a"))
        await store._flush()

    def blocks() -> int:
        with contextlib.closing(sqlite3.connect(tmp_path / "store.db")) as connection:
            return int(connection.execute("SELECT count(*) FROM blocks").fetchone()[0])

    await until(lambda: blocks() == 1, "they are merged")
    assert not await store.sent_only_by("m", "site/a")
    assert not await store.sent_only_by("m", "site/b")
    await store.close()


async def test_store_of_version_3_is_upgraded(tmp_path: Path) -> None:
    """Its segments of one rank each stay as they are, and a new source gets a number that none of them has."""
    path = tmp_path / "store.db"
    store = SqliteStore(SqliteOptions(path))
    await store.start()
    await write(store, batch(5, [10], [1.0], "first"), batch(5, [10, 20], [2.0, 3.0], "forgotten"))
    await store.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM sources WHERE source_id = 'forgotten'")
        connection.execute("ALTER TABLE sources DROP COLUMN closed")
        connection.execute("DROP TABLE source_numbers")
        _without_blocks(connection)
        connection.execute("PRAGMA user_version = 3")
        connection.commit()
    store = SqliteStore(SqliteOptions(path))
    await store.start()
    assert await write(store, batch(5, [10], [1.0], "first"), batch(1, [20], [4.0], "later")) == [(0, 1), (1, 0)]
    assert (await store.read("m", "s", 0, END)).values.tolist() == [2.0, 4.0]
    await store.close()


async def test_interrupted_readers_answer_again(tmp_path: Path) -> None:
    with contextlib.closing(connect(tmp_path / "store.db")) as connection:
        connection.execute("CREATE TABLE numbers AS VALUES (1), (2), (3)")
    readers = Readers(tmp_path / "store.db", timeout=10.0)
    asked, stopped = threading.Semaphore(0), threading.Event()
    begun: list[sqlite3.Cursor] = []  # what has begun and not ended keeps an interruption alive, also for a ROLLBACK

    def wait(connection: sqlite3.Connection) -> None:
        rows = connection.execute("SELECT * FROM numbers")
        rows.fetchone()
        begun.append(rows)
        asked.release()
        stopped.wait(10)

    def read(connection: sqlite3.Connection) -> list[tuple[int]]:
        return connection.execute("SELECT * FROM numbers").fetchall()

    try:
        asking = [asyncio.create_task(readers.run_query("wait", wait)) for _ in range(4)]
        for _ in asking:
            await asyncio.to_thread(asked.acquire)
        for _ in range(2):  # a second time too: its connection is not free before it has ended
            for task in asking:
                task.cancel()
            await asyncio.sleep(0.01)
        stopped.set()
        assert [task.cancelled() for task in asking] == [True] * 4
        for _ in range(8):
            assert await readers.run_query("read", read) == [(1,), (2,), (3,)]
    finally:
        stopped.set()
        readers.close()


async def test_slow_query_times_out_and_frees_its_reader(tmp_path: Path) -> None:
    connect(tmp_path / "store.db").close()
    readers = Readers(tmp_path / "store.db", timeout=0.05)
    count = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    try:
        for _ in range(6):
            with pytest.raises(UnavailableError, match=r"did not answer within 0\.05 s"):
                await readers.run_query("count", lambda connection: connection.execute(count).fetchone())
        assert await readers.run_query("read", lambda connection: connection.execute("SELECT 1").fetchone()) == (1,)
    finally:
        readers.close()


async def test_failed_housekeeping_is_reported_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqliteStore(SqliteOptions(tmp_path / "store.db", flush_seconds=0.01))
    lost = tmp_path / "lost"
    monkeypatch.setattr(sqlite_store, "_database_bytes", lambda path: lost.stat().st_size)
    await store.start()
    try:
        await until(lambda: "housekeeping failed" in (store.problem() or ""), "the failure is told")
        assert "FileNotFoundError" in caplog.text
        await write(store, batch(1, [1000], [1.0]))
        lost.touch()
        await until(lambda: store.problem() is None, "it goes on")
        with contextlib.closing(sqlite3.connect(tmp_path / "store.db")) as connection:
            assert connection.execute(STORED).fetchone() == (1,)
    finally:
        await store.close()


async def test_flushed_readings_do_not_stay_in_memory(store: SqliteStore) -> None:
    await write(store, batch(1, [1000], [1.0]))
    recent = weakref.ref(store._recent)
    await store._flush()
    await until(lambda: recent() is None, "the readings are gone")


async def test_series_keep_their_numbers_across_restarts(tmp_path: Path) -> None:
    """A series is numbered with its first durable batch; its number is that of the tables after a flush."""
    path = tmp_path / "store.db"
    store = SqliteStore(SqliteOptions(path))
    await store.start()
    sent = [batch(1, [1], [1.0], machine_id=machine_id) for machine_id in ("a", "b")]
    assert store.series.find(sent[0].keys).tolist() == [-1]
    await write(store, sent[0])
    await store._flush()
    await write(store, batch(2, [1], [1.0], machine_id="b"), batch(3, [2], [2.0], machine_id="a"))
    numbers = {key: number for number, key in store.series.added_since(0)}
    assert len(numbers) == 2
    for _ in range(2):
        await store.close()
        with contextlib.closing(sqlite3.connect(path)) as connection:
            rows = connection.execute("SELECT machine_id, sensor, id FROM series").fetchall()
        assert {(row[0], row[1]): row[2] for row in rows} == numbers
        store = SqliteStore(SqliteOptions(path))
        await store.start()
        assert {key: number for number, key in store.series.added_since(0)} == numbers
    await store.close()


async def test_failed_write_numbers_no_series(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise UnavailableError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(store._log, "write", refuse)
        with pytest.raises(UnavailableError):
            await write(store, batch(1, [1], [1.0], machine_id="invented"))
    assert store.series.added_since(0) == []
