"""The client side of Ingest: one stream at a time, in order, opened again when it breaks."""

import asyncio
import collections
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc

from aurum.readings.series_numbers import TOO_MANY_NUMBERS
from aurum.readings.transport.ingest_stream import BATCH_COLUMNS
from aurum.readings.transport.numbered_batches import NumberedBatches
from aurum.readings.transport.refusals import Refusals, Refused
from aurum.readings.transport.sending_gateway import GATEWAY_METADATA
from aurum.resilience import CircuitBreakerError, Pipeline
from aurum.runtime import metrics
from aurum.runtime.errors import AurumError, UnavailableError, from_rpc_error
from aurum.runtime.grpc.client import Dependency
from aurum.runtime.rpc_methods import INGESTION_SERVICE
from aurum.v1 import ingestion_pb2

logger = logging.getLogger(__name__)

MAX_IN_FLIGHT = 64  # batches sent and not yet acknowledged
_LARGE = 200_000  # bytes; a smaller request takes less time than passing it to a thread
_FAILURE_LOG_SECONDS = 60.0  # between two log lines about failures of one kind
_IDLE_SECONDS = 1.0  # seconds between two checks of an empty outbox


@dataclass(frozen=True, slots=True)
class QueuedBatch:
    """A batch that waits to be sent.

    Attributes:
        id: Increases in the order of sending.
        data: The serialized IngestRequest.
    """

    id: int
    data: bytes


class ArrivalSignal:
    """Wakes a waiting sender when a batch has arrived in its outbox."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Records that a batch has arrived."""
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Returns when a batch has arrived since the last call, or after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return
        self._event.clear()  # not earlier, so that a batch that arrived since the last call is not missed


class Outbox(Protocol):
    """Batches that wait to be sent, and stay until they are acknowledged."""

    @property
    def batches(self) -> int:
        """The number of waiting batches."""

    async def batches_after(self, last: int, max_batches: int) -> list[QueuedBatch]:
        """Returns up to `max_batches` batches that follow the id `last`, in order."""

    async def wait_for_more(self, seconds: float) -> None:
        """Returns when a batch has arrived, or after `seconds`."""

    async def acknowledge(self, ids: Sequence[int]) -> None:
        """Removes batches that the server has acknowledged."""

    async def set_aside(self, refused: Refused) -> None:
        """Sets aside a batch that the server refuses permanently."""


@dataclass(slots=True)
class _Stream:
    """The state of one stream.

    Attributes:
        in_flight: The ids of batches that were sent and not acknowledged, in order.
        acknowledged: The number of acknowledged batches.
        room: Set when an acknowledgement has made room in the window.
        failure: The error of the outbox, if it failed. gRPC then reports only that the stream was cancelled.
        numbered: The numbers of the stream's series, once the server has said that it understands them.
    """

    in_flight: collections.deque[int] = field(default_factory=collections.deque)
    acknowledged: int = 0
    room: asyncio.Event = field(default_factory=asyncio.Event)
    failure: Exception | None = None
    numbered: NumberedBatches | None = None


