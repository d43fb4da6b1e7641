"""ML Predictions: how many, how fast, how sure, and whether the models still fit what is measured."""

from charts.telemetry.dashboards.panels import (
    ANY,
    Page,
    Panel,
    Query,
    Row,
    Variable,
    largest,
    matchers_for,
    or_zero,
    quantile,
    rate,
    share,
)
from charts.telemetry.selectors import PREDICT

_TYPES = 'machine_type=~"$machine_type"'
_MODEL = f"{matchers_for('prediction')}, {_TYPES}"
_ALL = f"{ANY}, {_TYPES}"

PAGE = Page(
    "predictions",
    "AurumAI / ML Predictions",
    "Predictions by machine type and model: rate, latency, risk, drift, calibration and degraded answers.",
    "docs/data.md",
    (
        Row(
            "Predictions",
            (
                Panel(
                    "Predictions by machine type",
                    "Predictions per second, on request or in the background.",
                    "docs/observability.md",
                    "reqps",
                    (Query(rate("ml_predictions_total", _MODEL, "machine_type"), "{{machine_type}}"),),
                ),
                Panel(
                    "Predictions by model version",
                    "Predictions per second of each version; `rule` where there is no model.",
                    "docs/observability.md",
                    "reqps",
                    (
                        Query(
                            rate("ml_predictions_total", _MODEL, "machine_type, model_version"),
                            "{{machine_type}} {{model_version}}",
                        ),
                    ),
                ),
                Panel(
                    "Degraded share",
                    "Share of predictions that come from a rule or are an earlier prediction, by machine type.",
                    "docs/runbooks/AurumAIPredictAvailabilityBurn.md",
                    "percentunit",
                    (
                        Query(
                            share(
                                rate("ml_predictions_total", f'{_ALL}, degraded="true"', "machine_type"),
                                rate("ml_predictions_total", _ALL, "machine_type"),
                            ),
                            "{{machine_type}}",
                        ),
                    ),
                    limit=0.05,
                    most=1.0,
                ),
                Panel(
                    "Fallbacks",
                    "Degraded answers of the API per second: the last good prediction, or a rule.",
                    "docs/resilience.md",
                    "reqps",
                    (Query(or_zero(rate("fallbacks_total", matchers_for("api"), "source"), "source"), "{{source}}"),),
                ),
                Panel(
                    "Predictions not stored",
                    "Predictions per second that could not be stored.",
                    "docs/runbooks/AurumAIIngestionAbsent.md",
                    "cps",
                    (Query(rate("prediction_history_dropped_total", matchers_for("prediction")), "{{service_name}}"),),
                ),
                Panel(
                    "By model, in this time",
                    "Number of predictions of each model.",
                    "docs/observability.md",
                    "short",
                    (
                        Query(
                            "sum by (machine_type, model_version, degraded) "
                            f"(increase(ml_predictions_total{{{_ALL}}}[$__range]))",
                            latest=True,
                        ),
                    ),
                    "table",
                    hidden=("Time",),
                ),
            ),
        ),
        Row(
            "Latency",
            (
                Panel(
                    "Predictions in one call",
                    "Number of predictions per call of the model.",
                    "docs/prediction.md",
                    "short",
                    (
                        Query(quantile(0.5, "prediction_batch_size", matchers_for("prediction")), "50 %"),
                        Query(quantile(0.99, "prediction_batch_size", matchers_for("prediction")), "99 %"),
                    ),
                    width=12,
                ),
                Panel(
                    "Waiting for the model",
                    "Predictions that wait, and predictions per second that were refused because too many waited.",
                    "docs/prediction.md",
                    "short",
                    (
                        Query(largest("prediction_batch_waiting", matchers_for("prediction")), "waiting"),
                        Query(rate("prediction_batch_refused_total", matchers_for("prediction")), "refused"),
                    ),
                    width=12,
                ),
                Panel(
                    "Model",
                    "Time of the model for one machine.",
                    "docs/runbooks/AurumAIPredictLatencyBurn.md",
                    "s",
                    (
                        Query(
                            quantile(0.5, "ml_prediction_duration_seconds", _MODEL, "machine_type"),
                            "{{machine_type}} 50 %",
                        ),
                        Query(
                            quantile(0.99, "ml_prediction_duration_seconds", _MODEL, "machine_type"),
                            "{{machine_type}} 99 %",
                            exemplars=True,
                        ),
                    ),
                    width=12,
                ),
                Panel(
                    "Whole request",
                    "Time of POST /api/predict; 0 without requests. The objective is 250 ms. Dots link to traces.",
                    "docs/runbooks/AurumAIPredictLatencyBurn.md",
                    "s",
                    tuple(
                        Query(
                            or_zero(
                                quantile(each, "http_request_duration_seconds", f"{matchers_for('api')}, {PREDICT}", "")
                            ),
                            f"{each * 100:g} %",
                            exemplars=True,
                        )
                        for each in (0.5, 0.95, 0.99)
                    ),
                    width=12,
                    limit=0.25,
                ),
            ),
        ),
        Row(
            "Risk and trust",
            (
                Panel(
                    "Risk distribution",
                    "Number of predictions by risk.",
                    "docs/runbooks/AurumAIModelDrift.md",
                    "short",
                    (
                        Query(
                            f"sum by (le) (increase(ml_prediction_risk_score_bucket{{{_MODEL}}}[$__rate_interval]))",
                            "{{le}}",
                        ),
                    ),
                    "heatmap",
                    least=None,
                ),
                Panel(
                    "Mean risk",
                    "Mean of the predicted risks, by machine type.",
                    "docs/runbooks/AurumAIModelDrift.md",
                    "percentunit",
                    (
                        Query(
                            f"{rate('ml_prediction_risk_score_sum', _MODEL, 'machine_type')} "
                            f"/ {rate('ml_prediction_risk_score_count', _MODEL, 'machine_type')}",
                            "{{machine_type}}",
                        ),
                    ),
                    most=1.0,
                ),
                Panel(
                    "Out of range",
                    "Share of the latest predictions with a feature outside the range of the training data.",
                    "docs/runbooks/AurumAIModelDrift.md",
                    "percentunit",
                    (Query(largest("prediction_out_of_range_ratio", _MODEL, "machine_type"), "{{machine_type}}"),),
                    limit=0.2,
                    most=1.0,
                ),
                Panel(
                    "Drift",
                    "Largest population stability index of a model's main features; 0 until 200 predictions. It is "
                    "also high for healthy machines that are few or of similar age.",
                    "docs/runbooks/AurumAIModelDrift.md",
                    "none",
                    (
                        Query(
                            or_zero(largest("prediction_drift", _MODEL, "machine_type"), "machine_type"),
                            "{{machine_type}}",
                        ),
                    ),
                ),
                Panel(
                    "Difference of the shadow",
                    "Mean difference between the risks of the shadow model and the champion; 0 without a shadow.",
                    "docs/prediction.md",
                    "percentunit",
                    (
                        Query(
                            or_zero(
                                f"{rate('prediction_shadow_risk_difference_sum', _MODEL, 'machine_type')} "
                                f"/ {rate('prediction_shadow_risk_difference_count', _MODEL, 'machine_type')}",
                                "machine_type",
                            ),
                            "{{machine_type}}",
                        ),
                    ),
                    most=1.0,
                ),
                Panel(
                    "Failures predicted",
                    "Failures of the last 90 days, by whether a warning (a risk of at least 0.5) preceded them.",
                    "docs/prediction.md",
                    "none",
                    (
                        Query(
                            or_zero(
                                largest("prediction_outcome_failures", _MODEL, "machine_type, result"), "machine_type"
                            ),
                            "{{machine_type}} {{result}}",
                        ),
                        Query(
                            or_zero(
                                largest("prediction_outcome_warnings", _MODEL, "machine_type, result"), "machine_type"
                            ),
                            "{{machine_type}} {{result}} warnings",
                        ),
                    ),
                ),
                Panel(
                    "Skill in service",
                    "Share by which the error of predictions whose outcome is known is less than that of their base "
                    "rate, and their calibration error; 0 until a failure was observed.",
                    "docs/prediction.md",
                    "percentunit",
                    (
                        Query(
                            or_zero(largest("prediction_outcome_skill", _MODEL, "machine_type"), "machine_type"),
                            "{{machine_type}} skill",
                        ),
                        Query(
                            or_zero(
                                largest("prediction_outcome_calibration_error", _MODEL, "machine_type"), "machine_type"
                            ),
                            "{{machine_type}} calibration error",
                        ),
                    ),
                ),
                Panel(
                    "Lead time",
                    "Median life between a warning and the failure, in the unit of the model; 0 without failures.",
                    "docs/prediction.md",
                    "none",
                    (
                        Query(
                            or_zero(largest("prediction_outcome_lead_time", _MODEL, "machine_type"), "machine_type"),
                            "{{machine_type}}",
                        ),
                    ),
                ),
                Panel(
                    "Re-scored",
                    "Checks of stored predictions for late readings per second, by result.",
                    "docs/prediction.md",
                    "cps",
                    (
                        Query(
                            or_zero(rate("prediction_rescored_total", matchers_for("prediction"), "result"), "result"),
                            "{{result}}",
                        ),
                    ),
                ),
                Panel(
                    "Drift by feature",
                    "Population stability index of each main feature; 0 until 200 predictions.",
                    "docs/prediction.md",
                    "none",
                    (
                        Query(
                            or_zero(largest("prediction_feature_drift", _MODEL, "machine_type, feature"), "feature"),
                            "{{machine_type}} {{feature}}",
                        ),
                    ),
                    width=12,
                ),
                Panel(
                    "Changes of a feature's mean",
                    "Changes per second that ADWIN detected.",
                    "docs/prediction.md",
                    "cps",
                    (
                        Query(
                            or_zero(
                                rate("prediction_feature_changes_total", _MODEL, "machine_type, feature"), "feature"
                            ),
                            "{{machine_type}} {{feature}}",
                        ),
                    ),
                    width=12,
                ),
                Panel(
                    "Calibration error",
                    "Expected calibration error of the active model's risk, on held-out runs.",
                    "docs/runbooks/AurumAIModelDrift.md",
                    "percentunit",
                    (Query(largest("prediction_model_calibration_error", _MODEL, "machine_type"), "{{machine_type}}"),),
                    "stat",
                    limit=0.05,
                    width=12,
                ),
                Panel(
                    "Interval coverage",
                    "Share of true remaining lives within the active model's 90 % intervals, on held-out runs.",
                    "docs/runbooks/AurumAIModelDrift.md",
                    "percentunit",
                    (Query(largest("prediction_model_interval_coverage", _MODEL, "machine_type"), "{{machine_type}}"),),
                    "stat",
                    limit=0.8,
                    low=True,
                    most=1.0,
                    width=12,
                ),
            ),
        ),
    ),
    services="api|prediction",
    variables=(
        Variable(
            "machine_type",
            "Machine type",
            "Machine types.",
            'label_values(ml_predictions_total{k8s_namespace_name=~"$namespace"}, machine_type)',
        ),
    ),
)
