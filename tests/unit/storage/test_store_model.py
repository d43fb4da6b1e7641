"""The store against a model of a few lines: whatever comes in whatever order, everything that tells of readings says
what the model does: Query, GetMachine, Watch, the summaries, and the files read beside the service."""

import asyncio
import contextlib
import shutil
import sqlite3
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from aurum.ingestion.downsample import Reducer
from aurum.ingestion.machine_state import MachineStates
from aurum.ingestion.plant_limits import PlantLimits
from aurum.ingestion.servicer import IngestionServicer
from aurum.ingestion.sqlite import block_merging, compaction, packing, snapshot, sources
from aurum.ingestion.sqlite.store import SqliteOptions, SqliteStore
from aurum.readings.batch import SEQUENCE_CLOSED, Series, encode, now_us
from aurum.runtime.errors import InvalidArgumentError
from aurum.runtime.time_units import DAY_US
from aurum.security.settings import SenderSettings
from aurum.security.source_limits import SourceLimits
from aurum.storage import block
from aurum.v1 import ingestion_pb2

TODAY = now_us() // DAY_US * DAY_US
OVER = TODAY - 3 * DAY_US  # a day of which everything is merged
FIRST = OVER + DAY_US - 3  # half of the times are on that day, the others on the next, which is over too
TIMES = 6
SOURCES, MACHINES = ("one", "two", "three"), ("a", "b", "c")
COMMON = "*"  # the source that requests with a key are
MOST_RANGES, KEPT_RANGES = 5, 3
columns = st.dictionaries(st.integers(0, TIMES - 1), st.integers(0, 99), min_size=1, max_size=4)
starts = st.sampled_from([FIRST, TODAY])
Values = list[tuple[int, float]]


