"""Follow, and predictions that are published: a real ingestion service with followers that break and return."""

import asyncio
import math
import struct
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from aurum.ingestion.follow_feed import FollowFeed
from aurum.ingestion.follower import Follower
from aurum.ingestion.store import MachineRecord
from aurum.readings.batch import Series, encode
from aurum.readings.batch_decoding import decode
from aurum.readings.machine_shares import name_hash, owners_of
from aurum.readings.transport.follow_columns import decode_definitions, decode_machines, decode_readings
from aurum.v1 import columns_pb2, ingestion_pb2, prediction_pb2
from tests.support.ingestion_server import IngestionServer, ingestion_server

Reading = tuple[str, str, int, bytes]  # the value as its bytes, because NaN differs from itself

MACHINES, SENSORS = ("m1", "m2", "m3", "m4"), ("a", "b", "c")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[IngestionServer]:
    async with ingestion_server(tmp_path) as running:
        yield running


@dataclass
class Client:
    """What a follower has received on its streams.

    lost: the positions of the gaps.
    """

    server: IngestionServer
    members: Sequence[str] = ()
    member: str = ""
    position: str = ""
    readings: list[Reading] = field(default_factory=list)
    machines: dict[str, ingestion_pb2.Machine] = field(default_factory=dict)
    gaps: int = 0

    def open(self) -> None:
        self.call = self.server.follow(self.position, self.members, self.member)
        self.names: dict[int, tuple[str, str]] = {}

    async def take(self) -> columns_pb2.FollowedReadings:
        response = await self.call.read()
        assert isinstance(response, columns_pb2.FollowedReadings)
        if response.gap:
            self.gaps += 1
            self.readings.clear()
        self.machines |= {machine.machine_id: machine for machine in decode_machines(response)}
        self.names |= {number: (machine, sensor) for number, machine, sensor in decode_definitions(response.readings)}
        for number, at, value in zip(*decode_readings(response.readings), strict=True):
            assert self.names[int(number)][0] in self.machines
            self.readings.append((*self.names[int(number)], int(at), struct.pack("<d", value)))
        self.position = response.position
        return response

    async def take_until(self, position: int) -> None:
        """Reads responses until one has the position after so many readings."""
        while not self.position or int(self.position.partition("/")[2]) < position:
            await self.take()


batches = st.lists(
    st.tuples(st.sampled_from(MACHINES), st.sampled_from(SENSORS), st.integers(1, 7)),
    min_size=1,
    max_size=6,
    unique_by=lambda each: each[:2],
)
steps = st.lists(
    st.one_of(batches, st.just("break"), st.just("take")),
    min_size=1,
    max_size=12,
)


class Accepted:
    """The readings that were accepted, in order."""

    def __init__(self) -> None:
        self.readings: list[Reading] = []

    def batch(self, shape: Sequence[tuple[str, str, int]]) -> list[Series]:
        series = []
        for machine, sensor, count in shape:
            first = len(self.readings) + 1
            times = np.arange(first, first + count, dtype=np.int64)
            values = np.where(times % 3 == 0, np.nan, times / 7)
            values[0] = float(first)  # a series has a value
            series.append(Series(machine, sensor, times, values))
            self.readings += [
                (machine, sensor, int(at), struct.pack("<d", value)) for at, value in zip(times, values, strict=True)
            ]
        return series


@settings(max_examples=40)
@given(steps, st.integers(0, 40), st.sampled_from([400, 1200, 100_000]))
def test_resumed_follower_without_gap_misses_nothing(
    script: list[str | list[tuple[str, str, int]]], capacity: int, message_bytes: int
) -> None:
    """Whatever the batches and the breaks, a follower without a gap has the readings that were accepted, in order.

    After a gap it has those after the position at which it was told of it.
    """

    async def play() -> None:
        accepted = Accepted()
        with tempfile.TemporaryDirectory() as folder:
            async with ingestion_server(Path(folder), 20 * (200 - capacity * 4), message_bytes) as server:
                client = Client(server)
                client.open()
                await client.take()
                for step in script:
                    if step == "break":
                        client.call.cancel()
                        client.open()
                    elif step == "take":
                        await client.take_until(len(accepted.readings))
                    elif isinstance(step, list):
                        await server.write(accepted.batch(step))
                await client.take_until(len(accepted.readings))
                client.call.cancel()
                expected = accepted.readings
                assert client.readings == expected[len(expected) - len(client.readings) :]
                assert client.gaps or len(client.readings) == len(expected)

    asyncio.run(play())


