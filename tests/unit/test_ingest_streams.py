"""Streams of batches: how much of them is in memory until it is acknowledged."""

import asyncio
from collections.abc import Awaitable

import grpc
import pytest

from aurum.readings.series_numbers import SeriesNumbers
from aurum.readings.transport import ingest_stream
from aurum.readings.transport.ingest_stream import IngestStreams, Written
from aurum.runtime.errors import InvalidArgumentError
from aurum.v1 import columns_pb2
from tests.support.waiting import until


class Streams:
    """Streams whose batches become durable when the test says so."""

    def __init__(self) -> None:
        self.streams = IngestStreams(self._accept)
        self.accepted: list[asyncio.Future[Written]] = []
        self.reading: set[asyncio.Task[list[int]]] = set()

    async def _accept(self, batch: bytes, position: int, numbers: SeriesNumbers) -> Awaitable[Written]:
        if batch == b"bad":
            raise InvalidArgumentError.for_field("batch", "is bad")
        self.accepted.append(asyncio.get_running_loop().create_future())
        return self.accepted[-1]

    def send(self, *batches: bytes) -> "asyncio.Task[list[int]]":
        """Sends a stream of batches. Returns a task with its acknowledgements."""
        left = [columns_pb2.BatchRequest(batch=batch).SerializeToString() for batch in batches]

        async def read() -> object:
            await asyncio.sleep(0)
            return left.pop(0) if left else grpc.aio.EOF

        async def acknowledged() -> list[int]:
            return [response.acknowledged async for response in self.streams.serve(read)]

        return asyncio.create_task(acknowledged())

    def make_durable(self, number: int) -> None:
        self.accepted[number].set_result(Written(1, 0))

    async def wait_until_accepted(self, count: int) -> None:
        """Waits until so many batches are accepted, and shows that no further ones are."""
        await until(lambda: len(self.accepted) >= count, "the batches are read")
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(self.accepted) == count


@pytest.fixture
def streams() -> Streams:
    return Streams()


async def test_stream_with_much_unacknowledged_reads_no_further(streams: Streams) -> None:
    sending = streams.send(*[bytes(3_000_000)] * 3)
    await streams.wait_until_accepted(2)
    streams.make_durable(0)
    await streams.wait_until_accepted(3)
    streams.make_durable(1)
    streams.make_durable(2)
    assert (await sending)[-1] == 3


async def test_stream_with_nothing_unacknowledged_reads_one_batch(
    streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So streams that wait for long, such as those of a source beyond its rate, do not stop the others."""
    monkeypatch.setattr(ingest_stream, "_MAX_BYTES", 1000)
    waiting = streams.send(bytes(2000))
    await streams.wait_until_accepted(1)
    sending = streams.send(bytes(10), bytes(10))
    await streams.wait_until_accepted(2)
    streams.make_durable(1)
    await streams.wait_until_accepted(3)
    streams.make_durable(2)
    assert (await sending)[-1] == 2
    streams.make_durable(0)
    assert await waiting == [1]
    both = streams.send(bytes(10), bytes(10))  # nothing is held any more
    await streams.wait_until_accepted(5)
    streams.make_durable(3)
    streams.make_durable(4)
    assert (await both)[-1] == 2


async def test_refused_batch_does_not_count_after_its_stream(streams: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_stream, "_MAX_BYTES", 1)
    with pytest.raises(InvalidArgumentError, match="is bad"):
        await streams.send(b"bad")
    monkeypatch.setattr(ingest_stream, "_MAX_BYTES", 100)
    both = streams.send(bytes(10), bytes(10))
    await streams.wait_until_accepted(2)
    streams.make_durable(0)
    streams.make_durable(1)
    assert (await both)[-1] == 2
