"""JSON models of the API's requests and answers."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt

from aurum.readings.batch import MAX_SEQUENCE

Status = Literal["new", "running", "fault", "stale", "offline"]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Features(BaseModel):
    predictive: bool
    carbon: bool
    energy: bool
    water: bool
    analytics: bool


class Observability(BaseModel):
    logging: str
    tracing_enabled: bool
    prometheus_enabled: bool


class HealthResponse(BaseModel):
    status: Literal["healthy", "degraded", "unhealthy"]
    app_name: str
    app_version: str
    environment: str
    features: Features
    observability: Observability


class MachineIn(_In):
    machine_id: str = Field(examples=["pump-017"])
    machine_type: str = Field(examples=["pump"])
    site: str = Field("", examples=["plant-a"])


class SensorValue(BaseModel):
    value: float | None
    timestamp: datetime


class RulOut(BaseModel):
    estimate: float
    lower: float
    upper: float
    unit: str


class MachineOut(BaseModel):
    machine_id: str
    machine_type: str
    site: str
    status: Status = Field(
        description="new: no reading yet; stale: none for 60 s; offline: none for 1 h; fault: its fault signal is on."
    )
    risk_score: float | None = Field(description="Of the latest background prediction; null if there is none yet.")
    rul: RulOut | None = None
    degraded: bool = Field(False, description="The prediction is the rule's, not a model's.")
    registered_at: datetime
    first_seen: datetime | None
    last_seen: datetime | None


class MachineDetail(MachineOut):
    sensors: dict[str, SensorValue]


class MachinePage(BaseModel):
    items: list[MachineOut]
    next_cursor: str | None


class ReadingIn(_In):
    machine_id: str
    sensor: str
    timestamp: str | StrictFloat | StrictInt = Field(  # strict, so that a boolean is not taken as a number
        description="ISO 8601, or a number since 1970 in seconds (from 1e11 milliseconds, from 1e14 microseconds)."
    )
    value: float | None


class ReadingsIn(_In):
    source_id: str | None = Field(None, description="With sequence: makes a retry safe. So does an Idempotency-Key.")
    sequence: int | None = Field(None, ge=1, le=MAX_SEQUENCE)
    readings: list[ReadingIn] = Field(min_length=1)


class ReadingsOut(BaseModel):
    accepted: int
    duplicate: int


class SeriesOut(BaseModel):
    """One sensor. minima, maxima and counts are there if the series was reduced to points; values are then means."""

    sensor: str
    timestamps: list[datetime]
    values: list[float | None]
    minima: list[float] | None = None
    maxima: list[float] | None = None
    counts: list[int] | None = None


class MetricsOut(BaseModel):
    machine_id: str
    series: list[SeriesOut]


class MaintenanceIn(_In):
    text: str = Field(min_length=1, max_length=500, examples=["Bearing replaced"])
    by: str = Field("", max_length=100)
    at: str | None = Field(None, description="ISO 8601 or a number since 1970; now if absent.")


class MaintenanceOut(BaseModel):
    id: str
    at: datetime
    text: str
    by: str


class MaintenanceRecords(BaseModel):
    machine_id: str
    items: list[MaintenanceOut] = Field(description="The newest first.")


class PredictIn(_In):
    machine_id: str | None = None
    machine_type: str | None = None
    features: dict[str, float | None] | None = None


class PredictionOut(BaseModel):
    machine_id: str | None
    machine_type: str
    model_version: str | None = Field(description="null if no model took part.")
    risk_score: float = Field(description="Calibrated probability of a failure within the model's horizon.")
    rul: RulOut | None
    anomaly_score: float
    degraded: bool
    degraded_reason: str | None
    age_seconds: float | None = Field(None, description="Of an earlier prediction that stands in for a new one.")
    as_of: datetime | None = Field(description="Time of the latest reading that took part.")
    inputs_sha256: str | None = Field(None, description="Of the features; the same inputs have the same.")
    trace_id: str


class FeatureDriftOut(BaseModel):
    feature: str
    stability_index: float | None = Field(
        description="Against the training data; null while there are few predictions."
    )
    out_of_range: float = Field(description="Share of the latest predictions beyond all that training saw.")
    changes: int = Field(description="Of its mean, since the model serves.")


class ModelOut(BaseModel):
    machine_type: str
    version: str
    kind: Literal["rul", "classification", "anomaly"]
    champion: bool
    shadow: bool
    previous: bool = Field(description="A rollback would bring it back.")
    created: datetime
    unit: str
    horizon: float
    rul_cap: float
    metrics: dict[str, float | None] | None = Field(description="On unseen machines; null without failures.")
    drift: list[FeatureDriftOut]


class ModelsOut(BaseModel):
    items: list[ModelOut]


class PastPredictionOut(BaseModel):
    as_of: datetime | None
    model_version: str | None
    risk_score: float
    rul: RulOut | None
    anomaly_score: float
    degraded: bool
    degraded_reason: str | None
    inputs_sha256: str | None = None
    rescored: bool = Field(
        False, description="Made again for this moment, since readings of before it came after the first prediction."
    )


class PastPredictionsOut(BaseModel):
    machine_id: str
    items: list[PastPredictionOut] = Field(description="The newest first.")


class FactorOut(BaseModel):
    feature: str
    sensor: str
    value: float | None
    contribution: float = Field(description="Signed: what it adds to the log-odds of failure, or to the rule's score.")


class ExplanationOut(BaseModel):
    prediction: PredictionOut
    factors: list[FactorOut]


class FeaturesOut(BaseModel):
    machine_id: str
    machine_type: str
    model_version: str | None
    as_of: datetime | None
    features: dict[str, float | None]
