"""The states of machines against a model of dictionaries, whatever comes in whatever order."""

import asyncio
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.ingestion import latest_readings
from aurum.ingestion.latest_readings import LatestReadings
from aurum.ingestion.machine_state import MachineStates
from aurum.ingestion.machine_view import MachineState
from aurum.ingestion.plant_limits import PlantLimits
from aurum.ingestion.series_index import SeriesIndex
from aurum.ingestion.store import Change, Latest, MachineRecord, SeriesSummary
from aurum.readings.batch import Batch, Series, SeriesKeys
from aurum.storage.ranks import Rank
from aurum.v1 import ingestion_pb2

MACHINES, SENSORS = ("c", "a", "b"), ("t", "s", "u v")
times = st.integers(1, 8)
values = st.integers(0, 99).map(float)
local_ranks = st.tuples(st.integers(1, 3), st.integers(1, 3))  # those of SQLite
shared_ranks = st.tuples(st.integers(1, 2), st.sampled_from("xy"), st.integers(1, 3))  # those of Cassandra
columns = st.lists(st.tuples(times, values), min_size=1, max_size=4)
single = columns.map(lambda column: column[:1])
keys = st.tuples(st.sampled_from(MACHINES), st.sampled_from(SENSORS))


@dataclass(frozen=True)
class Sent:
    series: dict[tuple[str, str], list[tuple[int, float]]]
    rank: Rank

    def batch(self) -> Batch:
        return Batch.from_series(
            "src",
            1,
            [
                Series(
                    *key,
                    np.array([at for at, _ in column], np.int64),
                    np.array([value for _, value in column], np.float64),
                    all(one < other for (one, _), (other, _) in pairwise(column)),
                )
                for key, column in self.series.items()
            ],
        )


@dataclass(frozen=True)
class Asked:
    """Someone asks for a series, so that a tail begins."""

    key: tuple[str, str]


def steps(ranks: Any) -> Any:
    latest = st.builds(Latest, times, values, st.one_of(ranks, st.just(())))
    records = st.builds(
        MachineRecord, st.sampled_from(MACHINES), st.just("pump"), st.sampled_from(["", "north"]), times, st.just("r")
    )
    changes = st.builds(
        Change,
        st.sampled_from(MACHINES),
        st.none(),
        st.integers(0, 8),
        st.dictionaries(st.sampled_from(SENSORS), latest, max_size=3),
    )
    return st.lists(
        st.one_of(
            st.builds(Sent, st.dictionaries(keys, single, min_size=1, max_size=9), st.one_of(ranks, st.just(()))),
            st.builds(Sent, st.dictionaries(keys, columns, min_size=1, max_size=9), st.one_of(ranks, st.just(()))),
            st.lists(changes, min_size=1, max_size=3),
            records,
            st.builds(Asked, keys),
        ),
        max_size=20,
    )


@dataclass
class Modelled:
    record: MachineRecord
    first: int = 0
    last: int = 0
    sensors: dict[str, tuple[int, Rank, float]] = field(default_factory=dict)

    def see(self, at: int) -> None:
        self.first = min(self.first or at, at)
        self.last = max(self.last, at)


class Model:
    def __init__(self) -> None:
        self.machines: dict[str, Modelled] = {}

    def machine(self, machine_id: str, now: int) -> Modelled:
        return self.machines.setdefault(machine_id, Modelled(MachineRecord(machine_id, "", "", now, "")))

    def batch(self, sent: Sent, now: int) -> set[str]:
        for (machine_id, sensor), column in sent.series.items():
            machine = self.machine(machine_id, now)
            for at, value in column:
                known = machine.sensors.get(sensor)
                if known is None or (at, sent.rank) >= known[:2]:
                    machine.sensors[sensor] = (at, sent.rank, value)
                machine.see(at)
        return {machine_id for machine_id, _ in sent.series}

    def changes(self, changes: list[Change]) -> set[str]:
        for change in changes:
            machine = self.machine(change.machine_id, 0)
            if change.first_us:
                machine.first = min(machine.first or change.first_us, change.first_us)
            for sensor, latest in change.sensors.items():
                known = machine.sensors.get(sensor)
                if known is None or (latest.at_us, latest.rank) > known[:2]:
                    machine.sensors[sensor] = (latest.at_us, latest.rank, latest.value)
                machine.see(latest.at_us)
        return {change.machine_id for change in changes}


