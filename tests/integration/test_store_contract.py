"""What every store promises, shown on each: SQLite in a file, Cassandra on three real nodes."""

import asyncio
import random
import struct
import uuid
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from cassandra import InvalidRequest

from aurum.commands.stores import read_machine, read_records
from aurum.ingestion.cassandra.compaction import merge_day
from aurum.ingestion.cassandra.merging import Merger
from aurum.ingestion.cassandra.schema import BUCKETS, STEPS
from aurum.ingestion.cassandra.series import CassandraSeries
from aurum.ingestion.cassandra.session import parse_url
from aurum.ingestion.cassandra.store import CassandraStore
from aurum.ingestion.machine_state import MachineStates
from aurum.ingestion.plant_limits import PlantLimits
from aurum.ingestion.sqlite.store import SqliteOptions, SqliteStore
from aurum.ingestion.store import Change, Event, MachineRecord, Store
from aurum.maintenance.records import RECORD
from aurum.readings.batch import Batch, Series, now_us
from aurum.readings.source_owner import SOURCE_TAKEN
from aurum.runtime.errors import AlreadyExistsError, PermissionDeniedError
from aurum.runtime.time_units import DAY_US
from aurum.storage.segment import pack

END = 2**61
Open = Callable[[], Store]


@pytest.fixture(params=["sqlite", pytest.param("cassandra", marks=pytest.mark.proof("cassandra"))])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the same store again at each call."""
    if request.param == "sqlite":
        return lambda: SqliteStore(SqliteOptions(tmp_path / "store.db"))
    options = parse_url(f"{request.getfixturevalue('cassandra').url('contract')}?replication=3")
    return lambda: CassandraStore(options, 64_000_000, 0.0)


@pytest.fixture
async def store(open_store: Open) -> AsyncIterator[Store]:
    opened = open_store()
    await opened.start()
    yield opened
    await opened.close()


@pytest.fixture
def machine() -> str:
    """A machine that nobody has used: the cluster's keyspace is the same for all tests."""
    return f"m-{uuid.uuid4().hex[:12]}"


def batch(machine: str, sequence: int, at: list[int], values: Sequence[float], source: str = "") -> Batch:
    series = Series(machine, "s", np.array(at, dtype=np.int64), np.array(values, dtype=np.float64))
    return Batch.from_series(source or f"source-{machine}", sequence, [series])


async def write(store: Store, *batches: Batch) -> list[tuple[int, int]]:
    writing = [await store.append_batch(each, wait=True) for each in batches]
    return [(written.accepted, written.duplicate) for written in await asyncio.gather(*writing)]


async def values_of(store: Store, machine: str, **asked: int) -> list[float]:
    points = await store.read(machine, "s", asked.pop("start", 0), asked.pop("end", END), **asked)
    return points.values.tolist()


async def test_batch_is_stored_once(store: Store, machine: str) -> None:
    """A batch that is sent again, in any order, is stored once."""
    assert await write(store, batch(machine, 1, [10, 20], [1, 2])) == [(2, 0)]
    assert await write(store, batch(machine, 1, [10, 20], [1, 2])) == [(0, 2)]
    assert await write(store, batch(machine, 3, [40], [4])) == [(1, 0)]
    assert await write(store, batch(machine, 2, [30], [3])) == [(1, 0)]
    assert await write(store, batch(machine, 3, [40], [4])) == [(0, 1)]
    assert await values_of(store, machine) == [1, 2, 3, 4]


async def test_store_keeps_everything_across_restart(open_store: Open, machine: str) -> None:
    """Readings, sequences, machines and events survive a restart of the store."""
    first = open_store()
    await first.start()
    await first.register(MachineRecord(machine, "pump", "a", 1, "r"))
    await write(first, batch(machine, 7, [10, 20], [1, 2]))
    event = Event("prediction", machine, 5, "x", b"{}")
    await first.record_events([event])
    await first.close()
    second = open_store()
    await second.start()
    assert await write(second, batch(machine, 7, [10, 20], [1, 2])) == [(0, 2)]
    assert await values_of(second, machine) == [1, 2]
    assert [each.machine_type for each in await second.list_machines() if each.machine_id == machine] == ["pump"]
    (summary,) = [each for each in await second.summaries() if each.machine_id == machine]
    assert (summary.first_us, summary.last_us, summary.last_value) == (10, 20, 2.0)
    assert await second.events("prediction", machine, 0, 10, 10) == [event]
    await second.close()


