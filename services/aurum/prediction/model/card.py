"""The model card: everything about a model except its trees, in one JSON file."""

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

FORMAT = 3
READABLE_FORMATS = (2, 3)  # 3 added the wear index, deviations and the blend with age
ModelKind: TypeAlias = Literal["rul", "classification", "anomaly"]
Quantity: TypeAlias = Literal["rul", "risk"]


class _Part(BaseModel):
    # Cards of newer versions may have further fields
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class DataSummary(_Part):
    """The training data."""

    source: str
    sha256: str
    machines: int
    runs: int
    failures: int
    rows: int
    until_us: int = Field(0, description="Time of the latest reading, in µs since 1970; 0 if it is not known.")
    licence: str = Field("not declared", description="Licence of the data, as stated at training.")
    dropped_columns: dict[str, str] = Field(description="Column → why it is not used.")


class Metrics(_Part):
    """Metrics on machines that were not used for training. None if a metric does not apply."""

    rul_rmse: float | None = Field(description="In the card's unit, up to the cap.")
    rul_mae: float | None
    interval_coverage: float | None = Field(description="Share of true values within the 90 % interval.")
    risk_brier: float
    risk_ece: float = Field(description="Expected calibration error over ten bins.")
    risk_average_precision: float
    risk_base_rate: float
    lead_time: float | None = Field(
        description="Median remaining life when the risk has first been at least 0.5 for three steps in a row."
    )
    warned_share: float | None = Field(description="Share of failures with such a warning.")


class CalibrationPoint(_Part):
    """One bin of a calibration curve: mean predicted risk (`told`), share of failures (`true`) and number of rows."""

    told: float
    true: float
    rows: int


class RulPoint(_Part):
    """Predicted and true RUL of one row, on a machine that was not used for training."""

    truth: float
    predicted: float


class Skill(_Part):
    """The skill of predictions against one naive baseline, on the rows of an evaluation.

    The skill is 1 - error / baseline's error: 1 is perfect, 0 is as good as the baseline, and less is worse.
    """

    quantity: Quantity = Field(description="What is predicted: rul or risk.")
    baseline: str = Field(description="The baseline, such as: median life minus age.")
    measure: str = Field(description="How errors are measured: RMSE in the card's unit, or Brier score.")
    error: float = Field(description="Error of the model.")
    baseline_error: float = Field(description="Error of the baseline.")
    skill: float
    low: float = Field(description="Lower end of the 95 % interval of the skill, by resampling machines or lives.")
    high: float
    groups: int = Field(description="Machines or lives that were resampled.")


class Evaluation(_Part):
    """Quality of a model on machines that were not used for training, and the protocol of the evaluation."""

    protocol: str
    metrics: Metrics
    confidence: dict[str, tuple[float, float]] = Field(
        description="95 % intervals by resampling machines (bootstrap; Efron, 1979)."
    )
    calibration: list[CalibrationPoint]
    points: list[RulPoint] = Field(description="A few hundred points, spread evenly over the rows.")
    skill: list[Skill] | None = Field(None, description="Skill against naive baselines; null if it was not measured.")


class RiskPart(_Part):
    """The calibration of the risk: a piecewise linear map from raw scores to probabilities."""

    scores: list[float]
    probabilities: list[float]


class TailPart(_Part):
    """How likely failures are before the lowest quantile of the RUL, see `LowerTail`. Earlier versions have none."""

    level: float
    mean: float
    lives: float


class IntervalPart(_Part):
    """The calibration of the RUL interval: residuals[bin][level], by bins of the prediction."""

    coverage: float
    levels: list[float]
    edges: list[float]
    residuals: list[list[float]]
    tail: TailPart | None = None


class RegimePart(_Part):
    """The operating regimes, see `Regimes`."""

    columns: list[str]
    centers: list[list[float]]
    scale: list[float]
    sensors: list[str]
    mean: list[list[float]]
    deviation: list[list[float | None]] = Field(description="null where a sensor is constant in a regime.")


class WearIndexPart(_Part):
    """The wear index, see `WearIndex`. Each list has an element for each sensor."""

    mean: list[float]
    weight: list[float]
    share: list[float]


class AgeBlendPart(_Part):
    """The RUL by age alone, as a piecewise linear map, which is blended with that of the trees."""

    weight: float = Field(description="Share of the estimate by age in the RUL, from 0 to 1.")
    ages: list[float]
    left: list[float] = Field(description="Mean RUL up to the cap at each age, over the lives that reached it.")


