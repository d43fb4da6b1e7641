"""Finds out since when the conditions of alarm rules hold, after a start or when a machine comes from another scorer.

The delay of a rule runs on meanwhile. Its beginning follows from the readings, or from the stored predictions.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from google.protobuf.message import DecodeError

from aurum.alarms.conditions import Observation, RuleCondition
from aurum.alarms.rules import AlarmRule
from aurum.prediction.fleet.array_conditions import ArrayCondition
from aurum.prediction.serving.history import KIND
from aurum.readings.batch import Column
from aurum.readings.transport.query_columns import decode_columns, query_method
from aurum.resilience import Criticality, criticality_scope
from aurum.runtime.errors import AurumError
from aurum.runtime.grpc.client import Dependency
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc, prediction_pb2

logger = logging.getLogger(__name__)

_MOST_WAITING = 100_000  # machines; more are not looked up, so their delays begin anew
_AT_ONCE = 64  # machines of a query
_POINTS = 1000  # to which longer ranges are reduced
_MARGIN = 120.0  # seconds before the delay, for readings and predictions that are far apart
_ENDLESS = 1e15  # seconds


class DelayHistory:
    """Looks up the beginning of delays, one query after the other."""

    def __init__(self, ingestion: Dependency, clock: Callable[[], float] = time.time) -> None:
        """clock: Present time in seconds since 1970."""
        self._ingestion = ingestion
        self._stub = ingestion_pb2_grpc.IngestionServiceStub(ingestion.channel)
        self._query = query_method(ingestion.channel)
        self._clock = clock
        self._waiting: asyncio.Queue[tuple[ArrayCondition, str, int]] = asyncio.Queue(_MOST_WAITING)

    def look_up(self, condition: ArrayCondition, machines: Mapping[str, int]) -> None:
        """Schedules a look-up. machines: The number of each machine in the arrays of the condition."""
        rule = condition.rule
        if rule.stale is not None or not (rule.on_delay_seconds or rule.off_delay_seconds or rule.rate):
            return
        for machine_id, number in machines.items():
            if self._waiting.full():
                logger.warning("the delay of rule %s begins anew for some machines: too many wait", rule.name)
                return
            self._waiting.put_nowait((condition, machine_id, number))

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            condition, machine_id, number = await self._waiting.get()
            machines = {machine_id: number}
            while len(machines) < _AT_ONCE and not self._waiting.empty():
                following, machine_id, number = self._waiting.get_nowait()
                if following is not condition:
                    await self._resume(condition, machines)
                    condition, machines = following, {}
                machines[machine_id] = number
            await self._resume(condition, machines)

    async def _resume(self, condition: ArrayCondition, machines: Mapping[str, int]) -> None:
        try:
            with criticality_scope(Criticality.BATCH):
                found = await self._observations(condition.rule, list(machines))
        except AurumError as error:
            logger.warning("the delay of rule %s begins anew for some machines: %s", condition.rule.name, error.message)
            return
        for machine_id, observations in found.items():
            resume(condition, machines[machine_id], observations)

    async def _observations(self, rule: AlarmRule, machine_ids: Sequence[str]) -> dict[str, list[Observation]]:
        """Returns the past observations of machines, the oldest first. Raises AurumError."""
        back = max(rule.on_delay_seconds, rule.off_delay_seconds) + _MARGIN
        limit = rule.sensor or rule.rate
        if rule.rate is not None:
            back += 2 * rule.rate.over_seconds
        start_us = max(1, int((self._clock() - back) * 1e6))
        if limit is None:
            return {machine_id: await self._predictions(machine_id, start_us) for machine_id in machine_ids}
        request = ingestion_pb2.QueryRequest(
            machine_ids=machine_ids, sensors=[limit.sensor], start_us=start_us, points=_POINTS
        )
        responses = await self._ingestion.stream(self._query, request)
        return {
            column.machine_id: list(_readings(limit.sensor, (times, values)))
            for response in responses
            for column, times, values in decode_columns(response.series)
        }

    async def _predictions(self, machine_id: str, start_us: int) -> list[Observation]:
        request = ingestion_pb2.ListEventsRequest(kind=KIND, machine_id=machine_id, start_us=start_us, limit=1000)
        answer = await self._ingestion.unary(self._stub.ListEvents, request)
        return [each for event in reversed(answer.events) if (each := _observed(event)) is not None]


def resume(condition: ArrayCondition, machine: int, observations: Sequence[Observation]) -> None:
    """Sets since when a condition differs from the reported state of a machine, by past observations."""
    # With endless delays it never changes, and shows since when it differs
    endless = condition.rule.model_copy(update={"on_delay_seconds": _ENDLESS, "off_delay_seconds": _ENDLESS})
    past = RuleCondition(endless, bool(condition.alarming[machine]))
    for observation in observations:
        past.evaluate(observation)
    if past.since and (condition.since[machine] or condition.rule.rate is not None):
        since = int(condition.since[machine]) or past.since
        condition.since[machine] = min(since, past.since)
    if past.before is not None and (
        not condition.has_before[machine] or past.before[0] < condition.before_time[machine]
    ):
        condition.before_time[machine], condition.before_value[machine] = past.before
        condition.has_before[machine] = True


def _readings(sensor: str, column: Column) -> Iterator[Observation]:
    for at, value in zip(column[0].tolist(), column[1].tolist(), strict=True):
        yield Observation(at, at, {sensor: (at, value)})


def _observed(event: ingestion_pb2.Event) -> Observation | None:
    """Returns what alarm rules see of a stored prediction; None if they do not see it."""
    try:
        prediction = prediction_pb2.PredictResponse.FromString(event.content)
    except DecodeError:
        logger.warning("prediction %s at %s cannot be read and is left out of alarm delays", event.id, event.at_us)
        return None
    if not prediction.model_version or prediction.rescored:
        return None
    return Observation(
        event.at_us,
        event.at_us,
        {},
        risk=None if prediction.degraded else prediction.risk_score,
        rul=prediction.rul.estimate if prediction.HasField("rul") else None,
        anomaly=prediction.anomaly_score,
        predicted_us=event.at_us,
        anomaly_threshold=prediction.anomaly_threshold,
    )
