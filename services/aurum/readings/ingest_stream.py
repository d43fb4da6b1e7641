"""The server's side of Ingest: takes a stream of batches and acknowledges in order what has become durable."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from opentelemetry.trace import SpanKind

from aurum.runtime.errors import AurumError, UnavailableError
from aurum.runtime.tracing import context_of, traced_operation
from aurum.v1 import ingestion_pb2

_ACKNOWLEDGE_EVERY = 16  # batches of a stream at most, when many are ready at once
_UNACKNOWLEDGED = 64  # batches of a stream that may be on their way to the disk; then it is read no further
_END = object()


@dataclass(frozen=True, slots=True)
class Written:
    """How a batch was taken: `accepted` readings stored, or all of them `duplicate`."""

    accepted: int
    duplicate: int


Accept = Callable[[ingestion_pb2.IngestRequest, int], Awaitable[Awaitable[Written]]]


class IngestStreams:
    """All Ingest streams of a server.

    accept: takes a request and its position in the stream; its first await ends when the batch is queued, the second
    when it is durable.
    """

    def __init__(self, accept: Accept) -> None:
        self._accept = accept
        self._readers: set[asyncio.Task[None]] = set()
        self._stopping = False

    def stop(self) -> None:
        """Ends the streams: no more is read, what was read is still acknowledged."""
        self._stopping = True
        for reader in self._readers:
            reader.cancel()

    async def serve(
        self, requests: AsyncIterator[ingestion_pb2.IngestRequest]
    ) -> AsyncGenerator[ingestion_pb2.IngestResponse]:
        pending: asyncio.Queue[Any] = asyncio.Queue(_UNACKNOWLEDGED)
        reader = asyncio.create_task(self._read(requests, pending), name="ingest-reader")
        self._readers.add(reader)
        acknowledged = duplicates = told = 0
        try:
            while True:
                item = await pending.get()
                ending = item is _END or isinstance(item, Exception)
                if not ending:
                    written: Written = await item
                    acknowledged += 1
                    duplicates += written.duplicate > 0
                # One answer for what one commit stored, and one for all before the end:
                due = ending or pending.empty() or acknowledged - told >= _ACKNOWLEDGE_EVERY
                if due and acknowledged > told:
                    told = acknowledged
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

    async def _read(self, requests: AsyncIterator[ingestion_pb2.IngestRequest], pending: "asyncio.Queue[Any]") -> None:
        """Queues the writes of a stream in their order; an error ends it, after what came before."""
        position = 0
        try:
            async for request in requests:
                with traced_operation(
                    "aurum.v1.IngestionService/Ingest batch",
                    {"aurum.source_id": request.batch.source_id, "aurum.sequence": request.batch.sequence},
                    kind=SpanKind.CONSUMER,
                    context=context_of(request.traceparent),
                ):
                    writing = await self._accept(request, position)
                await pending.put(asyncio.ensure_future(writing))
                position += 1
            await pending.put(_END)
        except AurumError as error:
            error.metadata.setdefault("position", str(position))
            await pending.put(error)
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            await pending.put(UnavailableError("the service is stopping; send the rest again", retry_after=0.5))
        except Exception as error:  # told by the stream's own end
            await pending.put(error)
