"""The fallback for predictions: the last good prediction with its age, then the rule of the machine's type.

Every such answer is marked as degraded. The reason is in the answer, on the span and in the log; a metric counts it.
"""

import collections
import logging
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np

from aurum.api.backends import IngestionBackend
from aurum.api.machine_cache import MachineCache
from aurum.heuristics import assess, metrics
from aurum.readings.batch import Column
from aurum.readings.transport.query_columns import columns
from aurum.resilience.policy import FallbackSpec
from aurum.runtime.errors import AurumError, NotFoundError
from aurum.runtime.metrics import track_fallback
from aurum.runtime.telemetry.tracing import set_span_attributes
from aurum.v1 import ingestion_pb2, prediction_pb2

logger = logging.getLogger(__name__)

_LAST = 64  # readings of each sensor for a rule that needs a history
_REMEMBERED = 10_000  # machines


@dataclass(frozen=True, slots=True)
class Degraded:
    """An answer of the fallback.

    Attributes:
        prediction: The answer, marked as degraded.
        source: Whether it is the last good prediction or comes from a rule.
        age: Age of the prediction in seconds; None for the answer of a rule, which is always new.
    """

    prediction: prediction_pb2.PredictResponse
    source: Literal["last_good", "rule"]
    age: float | None = None


class PredictionFallback:
    """Keeps the latest requested predictions for the fallback. The plant view has those made in the background."""

    def __init__(self, plant: MachineCache, ingestion: IngestionBackend) -> None:
        self._plant = plant
        self._ingestion = ingestion
        self._asked: collections.OrderedDict[str, tuple[prediction_pb2.PredictResponse, float]] = (
            collections.OrderedDict()
        )  # with time.time()

    def remember(self, machine_id: str, prediction: prediction_pb2.PredictResponse) -> None:
        """Keeps a good prediction."""
        self._asked[machine_id] = (prediction, time.time())
        self._asked.move_to_end(machine_id)
        while len(self._asked) > _REMEMBERED:
            self._asked.popitem(last=False)

    async def answer(self, machine_id: str, spec: FallbackSpec, error: AurumError) -> Degraded:
        """Returns the best available answer for a machine. Raises `error` if there is none."""
        degraded = self._last_good(machine_id, spec, error) or await self._by_rule(machine_id, spec, error)
        if degraded is None:
            raise error
        prediction = degraded.prediction
        track_fallback("api/prediction", degraded.source)
        metrics.track_degraded_prediction(prediction.machine_type, prediction.model_version)
        set_span_attributes(
            {
                "aurum.degraded": True,
                "aurum.degraded.source": degraded.source,
                "aurum.degraded.reason": prediction.degraded_reason,
            }
        )
        logger.warning(
            "a prediction is degraded: %s",
            prediction.degraded_reason,
            extra={"degraded_source": degraded.source, "prediction_age_seconds": round(degraded.age or 0.0, 1)},
        )
        return degraded

    def _last_good(self, machine_id: str, spec: FallbackSpec, error: AurumError) -> Degraded | None:
        known = [self._plant.last_good(machine_id)] if spec.last_good else []
        if spec.last_good and machine_id in self._asked:
            asked, at = self._asked[machine_id]
            known.append((asked, time.time() - at))
        ages = [each for each in known if each and each[1] <= spec.last_good_max_age]
        if not ages:
            return None
        prediction, age = min(ages, key=lambda each: each[1])
        answer = prediction_pb2.PredictResponse()
        answer.CopyFrom(prediction)
        answer.degraded = True
        answer.degraded_reason = f"the last prediction, {age:.0f} s old, stands in: {error.message}"
        return Degraded(answer, "last_good", age)

    async def _by_rule(self, machine_id: str, spec: FallbackSpec, error: AurumError) -> Degraded | None:
        machine = await self._machine(machine_id) if spec.rule else None
        if machine is None:
            return None
        latest = {state.sensor: (np.array([state.timestamp_us]), np.array([state.value])) for state in machine.sensors}
        result = assess(machine.machine_type, latest) or assess(machine.machine_type, await self._history(machine_id))
        if result is None:
            return None
        answer = prediction_pb2.PredictResponse(
            machine_id=machine_id,
            machine_type=machine.machine_type,
            risk_score=result.risk,
            anomaly_score=result.risk,
            degraded=True,
            degraded_reason=f"the rule by {result.rule} stands in: {error.message}",
            as_of_us=machine.last_seen_us,
        )
        return Degraded(answer, "rule")

    async def _machine(self, machine_id: str) -> ingestion_pb2.Machine | None:
        """Returns a machine with its latest readings, or None if it cannot be obtained.

        Raises:
            NotFoundError: There is no such machine.
        """
        known = self._plant.machine(machine_id)
        if known is not None:
            return known
        try:
            return await self._ingestion.machine(machine_id)
        except NotFoundError:
            raise
        except AurumError as error:
            logger.warning("machine %s is not known here: %s", machine_id, error.message)
            return None

    async def _history(self, machine_id: str) -> dict[str, Column]:
        request = ingestion_pb2.QueryRequest(machine_ids=[machine_id], last=_LAST)
        try:
            found = await self._ingestion.query(request)
        except AurumError as error:
            logger.warning("there is no history for a rule: %s", error.message)
            return {}
        return {series.sensor: (times, values) for series, times, values in columns(found)}