def shown(state: MachineState) -> tuple[Any, ...]:
    return state.record, state.first_seen_us, state.last_seen_us, state.sensors, state.sensor_count


def require_equal(plant: MachineStates, model: Model) -> None:
    for machine_id, machine in model.machines.items():
        state = plant.get(machine_id)
        sensors = {sensor: (at, value) for sensor, (at, _, value) in machine.sensors.items()}
        assert shown(state) == (machine.record, machine.first, machine.last, sensors, len(sensors))
        assert state.sensor_names() == sorted(sensors)
        for only in ({"s"}, {"s", "t", "nothing"}):
            assert state.sensor_names(only) == sorted(only & sensors.keys())
            assert state.count_sensors(only) == len(only & sensors.keys())
        assert list(state.message().sensors) == [
            ingestion_pb2.SensorState(sensor=sensor, timestamp_us=at, value=value)
            for sensor, (at, value) in sorted(sensors.items())
        ]
    page, token = plant.list_page("", 9, "", "")
    assert ([state.record.machine_id for state in page], token) == (sorted(model.machines), "")
    encoded = [ingestion_pb2.Machine.FromString(each) for each in plant.encoded(page)]
    assert encoded == [state.message() for state in page]


@given(st.one_of(steps(local_ranks), steps(shared_ranks)), st.booleans())
@settings(deadline=None)
def test_machine_states_equal_their_model(todo: list[Any], numbered: bool) -> None:
    """Batches, changes of other replicas and registrations in any order. numbered: Whether the store has numbers."""
    with mock.patch.object(latest_readings, "_FEW_SOURCES", 2):
        follow_steps(todo, numbered)


def follow_steps(todo: list[Any], numbered: bool) -> None:
    index = SeriesIndex()
    if numbered:  # with a gap, and with series that have no readings yet
        index.load([(3, "b", "u v"), (7, "other", "s")])
    model = Model()
    plant = MachineStates(PlantLimits(), 16, 1_000_000, series=index)
    for now, step in enumerate(todo):
        before = plant.version
        touched: set[str] = set()
        if isinstance(step, Sent):
            batch = step.batch()
            reservation = plant.reserve(batch)
            reserved = {(machine_id, each) for machine_id, sensors in reservation.sensors.items() for each in sensors}
            unknown = {
                (machine_id, sensor)
                for machine_id, sensor in step.series
                if machine_id not in model.machines or sensor not in model.machines[machine_id].sensors
            }
            assert reserved == unknown
            if numbered:
                index.assign(batch.keys)
            plant.apply_batch(batch, now, step.rank)
            plant.release(reservation)
            touched = model.batch(step, now)
        elif isinstance(step, MachineRecord):
            plant.apply_registration(step)
            model.machine(step.machine_id, 0).record = step
            touched = {step.machine_id}
        elif isinstance(step, list):
            plant.apply_changes(step)
            touched = model.changes(step)
        elif plant.is_known(step.key[0]) and plant.get(step.key[0]).has_sensor(step.key[1]):
            assert plant.tail(plant.get(step.key[0]), step.key[1]) is not None
        changed = plant.changed_since(before)
        assert {state.record.machine_id for state in changed} == touched
        assert all(state.version > before for state in changed)
        require_equal(plant, model)
    order = [state.version for state in plant.changed_since(-1)]
    assert order == sorted(order, reverse=True)
    assert len(order) == len(model.machines)


rising = st.lists(times, min_size=3, max_size=8).map(
    lambda found: [Sent({("a", "s"): [(at, 7.0 * at)]}, (1, place)) for place, at in enumerate(sorted(found))]
)


@given(
    st.one_of(
        st.lists(st.builds(Sent, st.dictionaries(keys, columns, min_size=1, max_size=4), local_ranks), max_size=12),
        st.lists(st.builds(Sent, st.dictionaries(keys, single, min_size=1, max_size=4), local_ranks), max_size=12),
        rising,
    )
)
@settings(deadline=None)
def test_tails_hold_what_has_come_since_they_began(todo: list[Sent]) -> None:
    """A tail answers with all readings since it began, or does not answer."""
    plant = MachineStates(PlantLimits(), 64, 1_000_000)
    since: dict[tuple[str, str], int] = {}
    readings: dict[tuple[str, str], dict[int, tuple[Rank, float]]] = {}
    for sent in todo:
        plant.apply_batch(sent.batch(), 0, sent.rank)
        for key, column in sent.series.items():
            held = readings.setdefault(key, {})
            for at, value in column:
                if at not in held or held[at][0] <= sent.rank:
                    held[at] = sent.rank, value
            state = plant.get(key[0])
            if key not in since:
                assert plant.tail(state, key[1]) is not None
                since[key] = state.last_seen_us
            found = plant.cached_readings(state, key[1], since[key], 9, 0)
            if found is not None:
                wanted = [(at, value) for at, (_, value) in sorted(held.items()) if at >= since[key]]
                assert [*zip(found[0].tolist(), found[1].tolist(), strict=True)] == wanted


