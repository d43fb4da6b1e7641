"""The model card: everything about a model that is not its trees, in one JSON file beside them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

FORMAT = 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class DataSummary(_Part):
    """What the model was trained on."""

    source: str
    sha256: str
    machines: int
    runs: int
    failures: int
    rows: int
    dropped_columns: dict[str, str] = Field(description="Column → why no model may or can use it.")


class Metrics(_Part):
    """On machines that the model had not seen (cross-validation by machine)."""

    rul_rmse: float
    rul_mae: float
    interval_coverage: float
    risk_brier: float
    risk_ece: float
    risk_average_precision: float
    risk_base_rate: float


class RiskPart(_Part):
    scores: list[float]
    probabilities: list[float]


class IntervalPart(_Part):
    coverage: float
    edges: list[float]
    lower: list[float]
    upper: list[float]


class AnomalyPart(_Part):
    columns: list[int]
    mean: list[float]
    scale: list[float]
    components: list[list[float]]
    quantiles: list[float]


class DriftPart(_Part):
    """Of the features that matter most: inner edges of ten equally full bins of the training rows, and what these reach
    from and to. Cards of earlier versions say no range."""

    features: list[str]
    edges: list[list[float]]
    ranges: list[tuple[float, float]] = []


class ModelCard(_Part):
    format: Literal[1] = 1
    machine_type: str
    version: str
    created: str = Field(description="RFC 3339, UTC.")
    software: dict[str, str]
    data: DataSummary
    seed: int
    axis: str = Field(description="The sensor that counts life, or time.")
    unit: str = Field(description="Unit of the axis, and of RUL.")
    step: float
    sensors: list[str]
    features: list[str]
    importance: dict[str, float] = Field(description="Share of the gain, of the 20 strongest features.")
    horizon: float = Field(description="risk_score is the probability of a failure within so much life.")
    rul_cap: float = Field(description="RUL above this is told as this.")
    metrics: Metrics
    risk: RiskPart
    interval: IntervalPart
    anomaly: AnomalyPart
    drift: DriftPart
    files: dict[str, str] = Field(description="Model file → SHA-256.")
