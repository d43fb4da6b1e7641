"""How many machines and sensors a plant may have, and how much of it goes into one message."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aurum.api.machine_cache import MachineCache
from aurum.ingestion.machine_state import MachineStates
from aurum.ingestion.plant_limits import PlantLimits, Reservation
from aurum.ingestion.servicer import IngestionServicer
from aurum.ingestion.settings import IngestionSettings
from aurum.ingestion.sqlite.store import SqliteOptions, SqliteStore
from aurum.ingestion.store import MachineRecord
from aurum.readings.batch import Batch, Series
from aurum.runtime.errors import (
    AurumError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from aurum.runtime.settings import SettingsError, load_settings
from aurum.security.source_limits import SourceLimits
from aurum.v1 import columns_pb2, ingestion_pb2

LIMITS = PlantLimits(machines=3, sensors_per_machine=4, sensors_per_site=8)
MESSAGE_BYTES = 65_536


def batch(keys: Sequence[tuple[str, str]], sequence: int = 1) -> Batch:
    columns = np.array([1_000_000 + sequence], np.int64), np.array([float(sequence)])
    return Batch.from_series("src", sequence, [Series(machine, sensor, *columns) for machine, sensor in keys])


def refusal(plant: MachineStates, keys: Sequence[tuple[str, str]]) -> str:
    with pytest.raises(ResourceExhaustedError) as refused:
        plant.reserve(batch(keys))
    assert refused.value.retry_after is None, "it is for good"
    return refused.value.reason


def taken(plant: MachineStates, keys: Sequence[tuple[str, str]]) -> None:
    reservation = plant.reserve(batch(keys))
    plant.apply_batch(batch(keys), 0)
    plant.release(reservation)


def test_machine_sends_from_its_first_batch_on() -> None:
    """A machine counts as one that sends while its first batch is on its way to the disk; a refused one changes
    nothing."""
    plant = MachineStates(LIMITS, 16, 1_000_000)
    assert not plant.is_unregistered("a")
    reservation = plant.reserve(batch([("a", "s0")]))
    assert plant.is_unregistered("a")
    plant.release(reservation)
    assert not plant.is_unregistered("a")
    taken(plant, [("a", "s0")])
    assert plant.is_unregistered("a")
    plant.apply_registration(MachineRecord("a", "pump", "", 0, ""))
    assert not plant.is_unregistered("a")


def test_each_limit_refuses_what_is_beyond_it() -> None:
    plant = MachineStates(LIMITS, 16, 1_000_000)
    taken(plant, [("a", f"s{number}") for number in range(4)])
    assert refusal(plant, [("a", "s4")]) == "TOO_MANY_SENSORS"
    taken(plant, [("a", "s0")])
    taken(plant, [("b", f"s{number}") for number in range(4)])
    assert refusal(plant, [("c", "s0")]) == "TOO_MANY_SENSORS"  # of the site
    plant.apply_registration(MachineRecord("b", "pump", "other", 0, ""))
    taken(plant, [("c", "s0")])
    assert refusal(plant, [("d", "s0")]) == "TOO_MANY_MACHINES"
    plant.apply_registration(MachineRecord("a", "pump", "other", 0, ""))  # its sensors now count for this site
    plant.apply_registration(MachineRecord("c", "pump", "other", 0, ""))
    assert refusal(plant, [("c", "s1")]) == "TOO_MANY_SENSORS"


def test_site_counts_sensors_that_are_on_their_way() -> None:
    plant = MachineStates(LIMITS, 16, 1_000_000)
    waiting = [plant.reserve(batch([(machine, f"s{number}") for number in range(4)])) for machine in "ab"]
    assert refusal(plant, [("c", "s0")]) == "TOO_MANY_SENSORS"
    plant.release(waiting[0])
    plant.release(plant.reserve(batch([("c", "s0")])))


names = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("stuvwx")), min_size=1, max_size=6, unique=True)
steps = st.one_of(names, st.integers(0, 9), st.tuples(st.sampled_from("abcd"), st.sampled_from(["", "north"])))


def exceeds_a_limit(stored: dict[str, set[str]], sites: dict[str, str], coming: list[tuple[str, str]]) -> bool:
    """Whether a limit is exceeded if these sensors are added to those that are stored."""
    after = {machine: set(sensors) for machine, sensors in stored.items()}
    for machine, sensor in coming:
        after.setdefault(machine, set()).add(sensor)
    by_site: dict[str, int] = defaultdict(int)
    for machine, sensors in after.items():
        by_site[sites[machine]] += len(sensors)
    return (
        len(after) > LIMITS.machines
        or any(len(sensors) > LIMITS.sensors_per_machine for sensors in after.values())
        or any(count > LIMITS.sensors_per_site for count in by_site.values())
    )


@given(st.lists(steps, max_size=30))
@example([[("a", "s"), ("a", "t")], [("a", "s"), ("a", "t")], 0, [("a", "u")]])  # the second is on its way still
def test_no_order_of_batches_exceeds_a_limit(todo: list[Any]) -> None:
    """Batches on their way, stored or lost, and registrations: the limits hold, and nothing is refused without need."""
    plant = MachineStates(LIMITS, 16, 1_000_000)
    on_their_way: list[tuple[Batch, Reservation]] = []
    stored: dict[str, set[str]] = defaultdict(set)
    sites: dict[str, str] = defaultdict(str)
    for step in todo:
        if isinstance(step, int):  # odd ones are lost
            if on_their_way:
                sent, reservation = on_their_way.pop(step // 2 % len(on_their_way))
                if step % 2 == 0:
                    plant.apply_batch(sent, 0)
                    for series in sent.series:
                        stored[series.machine_id].add(series.sensor)
                plant.release(reservation)
        elif isinstance(step, tuple):
            if step[0] in stored:
                plant.apply_registration(MachineRecord(step[0], "pump", step[1], 0, ""))
                sites[step[0]] = step[1]
        else:
            coming = [(s.machine_id, s.sensor) for each, _ in on_their_way for s in each.series]
            try:
                on_their_way.append((batch(step), plant.reserve(batch(step))))
            except ResourceExhaustedError:
                assert exceeds_a_limit(stored, sites, [*step, *coming])
    for machine, sensors in stored.items():
        assert len(sensors) <= LIMITS.sensors_per_machine
        assert len(plant.get(machine).sensors) == len(sensors)
    assert len(stored) <= LIMITS.machines


@pytest.fixture
async def wide(tmp_path: Path) -> AsyncIterator[IngestionServicer]:
    """A plant of 60 machines with 100 sensors each, which is eight times as much as a message may have."""
    store = SqliteStore(SqliteOptions(tmp_path / "store.db"))
    await store.start()
    plant = MachineStates(PlantLimits(), 16, 1_000_000)
    for number in range(60):
        plant.apply_batch(batch([(f"machine-{number:02}", f"{'sensor/' * 8}{sensor:03}") for sensor in range(100)]), 0)
    yield IngestionServicer(store, plant, SourceLimits(load_settings(IngestionSettings)), MESSAGE_BYTES)
    await store.close()


async def test_list_of_machines_is_paged_by_bytes(wide: IngestionServicer) -> None:
    found: list[str] = []
    request = ingestion_pb2.ListMachinesRequest(page_size=1000)
    pages = 0
    while pages == 0 or request.page_token:
        page = await wide.ListMachines(request, None)
        assert page.ByteSize() <= MESSAGE_BYTES
        found += [machine.machine_id for machine in page.machines]
        request.page_token = page.next_page_token
        pages += 1
    assert found == [f"machine-{number:02}" for number in range(60)]
    assert pages > 8
    brief = await wide.ListMachines(ingestion_pb2.ListMachinesRequest(page_size=1000, omit_sensors=True), None)
    assert (len(brief.machines), brief.next_page_token) == (60, "")


async def test_chosen_machines_are_listed_in_pages(wide: IngestionServicer) -> None:
    """Machines that are named are listed once each, in order; unknown ones are missing."""
    named = [f"machine-{number:02}" for number in range(50, 8, -3)]
    request = ingestion_pb2.ListMachinesRequest(page_size=1000, machine_ids=[*named, "unknown", named[0]])
    found: list[ingestion_pb2.Machine] = []
    while not found or request.page_token:
        page = await wide.ListMachines(request, None)
        found += page.machines
        request.page_token = page.next_page_token
    assert [machine.machine_id for machine in found] == sorted(named)
    assert all(len(machine.sensors) == 100 for machine in found)
    request = ingestion_pb2.ListMachinesRequest(machine_ids=["unknown"])
    assert not (await wide.ListMachines(request, None)).machines


async def test_too_many_chosen_machines_are_refused(wide: IngestionServicer) -> None:
    request = ingestion_pb2.ListMachinesRequest(machine_ids=["m"] * 1001)
    with pytest.raises(InvalidArgumentError, match="machine_ids"):
        await wide.ListMachines(request, None)


class Call:
    async def send_initial_metadata(self, metadata: Any) -> None:
        del metadata


async def test_watch_is_paged_by_bytes(wide: IngestionServicer) -> None:
    seen: set[str] = set()
    async for response in wide.Watch(ingestion_pb2.WatchRequest(), Call()):
        assert response.ByteSize() <= MESSAGE_BYTES
        sent = ingestion_pb2.WatchResponse.FromString(response.SerializeToString())
        seen |= {machine.machine_id for machine in sent.machines}
        if len(seen) == 60:
            break


async def test_events_are_paged_by_bytes(wide: IngestionServicer) -> None:
    content = b"x" * 9000
    for at in (1, 2):  # several at the same time
        events = [ingestion_pb2.Event(kind="note", at_us=at, id=f"{number:02}", content=content) for number in range(9)]
        await wide.RecordEvents(ingestion_pb2.RecordEventsRequest(events=events), None)
    found: list[tuple[int, str]] = []
    request = ingestion_pb2.ListEventsRequest(kind="note", limit=5)
    while not found or request.page_token:
        page = await wide.ListEvents(request, None)
        assert page.ByteSize() <= MESSAGE_BYTES
        found += [(event.at_us, event.id) for event in page.events]
        request.page_token = page.next_page_token
    assert found == [(at, f"{number:02}") for at in (2, 1) for number in range(8, -1, -1)]


@pytest.mark.parametrize("token", ["x", "1", "-1/a", "1" * 30 + "/a", "٣/a"])
async def test_wrong_page_token_is_refused(wide: IngestionServicer, token: str) -> None:
    with pytest.raises(InvalidArgumentError, match="page_token"):
        await wide.ListEvents(ingestion_pb2.ListEventsRequest(kind="note", page_token=token), None)


def test_machine_larger_than_a_message_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AURUM_RPC_MAX_MESSAGE_BYTES", "100000")
    with pytest.raises(SettingsError, match="AURUM_INGESTION_MAX_SENSORS_PER_MACHINE"):
        load_settings(IngestionSettings)


class Watched:
    """An ingestion whose Watch does what a test says, one after the other."""

    def __init__(self, *script: AurumError | columns_pb2.WatchedMachines) -> None:
        self._script: Iterator[AurumError | columns_pb2.WatchedMachines] = iter(script)
        self.told = asyncio.Event()

    async def watch_machines(
        self, interval_ms: int, *, predictions: bool
    ) -> AsyncIterator[columns_pb2.WatchedMachines]:
        del interval_ms, predictions
        step = next(self._script, None)
        if step is None:
            self.told.set()
            await asyncio.Event().wait()
        elif isinstance(step, AurumError):
            raise step
        else:
            yield step


@pytest.mark.parametrize(
    ("error", "blind"),
    [
        (ResourceExhaustedError("the message is too large"), True),
        (NotFoundError("no such method"), True),
        (UnavailableError("ingestion is away"), False),
    ],
)
async def test_api_that_cannot_follow_the_plant_is_not_ready(
    error: AurumError, blind: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An API that ingestion answers but that cannot follow the machines is not ready, until it can."""
    monkeypatch.setattr("aurum.api.machine_cache._BACKOFF", 0.0)
    for script, expected in (((error,), blind), ((error, columns_pb2.WatchedMachines()), False)):
        ingestion = Watched(*script)
        plant = MachineCache(ingestion, None, 1.0)  # type: ignore[arg-type]
        following = asyncio.create_task(plant.follow_machines())
        await asyncio.wait_for(ingestion.told.wait(), 10)
        problem = plant.readiness_problem(0.0)
        assert (problem is not None and error.message in problem) == expected
        following.cancel()
