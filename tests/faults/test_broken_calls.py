"""Calls that gRPC itself ends, without a word of the server: what is waiting for them goes on, or ends aloud."""

import asyncio
import collections
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from aurum.readings.transport.refusals import Refused
from aurum.readings.transport.uplink import QueuedBatch, Uplink
from aurum.runtime.audit import AuditLog
from aurum.runtime.errors import (
    DETAILS_KEY,
    AurumError,
    InvalidArgumentError,
    ResourceExhaustedError,
    UnavailableError,
    to_status,
)
from aurum.runtime.grpc.client import Dependency
from aurum.runtime.policy.document import parse_platform_document
from aurum.runtime.policy.policies import Policies
from aurum.runtime.service import Service
from aurum.runtime.settings import Settings, load_settings
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc, prediction_pb2, prediction_pb2_grpc
from tests.support.bare_server import bare_server
from tests.support.ports import free_port
from tests.support.scripted_server import bench
from tests.support.waiting import until

_HASTY = """
policies:
  - target: api/server/PredictBatch
    timeout: {deadline: 4ms, attempt: 2ms, connect: 1ms}
    circuitBreaker: {enabled: false}
"""


class _Busy(prediction_pb2_grpc.PredictionServiceServicer):
    """Refuses at the moment at which the caller's patience ends."""

    async def PredictBatch(self, requests: Any, context: Any) -> None:  # noqa: N802
        await asyncio.sleep(max(0.0, context.time_remaining() - 0.0005))
        error = ResourceExhaustedError("there is too much to do")
        details = to_status(error).SerializeToString()
        await context.abort(error.code, error.message, ((DETAILS_KEY, details),))


class _Patient(ingestion_pb2_grpc.IngestionServiceServicer):
    async def Ingest(self, requests: Any, context: Any) -> AsyncIterator[ingestion_pb2.IngestResponse]:  # noqa: N802
        acknowledged = 0
        async for _ in requests:
            acknowledged += 1
            yield ingestion_pb2.IngestResponse(acknowledged=acknowledged)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[ingestion_pb2.WatchResponse]:  # noqa: N802
        for _ in ():
            yield ingestion_pb2.WatchResponse()


