"""The fleet scorer: scores all machines of this process continuously, and evaluates their alarm rules."""

import asyncio
import functools
import logging
import time
from collections.abc import Callable

import numpy as np

from aurum.alarms.followed_rules import FollowedRules
from aurum.prediction.fleet import metrics
from aurum.prediction.fleet.alarm_evaluation import AlarmEvaluation, AlarmJournal
from aurum.prediction.fleet.alarm_states import FleetView, watched_sensors
from aurum.prediction.fleet.delay_history import DelayHistory
from aurum.prediction.fleet.filling import WindowFilling
from aurum.prediction.fleet.fleet import Fleet
from aurum.prediction.fleet.following import ReplicaConnections
from aurum.prediction.fleet.machine_table import StreamSeries
from aurum.prediction.fleet.membership import Membership
from aurum.prediction.fleet.publishing import PredictionPublisher
from aurum.prediction.fleet.scoring import FleetScoring
from aurum.prediction.serving.batching import MicroBatcher
from aurum.prediction.serving.predictor import Predictor
from aurum.prediction.serving.readings_client import ReadingsClient
from aurum.prediction.serving.registry import ModelRegistry
from aurum.prediction.serving.scoring import Prediction
from aurum.prediction.serving.servicer import response_of
from aurum.prediction.settings import PredictionSettings
from aurum.readings.machine_shares import name_hash, owners_of
from aurum.resilience import Criticality, criticality_scope
from aurum.runtime.errors import AurumError
from aurum.runtime.grpc.client import Dependency
from aurum.runtime.service import Service
from aurum.v1 import columns_pb2, prediction_pb2

logger = logging.getLogger(__name__)

_FOLLOW_MS = 200  # between two responses of a stream
_SETTLE_SECONDS = 2 * _FOLLOW_MS / 1000
_ROUND_SECONDS = 0.2  # between two looks for machines that are due
_GATHER_SECONDS = 0.5  # for which a few due machines wait for others, since a call of the model has a fixed cost
_SLICE = 128  # machines that are scored at a time, while requested predictions wait
_RULE_SLICE = 16  # the same for the fallback rule, which takes longer
_BY_QUERY = 4  # machines that are scored by one query
_CLOCK_SKEW = 1.0  # seconds by which the clocks of callers may differ
_GRACE_SECONDS = 3.0  # until the alarm rules of a machine that came from another scorer are evaluated

Record = Callable[[Prediction, prediction_pb2.PredictResponse], None]


