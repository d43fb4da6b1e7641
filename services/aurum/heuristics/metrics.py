"""Metrics of predictions, whichever service makes them: with a model, or with a fallback rule."""

from prometheus_client import Counter

from aurum.runtime.metrics import bounded, exemplar

ml_predictions_total = Counter("ml_predictions_total", "Predictions.", ["machine_type", "model_version", "degraded"])


def track_degraded_prediction(machine_type: str, model_version: str) -> None:
    """A degraded answer was given in place of the prediction service's."""
    version = bounded("model_version", model_version or "rule", limit=200)
    ml_predictions_total.labels(bounded("machine_type", machine_type or "unknown"), version, "true").inc(
        exemplar=exemplar()
    )
