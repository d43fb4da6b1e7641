"""JSON models of the API's requests and answers."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt

from aurum.readings.batch import MAX_SEQUENCE

Source = Literal["model", "rule"]
Status = Literal["new", "running", "fault", "stale", "offline"]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Features(BaseModel):
    """The features that this installation enables."""

    predictive: bool
    carbon: bool
    energy: bool
    water: bool
    analytics: bool


class Observability(BaseModel):
    """How the API reports its state."""

    logging: str
    tracing_enabled: bool
    prometheus_enabled: bool


class HealthResponse(BaseModel):
    """The health of the platform."""

    status: Literal["healthy", "degraded", "unhealthy"]
    app_name: str
    app_version: str
    environment: str
    features: Features
    observability: Observability


class MachineIn(_In):
    """The registration of a machine."""

    machine_id: str = Field(examples=["pump-017"])
    machine_type: str = Field(examples=["pump"])
    site: str = Field("", examples=["plant-a"])


class SensorValue(BaseModel):
    """The latest reading of a sensor."""

    value: float | None
    timestamp: datetime


class RulOut(BaseModel):
    """Remaining useful life: the estimate, and the bounds of its interval."""

    estimate: float
    lower: float
    upper: float
    unit: str


class UnknownOut(BaseModel):
    """Why something is unknown, for texts of the client's own."""

    code: str = Field(description="Stable name of the reason: NO_SKILL or NO_FAILURES_SEEN.")
    parameters: dict[str, str] = Field({}, description="The values in the reason.")


class _RiskSource(BaseModel):
    """Where a risk comes from."""

    source: Source = Field("model", description="Whether a model or a fallback rule answered.")
    rule: str | None = Field(
        None, description="The rule whose value is in risk_score, which is not a probability then."
    )
    risk_unknown_reason: str | None = Field(None, description="Why the risk is unknown, and risk_score null.")
    risk_unknown: UnknownOut | None = Field(None, description="risk_unknown_reason for programs.")
    without_skill: str | None = Field(
        None, description="Why the model, which was activated by force, has no proven skill; null for any other."
    )


class MachineOut(_RiskSource):
    """A machine with its status and latest background prediction."""

    machine_id: str
    machine_type: str
    site: str
    status: Status = Field(
        description="new: no reading yet; stale: none for 60 s; offline: none for 1 h; fault: its fault signal is on."
    )
    risk_score: float | None = Field(
        description="Risk of the latest background prediction, or the value of a rule; null if there is none or "
        "it is unknown."
    )
    rul: RulOut | None = None
    rul_unknown_reason: str | None = Field(None, description="Why the model tells no RUL although it learned lives.")
    rul_unknown: UnknownOut | None = Field(None, description="rul_unknown_reason for programs.")
    degraded: bool = Field(False, description="Whether the prediction comes from the fallback rule instead of a model.")
    predicted_at: datetime | None = Field(None, description="When the prediction was made; null if there is none yet.")
    registered_at: datetime
    first_seen: datetime | None
    last_seen: datetime | None


class MachineDetail(MachineOut):
    """A machine with the latest reading of each sensor."""

    sensors: dict[str, SensorValue]


class MachinePage(BaseModel):
    """A page of machines."""

    items: list[MachineOut]
    next_cursor: str | None


class ReadingIn(_In):
    """A reading to store."""

    machine_id: str
    sensor: str
    timestamp: str | StrictFloat | StrictInt = Field(  # strict, so that a boolean is not taken as a number
        description="ISO 8601, or a number since 1970 in seconds (from 1e11 milliseconds, from 1e14 microseconds)."
    )
    value: float | None


class ReadingsIn(_In):
    """A batch of readings to store."""

    source_id: str | None = Field(
        None, description="Source of the batch. With sequence it makes a retry safe, as an Idempotency-Key does."
    )
    sequence: int | None = Field(None, ge=1, le=MAX_SEQUENCE, description="Number of the batch within its source.")
    readings: list[ReadingIn] = Field(min_length=1)


class ReadingsOut(BaseModel):
    """The number of readings that were stored, and that had been stored before."""

    accepted: int
    duplicate: int
    absent: int = Field(0, description="Readings that were not stored, because they have a word instead of a number.")
    notes: list[str] = Field(
        [],
        description="CSV: what was recognized, such as a decimal comma or times without a zone, and what was replaced.",
    )


class SeriesOut(BaseModel):
    """The readings of one sensor.

    If the series was reduced to points, values are means, and minima, maxima and counts are given.
    """

    sensor: str
    timestamps: list[datetime]
    values: list[float | None]
    minima: list[float] | None = None
    maxima: list[float] | None = None
    counts: list[int] | None = None


class MetricsOut(BaseModel):
    """The readings of a machine by sensor."""

    machine_id: str
    series: list[SeriesOut]


class PlannedStopIn(_In):
    """A planned stop to set."""

    at: str = Field(description="When it begins, ISO 8601 or a number since 1970; in the future.")
    text: str = Field("", max_length=200, examples=["Cleaning of line 2"])
    by: str = Field("", max_length=100)