class FleetScorer:
    """The parts of the fleet scorer, and its rounds."""

    def __init__(  # noqa: PLR0917
        self,
        service: Service[PredictionSettings],
        ingestion: Dependency,
        predictor: Predictor,
        registry: ModelRegistry,
        rules: FollowedRules,
        record: Record,
    ) -> None:
        """Builds the parts.

        Args:
            service: The prediction service.
            ingestion: The ingestion service.
            predictor: Its model thread is used for everything that concerns readings.
            registry: The models.
            rules: The alarm rules.
            record: Called with each prediction and its response.

        Raises:
            SettingsError: Settings contradict each other.
        """
        settings = service.settings
        self._service = service
        self._predictor = predictor
        self._record = record
        self._interval = settings.prediction_score_interval
        self._fleet = Fleet(registry, watched_sensors(rules.current), settings.prediction_window_bytes)
        self._scoring = FleetScoring(self._fleet, registry, predictor.scorer)
        self._answers: MicroBatcher[str, Prediction | None] = predictor.batcher(self._scoring.answer)
        self._max_lag = settings.prediction_window_lag
        self._membership = Membership(service, settings.prediction_peers, settings.prediction_own_address)
        self._grace = 0.0 if self._membership.alone else _GRACE_SECONDS
        self._publisher = PredictionPublisher()
        self._connections = ReplicaConnections(
            service, ingestion, self._membership, self._apply, self._publisher.run, _FOLLOW_MS
        )
        self._filling = WindowFilling(
            self._fleet, ReadingsClient(ingestion, once=True), registry, predictor.compute, _SETTLE_SECONDS
        )
        self._delays = DelayHistory(ingestion)
        self._alarms = AlarmEvaluation(rules, AlarmJournal(ingestion), self._delays, watch=self._watch, view=self._view)

    def start(self) -> None:
        """Starts the background work."""
        for work, name in (
            (self._membership.run(), "members"),
            (self._follow_members(), "shares"),
            (self._connections.run(), "ingestion-replicas"),
            (self._filling.run(), "window-filling"),
            (self._score(), "fleet-scoring"),
            (self._score_by_query(), "fleet-queries"),
            (self._delays.run(), "alarm-delays"),
            (self._alarms.run(), "alarms"),
        ):
            self._service.spawn(work, name)

    def owns(self, name: str) -> bool:
        """Whether work of this name falls to this scorer, of all that live."""
        members = self._membership.current
        if not members.names:
            return True
        hashes = np.array([name_hash(name)], np.uint64)
        return members.names[int(owners_of(hashes, members.names)[0])] == members.own

    def close(self) -> None:
        """Stops answering requests."""
        self._answers.close()

    async def predict(self, machine_id: str, written_us: int) -> Prediction | None:
        """Predicts a machine from its window.

        Args:
            machine_id: The machine.
            written_us: When the caller last wrote readings of it, in µs since 1970; 0 if it wrote none.

        Returns:
            The prediction; None if the machine has no window here, or if readings that became durable longer ago than
            AURUM_PREDICTION_WINDOW_LAG, or readings of the caller, may be missing in it.

        Raises:
            ResourceExhaustedError: Too many predictions wait for the model.
        """
        if self._connections.lag > self._max_lag:
            return None
        if time.time() - written_us / 1e6 < self._max_lag + _CLOCK_SKEW:
            return None
        return (await self._answers([machine_id]))[0]

    async def _apply(self, series: StreamSeries, response: columns_pb2.FollowedReadings) -> None:
        await self._predictor.compute(lambda: self._fleet.apply(series, response))

    async def _watch(self, sensors: tuple[str, ...]) -> None:
        await self._predictor.compute(lambda: self._fleet.watch(sensors))

    async def _view(self) -> FleetView | None:
        if not self._connections.current:
            return None
        now_us = int(time.time() * 1e6)
        served_since_us = now_us - int((time.monotonic() - self._connections.served_since) * 1e6)
        self._fleet.settled = True
        return await self._predictor.compute(lambda: self._fleet.view(now_us, self._grace, served_since_us))

    async def _follow_members(self) -> None:
        members = self._membership.current
        while True:
            await self._predictor.compute(functools.partial(self._fleet.divide, members.names, members.own))
            self._publisher.keep(await self._predictor.compute(self._fleet.machine_ids))
            members = await self._membership.wait_for_change(members)

    async def _score(self) -> None:
        """Scores the machines that are due, slice by slice, so that requested predictions come in between."""
        scored = 0.0
        while True:
            started = time.monotonic()
            due = await self._predictor.compute(self._due)
            if sum(len(machines) for _, machines in due) < _SLICE and started - scored < _GATHER_SECONDS:
                due = []
            for by_model, machines in due:
                scored = started
                size = _SLICE if by_model else _RULE_SLICE
                for start in range(0, len(machines), size):
                    await self._score_slice(machines[start : start + size])
            await asyncio.sleep(max(0.01, _ROUND_SECONDS - (time.monotonic() - started)))

    def _due(self) -> list[tuple[bool, list[int]]]:
        self._fleet.follow_models()
        return self._fleet.due(self._interval)

    async def _score_slice(self, machines: list[int]) -> None:
        for scored in await self._predictor.compute(lambda: self._scoring.score(machines)):
            response = response_of(scored.prediction)
            self._publisher.put(response.machine_id, response.SerializeToString(), scored.dirty_since)
            self._record(scored.prediction, response)

    async def _score_by_query(self) -> None:
        """Scores the machines whose readings cannot be followed, a few at a time."""
        while True:
            due = await self._predictor.compute(lambda: self._fleet.due_by_query(self._interval, _BY_QUERY))
            if not due:
                await asyncio.sleep(_ROUND_SECONDS)
                continue
            try:
                with criticality_scope(Criticality.BATCH):
                    answers = await self._predictor.predict(due)
            except AurumError as error:
                metrics.prediction_fleet_errors_total.labels("ingestion").inc(len(due))
                logger.warning("%d machines could not be scored by a query: %s", len(due), error.message)
                await asyncio.sleep(self._interval)
                continue
            for machine_id, answer in zip(due, answers, strict=True):
                if isinstance(answer, AurumError):
                    metrics.prediction_fleet_errors_total.labels("too_few_readings").inc()
                    continue
                await self._note(machine_id, answer)

    async def _note(self, machine_id: str, prediction: Prediction) -> None:
        await self._predictor.compute(lambda: self._scoring.note(machine_id, prediction))
        response = response_of(prediction)
        self._publisher.put(machine_id, response.SerializeToString(), 0.0)
        self._record(prediction, response)