class Trial(_Part):
    """One way to train that was tried in cross-validation."""

    name: str
    error: float
    chosen: bool


class SearchPart(_Part):
    """How the way to train was chosen."""

    protocol: str
    measure: str = Field(description="What the errors are.")
    trials: list[Trial] = Field(description="In the order in which they were tried, each beside the best before it.")
    chosen: dict[str, float] = Field(description="The settings that were chosen.")
    seconds_allowed: float | None = Field(description="Budget of the search; null without a limit.")
    not_tried: list[str] = Field(description="What the budget left no time for.")


class HeldOutScoresPart(_Part):
    """The calibration of the anomaly score on held-out blocks of healthy time, see `HeldOutScores`."""

    variances: list[float]
    shares: list[float]
    quantiles: list[list[float]]
    tails: list[list[float]]
    surprises: list[float]
    alarm_surprises: list[float]
    alarms_a_month: list[float]
    months: float = Field(description="Months of healthy operation that were held out.")
    blocks: str = Field(description="How the blocks were formed.")


class AnomalyPart(_Part):
    """The anomaly model except its forest, see `AnomalyModel`."""

    columns: list[int]
    mean: list[float]
    scale: list[float]
    components: list[list[float]]
    distances: list[float]
    paths: list[float]
    greater: list[float]
    held_out: HeldOutScoresPart | None = Field(None, description="null for models of earlier versions.")


class LifetimePart(_Part):
    """A Weibull distribution of the life, as a sample of its parameters, see `Lifetime`."""

    shapes: list[float]
    scales: list[float]
    failures: int


class CausePart(_Part):
    """The shares of failure modes among failures within the horizon, see `CauseShares`."""

    modes: list[str]
    columns: list[int]
    mean: list[float]
    scale: list[float]
    coefficients: list[list[float]]
    intercepts: list[float]
    failures: dict[str, int] = Field(description="Failures of each mode in the training data.")
    accuracy: float = Field(description="Share of held-out failures whose mode had the greatest share.")
    majority: float = Field(description="Share of the most frequent mode, which is what a constant answer gets.")


class DriftPart(_Part):
    """The distribution of the most important features in training: inner edges of deciles, and ranges."""

    features: list[str]
    edges: list[list[float]]
    ranges: list[tuple[float, float]]


class CategoryPart(_Part):
    """A sensor whose readings stand for words: the reading 0 for the first word, 1 for the second, and so on."""

    words: list[str]
    encoding: Literal["ordered", "one-hot"] = Field(
        description="How trees split it, chosen by cross-validation: by the order of the words, or word by word."
    )


class ModelCard(_Part):
    """The model card. It describes the model and contains all of its parameters except the trees."""

    format: Literal[2, 3] = 3
    kind: ModelKind = Field(
        description="Trained on lives (rul), on labels (classification), or on healthy machines (anomaly)."
    )
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
    horizon: float = Field(description="risk_score is the probability of a failure within this amount of life.")
    rul_cap: float = Field(description="A greater RUL is reported as this value.")
    monotone: list[str] = Field(
        description="Features with which the RUL may only rise or, with the prefix -, only fall."
    )
    regimes: RegimePart | None
    evaluation: Evaluation | None
    later_lives: Evaluation | None = Field(
        description="The same for lives that began after all training lives had ended; null without such lives."
    )
    median_life: float | None = Field(None, description="Median life of the failed runs, in the card's unit.")
    wear_index: WearIndexPart | None = None
    deviations: bool = Field(False, description="Whether there are features of the deviation from what is usual.")
    single: bool = Field(False, description="Whether means of steps are rounded to single precision.")
    age_blend: AgeBlendPart | None = None
    search: SearchPart | None = Field(None, description="How the way to train was chosen; null for earlier models.")
    risk: RiskPart | None
    interval: IntervalPart | None
    anomaly: AnomalyPart
    lifetime: LifetimePart | None = Field(
        None, description="Predicts risk and RUL by the age alone, if few failures were observed; otherwise null."
    )
    causes: CausePart | None = Field(
        None, description="How the risk is divided among failure modes; null if fewer than two are recorded."
    )
    drift: DriftPart
    categories: dict[str, CategoryPart] = Field(
        default={}, description="Sensor → the words for which its readings stand."
    )
    files: dict[str, str] = Field(description="Model file → SHA-256.")
