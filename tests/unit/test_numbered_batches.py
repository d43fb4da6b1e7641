"""An uplink sends batches of many series with numbers instead of names, and the server reads the same batches."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.readings.batch import Batch, Series
from aurum.readings.batch_decoding import decode, parse_request
from aurum.readings.series_numbers import TOO_MANY_NUMBERS, SeriesNumbers
from aurum.readings.transport.ingest_stream import BatchServicer, Written, add_ingestion_service
from aurum.readings.transport.numbered_batches import NumberedBatches
from aurum.readings.transport.refusals import Refused
from aurum.readings.transport.uplink import QueuedBatch, Uplink
from aurum.runtime.errors import ResourceExhaustedError
from aurum.runtime.grpc.client import Dependency
from aurum.runtime.policy.policies import Policies
from aurum.runtime.settings import Settings, load_settings
from aurum.v1 import columns_pb2
from tests.support.bare_server import bare_server
from tests.support.ports import free_port
from tests.support.waiting import until

_START = 1_700_000_000_000_000


def _request(source: str, sequence: int, first: int, count: int, readings: int = 1) -> bytes:
    series = [
        Series(
            f"machine-{number // 10}",
            f"sensor-{number % 10}",
            _START + sequence * 1000 + np.arange(readings),
            np.full(readings, float(number)),
        )
        for number in range(first, first + count)
    ]
    return columns_pb2.BatchRequest(
        batch=Batch.from_series(source, sequence, series).data, traceparent="trace"
    ).SerializeToString()


def _readings(batch: Batch) -> list[tuple[str, str, list[int], list[float]]]:
    return sorted(
        (each.machine_id, each.sensor, each.timestamps.tolist(), each.values.tolist()) for each in batch.series
    )


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 100), st.integers(1, 60), st.integers(1, 6)),
        min_size=1,
        max_size=10,
    ),
    st.sampled_from([10, 60, 1000]),
)
def test_numbered_requests_carry_the_same_batches(batches: list[tuple[str, int, int, int]], most: int) -> None:
    sending, receiving = NumberedBatches(most), SeriesNumbers(most=most)
    for sequence, (source, first, count, readings) in enumerate(batches, start=1):
        request = _request(source, sequence, first, count, readings)
        sent = parse_request(sending.request_of(request))
        received = decode(sent.batch, numbers=receiving)
        expected = decode(parse_request(request).batch)
        assert (received.source_id, received.sequence) == (source, sequence)
        assert _readings(received) == _readings(expected)
        assert sent.traceparent == "trace"


def test_wide_batches_take_a_quarter_of_the_bytes() -> None:
    numbered = NumberedBatches()
    sizes = []
    for sequence in range(1, 11):
        request = _request("gw", sequence, 0, 2000)
        sizes.append((len(request), len(numbered.request_of(request))))
    assert sum(sent for _, sent in sizes[1:]) < 0.3 * sum(named for named, _ in sizes[1:])


class _Server(BatchServicer):
    """Stores batches in memory. refuse_numbers: whether it has no room for numbers."""

    def __init__(self, *, refuse_numbers: bool = False) -> None:
        super().__init__()
        self.refuse_numbers = refuse_numbers
        self.batches: dict[int, Batch] = {}
        self.sizes: list[int] = []

    async def _accept(
        self, data: bytes, field: str, transport: str, numbers: SeriesNumbers, *, wait: bool
    ) -> Awaitable[Written]:
        if self.refuse_numbers and columns_pb2.BatchColumns.FromString(data).HasField("columns"):
            raise ResourceExhaustedError("no room for numbers", reason=TOO_MANY_NUMBERS)
        batch = decode(data, field=field, numbers=numbers)
        self.batches[batch.sequence] = batch
        self.sizes.append(len(data))
        written: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        written.set_result(Written(batch.readings, 0))
        return written


class _Outbox:
    """Batches that arrive one after the other, each when the one before is acknowledged."""

    def __init__(self, requests: Sequence[bytes]) -> None:
        self._left = [QueuedBatch(number, request) for number, request in enumerate(requests, start=1)]

    @property
    def batches(self) -> int:
        return len(self._left)

    async def batches_after(self, last: int, max_batches: int) -> list[QueuedBatch]:
        return [batch for batch in self._left[:1] if batch.id > last]

    async def wait_for_more(self, seconds: float) -> None:
        await asyncio.sleep(0.01)

    async def acknowledge(self, ids: Sequence[int]) -> None:
        self._left = [batch for batch in self._left if batch.id not in ids]

    async def set_aside(self, refused: Refused) -> None:
        raise AssertionError(refused)


@contextlib.asynccontextmanager
async def _sent(server: _Server, requests: Sequence[bytes]) -> AsyncGenerator[None]:
    """Sends requests to a server by an uplink."""
    loaded = load_settings(Settings, shutdown_grace=0.05)
    policies, port = Policies("edge", loaded), free_port()
    dependency = Dependency("edge", "ingestion", f"127.0.0.1:{port}", policies, 1_000_000)
    async with bare_server(lambda grpc_server: add_ingestion_service(server, grpc_server), port, loaded, policies):
        sending = asyncio.create_task(Uplink(_Outbox(requests), dependency).run())
        try:
            await until(lambda: len(server.batches) == len(requests), "all batches have arrived")
            yield
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            server.stop()
    await dependency.close()


@pytest.mark.parametrize("refuse_numbers", [False, True])
async def test_uplink_numbers_series_if_server_has_room(refuse_numbers: bool) -> None:
    server = _Server(refuse_numbers=refuse_numbers)
    requests = [_request("gw", sequence, 0, 200) for sequence in range(1, 21)]
    async with _sent(server, requests):
        for sequence, request in enumerate(requests, start=1):
            assert _readings(server.batches[sequence]) == _readings(decode(parse_request(request).batch))
        named = len(parse_request(requests[-1]).batch)
        assert (server.sizes[-1] == named) if refuse_numbers else (server.sizes[-1] < 0.5 * named)
