"""Copying a store into another one, here from SQLite to SQLite: all of it, once, also in parts."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from aurum.commands import migrating
from aurum.commands.migrating import migrate
from aurum.ingestion.sqlite.store import SqliteOptions, SqliteStore
from aurum.ingestion.store import DAY_US, Event, MachineRecord, Store
from aurum.readings.batch import Batch, Series

DAY = 20_000 * DAY_US
EVENTS = [Event("prediction", "m-1", DAY + number, f"e{number}", b"{}") for number in range(7)]
PUMP = MachineRecord("m-1", "pump", "north", 1, "r")


async def opened(path: Path) -> SqliteStore:
    store = SqliteStore(SqliteOptions(path))
    await store.start()
    return store


async def write(store: Store, sequence: int, machine: str, sensor: str, at: Sequence[int]) -> None:
    times = np.array(at, np.int64)
    series = Series(machine, sensor, times, (times % 1000).astype(np.float64))
    await (await store.append_batch(Batch.from_series("device", sequence, [series]), wait=True))


async def values_of(store: Store, machine: str, sensor: str) -> list[tuple[int, float]]:
    points = await store.read(machine, sensor, 0, 2**61)
    return list(zip(points.timestamps.tolist(), points.values.tolist(), strict=True))


@pytest.fixture
async def source(tmp_path: Path) -> Path:
    """Two days of two machines, one of which is registered, in segments and in the log."""
    path = tmp_path / "source.db"
    store = await opened(path)
    await store.register(PUMP)
    await write(store, 1, "m-1", "a", range(DAY - 1500, DAY + 1500, 10))
    await write(store, 2, "m-1", "b", range(DAY, DAY + 50))
    await store.record_events(EVENTS)
    await store.close()
    store = await opened(path)
    await write(store, 3, "m-2", "a", range(DAY, DAY + 20))
    await store.close()
    return path


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await opened(tmp_path / "target" / "store.db")
    yield store
    await store.close()


async def test_migrated_store_has_everything_once(source: Path, target: SqliteStore) -> None:
    done = await migrate(source, target)
    assert (done.machines, done.readings, done.duplicates, done.events, done.damaged) == (2, 370, 0, 7, {})
    again = await migrate(source, target)
    assert (again.readings, again.duplicates) == (0, 370)
    original = await opened(source)
    for machine, sensor in (("m-1", "a"), ("m-1", "b"), ("m-2", "a")):
        found = await values_of(target, machine, sensor)
        assert found
        assert found == await values_of(original, machine, sensor)
    await original.close()
    assert {each.machine_id: each.machine_type for each in await target.list_machines()} == {"m-1": "pump", "m-2": ""}
    assert await target.events("prediction", "m-1", 0, 2**61, 100) == EVENTS[::-1]


async def test_second_migration_adds_what_has_come_since(source: Path, target: SqliteStore) -> None:
    await migrate(source, target)
    store = await opened(source)
    await write(store, 4, "m-2", "a", range(DAY + 10, DAY + 30))
    await store.close()
    await migrate(source, target)
    assert [at - DAY for at, _ in await values_of(target, "m-2", "a")] == list(range(30))


async def test_migration_sends_long_days_and_many_events_in_parts(
    source: Path, target: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrating, "_BATCH", 40)
    monkeypatch.setattr(migrating, "_EVENTS", 3)
    batches: list[int] = []
    append = target.append_batch

    async def counted(batch: Batch, *, wait: bool) -> object:
        batches.append(batch.readings)
        return await append(batch, wait=wait)

    monkeypatch.setattr(target, "append_batch", counted)
    done = await migrate(source, target)
    assert (done.readings, done.events) == (370, 7)
    assert max(batches) == 40
    assert len(await values_of(target, "m-1", "a")) == 300
    assert len(await target.events("prediction", "m-1", 0, 2**61, 100)) == 7


async def test_migration_keeps_a_registration_of_the_target(source: Path, target: SqliteStore) -> None:
    await target.register(MachineRecord("m-1", "press", "south", 5, "other"))
    done = await migrate(source, target)
    assert done.readings == 370
    assert [each.machine_type for each in await target.list_machines()] == ["press", ""]


async def test_migration_leaves_out_damaged_blocks_and_names_them(source: Path, target: SqliteStore) -> None:
    store = await opened(source)
    await store.close()  # all is in segments now

    def damage() -> int:
        connection = sqlite3.connect(source)
        (id_,) = connection.execute(
            "SELECT id FROM blocks WHERE count = 20"  # with all readings of machine m-2
        ).fetchone()
        connection.execute("UPDATE blocks SET data = x'00' WHERE id = ?", (id_,))
        connection.commit()
        connection.close()
        return int(id_)

    id_ = await asyncio.to_thread(damage)
    done = await migrate(source, target)
    assert list(done.damaged) == [("block", id_)]
    assert done.readings == 350
    assert await values_of(target, "m-2", "a") == []
    assert len(await values_of(target, "m-1", "a")) == 300
