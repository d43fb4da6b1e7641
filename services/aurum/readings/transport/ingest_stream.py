"""The server side of Ingest: accepts a stream of batches, and acknowledges durable ones in order."""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.trace import SpanKind

from aurum.readings.batch_decoding import parse_request
from aurum.readings.series_numbers import NumbersBudget, SeriesNumbers
from aurum.runtime.errors import AurumError, UnavailableError
from aurum.runtime.rpc_methods import INGESTION_SERVICE
from aurum.runtime.telemetry.tracing import context_of, traced_operation
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc

_MAX_PER_ACKNOWLEDGEMENT = 16  # batches that one acknowledgement covers while more are ready
_MAX_UNACKNOWLEDGED = 64  # batches of a stream that are not durable yet; at this number reading stops
_MAX_STREAM_BYTES = 4_000_000  # unacknowledged bytes of a stream at which it reads no further batch
# Unacknowledged bytes of all streams at which a stream that has some reads no further batch. A stream without any still
# reads one, so that streams that wait, such as those of a source beyond its rate, do not stop the others
_MAX_BYTES = 16_000_000
_END_OF_STREAM = object()
BATCH_COLUMNS = (("aurum-batch-columns", "1"),)  # tells clients that batches with numbered series are understood


@dataclass(frozen=True, slots=True)
class Written:
    """The outcome of a batch.

    Attributes:
        accepted: The number of readings that were stored; 0 for a duplicate.
        duplicate: The number of readings of a duplicate; 0 for a new batch.
        rank: The rank of the stored readings in the store; empty elsewhere.
    """

    accepted: int
    duplicate: int
    rank: tuple[Any, ...] = field(default=(), compare=False)


Accept = Callable[[bytes, int, SeriesNumbers], Awaitable[Awaitable[Written]]]
Read = Callable[[], Awaitable[Any]]  # the next serialized request of a stream, or grpc.aio.EOF


def add_ingestion_service(servicer: ingestion_pb2_grpc.IngestionServiceServicer, server: grpc.aio.Server) -> None:
    """Registers a servicer with its own serialization.

    Its Ingest and Write receive serialized requests, for `parse_request`. Its Query, Integrate, Watch and Follow may
    answer with the messages of columns.proto, which have the same wire formats.
    """
    handlers: dict[str, Any] = {
        "Ingest": grpc.stream_stream_rpc_method_handler(
            servicer.Ingest,
            request_deserializer=None,
            response_serializer=ingestion_pb2.IngestResponse.SerializeToString,
        ),
        "Write": grpc.unary_unary_rpc_method_handler(
            servicer.Write,
            request_deserializer=None,
            response_serializer=ingestion_pb2.WriteResponse.SerializeToString,
        ),
    }
    streams: tuple[tuple[str, Any, Any], ...] = (
        ("Query", servicer.Query, ingestion_pb2.QueryRequest),
        ("Integrate", servicer.Integrate, ingestion_pb2.IntegrateRequest),
        ("Watch", servicer.Watch, ingestion_pb2.WatchRequest),
        ("Follow", servicer.Follow, ingestion_pb2.FollowRequest),
    )
    for name, method, request in streams:
        handlers[name] = grpc.unary_stream_rpc_method_handler(
            method,
            request_deserializer=request.FromString,
            response_serializer=lambda response: response.SerializeToString(),
        )
    ingestion_pb2_grpc.add_IngestionServiceServicer_to_server(servicer, server)
    server.add_registered_method_handlers(INGESTION_SERVICE, handlers)  # replaces the handlers registered above


class BatchServicer(ingestion_pb2_grpc.IngestionServiceServicer, ABC):
    """Base class of the servicers of ingestion and of gateways: Ingest and Write, which receive serialized requests."""

    def __init__(self) -> None:
        self._streams = IngestStreams(self._accept_streamed)

    def stop(self) -> None:
        """Ends all Ingest streams. Batches that were read are still acknowledged."""
        self._streams.stop()

    @abstractmethod
    async def _accept(
        self, data: bytes, field: str, transport: str, numbers: SeriesNumbers, *, wait: bool
    ) -> Awaitable[Written]:
        """Checks a serialized batch and queues it. The returned awaitable completes when the batch is durable.

        Args:
            data: The batch.
            field: The path of the batch in the request, for errors.
            numbers: The numbers that earlier batches of the stream have defined.
            transport: stream or unary, for metrics.
            wait: Whether to wait for room, as streams do. Otherwise the batch is refused if there is no room.
        """

    async def Ingest(  # noqa: N802
        self, request_iterator: Any, context: Any
    ) -> AsyncGenerator[ingestion_pb2.IngestResponse]:
        """Accepts a stream of batches, and acknowledges them when they are durable."""
        await context.send_initial_metadata(BATCH_COLUMNS)
        async for response in self._streams.serve(context.read):
            yield response

    async def Write(self, request: Any, context: Any) -> ingestion_pb2.WriteResponse:  # noqa: N802
        """Accepts one batch. Returns when it is durable."""
        written = await (
            await self._accept(parse_request(request).batch, "batch", "unary", SeriesNumbers(), wait=False)
        )
        return ingestion_pb2.WriteResponse(accepted=written.accepted, duplicate=written.duplicate)

    def _accept_streamed(self, batch: bytes, position: int, numbers: SeriesNumbers) -> Awaitable[Awaitable[Written]]:
        return self._accept(batch, f"requests[{position}].batch", "stream", numbers, wait=True)