class Model:
    """Of readings at the same time those of the source that was seen last count, of one source those of the highest
    sequence; requests with a key are one source, in the order of arrival."""

    def __init__(self) -> None:
        self.seen = 0
        self.order: dict[str, int] = {}
        self.taken: dict[str, set[int]] = {}
        self.closed: dict[str, int] = {}
        self.unflushed: set[str] = set()
        self.readings: dict[str, dict[int, tuple[tuple[int, int], float]]] = {}

    def write(self, source: str, sequence: int, machine: str, column: dict[int, int]) -> int | None:
        """How many readings are new; None for a batch that is refused."""
        if sequence <= self.closed.get(source, 0):
            return None
        if sequence in self.taken.get(source, ()):
            return 0
        rank = self.take(source, sequence)
        if source.startswith("key/"):
            rank = self.take(COMMON, max(self.taken.get(COMMON, {0})) + 1)
        series = self.readings.setdefault(machine, {})
        for at, value in column.items():
            if at not in series or series[at][0] <= rank:
                series[at] = (rank, float(value))
        return len(column)

    def take(self, source: str, sequence: int) -> tuple[int, int]:
        if source not in self.order:
            self.seen += 1
            self.order[source] = self.seen
        self.unflushed.add(source)
        taken = self.taken.setdefault(source, set())
        taken.add(sequence)
        begins = sorted(each for each in taken if each - 1 not in taken)
        if len(begins) > MOST_RANGES:
            self.closed[source] = begins[-KEPT_RANGES] - 1
            taken |= set(range(self.closed[source] + 1))
        return self.order[source], sequence

    def forget(self, source: str) -> None:
        if source not in self.unflushed:
            for known in (self.order, self.taken, self.closed):
                known.pop(source, None)

    def values(self, machine: str) -> Values:
        return [(at, value) for at, (_, value) in sorted(self.readings.get(machine, {}).items())]


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.limits = contextlib.ExitStack()
        self.limits.enter_context(mock.patch.multiple(sources, _MAX_RANGES=MOST_RANGES, _KEPT_RANGES=KEPT_RANGES))
        # A series with few readings on a day is in blocks already, and moves to segments when it gets more
        self.limits.enter_context(mock.patch.object(packing, "SEGMENT_READINGS", 4))
        self.limits.enter_context(mock.patch.object(block, "_COMPRESS_MIN_READINGS", 6))
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="store-model"))
        self.path = self.folder / "0" / "store.db"
        self.model = Model()
        self.opened = 0
        self.keys = 0
        self.open()

    def open(self) -> None:
        async def begin() -> SqliteStore:
            store = SqliteStore(SqliteOptions(self.path, min_free_bytes=0))
            await store.start()
            if store._keeper:  # maintenance comes when this test says so
                store._keeper.cancel()
            plant = MachineStates(PlantLimits(), 16, 1_000_000)
            plant.load(await store.list_machines(), await store.summaries())
            self.servicer = IngestionServicer(store, plant, SourceLimits(SenderSettings()), 4_000_000)
            return store

        self.store = self.runner.run(begin())

    def close(self) -> None:
        self.runner.run(self.store.close())

    def teardown(self) -> None:
        self.close()
        self.runner.close()
        self.limits.close()
        shutil.rmtree(self.folder)

    def write(self, source: str, sequence: int, machine: str, column: dict[int, int]) -> None:
        at = np.array(list(column), np.int64)
        message = encode(source, sequence, [Series(machine, "s", at, np.array(list(column.values()), np.float64))])
        request = ingestion_pb2.WriteRequest(batch=message).SerializeToString()
        expected = self.model.write(source, sequence, machine, column)
        if expected is None:
            with pytest.raises(InvalidArgumentError) as refused:
                self.runner.run(self.servicer.Write(request, None))
            assert refused.value.reason == SEQUENCE_CLOSED
            return
        written = self.runner.run(self.servicer.Write(request, None))
        assert written.accepted == expected
        assert written.duplicate == (0 if expected else len(column))

    def comes(  # noqa: PLR0917
        self, source: str, sequence: int, machine: str, start: int, column: dict[int, int], flushed: bool
    ) -> None:
        self.write(source, sequence, machine, {start + at: value for at, value in column.items()})
        if flushed:
            self.flush()

    def flush(self) -> None:
        self.runner.run(self.store._flush())
        self.model.unflushed.clear()

    @rule(
        source=st.sampled_from(SOURCES),
        sequence=st.integers(1, 16),
        machine=st.sampled_from(MACHINES),
        start=starts,
        column=columns,
        flushed=st.booleans(),
    )
    def batch_comes(  # noqa: PLR0917
        self, source: str, sequence: int, machine: str, start: int, column: dict[int, int], flushed: bool
    ) -> None:
        self.comes(source, sequence, machine, start, column, flushed)

    @rule(machine=st.sampled_from(MACHINES), start=starts, column=columns, again=st.booleans(), flushed=st.booleans())
    def request_with_a_key_comes(
        self, machine: str, start: int, column: dict[int, int], again: bool, flushed: bool
    ) -> None:
        self.keys += not again or not self.keys
        self.comes(f"key/{self.keys}", 1, machine, start, column, flushed)

    @rule()
    def log_is_flushed(self) -> None:
        self.flush()

    @rule(most=st.sampled_from([3, 6, 100_000]), fan_in=st.sampled_from([2, 3, 16]), steps=st.sampled_from([1, 2, 100]))
    def segments_are_merged(self, most: int, fan_in: int, steps: int) -> None:
        """most: readings of a segment, about, with which it is merged no further. fan_in: of the blocks."""

        async def merge() -> None:
            compactor = self.store._compactor
            await self.store._run_maintenance("looking", lambda tables: compactor.find_due(tables, now_us()))
            for place in list(self.places()):
                compactor._due[place] = None
            for _ in range(steps):
                await self.store._run_maintenance("merging", lambda tables: compactor.merge_next(tables, now_us()))
            assert not self.store._failing

        with (
            mock.patch.multiple(compaction, SMALL=most, _LARGE=most, _MOST_AT_ONCE=2 * most),
            mock.patch.multiple(block_merging, _FAN_IN=fan_in, _MOST_AT_ONCE=2 * most),
        ):
            self.runner.run(merge())

    def places(self) -> set[tuple[int, int]]:
        with snapshot.open_snapshot(self.path) as found:
            rows = found.connection.execute("SELECT DISTINCT series, start_us / ? FROM segments", (DAY_US,)).fetchall()
        return {(row[0], row[1]) for row in rows}

    @rule(source=st.sampled_from([*SOURCES, COMMON, "key/1"]))
    def source_is_forgotten(self, source: str) -> None:
        """Unless it has sent something since the last flush."""
        with contextlib.closing(sqlite3.connect(self.path)) as tables:
            tables.execute("UPDATE sources SET seen_us = 0 WHERE source_id = ?", (source,))
            tables.commit()
        self.runner.run(self.store._run_maintenance("forgetting", self.store._prune))
        assert not self.store._failing
        self.model.forget(source)

    @rule()
    def service_restarts(self) -> None:
        self.close()
        self.model.unflushed.clear()
        self.open()

    @rule()
    def machine_loses_its_power(self) -> None:
        """What is on the disk at this moment is all there is."""
        self.opened += 1
        there = self.folder / str(self.opened)
        shutil.copytree(self.path.parent, there, ignore=shutil.ignore_patterns("*-shm"))
        self.close()
        self.path = there / "store.db"
        self.open()

    @rule()
    def backup_is_restored(self) -> None:
        self.opened += 1
        target = self.folder / str(self.opened) / "store.db"
        snapshot.backup(self.path, target)
        self.close()
        self.path = target
        self.open()

    def queried(self, machine: str, **asked: Any) -> Values:
        async def ask() -> Values:
            request = ingestion_pb2.QueryRequest(machine_ids=[machine], **asked)
            answers = [answer.SerializeToString() async for answer in self.servicer.Query(request, None)]
            found = [each for answer in answers for each in ingestion_pb2.QueryResponse.FromString(answer).series]
            return [pair for each in found for pair in zip(each.timestamps_us, each.values, strict=True)]

        return self.runner.run(ask())

    def latest(self) -> dict[str, tuple[int, int, int, float]]:
        """By machine: first and last seen, and its sensor's last reading, as GetMachine and Watch have them."""

        async def watch() -> list[ingestion_pb2.Machine]:
            async def take_up(_: Any) -> None: ...

            context = SimpleNamespace(send_initial_metadata=take_up)
            watching = self.servicer.Watch(ingestion_pb2.WatchRequest(), context)
            machines = list((await anext(watching)).machines)
            await watching.aclose()
            for machine in machines:
                request = ingestion_pb2.GetMachineRequest(machine_id=machine.machine_id)
                assert (await self.servicer.GetMachine(request, None)).machine == machine
            return machines

        return {
            machine.machine_id: (
                machine.first_seen_us,
                machine.last_seen_us,
                machine.sensors[0].timestamp_us,
                machine.sensors[0].value,
            )
            for machine in self.runner.run(watch())
        }

    @invariant()
    def answers_are_the_models(self) -> None:
        expected = {machine: found for machine in MACHINES if (found := self.model.values(machine))}
        for machine, values in expected.items():
            points = self.runner.run(self.store.read(machine, "s", 0, 2**61))
            assert list(zip(points.timestamps.tolist(), points.values.tolist(), strict=True)) == values
            assert self.queried(machine) == values
            assert self.queried(machine, last=3) == values[-3:]
            assert self.queried(machine, start_us=FIRST, end_us=FIRST + TIMES) == [
                reading for reading in values if reading[0] < FIRST + TIMES
            ]
            at, column = np.array([at for at, _ in values]), np.array([value for _, value in values])
            reduced = self.runner.run(self.store.read(machine, "s", FIRST, TODAY + TIMES, points=4))
            if reduced.counts is not None:
                reducer = Reducer(FIRST, TODAY + TIMES, 4)
                reducer.add_readings(at, column)
                at, column = reducer.result().timestamps, reducer.result().values
            assert (reduced.timestamps.tolist(), reduced.values.tolist()) == (at.tolist(), column.tolist())
        summaries = self.runner.run(self.store.summaries())
        told = {machine: (values[0][0], *values[-1]) for machine, values in expected.items()}
        assert {each.machine_id: (each.first_us, each.last_us, each.last_value) for each in summaries} == told
        assert self.latest() == {machine: (first, at, at, value) for machine, (first, at, value) in told.items()}
        with snapshot.open_snapshot(self.path) as beside:
            columns = {machine: beside.series((machine, "s")) for machine in expected}
        assert {
            machine: list(zip(at.tolist(), column.tolist(), strict=True)) for machine, (at, column) in columns.items()
        } == expected


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=8, stateful_step_count=20, deadline=None)
