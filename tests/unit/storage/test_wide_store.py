"""A store with many series of few readings each: they share blocks, which are merged, set apart and expire."""

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from aurum.ingestion.sqlite import block_merging, packing, schema, snapshot
from aurum.ingestion.sqlite.store import SqliteOptions, SqliteStore
from aurum.readings.batch import Batch, Series, now_us
from aurum.runtime import damage
from aurum.runtime.time_units import DAY_US
from aurum.storage import block
from tests.support.waiting import until

END = 2**61
TODAY = now_us() // DAY_US * DAY_US
SERIES = 600  # in three buckets


def wide_batch(sequence: int, at: int, count: int = SERIES, source: str = "plant") -> Batch:
    """One reading of each series; its value is the sequence and the number of the series."""
    series = [
        Series(f"m-{number // 10:03}", f"s{number % 10}", np.array([at]), np.array([sequence * 1000.0 + number]))
        for number in range(count)
    ]
    return Batch.from_series(source, sequence, series)


async def opened(path: Path, **options: float) -> SqliteStore:
    store = SqliteStore(SqliteOptions(path, **options))  # type: ignore[arg-type]
    await store.start()
    return store


async def write(store: SqliteStore, *batches: Batch) -> None:
    for each in batches:
        await (await store.append_batch(each, wait=True))
        await store._flush()


