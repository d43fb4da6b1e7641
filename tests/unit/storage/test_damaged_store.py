"""Damage in a store is contained: what can be read is read and merged, the rest is set apart and told."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.commands.exporting import export
from aurum.ingestion.sqlite import schema, snapshot
from aurum.ingestion.sqlite.store import SqliteOptions, SqliteStore
from aurum.readings.batch import Batch, Series, now_us
from aurum.runtime import damage
from aurum.runtime.time_units import DAY_US
from aurum.storage.segment import CorruptSegmentError, pack, unpack
from aurum.storage.segment_log import SegmentLog
from aurum.v1 import ingestion_pb2

END = 2**61
DAY = (now_us() // DAY_US - 3) * DAY_US


async def filled(path: Path, parts: int = 2) -> None:
    """Three machines with so many segments each, of a day that is over."""
    for part in range(parts):
        store = SqliteStore(SqliteOptions(path))
        await store.start()
        for machine in ("rotten", "well-1", "well-2"):
            at = DAY + (part * 600 + np.arange(600)) * 1_000_000
            batch = Batch.from_series(machine, part + 1, [Series(machine, "s", at, np.full(600, float(part)))])
            await (await store.append_batch(batch, wait=True))
        await store.close()


def flip(path: Path, machine: str = "rotten") -> int:
    """Flips a bit in the first segment of a machine; its id."""
    with contextlib.closing(sqlite3.connect(path)) as tables:
        id_, data = tables.execute(
            "SELECT segments.id, data FROM segments JOIN series ON series.id = segments.series WHERE machine_id = ? "
            "ORDER BY segments.id",
            (machine,),
        ).fetchone()
        changed = bytearray(data)
        changed[len(changed) // 2] ^= 1
        tables.execute("UPDATE segments SET data = ? WHERE id = ?", (bytes(changed), id_))
        tables.commit()
    return int(id_)


def count(path: Path, table: str = "segments") -> int:
    with contextlib.closing(sqlite3.connect(path)) as tables:
        return int(tables.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608


async def until(done: Callable[[], bool], what: str) -> None:
    for _ in range(400):
        if done():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"not within 20 s: {what}")


async def test_damaged_segment_stops_no_merging(tmp_path: Path) -> None:
    """A flipped bit in one segment leaves the store ready, and the other machines' segments are merged."""
    path = tmp_path / "store.db"
    await filled(path)
    flip(path)
    store = SqliteStore(SqliteOptions(path))
    await store.start()
    await until(lambda: count(path) == 3, "all are merged, and the damaged one is set apart")
    assert count(path, "damaged_segments") == 1
    assert store.problem() is None
    assert len((await store.read("well-1", "s", 0, END)).values) == 1200
    assert (await store.read("rotten", "s", 0, END)).values.tolist() == [1.0] * 600
    assert damage.counts() == {"segment": 1}
    assert "machine rotten, sensor s" in damage.latest()[0]["name"]
    await store.close()