def test_wide_batch_reaches_only_the_tails_there_are() -> None:
    plant = MachineStates(PlantLimits(), 16, 1_000_000)
    machines = [f"m{number}" for number in range(50)]
    sent = [Sent({(machine, "s"): [(at, float(at))] for machine in machines}, (1, at)) for at in (10, 20, 30)]
    plant.apply_batch(sent[0].batch(), 0, sent[0].rank)
    for machine in machines[7:9]:
        assert plant.tail(plant.get(machine), "s") is not None
    for each in sent[1:]:
        plant.apply_batch(each.batch(), 0, each.rank)
    for machine in machines[7:9]:
        found = plant.cached_readings(plant.get(machine), "s", 11, 31, 0)
        assert found is not None
        assert (found[0].tolist(), found[1].tolist()) == ([20, 30], [20.0, 30.0])
    assert plant.cached_readings(plant.get("m0"), "s", 11, 31, 0) is None


def test_series_without_room_for_its_tail_is_still_applied() -> None:
    """The least recently used tails give way to others, and their series go on without one."""
    plant = MachineStates(PlantLimits(), 16, 3_000)
    machines = [f"m{number}" for number in range(9)]
    for at in (10, 20, 30):
        plant.apply_batch(
            Sent({(machine, "s"): [(at, float(at))] for machine in machines}, (1, at)).batch(), 0, (1, at)
        )
        for machine in machines:
            assert plant.tail(plant.get(machine), "s") is not None
    held = [machine for machine in machines if plant.cached_readings(plant.get(machine), "s", 30, 40, 1) is not None]
    assert not held, "the tails of these are new"
    plant.apply_batch(Sent({(machine, "s"): [(40, 1.0)] for machine in machines}, (1, 40)).batch(), 0, (1, 40))
    assert all(plant.get(machine).last_seen_us == 40 for machine in machines)


def test_load_takes_over_what_the_store_has() -> None:
    """Machines without readings, series of machines that are not listed yet, and ranks, which count from then on."""
    plant = MachineStates(PlantLimits(sensors_per_machine=2), 16, 1_000_000)
    plant.load(
        [MachineRecord("b", "pump", "north", 5, "r"), MachineRecord("a", "", "", 6, "")],
        [
            SeriesSummary("a", "t", 30, 40, 4.0, (2, "x", 1)),
            SeriesSummary("a", "s", 20, 35, 3.0),
            SeriesSummary("new", "s", 1, 2, 0.5, (1, "x", 1)),
        ],
    )
    assert {state.record.machine_id for state in plant.changed_since(-1)} == {"a", "b", "new"}
    assert shown(plant.get("a"))[1:] == (20, 40, {"s": (35, 3.0), "t": (40, 4.0)}, 2)
    assert shown(plant.get("b"))[1:] == (0, 0, {}, 0)
    assert plant.get("b").message().site == "north"
    assert [*plant.encoded([plant.get("b")])] == [plant.get("b").message().SerializeToString()]
    plant.apply_batch(Sent({("a", "t"): [(40, 9.0)]}, (1, "y", 8)).batch(), 0, (1, "y", 8))
    assert plant.get("a").sensors["t"] == (40, 4.0)
    plant.apply_batch(Sent({("a", "t"): [(40, 9.0)]}, (2, "y", 1)).batch(), 0, (2, "y", 1))
    assert plant.get("a").sensors["t"] == (40, 9.0)
    with pytest.raises(Exception, match="2 sensors"):
        plant.reserve(Sent({("a", "u"): [(1, 1.0)]}, ()).batch())


