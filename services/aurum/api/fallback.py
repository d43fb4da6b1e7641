"""The fallback for predictions: the last good prediction with its age, then the rule of the machine's type.

Every such answer is marked as degraded. The reason is in the answer, on the span and in the log; a metric counts it.
"""

import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np

from aurum.api.backends import IngestionBackend
from aurum.api.machine_cache import MachineCache
from aurum.heuristics import assess, metrics
from aurum.readings.batch import Column
from aurum.readings.transport.query_columns import decode_columns
from aurum.resilience.policy import FallbackSpec
from aurum.runtime.errors import AurumError, NotFoundError
from aurum.runtime.metrics import track_fallback
from aurum.runtime.telemetry.tracing import set_span_attributes
from aurum.v1 import ingestion_pb2, prediction_pb2

logger = logging.getLogger(__name__)

_HISTORY_READINGS = 64  # of each sensor, for a rule that needs a history


@dataclass(frozen=True, slots=True)
class DegradedPrediction:
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
    """Answers for the prediction service while it is unreachable. The machine cache has the last good predictions."""

    def __init__(self, machine_cache: MachineCache, ingestion: IngestionBackend) -> None:
        self._machine_cache = machine_cache
        self._ingestion = ingestion

    async def substitute(self, machine_id: str, spec: FallbackSpec, error: AurumError) -> DegradedPrediction:
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
            "answering with a degraded prediction: %s",
            prediction.degraded_reason,
            extra={"degraded_source": degraded.source, "prediction_age_seconds": round(degraded.age or 0.0, 1)},
        )
        return degraded

    def _last_good(self, machine_id: str, spec: FallbackSpec, error: AurumError) -> DegradedPrediction | None:
        last_good = self._machine_cache.prediction_with_age(machine_id) if spec.last_good else None
        if last_good is None or last_good[1] > spec.last_good_max_age:
            return None
        prediction, age = last_good
        answer = prediction_pb2.PredictResponse()
        answer.CopyFrom(prediction)
        answer.degraded = True
        answer.degraded_reason = f"the last prediction, {age:.0f} s old, is used: {error.message}"
        return DegradedPrediction(answer, "last_good", age)

    async def _by_rule(self, machine_id: str, spec: FallbackSpec, error: AurumError) -> DegradedPrediction | None:
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
            rule=result.rule,
            degraded=True,
            degraded_reason=f"the fallback rule by {result.rule} is used: {error.message}",
            as_of_us=machine.last_seen_us,
        )
        return DegradedPrediction(answer, "rule")

    async def _machine(self, machine_id: str) -> ingestion_pb2.Machine | None:
        """Returns a machine with its latest readings, or None if it cannot be obtained.

        Raises:
            NotFoundError: There is no such machine.
        """
        cached = self._machine_cache.get_machine(machine_id)
        if cached is not None:
            return cached
        try:
            return await self._ingestion.get_machine(machine_id)
        except NotFoundError:
            raise
        except AurumError as error:
            logger.warning("machine %s could not be loaded for the fallback rule: %s", machine_id, error.message)
            return None

    async def _history(self, machine_id: str) -> dict[str, Column]:
        request = ingestion_pb2.QueryRequest(machine_ids=[machine_id], last=_HISTORY_READINGS)
        try:
            series = await self._ingestion.query_readings(request)
        except AurumError as error:
            logger.warning("no history could be loaded for the fallback rule: %s", error.message)
            return {}
        return {column.sensor: (times, values) for column, times, values in decode_columns(series)}
