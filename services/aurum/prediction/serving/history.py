"""Records predictions as events in the background, at most one per machine and interval."""

import asyncio
import collections
import logging
import time
from collections.abc import Callable

from aurum.maintenance.scorecard import FORECAST
from aurum.prediction import metrics
from aurum.prediction.serving.forecasts import ForecastThinning
from aurum.runtime.errors import AurumError
from aurum.runtime.grpc.client import Dependency
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc, prediction_pb2

logger = logging.getLogger(__name__)

KIND = "prediction"
_WAITING = 20_000  # unrecorded predictions; beyond this the oldest are dropped
_AT_ONCE = 500
_EVERY = 1.0  # seconds
_REMEMBERED = 100_000  # machines


class PredictionHistory:
    """Records predictions.

    Args:
        ingestion: The ingestion service, which stores the events.
        interval: Minimum seconds between two recorded predictions of a machine.
        clock: Monotonic time in seconds.
    """

    def __init__(self, ingestion: Dependency, interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._ingestion = ingestion
        self._stub = ingestion_pb2_grpc.IngestionServiceStub(ingestion.channel)
        self._interval = interval
        self._clock = clock
        self._kept: collections.OrderedDict[str, float] = collections.OrderedDict()  # machine → time of the last one
        self._waiting: collections.deque[ingestion_pb2.Event] = collections.deque()
        self._forecasts = ForecastThinning()

    def record_if_due(self, response: prediction_pb2.PredictResponse) -> bool:
        """Queues a prediction to be recorded if the interval has passed. Returns whether it was queued."""
        now = self._clock()
        machine_id = response.machine_id
        if not machine_id or not response.as_of_us:
            return False
        if self._forecasts.is_due(response):
            self._add(response, FORECAST)
        if now - self._kept.get(machine_id, -self._interval) < self._interval:
            return False
        self._kept[machine_id] = now
        self._kept.move_to_end(machine_id)
        if len(self._kept) > _REMEMBERED:
            self._kept.popitem(last=False)
        self.enqueue(response)
        return True

    def enqueue(self, response: prediction_pb2.PredictResponse) -> None:
        """Queues a prediction to be recorded, regardless of the interval."""
        self._add(response, KIND)

    def _add(self, response: prediction_pb2.PredictResponse, kind: str) -> None:
        if len(self._waiting) >= _WAITING:
            self._waiting.popleft()
            metrics.prediction_history_dropped_total.inc()
        self._waiting.append(event_of(response, kind))

    async def run(self) -> None:
        """Records the queued predictions periodically. Runs until cancelled."""
        while True:
            await asyncio.sleep(_EVERY)
            while self._waiting:
                part = [self._waiting[index] for index in range(min(_AT_ONCE, len(self._waiting)))]
                try:
                    await self._ingestion.unary(self._stub.RecordEvents, ingestion_pb2.RecordEventsRequest(events=part))
                except AurumError as error:
                    logger.warning("recording predictions failed and is retried in a second: %s", error.message)
                    break
                for _ in range(min(len(part), len(self._waiting))):
                    self._waiting.popleft()


def event_of(response: prediction_pb2.PredictResponse, kind: str) -> ingestion_pb2.Event:
    """Returns the event that records a prediction. kind: KIND or FORECAST."""
    return ingestion_pb2.Event(
        kind=kind,
        machine_id=response.machine_id,
        at_us=response.as_of_us,
        id=_event_id(response),
        content=response.SerializeToString(),
    )


def _event_id(response: prediction_pb2.PredictResponse) -> str:
    """Returns the identity of a prediction among those of its machine and moment.

    Another replica's prediction from the same readings has the same one, so it is stored once. A prediction of the same
    moment from other readings has another one, so it does not replace what an earlier caller was told.
    """
    made_from = f"{response.model_version}+{response.inputs_sha256}"
    return f"{made_from}+rescored" if response.rescored else made_from
