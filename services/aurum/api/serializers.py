"""Converts protobuf messages to the JSON models of the API."""

import math
import time
from datetime import UTC, datetime
from typing import Any

from aurum.api.schemas import (
    CauseOut,
    MachineDetail,
    MachineOut,
    PastPredictionOut,
    PredictionOut,
    RulOut,
    SensorValue,
    Status,
)
from aurum.readings.history import FAULT
from aurum.readings.times import parse_timestamp
from aurum.runtime.errors import InvalidArgumentError
from aurum.runtime.telemetry.tracing import current_trace_id
from aurum.v1 import ingestion_pb2, prediction_pb2

_STALE_AFTER, _OFFLINE_AFTER = 60.0, 3600.0  # seconds without a reading


def to_datetime(us: int) -> datetime:
    """Returns the time of µs since 1970, in UTC."""
    return datetime.fromtimestamp(us / 1e6, UTC)


def to_optional_datetime(us: int) -> datetime | None:
    """Returns the time of µs since 1970, in UTC; None for 0, which stands for an unknown time."""
    return to_datetime(us) if us else None


def finite_or_none(value: float) -> float | None:
    """Returns the value, or None if it is NaN or infinite, which JSON cannot represent."""
    return value if math.isfinite(value) else None


def machine_status(machine: ingestion_pb2.Machine) -> Status:
    """Returns the status of a machine by the age of its latest reading and by its fault signal."""
    if not machine.last_seen_us:
        return "new"
    age = time.time() - machine.last_seen_us / 1e6
    if age > _OFFLINE_AFTER:
        return "offline"
    if age > _STALE_AFTER:
        return "stale"
    faulty = any(state.sensor == FAULT and state.value >= 0.5 for state in machine.sensors)
    return "fault" if faulty else "running"


Predicted = tuple[prediction_pb2.PredictResponse, float]  # a prediction, and its age in seconds


def machine_out(machine: ingestion_pb2.Machine, predicted: Predicted | None) -> MachineOut:
    """Converts a machine with its latest background prediction, if there is one."""
    prediction, age = predicted or (None, 0.0)
    return MachineOut(
        machine_id=machine.machine_id,
        machine_type=machine.machine_type,
        site=machine.site,
        status=machine_status(machine),
        risk_score=round(prediction.risk_score, 4) if prediction and not prediction.risk_unknown_reason else None,
        **(origin_of(prediction) if prediction else {}),
        rul=rul_out(prediction) if prediction else None,
        rul_unknown_reason=(prediction.rul_unknown_reason or None) if prediction else None,
        rul_unknown=unknown_out(prediction.rul_unknown) if prediction and prediction.HasField("rul_unknown") else None,
        degraded=bool(prediction and prediction.degraded),
        predicted_at=datetime.fromtimestamp(time.time() - age, UTC) if prediction else None,
        registered_at=to_datetime(machine.registered_us),
        first_seen=to_optional_datetime(machine.first_seen_us),
        last_seen=to_optional_datetime(machine.last_seen_us),
    )


def machine_detail(machine: ingestion_pb2.Machine, predicted: Predicted | None) -> MachineDetail:
    """Converts a machine with its latest readings and its latest background prediction, if there is one."""
    return MachineDetail(
        **dict(machine_out(machine, predicted)),
        sensors={
            state.sensor: SensorValue(value=finite_or_none(state.value), timestamp=to_datetime(state.timestamp_us))
            for state in machine.sensors
        },
    )


def rul_out(prediction: prediction_pb2.PredictResponse) -> RulOut | None:
    """Converts the RUL of a prediction; None if the model does not predict it."""
    if not prediction.HasField("rul"):
        return None
    rul = prediction.rul
    return RulOut(estimate=round(rul.estimate, 2), lower=round(rul.lower, 2), upper=round(rul.upper, 2), unit=rul.unit)


def origin_of(prediction: prediction_pb2.PredictResponse) -> dict[str, Any]:
    """Returns where the risk of a prediction comes from, why it is unknown, and why its model has no skill."""
    return {
        "source": "rule" if prediction.rule or (prediction.degraded and not prediction.model_version) else "model",
        "rule": prediction.rule or None,
        "risk_unknown_reason": prediction.risk_unknown_reason or None,
        "risk_unknown": unknown_out(prediction.risk_unknown) if prediction.HasField("risk_unknown") else None,
        "without_skill": prediction.without_skill or None,
    }


def unknown_out(reason: prediction_pb2.UnknownReason) -> dict[str, Any]:
    """Returns why something is unknown, for programs."""
    return {"code": reason.code, "parameters": dict(reason.parameters)}


def prediction_out(prediction: prediction_pb2.PredictResponse, age: float | None = None) -> PredictionOut:
    """Converts a prediction. age: Its age in seconds, if it is an earlier one that is used instead of a new one."""
    return PredictionOut(
        machine_id=prediction.machine_id or None,
        machine_type=prediction.machine_type,
        model_version=prediction.model_version or None,
        risk_score=None if prediction.risk_unknown_reason else prediction.risk_score,
        **origin_of(prediction),
        rul_unknown_reason=prediction.rul_unknown_reason or None,
        rul_unknown=unknown_out(prediction.rul_unknown) if prediction.HasField("rul_unknown") else None,
        anomaly_threshold=prediction.anomaly_threshold or None,
        rul=rul_out(prediction),
        anomaly_score=prediction.anomaly_score,
        degraded=prediction.degraded,
        degraded_reason=prediction.degraded_reason or None,
        age_seconds=None if age is None else round(age, 1),
        as_of=to_optional_datetime(prediction.as_of_us),
        inputs_sha256=prediction.inputs_sha256 or None,
        causes=[CauseOut(mode=cause.mode, risk=cause.risk) for cause in prediction.causes],
        trace_id=current_trace_id(),
    )


def parse_query_time(name: str, text: str | None) -> int:
    """Parses a time in a query into µs since 1970; 0 if it is not given. Raises InvalidArgumentError."""
    if not text:
        return 0
    try:
        return max(0, parse_timestamp(text.replace(" ", "+")))  # a + in a query may arrive as a space
    except ValueError as error:
        raise InvalidArgumentError.for_field(name, str(error)) from error


def past_prediction_out(prediction: prediction_pb2.PredictResponse) -> PastPredictionOut:
    """Converts a recorded prediction."""
    past = prediction_out(prediction).model_dump() | {"rescored": prediction.rescored}
    return PastPredictionOut.model_validate(past)