class Uplink:
    """Sends the batches of an outbox to a server.

    Args:
        outbox: The batches.
        dependency: The server.
        gateway: The name of the gateway that sends; empty if it is none.
    """

    def __init__(self, outbox: Outbox, dependency: Dependency, gateway: str = "") -> None:
        self._outbox = outbox
        self._metadata = ((GATEWAY_METADATA, gateway),) if gateway else None
        # The batches are serialized already
        self._ingest: Any = dependency.channel.stream_stream(
            f"/{INGESTION_SERVICE}/Ingest",
            request_serializer=None,
            response_deserializer=ingestion_pb2.IngestResponse.FromString,
        )
        self._dependency = dependency
        self._server = dependency.server
        self._refusals = Refusals()
        self._numbering = True  # until the server has no room for numbers
        self.problem: str | None = None
        self._logged_kind, self._logged_at = "", 0.0  # the failure that was logged last, and time.monotonic() then

    @property
    def _pipeline(self) -> Pipeline:
        """The policies of the stream that are in force now."""
        return self._dependency.pipeline("Ingest")

    async def run(self) -> None:
        """Streams until cancelled. A broken stream is opened again after a backoff, subject to the circuit breaker."""
        attempt = 0
        while True:
            stream = _Stream()
            try:
                while self._outbox.batches <= (self._refusals.skipped_id is not None):
                    await self._outbox.wait_for_more(_IDLE_SECONDS)
                await self._forward(stream)
            except CircuitBreakerError as error:
                await asyncio.sleep(min(1.0, max(0.05, getattr(error, "retry_after", 1.0))))
                continue
            except (grpc.aio.AioRpcError, AurumError, TimeoutError) as error:
                attempt = 1 if stream.acknowledged else attempt + 1
                self.problem = f"{self._pipeline.name}: {_describe(error)}"
                await self._handle_refusal(stream, error)
                metrics.track_retry(self._pipeline.name)
                delay = self._pipeline.retry.delay(error, min(attempt, 20))
                self._log_failure(error, delay)
                await asyncio.sleep(delay)

    def _log_failure(self, error: BaseException, delay: float) -> None:
        """Logs why the stream failed, unless a failure of the same kind was logged within the last minute."""
        kind = error.code().name if isinstance(error, grpc.aio.AioRpcError) else type(error).__name__
        now = time.monotonic()
        if kind == self._logged_kind and now - self._logged_at < _FAILURE_LOG_SECONDS:
            return
        self._logged_kind, self._logged_at = kind, now
        logger.warning(
            "the stream to %s failed (%s); reopening in %.2f s; such a failure is logged once a minute",
            self._server, _describe(error), delay,
        )  # fmt: skip

    def _record_progress(self) -> None:
        self.problem = None
        if self._logged_kind:
            logger.info("%s acknowledges batches again", self._server)
            self._logged_kind = ""

    async def _forward(self, stream: _Stream) -> None:
        """Runs one stream until it ends.

        The first acknowledgement counts as success for the circuit breaker, because a stream may last for months.

        Raises:
            AioRpcError: If the stream breaks.
            CircuitBreakerError: If the breaker is open.
            TimeoutError: If no acknowledgement arrives in time.
            Exception: What the outbox raises.
        """
        pipeline = self._pipeline
        call: grpc.aio.StreamStreamCall[Any, Any] | None = None
        learning: asyncio.Task[None] | None = None
        try:
            with pipeline.attempt(f"{self._dependency.client}/{self._server}/Ingest"):
                await self._dependency.connected(pipeline, pipeline.policy.timeout.attempt)
                call = self._ingest(self._requests(stream), metadata=self._metadata)
                learning = asyncio.create_task(self._learn_features(call, stream), name="uplink-features")
                responses = call.__aiter__()
                open_ = await self._acknowledge(stream, responses)
            while open_:
                open_ = await self._acknowledge(stream, responses)
        finally:
            if learning is not None:
                learning.cancel()
            if call is not None:
                call.cancel()

    async def _learn_features(self, call: Any, stream: _Stream) -> None:
        """Gives numbers to the series of a stream as soon as the server says that it understands them."""
        try:
            metadata = await call.initial_metadata()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the stream reports its own end
        if self._numbering and set(BATCH_COLUMNS).issubset(metadata):
            stream.numbered = NumberedBatches()

    async def _acknowledge(self, stream: _Stream, responses: AsyncIterator[ingestion_pb2.IngestResponse]) -> bool:
        """Handles the next acknowledgement. Returns False at the end of the stream."""
        waiting = asyncio.ensure_future(anext(responses, None))
        waiting.add_done_callback(lambda task: task.cancelled() or task.exception())  # avoids an unretrieved exception
        try:
            while not waiting.done():
                sent = len(stream.in_flight)
                done, _ = await asyncio.wait([waiting], timeout=self._pipeline.policy.timeout.deadline)
                if not done and sent:
                    raise TimeoutError("no acknowledgement arrived in time")
            if waiting.cancelled():  # by gRPC
                raise stream.failure or UnavailableError(f"the stream to {self._server} was cancelled on this side")
            response = waiting.result()
        finally:
            waiting.cancel()
        if response is None:
            return False
        ids = [stream.in_flight.popleft() for _ in range(response.acknowledged - stream.acknowledged)]
        stream.acknowledged = response.acknowledged
        stream.room.set()
        self._record_progress()
        await self._outbox.acknowledge(ids)
        if ids and (refused := self._refusals.record_acknowledged(len(ids))):
            await self._set_aside(refused)
        return True

    async def _requests(self, stream: _Stream) -> AsyncGenerator[bytes]:
        """Yields the batches to send. Ends if there are none, since a stream without batches has no acknowledgement.

        Its attempt would never end then. While the circuit breaker is half-open, it would keep all other streams away.
        """
        last_id = idle = 0
        try:
            while last_id or idle < 2:
                while len(stream.in_flight) >= self._refusals.window_size(MAX_IN_FLIGHT):
                    stream.room.clear()
                    await stream.room.wait()
                room = self._refusals.window_size(MAX_IN_FLIGHT) - len(stream.in_flight)
                batches = await self._outbox.batches_after(last_id, room)
                for batch in batches:
                    last_id = batch.id
                    if batch.id == self._refusals.skipped_id:
                        continue
                    stream.in_flight.append(batch.id)
                    yield await _numbered_request(stream, batch.data)
                if not batches:
                    idle += 1
                    await self._outbox.wait_for_more(_IDLE_SECONDS)
        except Exception as error:
            stream.failure = error
            raise

    async def _handle_refusal(self, stream: _Stream, error: BaseException) -> None:
        if not isinstance(error, grpc.aio.AioRpcError):
            return
        refusal = from_rpc_error(error)
        if refusal.reason == TOO_MANY_NUMBERS:
            self._numbering = False
            logger.warning("%s has no room for more numbers of series; they are sent by name", self._server)
            return
        refused = self._refusals.record_stream_end(refusal, error.code(), stream.in_flight, stream.acknowledged)
        if refused is not None:
            await self._set_aside(refused)

    async def _set_aside(self, refused: Refused) -> None:
        logger.error("%s permanently refused a batch, which is set aside: %s", self._server, refused.message)
        await self._outbox.set_aside(refused)


async def _numbered_request(stream: _Stream, request: bytes) -> bytes:
    """Returns a request with numbers for series if the server understands them. A large one is handled on a thread."""
    if stream.numbered is None:
        return request
    if len(request) <= _LARGE:
        return stream.numbered.request_of(request)
    return await asyncio.to_thread(stream.numbered.request_of, request)


def _describe(error: BaseException) -> str:
    return f"{error.code().name}: {error.details()}" if isinstance(error, grpc.aio.AioRpcError) else str(error)