async def test_gateways_of_machines_survive_a_restart(open_store: Open, machine: str) -> None:
    """From which gateway a machine is sent is known after a restart of the store; the latest one counts."""
    first = open_store()
    await first.start()
    await first.record_gateways({machine: "hall-3", f"{machine}-b": "hall-4"})
    await first.record_gateways({machine: "hall-5"})
    await first.record_gateways({})
    await first.close()
    second = open_store()
    await second.start()
    known = await second.gateways()
    assert (known[machine], known[f"{machine}-b"]) == ("hall-5", "hall-4")
    await second.close()


async def test_all_readings_of_a_machine_are_read(store: Store, machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine's whole history is read, also if it is longer than an answer may be."""
    monkeypatch.setattr("aurum.ingestion.series_reader.MAX_RAW", 10)
    at = [10 * DAY_US * (each // 5) + each for each in range(96)]
    await write(store, *(batch(machine, n + 1, at[5 * n : 5 * n + 5], range(5 * n, 5 * n + 5)) for n in range(19)))
    await write(store, batch(machine, 20, at[95:], [95]))
    (sensor, (timestamps, values)), *others = (await read_machine(store, machine)).items()
    assert (sensor, timestamps.tolist(), values.tolist(), others) == ("s", at, list(range(96)), [])
    assert await read_machine(store, "nobody") == {}


async def test_all_maintenance_records_are_read(store: Store, machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All maintenance records of a machine are read in the order of time, also if they are more than an answer."""
    monkeypatch.setattr("aurum.commands.stores._EVENTS_AT_ONCE", 2)
    events = [Event(RECORD, machine, 10 + number // 2, f"r-{number}", b"{}") for number in range(5)]
    await store.record_events([*events, Event("prediction", machine, 12, "x", b"{}")])
    found = await read_records(store, machine)
    assert [(each.at_us, each.id) for each in found] == [(each.at_us, each.id) for each in events]


async def test_source_belongs_to_its_first_owner(open_store: Open, machine: str) -> None:
    """Another caller's batch of a source is refused, never called a duplicate, also after a restart of the store."""
    store = open_store()
    await store.start()
    assert await write(store, batch(machine, 1, [10], [1])) == [(1, 0)]  # before there was anybody to own it
    assert await write(store, batch(machine, 2, [20], [2]).with_owner("site/a")) == [(1, 0)]
    for _ in range(2):
        for other in ("site/b", ""):
            for sequence in (2, 3):
                with pytest.raises(PermissionDeniedError) as refused:
                    await write(store, batch(machine, sequence, [30], [3]).with_owner(other))
                assert refused.value.reason == SOURCE_TAKEN
                assert "site/a" not in refused.value.message
        assert await write(store, batch(machine, 2, [20], [2]).with_owner("site/a")) == [(0, 1)]
        assert await values_of(store, machine) == [1, 2]
        await store.close()
        store = open_store()
        await store.start()
    await store.close()


async def test_two_callers_at_once_share_no_source(store: Store, machine: str) -> None:
    """Of two callers that use a new source at the same moment, one gets it."""
    batches = [batch(machine, 1, [10], [number]).with_owner(f"site/{number}") for number in (1, 2)]
    writing = [await store.append_batch(each, wait=True) for each in batches]
    outcomes = await asyncio.gather(*writing, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, PermissionDeniedError)]
    stored = [number for number, outcome in enumerate(outcomes, 1) if not isinstance(outcome, BaseException)]
    assert len(refused) == len(stored) == 1
    assert await values_of(store, machine) == stored


async def test_highest_sequence_wins_at_equal_timestamps(store: Store, machine: str) -> None:
    """Of two readings with the same timestamp the one with the higher sequence counts."""
    await write(store, batch(machine, 2, [10, 20], [5, 6]))
    await write(store, batch(machine, 1, [10, 20, 30], [1, 2, 3]))
    assert await values_of(store, machine) == [5, 6, 3]


async def test_latest_reading_is_the_one_that_queries_find(open_store: Open, machine: str) -> None:
    """Of readings at the latest time the summary has that of the highest rank, as queries do, whatever its value."""
    store = open_store()
    await store.start()
    at = now_us()
    for source, sequence, value, counts in (
        ("one", 2, 5.0, 5.0),
        ("one", 1, 9.0, 5.0),
        ("one", 4, 2.0, 2.0),
        ("two", 1, 1.0, 1.0),
        ("one", 5, 7.0, 1.0),
    ):
        await write(store, batch(machine, sequence, [at], [value], source=f"{source}-{machine}"))
        assert await values_of(store, machine) == [counts]
        assert [each.last_value for each in await store.summaries() if each.machine_id == machine] == [counts]
        await store.close()
        store = open_store()
        await store.start()
    await store.close()


async def test_late_batches_keep_their_rank(store: Store, machine: str) -> None:
    """What comes late for a day that is over counts where its rank says, whatever has been merged until then."""
    day = now_us() // DAY_US * DAY_US - 3 * DAY_US
    sent = [batch(machine, sequence, [day, day + sequence], [sequence] * 2) for sequence in range(1, 101)]
    late = [sent.pop(place) for place in (70, 40, 6)]
    await write(store, *sent)
    await write(store, batch(machine, 1, [day + 50], [-1], source=f"other-{machine}"))
    late.append(batch(machine, 101, [day + 50], [101]))
    late.append(batch(machine, 7, [day, day + 7, day + 5, day + 9, day + 50], [7] * 5))
    await write(store, *late[:2], *late[3:])
    expected = {0: 100, **{at: at for at in range(1, 101)}, 5: 7, 50: -1}
    for _ in range(2):  # while they are merged
        found = await store.read(machine, "s", day, day + 200)
        assert dict(zip((found.timestamps - day).tolist(), found.values.tolist(), strict=True)) == expected
        await asyncio.sleep(0.5)


async def test_read_spans_several_days(store: Store, machine: str) -> None:
    """A read joins days, and respects its bounds and its limit."""
    at = [DAY_US - 2, DAY_US - 1, DAY_US, 3 * DAY_US]
    await write(store, batch(machine, 1, at, [1, 2, 3, 4]))
    assert await values_of(store, machine) == [1, 2, 3, 4]
    assert await values_of(store, machine, start=DAY_US - 1, end=3 * DAY_US) == [2, 3]
    assert await values_of(store, machine, last=3) == [2, 3, 4]
    assert await values_of(store, machine, last=2, end=DAY_US + 1) == [2, 3]
    assert await values_of(store, "nobody") == []
    (summary,) = [each for each in await store.summaries() if each.machine_id == machine]
    assert (summary.first_us, summary.last_us, summary.last_value) == (at[0], at[-1], 4.0)


async def test_downsampling_keeps_spike(store: Store, machine: str) -> None:
    """Downsampling keeps the extremes and the count of readings."""
    values = np.ones(10_000)
    values[4321] = 99.0
    await write(store, batch(machine, 1, list(range(10_000)), values.tolist()))
    points = await store.read(machine, "s", 0, 10_000, points=100)
    assert points.maxima is not None
    assert points.counts is not None
    assert (len(points.values), points.maxima.max(), points.counts.sum()) == (100, 99.0, 10_000)


async def test_many_unordered_small_batches_form_one_series(store: Store, machine: str) -> None:
    """Small batches in any order read as one ordered series while segments are merged."""
    chance = random.Random(machine)
    batches = [batch(machine, sequence, [sequence * 1000], [float(sequence)]) for sequence in range(1, 301)]
    chance.shuffle(batches)
    results = await write(store, *batches)
    assert results == [(1, 0)] * 300
    for _ in range(3):  # while small segments are merged
        assert await values_of(store, machine) == [float(number) for number in range(1, 301)]
        assert await values_of(store, machine, last=5) == [296, 297, 298, 299, 300]
        await asyncio.sleep(1.0)


async def test_machine_is_registered_once(store: Store, machine: str) -> None:
    """A machine is registered once; another registration of its name is refused."""
    pump = MachineRecord(machine, "pump", "a", 1, "r1")
    assert await store.register(pump) == pump
    assert await store.register(MachineRecord(machine, "pump", "a", 2, "r1")) == pump
    for other in (MachineRecord(machine, "pump", "a", 3, "r2"), MachineRecord(machine, "motor", "a", 3, "r1")):
        with pytest.raises(AlreadyExistsError):
            await store.register(other)


async def test_machine_known_from_readings_can_be_registered(store: Store, machine: str) -> None:
    """A machine that sent readings before can still be registered."""
    await write(store, batch(machine, 1, [1], [1]))
    assert [each.machine_type for each in await store.list_machines() if each.machine_id == machine] == [""]
    await store.register(MachineRecord(machine, "motor", "", 9, ""))
    assert [each.machine_type for each in await store.list_machines() if each.machine_id == machine] == ["motor"]


async def test_senders_of_a_machine_are_known_by_owner(open_store: Open, machine: str) -> None:
    """Only if the sources of all of a machine's readings belong to one owner did that owner alone send it, whether the
    readings are in memory or in the tables."""
    store = open_store()
    await store.start()
    assert not await store.sent_only_by(machine, "site/a")
    await write(store, batch(machine, 1, [10], [1]).with_owner("site/a"))
    await write(store, batch(f"{machine}-2", 1, [10], [1]))  # of a source that nobody owns
    for _ in range(2):
        assert await store.sent_only_by(machine, "site/a")
        assert not await store.sent_only_by(machine, "site/b")
        assert not await store.sent_only_by(f"{machine}-2", "site/a")
        await store.close()
        store = open_store()
        await store.start()
    other = Batch.from_series(f"other-{machine}", 1, [Series(machine, "s", np.array([5]), np.array([1.0]))])
    await write(store, other.with_owner("site/b"))  # which is not the last reading
    for _ in range(2):
        assert not await store.sent_only_by(machine, "site/a")
        await store.close()
        store = open_store()
        await store.start()
    await store.close()


async def test_events_are_returned_newest_first(store: Store, machine: str) -> None:
    """Events are stored once and returned newest first, within bounds."""
    events = [Event("prediction", machine, at, f"id-{at}", str(at).encode()) for at in range(1, 8)]
    await store.record_events(events)
    await store.record_events(events[:2])  # again
    await store.record_events([Event("alarm", machine, 3, "other", b"")])
    assert await store.events("prediction", machine, 2, 6, 3) == [events[4], events[3], events[2]]
    assert len(await store.events("prediction", machine, 0, END, 100)) == 7


async def test_events_of_plant_are_found_by_machine(store: Store, machine: str) -> None:
    """Events of the plant that concern a machine are found by it, newest first, in pages, within a range of time."""
    other = f"{machine}0"  # begins with the same characters
    events = [Event("alarm", "", at, f"{machine}~hot~{at % 2}", str(at).encode()) for at in range(1, 8)]
    same_time = Event("alarm", "", 7, f"{machine}~cold~0", b"7")
    await store.record_events([*events, same_time, Event("alarm", "", 3, f"{other}~hot~1", b""), *events[:2]])
    await store.record_events([Event("note", "", 3, f"{machine}~hot", b""), Event("alarm", "", 3, machine, b"")])
    await store.record_events([Event("alarm", machine, 3, f"{machine}~own", b"")])
    newest_first = [events[6], same_time, *reversed(events[:6])]
    assert await store.events_about("alarm", machine, 0, END, 100) == newest_first
    assert await store.events_about("alarm", machine, 2, 6, 3) == [events[4], events[3], events[2]]
    pages, before = [], None
    while page := await store.events_about("alarm", machine, 0, END, 3, before):
        pages += page
        before = (page[-1].at_us, page[-1].id)
    assert pages == newest_first
    assert [each.at_us for each in await store.events_about("alarm", other, 0, END, 100)] == [3]
    assert await store.events_about("alarm", "", 0, END, 100) == []


async def test_journal_is_in_the_order_of_recording(open_store: Open) -> None:
    """Events of the plant as a whole are numbered as they are recorded, also across a restart; recorded again they keep
    their number, and times and ids count for nothing."""
    kind = f"k{uuid.uuid4().hex[:8]}"
    kind = "".join(chr(ord("a") + int(each, 16)) for each in kind[1:])
    store = open_store()
    await store.start()
    events = [Event(kind, "", at, f"id-{at}", str(at).encode()) for at in (50, 10, 30)]
    await store.record_events(events[:2])
    await store.close()
    store = open_store()
    await store.start()
    await store.record_events(events[2:])
    await store.record_events([Event(kind, "other machine", 5, "x", b"")])
    await store.record_events(events[:1])  # again
    found = await store.journal(kind, 0, END, 10)
    first: dict[int, int] = {}
    for event in found:
        first[event.at_us] = event.number  # the lowest comes last
    assert sorted(first, key=lambda at: first[at]) == [50, 10, 30]
    assert [event.number for event in found] == sorted((event.number for event in found), reverse=True)
    middle = first[10]
    assert {event.at_us for event in await store.journal(kind, middle, END, 10)} >= {30}
    assert [event.at_us for event in await store.journal(kind, 0, middle, 10)] == [50]
    assert len(await store.journal(kind, 0, END, 1)) == 1
    await store.close()


@pytest.mark.proof("cassandra")
async def test_cassandra_replicas_see_each_others_writes(cassandra: object, machine: str) -> None:
    """Two ingestion replicas see what the other has stored."""
    options = parse_url(f"{cassandra.url('contract')}?replication=3")  # type: ignore[attr-defined]
    one, other = CassandraStore(options, 10**7, 0.0), CassandraStore(options, 10**7, 0.0)
    await one.start()
    await other.start()
    stored: dict[CassandraStore, list[tuple[str, int]]] = {one: [], other: []}
    for store in (one, other):
        store.follow(lambda each, rank, of=store: stored[of].append((each.source_id, each.sequence)))  # type: ignore[misc]
    await one.register(MachineRecord(machine, "pump", "a", 1, "r"))
    await write(one, batch(machine, 1, [1_000_000, 2_000_000], [1, 2]))
    (change,) = [change for change in await other.changes() if change.machine_id == machine]
    assert change.machine is not None
    assert change.machine.machine_type == "pump"
    assert (f"source-{machine}", 1) in stored[other]
    assert not [change for change in await one.changes() if change.machine_id == machine]
    assert (f"source-{machine}", 1) not in stored[one]
    found = await other.find_machine(machine)
    assert found is not None
    assert (found.first_us, latest(found)) == (1_000_000, {"s": (2_000_000, 2.0)})
    assert await other.find_machine("nobody") is None
    assert await values_of(other, machine) == [1, 2]
    # An older reading that comes later does not take the latest one's place:
    await write(other, batch(machine, 2, [1_500_000], [7]))
    found = await one.find_machine(machine)
    assert found is not None
    assert latest(found) == {"s": (2_000_000, 2.0)}
    await one.close()
    await other.close()


@pytest.mark.proof("cassandra")
async def test_cassandra_replicas_show_the_highest_rank(cassandra: object, machine: str) -> None:
    """Of readings at the same time that two replicas store, both show the one that queries find."""
    options = parse_url(f"{cassandra.url('contract')}?replication=3")  # type: ignore[attr-defined]
    stores = [CassandraStore(options, 10**7, 0.0) for _ in range(2)]
    plants = [MachineStates(PlantLimits(), 16, 1_000_000, shared=True) for _ in stores]
    at = now_us()
    for store, plant in zip(stores, plants, strict=True):
        await store.start()
        store.follow(lambda each, rank, of=plant: of.apply_batch(each, at, rank))  # type: ignore[misc]
    for place, sequence, value in ((0, 2, 5.0), (1, 1, 9.0), (1, 4, 2.0), (0, 3, 8.0), (1, 5, 1.0)):
        each = batch(machine, sequence, [at], [value])
        plants[place].apply_batch(each, at, (await (await stores[place].append_batch(each, wait=True))).rank)
        for store, plant in zip(stores, plants, strict=True):
            for change in await store.changes():
                plant.apply_change(change)
            (counts,) = await values_of(store, machine)
            assert plant.get(machine).sensors == {"s": (at, counts)}
            found = await store.find_machine(machine)
            assert found is not None
            assert latest(found) == {"s": (at, counts)}
    assert counts == 1.0
    for store in stores:
        await store.close()


@pytest.mark.proof("cassandra")
async def test_cassandra_schema_steps_can_be_run_again(cassandra: object) -> None:
    """A step that another replica has run already, or that was interrupted, is run again without an error."""
    options = parse_url(f"{cassandra.url('contract')}?replication=3")  # type: ignore[attr-defined]
    store = CassandraStore(options, 10**7, 0.0)
    for version in sorted(STEPS):
        store._session._run_steps(STEPS[version])
    with pytest.raises(InvalidRequest):
        store._session._run_step("ALTER TABLE nothing ADD ranked blob")
    await store.close()


@pytest.mark.proof("cassandra")
async def test_cassandra_rows_of_version_3_remain_in_use(cassandra: object, machine: str) -> None:
    """Readings, sequences and latest values that version 3 of the tables wrote are found beside new ones."""
    options = parse_url(f"{cassandra.url('contract')}?replication=3")  # type: ignore[attr-defined]
    store = CassandraStore(options, 10**7, 0.0)
    session, source = store._session, f"source-{machine}"
    day = now_us() // DAY_US - 2
    at = np.array([day * DAY_US + 1, day * DAY_US + 2])
    packed = pack(at, np.array([1.0, 2.0]))
    for name, row in (
        ("add_machine", (zlib.crc32(machine.encode()) % BUCKETS, machine)),
        ("add_day", (machine, "s", day, 0)),
        ("add_segment", (machine, "s", day, int(at[0]), 77, source, 5, int(at[1]), 2, packed, 0)),
        ("keep_source", (source, 77)),
    ):
        await session.execute(name, row)
    cell = struct.pack(">Q", 77) + source.encode() + b"\0" + struct.pack(">Qqd", 5, int(at[1]), 2.0)
    for text, parameters in (
        ("INSERT INTO received (source, block, sequence) VALUES (%s, %s, %s)", (source, 0, 5)),
        (
            "INSERT INTO latest (bucket, machine_id, first_us, ranked) VALUES (%s, %s, %s, %s)",
            (zlib.crc32(machine.encode()) % BUCKETS, machine, int(at[0]), {"s": cell}),
        ),
    ):
        session._session.execute(text, parameters)
    await store.start()
    assert await values_of(store, machine) == [1, 2]
    (summary,) = [each for each in await store.summaries() if each.machine_id == machine]
    assert (summary.first_us, summary.last_us, summary.last_value) == (int(at[0]), int(at[1]), 2.0)
    assert await write(store, batch(machine, 5, at.tolist(), [1, 2])) == [(0, 2)]
    assert await write(store, batch(machine, 6, [int(at[1]), int(at[1]) + 1], [6, 7])) == [(2, 0)]
    assert await write(store, batch(machine, 4, [int(at[1])], [4])) == [(1, 0)]
    for _ in range(2):
        assert await values_of(store, machine) == [1, 6, 7]
        (summary,) = [each for each in await store.summaries() if each.machine_id == machine]
        assert (summary.first_us, summary.last_us, summary.last_value) == (int(at[0]), int(at[1]) + 1, 7.0)
        await merge_all(store)
    await asyncio.to_thread(merge_day, session, (machine, "s", day), 0, over=True)
    assert await values_of(store, machine) == [1, 6, 7]
    await store.close()


@pytest.mark.proof("cassandra")
async def test_cassandra_reads_slots_that_exceed_memory(cassandra: object, machine: str) -> None:
    """Readings of slots that are not held in memory are read from Cassandra, also at the start of another replica."""
    options = parse_url(f"{cassandra.url('contract')}?replication=3")  # type: ignore[attr-defined]
    stores = [CassandraStore(options, 10**7, 0.0, 1) for _ in range(2)]
    await write(stores[0], *(batch(machine, each, [each], [each]) for each in range(1, 9)))
    for store in stores:
        assert await values_of(store, machine) == list(range(1, 9))
        assert await values_of(store, machine, last=2) == [7, 8]
        (summary,) = [each for each in await store.summaries() if each.machine_id == machine]
        assert (summary.first_us, summary.last_us, summary.last_value) == (1, 8, 8.0)
        assert await write(store, batch(machine, 3, [3], [3])) == [(0, 1)]
        assert not await store.sent_only_by(machine, "site/a")
        await store.close()


@pytest.mark.proof("cassandra")
async def test_cassandra_merge_keeps_ranks_and_few_of_them(cassandra: object, machine: str) -> None:
    """A merged day is one segment; sequences that are far apart do not hold it up, and a late batch finds its place."""
    options = parse_url(f"{cassandra.url('contract')}?replication=3")  # type: ignore[attr-defined]
    store = CassandraStore(options, 10**7, 0.0)  # not started, so that it merges nothing by itself
    day = now_us() // DAY_US * DAY_US - 3 * DAY_US
    place = (machine, "s", day // DAY_US)
    sequences = [1, 2, 4, 5, 2**61]
    for place_of, each in enumerate(sequences, 1):
        await write(store, batch(machine, each, [day, day + place_of], [each] * 2))
        await merge_all(store)  # so that each batch becomes a segment of its own
    await write(store, batch(machine, 1, [day + 9], [0.5], source=f"other-{machine}"))
    await merge_all(store)
    assert await asyncio.to_thread(merge_day, store._session, place, 0, over=True) == 6
    series = CassandraSeries(store._session, machine, "s")
    (piece,) = await asyncio.to_thread(series.pieces, day, day + DAY_US)
    (segment,) = await asyncio.to_thread(series.load, [piece])
    assert segment.ranks is not None
    assert segment.ranks.sequences.tolist() == [2**61, 2, 5, 2**61, 1]
    assert await asyncio.to_thread(merge_day, store._session, place, 0, over=True) == 0
    await write(store, batch(machine, 3, [day, day + 2, day + 3, day + 9], [3] * 4))
    for merge in (merge_all, merge_all, None):
        assert await values_of(store, machine) == [2.0**61, 1, 3, 4, 5, 2.0**61, 0.5]
        if merge:
            await merge(store)
        await asyncio.to_thread(merge_day, store._session, place, 0, over=True)
    await store.close()


async def merge_all(store: CassandraStore) -> None:
    """Moves everything that a store which was not started has in open slots into segments."""
    merger = Merger(store._session, store.series, 0)

    def merge() -> None:
        for row in list(store._session.rows("slots", ())):
            for place in merger.merge_slot(row.slot).places:
                merger.finish_period(place)

    await asyncio.to_thread(merge)


def latest(change: Change) -> dict[str, tuple[int, float]]:
    return {sensor: (latest.at_us, latest.value) for sensor, latest in change.sensors.items()}
