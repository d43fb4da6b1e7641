"""The degraded answers: which one is given, and that they can be seen everywhere."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from opentelemetry.sdk.trace import TracerProvider

from aurum.api.fallback import PredictionFallback
from aurum.api.machine_cache import MachineCache
from aurum.heuristics import LEAST_READINGS, assess
from aurum.heuristics.limits import LIMITS
from aurum.resilience.policy import FallbackSpec
from aurum.runtime.errors import AurumError, NotFoundError, UnavailableError
from aurum.v1 import columns_pb2, ingestion_pb2, prediction_pb2
from aurum_sim.machine_types import MACHINE_TYPES
from tests.support.waiting import until

ERROR = UnavailableError("prediction is down")
SPEC = FallbackSpec()
PREDICTION = prediction_pb2.PredictResponse(machine_id="m", machine_type="pump", model_version="v1", risk_score=0.3)


class Ingestion:
    """A backend that knows the machines and readings of a test, or answers with an error."""

    def __init__(self, machine: ingestion_pb2.Machine | None = None, error: AurumError | None = None) -> None:
        self._machine = machine
        self._error = error
        self.history: list[columns_pb2.QueriedColumns] = []

    async def get_machine(self, machine_id: str) -> ingestion_pb2.Machine:
        if self._error:
            raise self._error
        if self._machine is None:
            raise NotFoundError(machine_id)
        return self._machine

    async def query_readings(self, request: ingestion_pb2.QueryRequest) -> list[columns_pb2.QueriedColumns]:
        if self._error:
            raise self._error
        return self.history

    async def watch_machines(
        self, interval_ms: int, *, predictions: bool
    ) -> AsyncIterator[columns_pb2.WatchedMachines]:
        machine = self._machine or ingestion_pb2.Machine(machine_id="m")
        yield columns_pb2.WatchedMachines(machines=[machine.SerializeToString()])
        await asyncio.Event().wait()


def fallback(ingestion: Any) -> PredictionFallback:
    return PredictionFallback(MachineCache(ingestion, ingestion, 1.0), ingestion)


async def predicted(ingestion: Any) -> PredictionFallback:
    """A fallback whose machine cache follows the machine and has a prediction of it."""
    cache = MachineCache(ingestion, ingestion, 1.0)
    following = asyncio.create_task(cache.follow_machines())
    await until(lambda: cache.get_machine("m") is not None)
    following.cancel()
    cache.store_prediction("m", PREDICTION)
    return PredictionFallback(cache, ingestion)


def machine(machine_type: str, **values: float) -> ingestion_pb2.Machine:
    sensors = [
        ingestion_pb2.SensorState(sensor=sensor, timestamp_us=5, value=value) for sensor, value in values.items()
    ]
    return ingestion_pb2.Machine(machine_id="m", machine_type=machine_type, last_seen_us=5, sensors=sensors)


async def test_last_good_prediction_is_marked_in_span_and_log(caplog: pytest.LogCaptureFixture) -> None:
    made = await predicted(Ingestion())
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("request") as span, caplog.at_level(logging.WARNING):
        degraded = await made.substitute("m", SPEC, ERROR)
    assert degraded.source == "last_good"
    assert degraded.age is not None
    assert degraded.age < 60
    assert degraded.prediction.degraded
    assert "the last prediction, 0 s old, is used: prediction is down" in degraded.prediction.degraded_reason
    assert not PREDICTION.degraded  # the one that is kept is left as it was
    attributes = dict(span.attributes or {})  # type: ignore[attr-defined]
    assert attributes["aurum.degraded"] is True
    assert attributes["aurum.degraded.source"] == "last_good"
    assert "prediction is down" in str(attributes["aurum.degraded.reason"])
    assert "answering with a degraded prediction" in caplog.text


async def test_prediction_before_its_machine_is_followed_is_kept() -> None:
    ingestion: Any = Ingestion(machine("pump", vibration_mm_s=7.1))
    cache = MachineCache(ingestion, ingestion, 1.0)
    cache.store_prediction("m", PREDICTION)
    early = await PredictionFallback(cache, ingestion).substitute("m", SPEC, ERROR)
    following = asyncio.create_task(cache.follow_machines())
    await until(lambda: cache.get_machine("m") is not None)
    following.cancel()
    followed = await PredictionFallback(cache, ingestion).substitute("m", SPEC, ERROR)
    assert early.source == followed.source == "last_good"
    found = cache.prediction_with_age("m")
    assert found is not None
    assert found[0] == PREDICTION


async def test_old_last_good_prediction_is_replaced_by_rule() -> None:
    made = await predicted(Ingestion(machine("pump", vibration_mm_s=7.1)))
    young = await made.substitute("m", SPEC, ERROR)
    assert young.source == "last_good"
    old = await made.substitute("m", SPEC.model_copy(update={"last_good_max_age": 0.0}), ERROR)
    assert old.source == "rule"
    assert old.prediction.risk_score == pytest.approx(0.5)
    assert old.prediction.as_of_us == 5


async def test_type_without_limits_is_judged_by_shift_rule() -> None:
    ingestion = Ingestion(machine("press", force_kn=800.0))
    values = [100.0 + index % 3 for index in range(40)] + [160.0] * 8
    whole = ingestion_pb2.QueriedSeries(
        machine_id="m", sensor="force_kn", timestamps_us=range(1, len(values) + 1), values=values
    )
    ingestion.history = [columns_pb2.QueriedColumns.FromString(whole.SerializeToString())]
    degraded = await fallback(ingestion).substitute("m", SPEC, ERROR)
    assert "the fallback rule by shift" in degraded.prediction.degraded_reason
    assert degraded.prediction.risk_score > 0.5


@pytest.mark.parametrize(
    ("ingestion", "spec", "expected"),
    [
        (Ingestion(error=UnavailableError("ingestion too")), SPEC, UnavailableError),
        (Ingestion(), SPEC, NotFoundError),
        (Ingestion(machine("press")), SPEC, UnavailableError),
        (Ingestion(machine("pump", vibration_mm_s=7.1)), FallbackSpec(rule=False), UnavailableError),
    ],
)
async def test_error_is_raised_when_no_fallback_applies(
    ingestion: Any, spec: FallbackSpec, expected: type[AurumError]
) -> None:
    with pytest.raises(expected):
        await fallback(ingestion).substitute("m", spec, ERROR)


def test_limits_match_sensors_and_rate_new_machines_healthy() -> None:
    assert LIMITS.keys() == MACHINE_TYPES.keys()
    for name, limits in LIMITS.items():
        sensors = {sensor.name: sensor for sensor in MACHINE_TYPES[name].sensors}
        assert {limit.sensor for limit in limits} <= sensors.keys()
        columns = {limit.sensor: (np.arange(3), np.full(3, limit.normal)) for limit in limits}
        healthy = assess(name, columns)
        assert healthy is not None
        assert healthy.risk == 0.0
        for limit in limits:
            worn = assess(name, columns | {limit.sensor: (np.arange(3), np.full(3, limit.alarm))})
            assert worn is not None
            assert worn.risk == pytest.approx(0.5)
            assert next(iter(worn.shifts)) == limit.sensor


def test_rule_gives_no_result_without_enough_readings() -> None:
    assert assess("press", {"x": (np.arange(LEAST_READINGS - 1), np.ones(LEAST_READINGS - 1))}) is None
    assert assess("pump", {"vibration_mm_s": (np.arange(1), np.array([np.nan]))}) is None
