"""Publishes predictions at the replicas of ingestion, which send them to everyone who watches."""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Collection
from typing import Any

import grpc

from aurum.prediction.fleet import metrics
from aurum.runtime.errors import AurumError
from aurum.runtime.grpc.client import Dependency
from aurum.runtime.rpc_methods import INGESTION_SERVICE
from aurum.v1 import ingestion_pb2

logger = logging.getLogger(__name__)

_MOST, _MOST_BYTES = 1000, 900_000  # of a call
_EVERY = 0.1  # seconds
_RETRY_SECONDS = 1.0


class PredictionPublisher:
    """Keeps the latest prediction of each machine until every replica has it, and sends all to a replica that restarts.

    Args:
        clock: Monotonic time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._latest: dict[str, bytes] = {}
        self._waiting: dict[str, dict[str, float]] = {}  # address → machine → since when its readings wait

    def put(self, machine_id: str, prediction: bytes, dirty_since: float) -> None:
        """Publishes a serialized prediction soon.

        Args:
            machine_id: The machine.
            prediction: The prediction.
            dirty_since: When the first reading that it is new for arrived (monotonic seconds).
        """
        self._latest[machine_id] = prediction
        for waiting in self._waiting.values():
            waiting.setdefault(machine_id, dirty_since)

    def keep(self, machine_ids: Collection[str]) -> None:
        """Forgets the predictions of all other machines, which other scorers publish."""
        for machine_id in set(self._latest).difference(machine_ids):
            del self._latest[machine_id]
            for waiting in self._waiting.values():
                waiting.pop(machine_id, None)

    async def run(self, address: str, replica: Dependency) -> None:
        """Publishes at one replica. Runs until cancelled."""
        method = _publish_method(replica.channel)
        waiting = self._waiting[address] = {}
        try:
            failed = True  # everything is sent at first
            while True:
                try:
                    if failed:
                        waiting |= dict.fromkeys(self._latest, 0.0)
                    while waiting:
                        await self._send(replica, method, waiting)
                    failed = False
                except AurumError as error:
                    metrics.prediction_fleet_publish_failures_total.inc()
                    if not failed:
                        logger.warning("predictions could not be published at %s and will be later: %s", address, error)
                    failed = True
                metrics.prediction_fleet_unpublished.set(sum(map(len, self._waiting.values())))
                await asyncio.sleep(_RETRY_SECONDS if failed else _EVERY)
        finally:
            self._waiting.pop(address, None)

    async def _send(self, replica: Dependency, method: Any, waiting: dict[str, float]) -> None:
        parts: list[bytes] = []
        chosen: dict[str, float] = {}
        size = 0
        for machine_id, since in itertools.islice(waiting.items(), _MOST):
            parts.append(_field(self._latest[machine_id]))
            chosen[machine_id] = since
            size += len(parts[-1])
            if size >= _MOST_BYTES:
                break
        for machine_id in chosen:
            del waiting[machine_id]
        try:
            await replica.unary(method, b"".join(parts))
        except AurumError:
            waiting |= {machine_id: since for machine_id, since in chosen.items() if machine_id in self._latest}
            raise
        now = self._clock()
        metrics.prediction_fleet_published_total.inc(len(chosen))
        for since in filter(None, chosen.values()):
            metrics.prediction_fleet_risk_age_seconds.observe(now - since)


def _field(prediction: bytes) -> bytes:
    """Returns a prediction as the first field of PublishPredictionsRequest."""
    size, length = len(prediction), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return b"\x0a" + bytes(length) + prediction


def _publish_method(channel: grpc.aio.Channel) -> Any:
    """Returns the client call of PublishPredictions, which takes serialized requests."""
    return channel.unary_unary(
        f"/{INGESTION_SERVICE}/PublishPredictions",
        request_serializer=None,
        response_deserializer=ingestion_pb2.PublishPredictionsResponse.FromString,
    )