class PlannedStopOut(BaseModel):
    """A planned stop."""

    id: str
    at: datetime
    in_hours: float = Field(description="Hours until it begins.")
    text: str
    by: str


class PlannedStops(BaseModel):
    """The future planned stops of a machine."""

    machine_id: str
    items: list[PlannedStopOut] = Field(description="Items, the next first.")


class PredictIn(_In):
    """A machine, or a machine type and features, to predict for."""

    machine_id: str | None = None
    machine_type: str | None = None
    features: dict[str, float | None] | None = None


class CauseOut(BaseModel):
    """The part of a risk that a failure mode accounts for."""

    mode: str
    risk: float = Field(description="Probability of a failure in this mode within the horizon, before any other.")


class PredictionOut(_RiskSource):
    """A prediction."""

    machine_id: str | None
    machine_type: str
    model_version: str | None = Field(description="null if no model was used.")
    risk_score: float | None = Field(
        description="Calibrated probability of a failure within the model's horizon, or the value of a rule; null if "
        "it is unknown."
    )
    rul_unknown_reason: str | None = Field(None, description="Why the model tells no RUL although it learned lives.")
    rul_unknown: UnknownOut | None = Field(None, description="rul_unknown_reason for programs.")
    anomaly_threshold: float | None = Field(
        None, description="Anomaly score from which the state counts as unusual, by the allowed false alarms a month."
    )
    rul: RulOut | None
    anomaly_score: float
    degraded: bool
    degraded_reason: str | None
    age_seconds: float | None = Field(
        None, description="Age of the prediction, if an earlier one is used instead of a new one."
    )
    as_of: datetime | None = Field(description="Time of the latest reading that was used.")
    inputs_sha256: str | None = Field(None, description="Digest of the features.")
    causes: list[CauseOut] = Field([], description="The risk by failure mode, the greatest first; empty if unknown.")
    trace_id: str


class FeatureDriftOut(BaseModel):
    """The drift of a feature."""

    feature: str
    stability_index: float | None = Field(
        description="Population stability index against the training data; null while there are few predictions."
    )
    out_of_range: float = Field(
        description="Share of the latest predictions with a value outside the range of the training data."
    )
    changes: int = Field(description="Detected changes of the mean since the model serves.")


class SkillOut(BaseModel):
    """The skill of a prediction against one naive baseline: 1 - error / baseline_error."""

    quantity: Literal["rul", "risk"]
    baseline: str
    measure: str
    error: float
    baseline_error: float
    skill: float
    low: float = Field(description="Lower end of the 95 % interval; the model has skill if it is above 0.")
    high: float


class ModelOut(BaseModel):
    """A version of a model."""

    machine_type: str
    version: str
    kind: Literal["rul", "classification", "anomaly"]
    champion: bool
    shadow: bool
    previous: bool = Field(description="Whether a rollback would make this version the champion.")
    created: datetime
    unit: str
    horizon: float
    rul_cap: float
    metrics: dict[str, float | None] | None = Field(description="Evaluation on unseen machines; null without failures.")
    skill: list[SkillOut] | None = Field(
        None,
        description="Skill against naive baselines, on later lives if there are such; null if it was not measured.",
    )
    without_skill: str | None = Field(None, description="Why it is activated only by force; null if it has skill.")
    forced: bool = Field(False, description="Whether it is the champion by force.")
    drift: list[FeatureDriftOut]


class ModelTrainingOut(BaseModel):
    """How far the training of the first model of a machine type is."""

    machine_type: str
    state: str = Field(description="waiting, running, done or failed.")
    problem: str | None = Field(description="Why it failed, and what happens next.")


class ModelsOut(BaseModel):
    """All versions of all models."""

    items: list[ModelOut]
    training: list[ModelTrainingOut] = Field(description="Models that are trained in the background after the start.")


class PastPredictionOut(_RiskSource):
    """A recorded prediction."""

    as_of: datetime | None
    model_version: str | None
    risk_score: float | None
    rul: RulOut | None
    anomaly_score: float
    degraded: bool
    degraded_reason: str | None
    inputs_sha256: str | None = None
    rescored: bool = Field(
        False,
        description="Whether the prediction was repeated because late readings arrived.",
    )


class PastPredictionsOut(BaseModel):
    """The recorded predictions of a machine."""

    machine_id: str
    items: list[PastPredictionOut] = Field(description="Items, the newest first.")


class FactorOut(BaseModel):
    """The contribution of a feature to a prediction."""

    feature: str
    sensor: str
    value: float | None
    contribution: float = Field(
        description="Signed contribution to the log-odds of failure, or to the score of the rule."
    )


class ExplanationOut(BaseModel):
    """A prediction with the features that contributed most."""

    prediction: PredictionOut
    factors: list[FactorOut]
    step: float | None = Field(
        description="Length of a time step, which features count, such as mean_64; null if a rule has answered."
    )
    step_unit: str | None = Field(description="Its unit, such as hours or cycles.")


class FeaturesOut(BaseModel):
    """The features of a machine."""

    machine_id: str
    machine_type: str
    model_version: str | None
    as_of: datetime | None
    features: dict[str, float | None]
