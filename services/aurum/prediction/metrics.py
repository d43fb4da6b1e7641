"""Metrics of the prediction service."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Literal

from prometheus_client import Counter, Gauge, Histogram

from aurum.heuristics.metrics import ml_predictions_total
from aurum.maintenance.track_record import Month
from aurum.runtime.metrics import FAST, bounded, exemplar

ml_prediction_duration_seconds = Histogram(
    "ml_prediction_duration_seconds", "Time of one call of the model.", ["machine_type"], buckets=FAST
)
ml_prediction_risk_score = Histogram(
    "ml_prediction_risk_score",
    "Predicted risk scores.",
    ["machine_type"],
    buckets=(0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
)
prediction_drift = Gauge(
    "prediction_drift",
    "Largest population stability index of the model's main features against its training data.",
    ["machine_type"],
)
prediction_feature_drift = Gauge(
    "prediction_feature_drift",
    "Population stability index of a main feature against the training data.",
    ["machine_type", "feature"],
)
prediction_feature_changes_total = Counter(
    "prediction_feature_changes_total",
    "Detected changes of a main feature's mean (ADWIN).",
    ["machine_type", "feature"],
)
prediction_shadow_risk_difference = Histogram(
    "prediction_shadow_risk_difference",
    "Absolute difference between the risk of the shadow model and that of the champion.",
    ["machine_type"],
    buckets=(0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8),
)
prediction_first_models = Gauge(
    "prediction_first_models",
    "Machine types of AURUM_PREDICTION_TRAIN_MISSING, by the state of the training of their first model.",
    ["state"],
)
prediction_batch_size = Histogram(
    "prediction_batch_size", "Number of predictions per call of the model.", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
prediction_batch_waiting = Gauge("prediction_batch_waiting", "Predictions that wait for the model.")
prediction_batch_refused_total = Counter(
    "prediction_batch_refused_total", "Predictions refused because too many waited for the model."
)
prediction_rescored_total = Counter(
    "prediction_rescored_total", "Checks of stored predictions for readings that arrived late.", ["result"]
)
prediction_out_of_range_ratio = Gauge(
    "prediction_out_of_range_ratio",
    "Share of the latest predictions with a main feature outside the range of the training data.",
    ["machine_type"],
)
prediction_model_calibration_error = Gauge(
    "prediction_model_calibration_error",
    "Expected calibration error of the active model's risk, on held-out runs.",
    ["machine_type"],
)
prediction_model_interval_coverage = Gauge(
    "prediction_model_interval_coverage",
    "Share of the true remaining lives within the active model's intervals, on held-out runs.",
    ["machine_type"],
)
prediction_outcome_errors_total = Counter(
    "prediction_outcome_errors_total", "Failed comparisons of predictions with what happened, which are repeated."
)
prediction_outcome_failures = Gauge(
    "prediction_outcome_failures",
    "Failures of the last 90 days, by whether a warning preceded them.",
    ["machine_type", "result"],
)
prediction_outcome_warnings = Gauge(
    "prediction_outcome_warnings",
    "Warnings of the last 90 days that were false, or that are neither true nor false.",
    ["machine_type", "result"],
)
prediction_outcome_lead_time = Gauge(
    "prediction_outcome_lead_time",
    "Median lead time of the warnings before failures in the last 90 days, in the unit of the model.",
    ["machine_type"],
)
prediction_outcome_calibration_error = Gauge(
    "prediction_outcome_calibration_error",
    "Expected calibration error of the predictions of the last 90 days whose outcome is known.",
    ["machine_type"],
)
prediction_outcome_skill = Gauge(
    "prediction_outcome_skill",
    "Share by which the squared error of these predictions is less than that of their base rate.",
    ["machine_type"],
)
prediction_requests_total = Counter(
    "prediction_requests_total",
    "Requested predictions of one machine by the origin of its readings: window (of the fleet scorer) or query.",
    ["source"],
)
_BY_SOURCE = {source: prediction_requests_total.labels(source) for source in ("window", "query")}
prediction_history_dropped_total = Counter("prediction_history_dropped_total", "Predictions that could not be stored.")


def track_prediction(
    machine_type: str, model_version: str, duration: float, risk_score: float | None, degraded: bool = False
) -> None:
    """Counts a prediction.

    Args:
        machine_type: The type of the machine.
        model_version: The version of the model, or `rule`.
        duration: Seconds that the prediction took.
        risk_score: The predicted risk, from 0 to 1; None if it is unknown.
        degraded: Whether the risk does not come from a model.
    """
    kind = bounded("machine_type", machine_type)
    version = bounded("model_version", model_version, limit=200)
    predictions, durations, risks = _prediction_series(kind, version, str(degraded).lower())
    example = exemplar()
    predictions.inc(exemplar=example)
    durations.observe(duration, example)
    if risk_score is not None:
        risks.observe(risk_score, example)


@lru_cache(maxsize=1000)
def _prediction_series(kind: str, version: str, degraded: str) -> tuple[Counter, Histogram, Histogram]:
    return (
        ml_predictions_total.labels(kind, version, degraded),
        ml_prediction_duration_seconds.labels(kind),
        ml_prediction_risk_score.labels(kind),
    )


def track_predictions(machine_type: str, model_version: str, duration: float, risk_scores: Iterable[float]) -> None:
    """Counts the predictions of one call of a model.

    Args:
        machine_type: The type of the machines.
        model_version: The version of the model.
        duration: Seconds that the call took.
        risk_scores: The predicted risks, from 0 to 1.
    """
    kind = bounded("machine_type", machine_type)
    version = bounded("model_version", model_version, limit=200)
    predictions, durations, risks = _prediction_series(kind, version, "false")
    count = 0
    for score in risk_scores:
        risks.observe(score)
        count += 1
    example = exemplar()
    predictions.inc(count, exemplar=example)
    durations.observe(duration, example)


def track_source(source: Literal["window", "query"]) -> None:
    """Counts a requested prediction by the origin of its readings."""
    _BY_SOURCE[source].inc()


def track_drift(machine_type: str, psi: float, out_of_range: float) -> None:
    """Sets the largest stability index of a model's features and the share of predictions out of range."""
    kind = bounded("machine_type", machine_type)
    prediction_drift.labels(kind).set(psi)
    prediction_out_of_range_ratio.labels(kind).set(out_of_range)


