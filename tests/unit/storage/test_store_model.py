"""The store against a model of a few lines: whatever comes in whatever order, it answers as the model does."""

import asyncio
import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from aurum.ingestion.plant import Plant
from aurum.ingestion.room import PlantLimits
from aurum.ingestion.sqlite import snapshot
from aurum.ingestion.sqlite.store import SqliteOptions, SqliteStore
from aurum.ingestion.store import DAY_US
from aurum.readings.batch import Batch, Series, now_us
from aurum.readings.ingest_stream import Written

DAY = now_us() // DAY_US * DAY_US  # today, which is not over: a later batch finds its place
SOURCES, MACHINES = ("one", "two", "three"), ("a", "b")
END = 2**61
columns = st.dictionaries(st.integers(0, 12), st.integers(0, 99), min_size=1, max_size=6)


class Model:
    """Of readings at the same time those of the source that was seen last count, of one source those of the highest
    sequence; requests with a key are one source, in the order of arrival."""

    def __init__(self) -> None:
        self.order: dict[str, int] = {}
        self.taken: set[tuple[str, int]] = set()
        self.keyed = 0
        self.readings: dict[str, dict[int, tuple[tuple[int, int], float]]] = {}

    def write(self, source: str, sequence: int, machine: str, column: dict[int, int]) -> int:
        """How many readings are new."""
        if (source, sequence) in self.taken:
            return 0
        self.taken.add((source, sequence))
        name = source
        if source.startswith("key/"):
            self.keyed += 1
            name, sequence = "keys", self.keyed
            self.order.setdefault(source, len(self.order))
        rank = (self.order.setdefault(name, len(self.order)), sequence)
        series = self.readings.setdefault(machine, {})
        for at, value in column.items():
            if at not in series or series[at][0] <= rank:
                series[at] = (rank, float(value))
        return len(column)

    def values(self, machine: str) -> list[tuple[int, float]]:
        return [(at, value) for at, (_, value) in sorted(self.readings.get(machine, {}).items())]


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="store-model"))
        self.path = self.folder / "0" / "store.db"
        self.model = Model()
        self.opened = 0
        self.keys = 0
        self.plant = Plant(PlantLimits(), 16, 1_000_000)
        self.store = self.open()

    def open(self) -> SqliteStore:
        async def begin() -> SqliteStore:
            store = SqliteStore(SqliteOptions(self.path, min_free_bytes=0))
            await store.start()
            if store._keeper:  # maintenance comes when this test says so
                store._keeper.cancel()
            self.plant = Plant(PlantLimits(), 16, 1_000_000)
            self.plant.load(await store.machines(), await store.summaries())
            return store

        return self.runner.run(begin())

    def teardown(self) -> None:
        self.runner.run(self.store.close())
        self.runner.close()
        shutil.rmtree(self.folder)

    def write(self, source: str, sequence: int, machine: str, column: dict[int, int]) -> None:
        at = np.array([DAY + each for each in column], np.int64)
        batch = Batch.of(source, sequence, [Series(machine, "s", at, np.array(list(column.values()), np.float64))])

        async def append() -> Written:
            return await (await self.store.append(batch, wait=True))

        written = self.runner.run(append())
        assert written.accepted == self.model.write(source, sequence, machine, column)
        if written.accepted:
            self.plant.apply(batch, now_us(), written.rank)

    @rule(
        source=st.sampled_from(SOURCES), sequence=st.integers(1, 9), machine=st.sampled_from(MACHINES), column=columns
    )
    def batch_comes(self, source: str, sequence: int, machine: str, column: dict[int, int]) -> None:
        self.write(source, sequence, machine, column)

    @rule(machine=st.sampled_from(MACHINES), column=columns, again=st.booleans())
    def request_with_a_key_comes(self, machine: str, column: dict[int, int], again: bool) -> None:
        self.keys += not again or not self.keys
        self.write(f"key/{self.keys}", 1, machine, column)

    @rule()
    def log_is_flushed(self) -> None:
        self.runner.run(self.store._flush())

    @rule()
    def segments_are_merged(self) -> None:
        async def merge() -> None:
            compactor = self.store._compactor
            await self.store._tend("looking", lambda tables: compactor.look_through(tables, now_us()))
            for place in list(self.places()):
                compactor._due[place] = None
            while compactor.due:
                await self.store._tend("merging", lambda tables: compactor.step(tables, now_us()))
            assert not self.store._failing

        self.runner.run(merge())

    def places(self) -> set[tuple[int, int]]:
        with snapshot.open_snapshot(self.path) as found:
            rows = found.connection.execute("SELECT DISTINCT series, start_us / ? FROM segments", (DAY_US,)).fetchall()
        return {(row[0], row[1]) for row in rows}

    @rule()
    def service_restarts(self) -> None:
        self.runner.run(self.store.close())
        self.store = self.open()

    @rule()
    def machine_loses_its_power(self) -> None:
        """What is on the disk at this moment is all there is."""
        self.opened += 1
        there = self.folder / str(self.opened)
        shutil.copytree(self.path.parent, there, ignore=shutil.ignore_patterns("*-shm"))
        self.runner.run(self.store.close())
        self.path = there / "store.db"
        self.store = self.open()

    @rule()
    def backup_is_restored(self) -> None:
        self.opened += 1
        target = self.folder / str(self.opened) / "store.db"
        snapshot.backup(self.path, target)
        self.runner.run(self.store.close())
        self.path = target
        self.store = self.open()

    @invariant()
    def answers_are_the_models(self) -> None:
        for machine in MACHINES:
            expected = self.model.values(machine)
            points = self.runner.run(self.store.read(machine, "s", 0, END))
            assert list(zip((points.timestamps - DAY).tolist(), points.values.tolist(), strict=True)) == expected
            last = self.runner.run(self.store.read(machine, "s", 0, END, last=3))
            assert last.values.tolist() == [value for _, value in expected[-3:]]
        summaries = self.runner.run(self.store.summaries())
        found = {each.machine_id: (each.first_us - DAY, each.last_us - DAY, each.last_value) for each in summaries}
        expected_summaries = {}
        for machine in MACHINES:
            if readings := self.model.values(machine):
                expected_summaries[machine] = (readings[0][0], *readings[-1])
        assert found == expected_summaries
        shown = {machine: self.plant.get(machine).sensors["s"] for machine in expected_summaries}
        assert {machine: (at - DAY, value) for machine, (at, value) in shown.items()} == {
            machine: (last, value) for machine, (_, last, value) in expected_summaries.items()
        }


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=8, stateful_step_count=20, deadline=None)