def rows(path: Path, query: str) -> list[tuple[int, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as tables:
        return tables.execute(query).fetchall()


async def values_of(store: SqliteStore, number: int) -> list[float]:
    points = await store.read(f"m-{number // 10:03}", f"s{number % 10}", 0, END)
    return points.values.tolist()


async def test_flush_writes_a_block_for_each_bucket(tmp_path: Path) -> None:
    store = await opened(tmp_path / "store.db")
    await write(store, wide_batch(1, TODAY))
    assert rows(store._options.path, "SELECT bucket, level, count FROM blocks") == [
        (0, 0, 256),
        (1, 0, 256),
        (2, 0, 88),
    ]
    assert rows(store._options.path, "SELECT count(*) FROM segments") == [(0,)]
    for number in (0, 255, 256, 599):
        assert await values_of(store, number) == [1000.0 + number]
    several = await store.read_several("m-025", [f"s{sensor}" for sensor in range(10)], 0, END)  # in two buckets
    assert [points.values.tolist() for points in several] == [[1250.0 + sensor] for sensor in range(10)]
    await store.close()


async def test_blocks_are_merged_and_long_series_move_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are never many blocks of a bucket; series that get many readings on a day become segments."""
    monkeypatch.setattr(block_merging, "_FAN_IN", 4)
    monkeypatch.setattr(packing, "SEGMENT_READINGS", 10)
    path = tmp_path / "store.db"
    store = await opened(path)
    for sequence in range(1, 41):
        await write(store, wide_batch(sequence, TODAY + sequence, SERIES if sequence % 5 == 0 else 300))
    await until(lambda: not store._compactor.due, "all that is due is merged")
    counted = "SELECT max(blocks) FROM (SELECT count(*) AS blocks FROM blocks GROUP BY bucket)"
    assert rows(path, counted)[0][0] <= 8
    assert rows(path, "SELECT count(DISTINCT series) FROM segments") == [(300,)]
    for number in (0, 299, 300, 599):
        expected = [sequence * 1000.0 + number for sequence in range(1, 41) if number < 300 or sequence % 5 == 0]
        assert await values_of(store, number) == expected
    for _ in range(2):
        summaries = {(each.machine_id, each.sensor): each for each in await store.summaries()}
        assert len(summaries) == SERIES
        assert summaries["m-059", "s9"].first_us == TODAY + 5
        assert {each.last_us for each in summaries.values()} == {TODAY + 40}
        assert summaries["m-001", "s2"].last_value == 40_012.0
        await store.close()
        store = await opened(path)
    await store.close()


async def test_day_that_is_over_has_one_block_for_each_bucket(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await opened(path)
    long_ago = TODAY - 3 * DAY_US
    await write(store, *(wide_batch(sequence, long_ago + sequence) for sequence in range(1, 7)))
    await store.close()
    store = await opened(path)
    await until(lambda: rows(path, "SELECT count(*) FROM blocks") == [(3,)], "the blocks are merged")
    assert await values_of(store, 599) == [sequence * 1000.0 + 599 for sequence in range(1, 7)]
    await store.close()


async def test_late_batch_finds_its_place_in_merged_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that was missing when blocks were merged counts where its rank says, whether or not it is merged."""
    monkeypatch.setattr(block_merging, "_FAN_IN", 3)
    store = await opened(tmp_path / "store.db")
    await write(store, *(wide_batch(sequence, TODAY + (sequence != 3)) for sequence in (1, 3, 4)))
    await until(lambda: not store._compactor.due, "they are merged")
    await write(store, wide_batch(2, TODAY))
    assert await values_of(store, 7) == [3007.0, 4007.0]
    await write(store, *(wide_batch(sequence, TODAY + 9, 20, source="other") for sequence in (1, 2)))
    await until(lambda: not store._compactor.due, "the late readings are merged")
    assert await values_of(store, 7) == [3007.0, 4007.0, 2007.0]
    await write(store, wide_batch(5, TODAY), *(wide_batch(sequence, TODAY + 1) for sequence in (6, 7)))
    await until(lambda: not store._compactor.due, "all are merged")
    assert await values_of(store, 7) == [5007.0, 7007.0, 2007.0]
    await store.close()


async def test_damaged_frame_is_set_apart_and_the_rest_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flipped bit costs the readings of a few series; it is reported, and repair moves it into files."""
    monkeypatch.setattr(block, "_COMPRESS_MIN_READINGS", 100)
    path = tmp_path / "store.db"
    store = await opened(path)
    await write(store, wide_batch(1, TODAY).with_owner("site/a"))
    assert await store.sent_only_by("m-000", "site/a")
    ((id_,),) = rows(path, "SELECT id FROM blocks WHERE bucket = 0")
    with contextlib.closing(sqlite3.connect(path)) as tables:
        data = bytearray(tables.execute("SELECT data FROM blocks WHERE id = ?", (id_,)).fetchone()[0])
        data[10] ^= 1
        tables.execute("UPDATE blocks SET data = ? WHERE id = ?", (bytes(data), id_))
        tables.commit()
    assert await values_of(store, 300) == [1300.0]
    assert damage.counts() == {}
    assert [await values_of(store, number) for number in (0, 15, 16, 255)] == [[], [], [1016.0], [1255.0]]
    assert damage.counts() == {"block": 1}
    name = f"{id_} of machines m-000 to m-025, day {TODAY // DAY_US}"
    assert damage.latest()[0]["name"] == name
    assert rows(path, "SELECT bucket, sum(count) FROM blocks GROUP BY bucket") == [(0, 240), (1, 256), (2, 88)]
    assert not await store.sent_only_by("m-000", "site/a")
    assert await store.sent_only_by("m-059", "site/a")
    assert [problem.split(":")[0] for problem in snapshot.check(path).problems] == [f"block {name}"]
    assert snapshot.repair(path) == 1
    assert snapshot.check(path).problems == []
    folder = schema.damaged_folder(path)
    assert sorted(file.name for file in folder.iterdir()) == [f"block-{id_}.bin", f"block-{id_}.json"]
    await store.close()


async def test_damaged_head_of_a_block_stops_no_merging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_merging, "_FAN_IN", 3)
    path = tmp_path / "store.db"
    store = await opened(path)
    await write(store, wide_batch(1, TODAY + 1, 20))
    with contextlib.closing(sqlite3.connect(path)) as tables:
        tables.execute("UPDATE blocks SET head = zeroblob(30)")
        tables.commit()
    await write(store, *(wide_batch(sequence, TODAY + sequence, 20) for sequence in range(2, 5)))
    await until(lambda: rows(path, "SELECT count(*), max(level) FROM blocks") == [(1, 1)], "the others are merged")
    assert rows(path, "SELECT count(*) FROM damaged_blocks") == [(1,)]
    assert await values_of(store, 5) == [2005.0, 3005.0, 4005.0]
    await store.close()


async def test_blocks_expire_with_their_day(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await opened(path)
    await write(store, wide_batch(1, TODAY - 30 * DAY_US), wide_batch(2, TODAY))
    await store.close()
    store = await opened(path, retention=7.0)
    await until(lambda: rows(path, "SELECT sum(count) FROM blocks") == [(SERIES,)], "the old readings are deleted")
    assert await values_of(store, 3) == [2003.0]
    await store.close()


async def test_replayed_log_and_backup_have_all_series(tmp_path: Path) -> None:
    """What the log has and the tables lack keeps its numbers and is found by a reader beside the service."""
    path = tmp_path / "store.db"
    store = await opened(path)
    await write(store, wide_batch(1, TODAY, 300))
    await (await store.append_batch(wide_batch(2, TODAY + 1), wait=True))
    target = tmp_path / "copy" / "store.db"
    await asyncio.to_thread(snapshot.backup, path, target)
    numbers = store.series.added_since(0)
    await store.close()
    store = await opened(target)
    assert store.series.added_since(0) == numbers
    assert await values_of(store, 299) == [1299.0, 2299.0]
    with snapshot.open_snapshot(target) as found:
        assert found.sensors("m-059") == [f"s{sensor}" for sensor in range(10)]
        assert found.days(("m-059", "s0")) == [TODAY // DAY_US]
        assert found.series(("m-029", "s9"))[1].tolist() == [1299.0, 2299.0]
    await store.close()