@contextlib.asynccontextmanager
async def called(policy: str = "") -> AsyncIterator[Dependency]:
    server = grpc.aio.server()
    prediction_pb2_grpc.add_PredictionServiceServicer_to_server(_Busy(), server)
    ingestion_pb2_grpc.add_IngestionServiceServicer_to_server(_Patient(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    policies = Policies("api", load_settings(Settings))
    policies.apply(parse_platform_document(policy, "test"))
    dependency = Dependency("api", "server", f"127.0.0.1:{port}", policies, 1_000_000)
    try:
        await dependency.channel.channel_ready()
        yield dependency
    finally:
        await dependency.close()
        await server.stop(0)


async def test_stream_past_its_deadline_fails_with_grpc_status() -> None:
    """A stream whose deadline passes while it is sent ends with a gRPC status, never as cancelled."""

    async def requests() -> AsyncIterator[prediction_pb2.PredictBatchRequest]:
        yield prediction_pb2.PredictBatchRequest()

    ended: collections.Counter[str] = collections.Counter()
    async with called(_HASTY) as dependency:
        stub = prediction_pb2_grpc.PredictionServiceStub(dependency.channel)

        async def ask() -> None:
            try:
                await dependency.stream(stub.PredictBatch, requests)
            except (AurumError, asyncio.CancelledError) as error:
                ended[error.code.name if isinstance(error, AurumError) else "CANCELLED"] += 1

        for _ in range(250):
            await asyncio.gather(*(ask() for _ in range(8)))
    assert set(ended) <= {"DEADLINE_EXCEEDED", "UNAVAILABLE", "RESOURCE_EXHAUSTED"}, ended


async def test_failing_request_iterator_is_unavailable() -> None:
    """A stream whose request iterator raises ends in UnavailableError, not in a cancelled task."""

    async def requests() -> AsyncIterator[ingestion_pb2.IngestRequest]:
        yield ingestion_pb2.IngestRequest()
        raise RuntimeError

    async with called() as dependency:
        stub = ingestion_pb2_grpc.IngestionServiceStub(dependency.channel)
        with pytest.raises(UnavailableError, match="broke off"):
            await dependency.stream(stub.Ingest, requests)


async def test_cancelled_call_raises_cancelled_error() -> None:
    """A caller that cancels its own stream gets a CancelledError."""

    async def requests() -> AsyncIterator[ingestion_pb2.IngestRequest]:
        yield ingestion_pb2.IngestRequest()
        await asyncio.Event().wait()

    async with called() as dependency:
        stub = ingestion_pb2_grpc.IngestionServiceStub(dependency.channel)
        task = asyncio.create_task(dependency.stream(stub.Ingest, requests))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_endless_stream_without_response_is_unavailable() -> None:
    """An endless stream that ends before its first response raises UnavailableError."""
    async with called() as dependency:
        stub = ingestion_pb2_grpc.IngestionServiceStub(dependency.channel)
        with pytest.raises(UnavailableError, match="before it had begun"):
            async for _ in dependency.endless(stub.Watch, ingestion_pb2.WatchRequest()):
                pass


class _BrokenDisk:
    batches = 1

    async def batches_after(self, last: int, max_batches: int) -> list[QueuedBatch]:
        raise OSError("the disk does not answer")

    async def wait_for_more(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def acknowledge(self, ids: Sequence[int]) -> None:
        raise AssertionError(ids)

    async def set_aside(self, refused: Refused) -> None:
        raise AssertionError(refused)


async def test_uplink_raises_error_of_failing_outbox() -> None:
    """An uplink whose outbox cannot be read raises that error."""
    async with called() as dependency:
        with pytest.raises(OSError, match="the disk does not answer"):
            await asyncio.wait_for(Uplink(_BrokenDisk(), dependency).run(), 10)


class _Lane:
    """An outbox with some batches. `taken` is set when they were asked for."""

    def __init__(self, *batches: QueuedBatch) -> None:
        self.batches = 1  # also of a lane whose batches go elsewhere before they are sent
        self.acknowledged: list[int] = []
        self.taken = asyncio.Event()
        self._left = list(batches)

    async def batches_after(self, last: int, max_batches: int) -> list[QueuedBatch]:
        self.taken.set()
        self.batches = len(self._left)
        return [batch for batch in self._left if batch.id > last]

    async def wait_for_more(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 10)

    async def acknowledge(self, ids: Sequence[int]) -> None:
        self.acknowledged += ids
        self.batches = 0

    async def set_aside(self, refused: Refused) -> None:
        raise AssertionError(refused)


_QUICK_BREAKER = """
policies:
  - target: api/server/Ingest
    circuitBreaker: {failMax: 1, open: 100ms, openJitter: 0}
"""


async def test_stream_with_nothing_to_send_frees_the_breaker() -> None:
    """After an outage, a lane that has become empty does not keep the other one from sending."""
    async with called(_QUICK_BREAKER) as dependency:
        with pytest.raises(OSError, match="outage"), dependency.pipeline("Ingest").attempt():
            raise OSError("outage")
        emptied, full = _Lane(), _Lane(QueuedBatch(1, b""))
        sending = [asyncio.create_task(Uplink(emptied, dependency).run())]
        await asyncio.wait_for(emptied.taken.wait(), 10)  # this stream is the probe of the half-open breaker
        sending.append(asyncio.create_task(Uplink(full, dependency).run()))
        await until(lambda: full.acknowledged == [1], "the other lane has sent its batch")
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)


class _Refusing(_Lane):
    """A lane whose batches cannot be had at first."""

    asked = 0

    async def batches_after(self, last: int, max_batches: int) -> list[QueuedBatch]:
        self.asked += 1
        if self.asked <= 5:
            raise UnavailableError(f"times are {self.asked} s in the future")
        return await super().batches_after(last, max_batches)


_QUICK_RETRY = """
policies:
  - target: api/server/Ingest
    retry: {baseDelay: 10ms, maxDelay: 20ms}
    circuitBreaker: {enabled: false}
"""


async def test_failures_of_an_uplink_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A gateway whose clock is ahead would otherwise log each attempt, for hours."""
    caplog.set_level("INFO", "aurum.readings.transport.uplink")
    async with called(_QUICK_RETRY) as dependency:
        lane = _Refusing(QueuedBatch(1, b""))
        sending = asyncio.create_task(Uplink(lane, dependency).run())
        await until(lambda: lane.acknowledged == [1], "the batch is sent")
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    first, last = (record.message for record in caplog.records if record.name == "aurum.readings.transport.uplink")
    assert first.startswith("the stream to server failed (times are 1 s in the future); reopening in")
    assert last == "server acknowledges batches again"


async def test_failed_background_task_stops_the_service() -> None:
    """A background task that gives up stops the service as failed; one cancelled from outside does not."""

    async def gives_up() -> None:
        raise asyncio.CancelledError

    service = Service("api", load_settings(Settings), None, AuditLog(None))
    stopped = service.spawn(asyncio.sleep(60), "stopped")
    stopped.cancel()
    await asyncio.wait([stopped])
    assert not service.failed
    service.spawn(gives_up(), "gives up")
    await asyncio.wait_for(service.wait_for_stop(), 10)
    assert service.failed


class _Long(ingestion_pb2_grpc.IngestionServiceServicer):
    """Answers with more than fits into the window of a stream, so that it waits for its caller."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def Query(self, request: Any, context: Any) -> AsyncIterator[ingestion_pb2.QueryResponse]:  # noqa: N802
        try:
            for _ in range(100):
                yield ingestion_pb2.QueryResponse(series=[ingestion_pb2.QueriedSeries(sensor="s" * 1_000_000)])
        finally:
            self.ended.set()


async def test_abandoned_stream_is_closed_without_error_log(caplog: pytest.LogCaptureFixture) -> None:
    """A stream that its caller abandons is closed, frees its place, and logs no error outside gRPC."""
    gc.collect()  # what earlier tests have left is told now, such as a task whose exception nobody has retrieved
    caplog.clear()
    servicer, port = _Long(), free_port()
    settings = load_settings(Settings)
    policies = Policies("server", settings)
    async with bare_server(
        lambda server: ingestion_pb2_grpc.add_IngestionServiceServicer_to_server(servicer, server),
        port,
        settings,
        policies,
        streams=10,
    ):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            for _ in range(3):
                servicer.ended.clear()
                call = ingestion_pb2_grpc.IngestionServiceStub(channel).Query(ingestion_pb2.QueryRequest())
                await call.read()
                await asyncio.sleep(0.05)
                call.cancel()
                await asyncio.wait_for(servicer.ended.wait(), 10)
        assert policies.admission().in_flight == 0
    gc.collect()  # and what this one leaves
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [error for error in errors if not error.name.startswith("grpc")] == [], "gRPC itself tells of each"


class _Decoded:
    """What a handler has made of a request."""


async def test_refused_request_is_freed_at_once(tmp_path: Path) -> None:
    """What a handler held of a refused request is freed without the garbage collector."""
    held: list[weakref.ref[_Decoded]] = []

    async def refuse(number: int, context: Any) -> None:
        decoded = _Decoded()
        held.append(weakref.ref(decoded))
        raise InvalidArgumentError.for_field("field", "is wrong")

    async with bench(tmp_path) as running:
        running.server.behaviour = refuse
        gc.disable()
        try:
            for _ in range(5):
                with pytest.raises(InvalidArgumentError):
                    await running.get()
            await asyncio.sleep(0.1)
            assert [ref() for ref in held] == [None] * 5
        finally:
            gc.enable()
