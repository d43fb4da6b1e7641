"""A bounded in-memory buffer for unacknowledged batches, as small devices have."""

import collections
import logging
from collections.abc import Sequence

from aurum.readings.transport.refusals import Refused
from aurum.readings.transport.uplink import ArrivalSignal, QueuedBatch
from aurum.v1 import ingestion_pb2
from aurum_sim import metrics

logger = logging.getLogger(__name__)


class MemoryOutbox:
    """An Outbox of at most `capacity` batches. If it is full, the oldest batch is dropped."""

    def __init__(self, capacity: int) -> None:
        self._waiting: collections.deque[tuple[QueuedBatch, int]] = collections.deque()
        self._capacity = capacity
        self._next_id = 1
        self._arrival_signal = ArrivalSignal()
        for result in ("made", "acknowledged", "dropped", "refused"):
            metrics.simulator_readings_total.labels(result)

    @property
    def batches(self) -> int:
        """The number of buffered batches."""
        return len(self._waiting)

    def put(self, batch: ingestion_pb2.Batch, readings: int) -> None:
        """Adds a batch with the given number of readings. Drops the oldest batch if the buffer is full."""
        if len(self._waiting) >= self._capacity:
            _, lost = self._waiting.popleft()
            metrics.simulator_readings_total.labels("dropped").inc(lost)
        request = ingestion_pb2.IngestRequest(batch=batch)
        self._waiting.append((QueuedBatch(self._next_id, request.SerializeToString()), readings))
        self._next_id += 1
        metrics.simulator_readings_total.labels("made").inc(readings)
        metrics.simulator_buffer_batches.set(len(self._waiting))
        self._arrival_signal.notify()

    async def batches_after(self, last: int, max_batches: int) -> list[QueuedBatch]:
        """Returns up to `max_batches` batches that follow the id `last`, in order."""
        batches: list[QueuedBatch] = []
        for waiting, _ in self._waiting:
            if len(batches) == max_batches:
                break
            if waiting.id > last:
                batches.append(waiting)
        return batches

    async def wait_for_more(self, seconds: float) -> None:
        """Returns when a batch has arrived, or after `seconds`."""
        await self._arrival_signal.wait(seconds)

    async def acknowledge(self, ids: Sequence[int]) -> None:
        """Removes batches that the server has acknowledged."""
        acknowledged = set(ids)
        kept: list[tuple[QueuedBatch, int]] = []  # skipped by the uplink
        while ids and self._waiting and self._waiting[0][0].id <= ids[-1]:
            waiting, readings = self._waiting.popleft()
            if waiting.id in acknowledged:
                metrics.simulator_readings_total.labels("acknowledged").inc(readings)
            else:
                kept.append((waiting, readings))
        self._waiting.extendleft(reversed(kept))
        metrics.simulator_buffer_batches.set(len(self._waiting))

    async def set_aside(self, refused: Refused) -> None:
        """Drops a batch that the server refuses permanently."""
        for index, (waiting, readings) in enumerate(self._waiting):
            if waiting.id == refused.id:
                del self._waiting[index]
                metrics.simulator_readings_total.labels("refused").inc(readings)
                logger.error("a batch of %d readings was refused and is dropped: %s", readings, refused.message)
                return