def test_sources_of_overwritten_readings_are_dropped() -> None:
    """With many sources of one batch each, such as requests with a key, those of no last reading are not kept."""
    latest = LatestReadings()
    series = np.array([3, 5])
    latest.replace(series, np.array([10, 10]), np.array([1.0, 1.0]), (7, "first", 1))
    for number in range(5000):
        latest.replace(series[:1], np.array([11 + number]), np.array([2.0]), (8, f"key/{number}", 1))
    assert latest.sources <= 1025
    latest.replace(series, np.array([10, 5010]), np.array([3.0, 3.0]), (7, "before", 9))
    assert latest.values[series].tolist() == [2.0, 3.0]
    latest.merge(series, np.array([5010, 5010]), np.array([4.0, 4.0]), [(8, "key/4999", 1), (7, "first", 1)])
    assert latest.values[series].tolist() == [2.0, 4.0]


@given(
    st.lists(
        st.tuples(st.text("abc", min_size=1, max_size=150), st.integers(0, 2**62), st.floats()),
        max_size=20,
        unique_by=lambda each: each[0],
    ),
    st.integers(1, 9),
)
def test_encoded_machine_equals_its_message(readings: list[tuple[str, int, float]], at_once: int) -> None:
    """Times and names of any length, any value, and any number of machines that are encoded together."""
    plant = MachineStates(PlantLimits(), 16, 1_000_000)
    plant.apply_registration(MachineRecord("idle", "pump", "ä", 1, "r"))
    for place, (sensor, at, value) in enumerate(readings):
        plant.apply_batch(Sent({(f"m{place % 3}", sensor): [(at, value)]}, ()).batch(), 0)
    states = plant.changed_since(-1)
    with mock.patch("aurum.ingestion.machine_messages._SERIES_AT_ONCE", at_once):
        encoded = [*plant.encoded(states)]
    wanted = [state.message().SerializeToString(deterministic=True) for state in states]
    found = [ingestion_pb2.Machine.FromString(each).SerializeToString(deterministic=True) for each in encoded]
    assert found == wanted


async def test_wait_for_change_ends_with_the_next_batch() -> None:
    plant = MachineStates(PlantLimits(), 16, 1_000_000)
    waiting = asyncio.create_task(plant.wait_for_change(plant.version))
    await asyncio.sleep(0)
    plant.apply_batch(Sent({("m", "s"): [(1, 1.0)]}, ()).batch(), 0)
    await asyncio.wait_for(waiting, 10)
    await asyncio.wait_for(plant.wait_for_change(0), 10)


def test_state_of_a_machine_follows_its_changes() -> None:
    """Who holds a state across other calls sees the latest readings, also after the arrays have grown."""
    plant = MachineStates(PlantLimits(), 16, 1_000_000)
    plant.apply_batch(Sent({("m", "s"): [(1, 1.0)]}, ()).batch(), 0)
    state = plant.get("m")
    wide = {(f"x{number}", sensor): [(5, 5.0)] for number in range(600) for sensor in SENSORS}
    plant.apply_batch(Sent({**wide, ("m", "s"): [(6, 6.0)]}, ()).batch(), 0)
    assert (state.last_seen_us, state.sensors) == (6, {"s": (6, 6.0)})
    assert plant.get("x599").sensors == dict.fromkeys(SENSORS, (5, 5.0))


def test_numbered_series_without_readings_is_reserved() -> None:
    """A series has its number as soon as it is durable, which may be before it is applied."""
    index = SeriesIndex()
    index.assign(SeriesKeys([("m", "s"), ("m", "t")]))
    plant = MachineStates(PlantLimits(sensors_per_machine=1), 16, 1_000_000, series=index)
    assert not plant.is_known("m")
    reservation = plant.reserve(Sent({("m", "s"): [(1, 1.0)]}, ()).batch())
    assert reservation.sensors == {"m": ["s"]}
    assert plant.is_unregistered("m")
    with pytest.raises(Exception, match="1 are allowed"):
        plant.reserve(Sent({("m", "t"): [(1, 1.0)]}, ()).batch())


@pytest.mark.parametrize("count", [1023, 1024, 1025])
def test_unknown_series_is_reserved_at_any_size(count: int) -> None:
    plant = MachineStates(PlantLimits(), 16, 1_000_000)
    known = {("m", f"s{number}"): [(1, 1.0)] for number in range(count)}
    plant.apply_batch(Sent(known, ()).batch(), 0)
    assert plant.reserve(Sent(known, ()).batch()).sensors == {}
    assert plant.reserve(Sent({**known, ("m", "new"): [(1, 1.0)]}, ()).batch()).sensors == {"m": ["new"]}