async def test_follower_behind_the_feed_is_told_of_the_gap(tmp_path: Path) -> None:
    accepted = Accepted()
    async with ingestion_server(tmp_path, feed_bytes=20 * 10) as server:
        client = Client(server)
        client.open()
        await client.take()
        client.call.cancel()
        for _ in range(3):
            await server.write(accepted.batch([("m1", "a", 5)]))
        client.open()
        response = await client.take()
        assert (response.gap, client.position.partition("/")[2]) == (True, "15")
        await server.write(accepted.batch([("m1", "a", 5)]))
        await client.take_until(20)
        assert (client.readings, client.gaps) == (accepted.readings[15:], 1)
        client.call.cancel()


async def test_position_of_another_process_is_a_gap(tmp_path: Path) -> None:
    async with ingestion_server(tmp_path) as first:
        await first.write(Accepted().batch([("m1", "a", 5)]))
        before = Client(first)
        before.open()
        await before.take()
    async with ingestion_server(tmp_path) as second:
        client = Client(second, position=before.position)
        client.open()
        assert (await client.take()).gap
        assert client.machines.keys() == {"m1"}
        client.call.cancel()


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (ingestion_pb2.FollowRequest(position="5"), "position"),
        (ingestion_pb2.FollowRequest(position="abc/x"), "position"),
        (ingestion_pb2.FollowRequest(members=["a"], member="b"), "member"),
        (ingestion_pb2.FollowRequest(member="b"), "member"),
        (ingestion_pb2.FollowRequest(members=["a", ""], member="a"), "members[1]"),
        (ingestion_pb2.FollowRequest(members=map(str, range(1001)), member="1"), "members"),
    ],
)
async def test_follow_request_that_is_invalid_is_refused(
    server: IngestionServer, request_: ingestion_pb2.FollowRequest, field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await server.stub.Follow(request_).read()
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (refused.value.details() or "").startswith(f"{field}: ")


async def test_members_share_the_machines_of_the_feed(server: IngestionServer) -> None:
    """Each reading is in the stream of the member to which its machine falls, and in no other."""
    accepted = Accepted()
    members = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"]
    clients = [Client(server, members, member) for member in members]
    for client in clients:
        client.open()
        await client.take()
    for first in range(0, 60, 20):
        await server.write(accepted.batch([(f"pump-{number}", "a", 2) for number in range(first, first + 20)]))
    hashes = np.array([name_hash(f"pump-{number}") for number in range(60)], np.uint64)
    owner = {f"pump-{number}": int(index) for number, index in enumerate(owners_of(hashes, members))}
    for index, client in enumerate(clients):
        await client.take_until(120)
        client.call.cancel()
        assert client.readings == [each for each in accepted.readings if owner[each[0]] == index]
        assert client.machines.keys() == {machine for machine, of in owner.items() if of == index}


async def test_heartbeats_tell_that_nothing_is_missing(server: IngestionServer) -> None:
    await server.write(Accepted().batch([("m1", "a", 1)]))
    call = server.follow("", (), "", heartbeat_ms=100)
    responses = [await call.read() for _ in range(4)]
    call.cancel()
    assert not any(response.readings.numbers for response in responses)
    complete = [response.complete_us for response in responses if response.complete_us]
    assert len(complete) >= 3
    assert complete == sorted(set(complete))


async def test_only_the_last_part_of_a_backlog_is_complete() -> None:
    feed = FollowFeed(1_000_000)
    feed.note_machine(MachineRecord("m1", "", "", 0, ""))
    follower = Follower(feed, [], "", "", 400)
    data = encode("source", 1, Accepted().batch([("m1", "a", 100)])).SerializeToString()
    feed.append_batch(decode(data))
    responses = follower.responses(0.0, lambda: None, lambda: False, 0.1)
    found = []
    while not found or not found[-1].complete_us:
        found.append(await anext(responses))
    await responses.aclose()
    assert sum(len(response.readings.numbers) for response in found) == 400  # four bytes each
    assert len(found) > 3


async def test_machines_may_be_added_while_pages_are_sent() -> None:
    feed = FollowFeed(1000)
    for number in range(50):
        feed.note_machine(MachineRecord(f"m{number}", "", "", 0, ""))
    responses = Follower(feed, [], "", "", 400).responses(0.0, lambda: None, lambda: False)
    sent = []
    while len(sent) < 51:
        sent += [machine.machine_id for machine in decode_machines(await anext(responses))]
        if "new" not in feed.machines.names(0):
            feed.note_machine(MachineRecord("new", "", "", 0, ""))
            assert len(sent) < 50
    assert sorted(sent) == sorted(feed.machines.names(0))
    await responses.aclose()


async def test_registrations_come_first_and_when_they_change(server: IngestionServer) -> None:
    register = ingestion_pb2.RegisterMachineRequest
    await server.stub.RegisterMachine(register(machine_id="m1", machine_type="pump", site="north"))
    client = Client(server)
    client.open()
    await client.take()
    assert (client.machines["m1"].machine_type, client.machines["m1"].site) == ("pump", "north")
    await server.write(Accepted().batch([("m2", "a", 1)]))
    await client.take_until(1)
    assert client.machines["m2"].machine_type == ""
    await server.stub.RegisterMachine(register(machine_id="m2", machine_type="fan"))
    while client.machines["m2"].machine_type != "fan":
        await client.take()
    assert not client.machines["m2"].sensors
    client.call.cancel()


def prediction(machine: str, as_of: int, risk: float = 0.5) -> prediction_pb2.PredictResponse:
    return prediction_pb2.PredictResponse(machine_id=machine, as_of_us=as_of, risk_score=risk)


async def publish(server: IngestionServer, *predictions: prediction_pb2.PredictResponse) -> None:
    await server.stub.PublishPredictions(ingestion_pb2.PublishPredictionsRequest(predictions=predictions))


async def test_watch_sends_the_latest_predictions_then_new_ones(server: IngestionServer) -> None:
    await server.write(Accepted().batch([("m1", "a", 1), ("m2", "a", 1)]))
    await publish(server, prediction("m1", 10), prediction("m2", 10))
    watch = server.stub.Watch(ingestion_pb2.WatchRequest(predictions=True, interval_ms=100))
    assert {machine.machine_id for machine in (await watch.read()).machines} == {"m1", "m2"}
    assert {each.machine_id for each in (await watch.read()).predictions} == {"m1", "m2"}
    await publish(server, prediction("m2", 5), prediction("m1", 10))  # older, and published again
    await publish(server, prediction("m1", 10, 0.75))
    response = await watch.read()
    assert [*response.predictions] == [prediction("m1", 10, 0.75)]
    assert not response.machines
    watch.cancel()


async def test_watch_without_predictions_sends_none(server: IngestionServer) -> None:
    await server.write(Accepted().batch([("m1", "a", 1)]))
    watch = server.stub.Watch(ingestion_pb2.WatchRequest(interval_ms=100))
    await watch.read()
    await publish(server, prediction("m1", 10))
    await server.write(Accepted().batch([("m2", "a", 1)]))
    response = await watch.read()
    assert [machine.machine_id for machine in response.machines] == ["m2"]
    assert not response.predictions
    watch.cancel()


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (prediction("a/b", 1), "machine_id"),
        (prediction("m1", 1, 1.5), "risk_score"),
        (prediction("m1", 1, math.nan), "risk_score"),
        (prediction("m1", -1), "as_of_us"),
    ],
)
async def test_wrong_prediction_is_named_and_none_published(
    server: IngestionServer, wrong: prediction_pb2.PredictResponse, field: str
) -> None:
    await server.write(Accepted().batch([("m1", "a", 1)]))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await publish(server, prediction("m1", 5), wrong)
    assert (refused.value.details() or "").startswith(f"predictions[1].{field}: ")
    watch = server.stub.Watch(ingestion_pb2.WatchRequest(predictions=True, interval_ms=100))
    assert (await watch.read()).machines
    await publish(server, prediction("m1", 1))
    assert [*(await watch.read()).predictions] == [prediction("m1", 1)]
    watch.cancel()


async def test_prediction_of_unknown_machine_is_ignored(server: IngestionServer) -> None:
    name, labels = "ingestion_predictions_ignored_total", {"why": "unknown"}
    before = REGISTRY.get_sample_value(name, labels) or 0.0
    await publish(server, prediction("nobody", 1))
    assert REGISTRY.get_sample_value(name, labels) == before + 1
    watch = server.stub.Watch(ingestion_pb2.WatchRequest(predictions=True, interval_ms=100))
    assert not (await watch.read()).predictions
    watch.cancel()