async def test_damaged_segment_is_left_out_of_answers_and_set_apart(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await filled(path, parts=1)
    flip(path)
    store = SqliteStore(SqliteOptions(path))
    await store.start()
    for asked in ({}, {"points": 10}, {"last": 5}):
        assert (await store.read("rotten", "s", 0, END, **asked)).values.tolist() == []
    assert (count(path), count(path, "damaged_segments")) == (2, 1)
    assert damage.counts() == {"segment": 1}
    await store.close()


async def test_export_goes_on_without_the_damaged_segment(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await filled(path)
    id_ = flip(path)
    with snapshot.open_snapshot(path) as found:
        done = export(found, tmp_path / "out")
    assert (done.files, done.readings) == (3, 3000)
    assert list(found.damaged) == [("segment", id_)]


async def test_repair_moves_damaged_segments_into_files(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await filled(path)
    id_ = flip(path)
    assert [problem.split(":")[0] for problem in snapshot.check(path).problems] == [
        f"segment {id_} of machine rotten, sensor s, day {DAY // DAY_US}"
    ]
    assert snapshot.repair(path) == 1
    assert snapshot.check(path).problems == []
    folder = schema.damaged_folder(path)
    assert sorted(file.name for file in folder.iterdir()) == [f"segment-{id_}.bin", f"segment-{id_}.json"]
    assert "rotten" in (folder / f"segment-{id_}.json").read_text()
    assert snapshot.repair(path) == 0
    assert (count(path), count(path, "damaged_segments")) == (5, 0)


async def test_damage_is_told_no_longer_once_it_is_moved_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aurum.ingestion.sqlite.store._COUNT_EVERY", 0.1)
    path = tmp_path / "store.db"
    await filled(path)
    flip(path)
    store = SqliteStore(SqliteOptions(path))
    await store.start()
    await until(lambda: damage.counts() == {"segment": 1}, "it is found")
    snapshot.repair(path)
    await until(lambda: damage.counts() == {}, "it is gone")
    await store.close()


async def test_unreadable_log_record_keeps_no_store_from_starting(tmp_path: Path) -> None:
    """A record that this version cannot take is kept in a file, and the others are taken up."""
    path = tmp_path / "store.db"
    store = SqliteStore(SqliteOptions(path))
    await store.start()
    batch = Batch.from_series("src", 1, [Series("m", "s", np.array([DAY]), np.array([1.0]))])
    await (await store.append_batch(batch, wait=True))
    await store.close()
    log = SegmentLog(schema.log_folder(path), 1_000_000)
    strange = ingestion_pb2.Batch(source_id="#", sequence=7).SerializeToString()
    second = Batch.from_series("src", 2, [Series("m", "s", np.array([DAY + 1]), np.array([2.0]))])
    log.append_records([strange, second.data], 1)
    log.close()
    store = SqliteStore(SqliteOptions(path))
    await store.start()
    assert (await store.read("m", "s", 0, END)).values.tolist() == [1.0, 2.0]
    assert [file.read_bytes() for file in schema.damaged_folder(path).iterdir()] == [strange]
    assert damage.counts() == {"log record": 1}
    await store.close()


async def test_failing_maintenance_leaves_the_store_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Maintenance that cannot read its tables is tried again; readings are taken, flushed and answered meanwhile."""
    path = tmp_path / "store.db"
    await filled(path)
    broken = True

    def segments(connection: sqlite3.Connection) -> int:
        if broken:
            raise sqlite3.DatabaseError("database disk image is malformed")
        return 1

    monkeypatch.setattr("aurum.ingestion.sqlite.store._count_segments", segments)
    monkeypatch.setattr("aurum.ingestion.sqlite.store._COUNT_EVERY", 0.1)
    store = SqliteStore(SqliteOptions(path))
    await store.start()
    await until(lambda: bool(store._failing), "it has failed")
    assert store.problem() is None
    await until(lambda: count(path) == 3, "segments are merged nevertheless")
    broken = False
    await until(lambda: not store._failing, "it goes on")
    await store.close()


async def test_backup_is_whole_while_the_store_is_written_to(tmp_path: Path) -> None:
    """A backup ends while batches come all the time; what a killed one left is in nobody's way."""
    path, target = tmp_path / "store.db", tmp_path / "backup" / "store.db"
    await filled(path)
    (target.parent / ".store.db.partial").mkdir(parents=True)
    (target.parent / ".store.db.partial" / "store.db").write_text("half")
    store = SqliteStore(SqliteOptions(path))
    await store.start()
    copying = asyncio.create_task(asyncio.to_thread(snapshot.backup, path, target))
    sequence = 10
    while not copying.done():
        sequence += 1
        batch = Batch.from_series("busy", sequence, [Series("busy", "s", np.array([DAY + sequence]), np.array([1.0]))])
        await (await store.append_batch(batch, wait=True))
        await store._flush()
    assert await copying > 0
    await store.close()
    assert [each.name for each in target.parent.iterdir() if each.name.startswith(".")] == []
    assert snapshot.check(target).problems == []


readings = st.lists(st.tuples(st.integers(0, 2**50), st.floats(allow_nan=False)), min_size=1, max_size=400)


@given(readings, st.data())
@settings(deadline=None)
def test_no_damage_to_a_segment_goes_unnoticed(rows: list[tuple[int, float]], data: st.DataObject) -> None:
    """Whatever byte of a segment is changed, it is refused, or it says what it said."""
    rows.sort(key=lambda row: row[0])
    at, values = np.array([row[0] for row in rows], np.int64), np.array([row[1] for row in rows])
    segment = bytearray(pack(at, values))
    place = data.draw(st.integers(0, len(segment) - 1))
    segment[place] ^= data.draw(st.integers(1, 255))
    try:
        got_at, got = unpack(bytes(segment))
    except CorruptSegmentError:
        return
    assert got_at.tolist() == at.tolist()
    assert got.tobytes() == values.tobytes()