@dataclass(slots=True)
class _Held:
    """The unacknowledged bytes of all streams."""

    nbytes: int = 0


class _Window:
    """Limits the bytes of batches that a stream has read and not acknowledged."""

    def __init__(self, held: _Held) -> None:
        """Creates the window of a stream. `held` counts the bytes of all streams."""
        self._nbytes = 0
        self._held = held
        self._released = asyncio.Event()

    async def wait_for_room(self) -> None:
        """Returns when the stream may read a batch. It always may if all of its batches are acknowledged."""
        while self._nbytes and (self._nbytes >= _MAX_STREAM_BYTES or self._held.nbytes >= _MAX_BYTES):
            self._released.clear()
            await self._released.wait()

    def add(self, nbytes: int) -> None:
        """Adds the bytes of a batch that was read."""
        self._nbytes += nbytes
        self._held.nbytes += nbytes

    def release(self, nbytes: int) -> None:
        """Removes the bytes of an acknowledged batch."""
        self.add(-nbytes)
        self._released.set()

    def close(self) -> None:
        """Removes the bytes of a stream that has ended."""
        self.add(-self._nbytes)


class IngestStreams:
    """All Ingest streams of a server.

    Args:
        accept: Takes a serialized batch, its position in the stream, and the numbers that the stream has defined. Its
            first await completes when the batch is queued, the second when it is durable.
    """

    def __init__(self, accept: Accept) -> None:
        self._accept = accept
        self._readers: set[asyncio.Task[None]] = set()
        self._held = _Held()
        self._numbers = NumbersBudget()
        self._stopping = False

    def stop(self) -> None:
        """Ends all streams. No more requests are read; those already read are still acknowledged."""
        self._stopping = True
        for reader in self._readers:
            reader.cancel()

    async def serve(self, read: Read) -> AsyncGenerator[ingestion_pb2.IngestResponse]:
        """Accepts the batches of one stream, and yields cumulative acknowledgements.

        Args:
            read: Reads the requests, in order. It is not an iterator, since those of gRPC keep the last request in
                memory until the next one arrives.

        Raises:
            AurumError: The error of the first batch that was not accepted, with its position in the stream. All batches
                before it are acknowledged.
        """
        pending: asyncio.Queue[Any] = asyncio.Queue(_MAX_UNACKNOWLEDGED)
        window = _Window(self._held)
        numbers = SeriesNumbers(self._numbers)
        reader = asyncio.create_task(self._read(read, pending, window, numbers), name="ingest-reader")
        self._readers.add(reader)
        acknowledged = duplicates = reported = 0
        try:
            while True:
                item = await pending.get()
                ending = item is _END_OF_STREAM or isinstance(item, Exception)
                if not ending:
                    writing, nbytes = item
                    try:
                        written: Written = await writing
                    except AurumError as error:
                        error.metadata.setdefault("position", str(acknowledged))
                        raise
                    window.release(nbytes)
                    acknowledged += 1
                    duplicates += written.duplicate > 0
                # Batches of one commit share an acknowledgement, and the rest is acknowledged before the stream ends
                due = ending or pending.empty() or acknowledged - reported >= _MAX_PER_ACKNOWLEDGEMENT
                if due and acknowledged > reported:
                    reported = acknowledged
                    yield ingestion_pb2.IngestResponse(acknowledged=acknowledged, duplicates=duplicates)
                if isinstance(item, Exception):
                    raise item
                if ending:
                    return
        finally:
            self._readers.discard(reader)
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader
            window.close()
            numbers.close()

    async def _read(self, read: Read, pending: "asyncio.Queue[Any]", window: _Window, numbers: SeriesNumbers) -> None:
        """Queues the writes of a stream in order. An error ends the stream after the batches before it."""
        position = 0
        try:
            while await self._read_batch(read, pending, window, position, numbers):
                position += 1
            await pending.put(_END_OF_STREAM)
        except AurumError as error:
            error.metadata.setdefault("position", str(position))
            # The traceback holds the refused batch and what was parsed of it
            await pending.put(error.with_traceback(None))
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            await pending.put(UnavailableError("the service is stopping; send the rest again", retry_after=0.5))
        except Exception as error:  # raised by `serve` at the end of the stream
            await pending.put(error)

    async def _read_batch(
        self, read: Read, pending: "asyncio.Queue[Any]", window: _Window, position: int, numbers: SeriesNumbers
    ) -> bool:
        """Queues the write of the next batch. Returns False at the end of the stream.

        While the batch is decoded and waits for room, no other copy of it is in memory.
        """
        await window.wait_for_room()
        data = await read()
        if data is grpc.aio.EOF:
            return False
        nbytes = len(data)
        window.add(nbytes)
        request = parse_request(data)
        del data
        tracing = traced_operation(
            f"{INGESTION_SERVICE}/Ingest batch", kind=SpanKind.CONSUMER, context=context_of(request.traceparent)
        )
        accepting = self._accept(request.batch, position, numbers)
        del request
        with tracing:
            writing = await accepting
        await pending.put((asyncio.ensure_future(writing), nbytes))
        return True
