"""Puts the batches of an input into the spool, and repeats writes that fail."""

import asyncio
import time
from collections.abc import Awaitable

from opentelemetry.trace import SpanKind
from prometheus_client import Counter

from aurum.edge import metrics
from aurum.edge.inputs.common.throttled_log import ThrottledLog
from aurum.edge.spool import Spool
from aurum.readings.batch import Batch
from aurum.readings.transport.ingest_stream import Written
from aurum.runtime.errors import ResourceExhaustedError, UnavailableError
from aurum.runtime.telemetry.tracing import traced_operation, traceparent
from aurum.security.source_limits import SourceLimits

_RETRY_SECONDS = 1.0  # seconds before a failed write is repeated


class SpoolWriter:
    """Writes the batches of one input.

    Args:
        name: The name of the input.
        spool: The spool.
        limits: The limits on sources.
        accepted: Counts the readings that are durable.
    """

    def __init__(self, name: str, spool: Spool, limits: SourceLimits, accepted: Counter) -> None:
        self._name = name
        self._spool = spool
        self._limits = limits
        self._accepted = accepted
        self._throttled_log = ThrottledLog(name)
        self._held_back = metrics.edge_input_held_back_seconds_total.labels(name)

    async def put(self, batch: Batch) -> Awaitable[Written]:
        """Puts a batch into the spool, and waits while the spool is full.

        Returns:
            An awaitable that completes when the batch is durable.
        """
        began = time.monotonic()
        attributes: dict[str, str | int] = {"aurum.input": self._name, "aurum.readings": batch.readings}
        with traced_operation("spool input", attributes, kind=SpanKind.PRODUCER):
            await self._limits.admit(batch, wait=True)
            parent = traceparent()
            writing = await self._spool.put(batch, parent, wait=True)
        self._held_back.inc(time.monotonic() - began)
        return asyncio.ensure_future(self._retry_until_durable(batch, parent, writing))

    async def _retry_until_durable(self, batch: Batch, parent: str, writing: Awaitable[Written]) -> Written:
        """Waits until a batch is durable. Repeats the write if the disk is full or fails.

        Meanwhile nothing is acknowledged, so the input soon stops reading.
        """
        while True:
            began = time.monotonic()
            try:
                written = await writing
            except (ResourceExhaustedError, UnavailableError) as error:
                self._throttled_log.warn(error.message)
                await asyncio.sleep(error.retry_after or _RETRY_SECONDS)
                writing = await self._spool.put(batch, parent, wait=True)
                self._held_back.inc(time.monotonic() - began)
                continue
            self._accepted.inc(written.accepted)
            return written