def track_feature_drift(machine_type: str, feature: str, psi: float, changes: int) -> None:
    """Sets the stability index of a feature and counts the `changes` of its mean since the last call."""
    labels = bounded("machine_type", machine_type), bounded("feature", feature, limit=400)
    prediction_feature_drift.labels(*labels).set(psi)
    prediction_feature_changes_total.labels(*labels).inc(changes)


def track_shadow(machine_type: str, difference: float) -> None:
    """Records the absolute difference in risk between champion and shadow model."""
    prediction_shadow_risk_difference.labels(bounded("machine_type", machine_type)).observe(difference, exemplar())


def track_outcomes(machine_type: str, found: Month) -> None:
    """Sets what became of the predictions for a machine type."""
    kind = bounded("machine_type", machine_type)
    prediction_outcome_failures.labels(kind, "predicted").set(found.predicted)
    prediction_outcome_failures.labels(kind, "missed").set(found.failures - found.predicted)
    prediction_outcome_warnings.labels(kind, "false").set(found.false_warnings)
    prediction_outcome_warnings.labels(kind, "undecided").set(found.undecided_warnings)
    for gauge, value in (
        (prediction_outcome_lead_time, found.lead_time),
        (prediction_outcome_calibration_error, found.calibration_error),
        (prediction_outcome_skill, found.skill),
    ):
        gauge.labels(kind).set(float("nan") if value is None else value)


def track_model(machine_type: str, calibration_error: float, interval_coverage: float) -> None:
    """Sets the quality of a new champion, as stated in its card."""
    kind = bounded("machine_type", machine_type)
    prediction_model_calibration_error.labels(kind).set(calibration_error)
    prediction_model_interval_coverage.labels(kind).set(interval_coverage)
