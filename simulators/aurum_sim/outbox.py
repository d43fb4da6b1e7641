"""A bounded in-memory buffer for unacknowledged batches, as small devices have."""

import collections
import logging
from collections.abc import Sequence

from aurum.readings.transport.refusals import Refused
from aurum.readings.transport.uplink import Arrivals, Waiting
from aurum.v1 import ingestion_pb2
from aurum_sim import metrics

logger = logging.getLogger(__name__)


class MemoryOutbox:
    """An Outbox of at most `capacity` batches. If it is full, the oldest batch is dropped."""

    def __init__(self, capacity: int) -> None:
        self._waiting: collections.deque[tuple[Waiting, int]] = collections.deque()
        self._capacity = capacity
        self._next_id = 1
        self._arrivals = Arrivals()
        for result in ("made", "acknowledged", "dropped", "refused"):
            metrics.simulator_readings_total.labels(result)

    @property
    def batches(self) -> int:
        return len(self._waiting)

    def put(self, batch: ingestion_pb2.Batch, readings: int) -> None:
        if len(self._waiting) >= self._capacity:
            _, lost = self._waiting.popleft()
            metrics.simulator_readings_total.labels("dropped").inc(lost)
        request = ingestion_pb2.IngestRequest(batch=batch)
        self._waiting.append((Waiting(self._next_id, request.SerializeToString()), readings))
        self._next_id += 1
        metrics.simulator_readings_total.labels("made").inc(readings)
        metrics.simulator_buffer_batches.set(len(self._waiting))
        self._arrivals.note()

    async def after(self, last: int, batches: int) -> list[Waiting]:
        found: list[Waiting] = []
        for waiting, _ in self._waiting:
            if len(found) == batches:
                break
            if waiting.id > last:
                found.append(waiting)
        return found

    async def wait_for_more(self, seconds: float) -> None:
        await self._arrivals.wait(seconds)

    async def forwarded(self, ids: Sequence[int]) -> None:
        gone = set(ids)
        kept: list[tuple[Waiting, int]] = []  # skipped by the uplink
        while ids and self._waiting and self._waiting[0][0].id <= ids[-1]:
            waiting, readings = self._waiting.popleft()
            if waiting.id in gone:
                metrics.simulator_readings_total.labels("acknowledged").inc(readings)
            else:
                kept.append((waiting, readings))
        self._waiting.extendleft(reversed(kept))
        metrics.simulator_buffer_batches.set(len(self._waiting))

    async def refused(self, refused: Refused) -> None:
        for index, (waiting, readings) in enumerate(self._waiting):
            if waiting.id == refused.id:
                del self._waiting[index]
                metrics.simulator_readings_total.labels("refused").inc(readings)
                logger.error("a batch of %d readings was refused: %s", readings, refused.message)
                return
