"""The last readings of several series are the same, whether they are read together or one by one."""

import contextlib
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from aurum.ingestion.sqlite import packing
from aurum.ingestion.sqlite import store as sqlite_store
from aurum.ingestion.sqlite.store import SqliteOptions, SqliteStore
from aurum.ingestion.store import Points
from aurum.readings.batch import Batch, Series, now_us
from aurum.runtime import damage
from aurum.runtime.time_units import DAY_US

END = 2**61
TODAY = now_us() // DAY_US * DAY_US
SENSORS = [f"s{number}" for number in range(7)]
MACHINES = [f"m-{number:02}" for number in range(60)]  # 420 series, in two buckets; m-36 is in both


class Plant:
    """A store with random readings of a few days."""

    def __init__(self, store: SqliteStore, seed: int, *, repeated_times: bool) -> None:
        self.store = store
        self.chance = np.random.default_rng(seed)
        self.repeated_times = repeated_times
        self.sequences = {"first": 0, "second": 0}

    async def write(self, at: int) -> None:
        """Writes a reading of most series, sometimes two; flushes it or not."""
        source = str(self.chance.choice(["first", "second"]))
        self.sequences[source] += 1
        series = []
        for machine in MACHINES:
            for sensor in np.array(SENSORS)[self.chance.random(len(SENSORS)) < 0.8].tolist():
                times = at + np.sort(self.chance.choice(1000, int(self.chance.integers(1, 3)), replace=False))
                if self.repeated_times:
                    times = times // 500 * 500
                series.append(Series(machine, sensor, np.unique(times), self.chance.normal(size=len(np.unique(times)))))
        await (await self.store.append_batch(Batch.from_series(source, self.sequences[source], series), wait=True))
        if self.chance.random() < 0.7:
            await self.store._flush()

    async def one_by_one(self, machine: str, start: int, end: int, last: int, points: int) -> list[Points]:
        return [
            (await self.store.read_several(machine, [sensor], start, end, last=last, points=points))[0]
            for sensor in SENSORS
        ]


async def plant_with_readings(path: Path, seed: int, *, repeated_times: bool = False) -> Plant:
    store = SqliteStore(SqliteOptions(path))
    await store.start()
    plant = Plant(store, seed, repeated_times=repeated_times)
    for _ in range(30):  # in any order
        day = int(plant.chance.choice([0, 0, 1, 2, 5]))
        await plant.write(TODAY - day * DAY_US + int(plant.chance.integers(0, 3600)) * 1000)
    return plant


def assert_same(found: list[Points], expected: list[Points]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for column in ("timestamps", "values", "minima", "maxima", "counts"):
            np.testing.assert_array_equal(getattr(one, column), getattr(other, column))


@pytest.mark.parametrize(("seed", "repeated_times"), [(1, False), (2, False), (3, True), (4, True)])
async def test_series_read_together_equal_single_ones(tmp_path: Path, seed: int, repeated_times: bool) -> None:
    plant = await plant_with_readings(tmp_path / "store.db", seed, repeated_times=repeated_times)
    ranges = [(0, END), (TODAY - DAY_US, END), (0, TODAY - 2 * DAY_US), (TODAY - 5 * DAY_US, TODAY + 1_800_000)]
    for machine in ("m-00", "m-36", "m-59"):
        for start, end in ranges:
            for last, points in ((1, 0), (4, 0), (25, 0), (1000, 0), (25, 3)):
                found = await plant.store.read_several(machine, SENSORS, start, end, last=last, points=points)
                assert_same(found, await plant.one_by_one(machine, start, end, last, points))
    await plant.store.close()


async def test_series_of_short_blocks_are_read_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual case needs no reading of single series; series with segments and unknown ones do."""
    plant = await plant_with_readings(tmp_path / "store.db", 5)
    expected = await plant.one_by_one("m-36", 0, END, 10, 0)
    single: list[tuple[str, str]] = []
    read_series = sqlite_store._read_series

    def noted(series: object, key: tuple[str, str], *arguments: int) -> Points:
        single.append(key)
        return read_series(series, key, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(sqlite_store, "_read_series", noted)
    assert_same(await plant.store.read_several("m-36", SENSORS, 0, END, last=10), expected)
    assert single == []
    unknown = await plant.store.read_several("m-36", [*SENSORS, "none"], 0, END, last=10)
    assert_same(unknown[:-1], expected)
    assert not len(unknown[-1].timestamps)
    assert len(single) == len(SENSORS) + 1
    monkeypatch.setattr(packing, "SEGMENT_READINGS", 1)
    await plant.write(TODAY + 7_200_000)
    await plant.store._flush()
    single.clear()
    found = await plant.store.read_several("m-36", SENSORS, 0, END, last=10)
    assert len(single) == len(SENSORS)
    assert_same(found, await plant.one_by_one("m-36", 0, END, 10, 0))
    await plant.store.close()


async def test_damage_is_reported_by_reading_together(tmp_path: Path) -> None:
    """The readings of a damaged block are left out and set apart, as when series are read one by one."""
    path = tmp_path / "store.db"
    plant = await plant_with_readings(path, 6)
    await plant.store.close()
    with contextlib.closing(sqlite3.connect(path)) as tables, tables:
        tables.execute("UPDATE blocks SET head = substr(head, 1, 20)")
    plant.store = SqliteStore(SqliteOptions(path))
    await plant.store.start()
    found = await plant.store.read_several("m-59", SENSORS, 0, END, last=1000)
    assert damage.counts().keys() == {"block"}
    assert_same(found, await plant.one_by_one("m-59", 0, END, 1000, 0))
    await plant.store.close()
