"""Service level objectives, and the windows over which their error budgets are observed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from charts.telemetry.selectors import HTTP_FAILED, PREDICT

Series = Mapping[str, str]
_API = 'k8s_namespace_name="plant", service_name="api"'
_EDGE = 'k8s_namespace_name="plant", service_name="edge"'
_PREDICT = 'method="POST", endpoint="/api/predict"'


@dataclass(frozen=True, slots=True)
class Window:
    """The two windows of a burn-rate alert.

    Attributes:
        title: Last part of the alert's name.
        long: Duration of the long window.
        short: Duration of the short window.
        burn: Factor above the allowed rate of consumption at which the alert fires.
        hold: Duration for which the condition must hold.
        severity: warning or critical.
        minutes: The long window in minutes.
        short_minutes: The short window in minutes.
    """

    title: str
    long: str
    short: str
    burn: float
    hold: str
    severity: str
    minutes: int
    short_minutes: int


# For a budget of 30 days: 2 % of it in an hour, 5 % in six hours, 10 % in a day.
WINDOWS = (
    Window("Fast", "1h", "5m", 14.4, "2m", "critical", 60, 5),
    Window("Medium", "6h", "30m", 6.0, "15m", "critical", 360, 30),
    Window("Slow", "1d", "2h", 3.0, "1h", "warning", 1440, 120),
)


@dataclass(frozen=True, slots=True)
class Slo:
    """A service level objective.

    Attributes:
        name: Name of the objective.
        title: The objective as a sentence.
        goal: Least share of good events.
        bad: PromQL template of the share of bad events over the window $w.
        by: Labels of the recorded series.
        traffic: PromQL condition without which the alert does not fire. Empty means none.
        service: The service that is measured.
        dashboard: Name of the dashboard that shows more.
        labels: Labels of the series in the tests.
        healthy: Returns series of that many minutes that meet the objective.
        burning: Returns series of that many minutes that miss it.
        recovering: Returns series that miss it for that many minutes and then meet it.
    """

    name: str
    title: str
    goal: float
    bad: str
    by: str
    traffic: str
    service: str
    dashboard: str
    labels: dict[str, str]
    healthy: Callable[[int], Series]
    burning: Callable[[int], Series]
    recovering: Callable[[int], Series]

    @property
    def record(self) -> str:
        """The prefix of the names of its recorded series."""
        return "aurumai:slo_" + {"PredictAvailability": "predict_failed", "PredictLatency": "predict_slow"}.get(
            self.name, "ingest_late"
        )


def window_name(window: str) -> str:
    """Returns the suffix of the series that are recorded over a window."""
    return f"_{window}"


def _requests(failed: int, minutes: int) -> Series:
    return {
        f'http_requests_total{{{_API}, {_PREDICT}, status_code="200"}}': f"0+{100 - failed}x{minutes}",
        f'http_requests_total{{{_API}, {_PREDICT}, status_code="503"}}': f"0+{failed}x{minutes}",
    }


def _recovered_requests(minutes: int) -> Series:
    rest = minutes + 200
    return {
        f'http_requests_total{{{_API}, {_PREDICT}, status_code="200"}}': f"0+50x{minutes} {50 * minutes}+100x{rest}",
        f'http_requests_total{{{_API}, {_PREDICT}, status_code="503"}}': f"0+50x{minutes} {50 * minutes}+0x{rest}",
    }


def _durations(slow: int, minutes: int) -> Series:
    return {
        f'http_request_duration_seconds_bucket{{{_API}, {_PREDICT}, le="0.25"}}': f"0+{100 - slow}x{minutes}",
        f"http_request_duration_seconds_count{{{_API}, {_PREDICT}}}": f"0+100x{minutes}",
        f'http_requests_total{{{_API}, {_PREDICT}, status_code="200"}}': f"0+100x{minutes}",
    }


def _recovered_durations(minutes: int) -> Series:
    rest = minutes + 200
    bucket = f'http_request_duration_seconds_bucket{{{_API}, {_PREDICT}, le="0.25"}}'
    return {
        bucket: f"0+20x{minutes} {20 * minutes}+100x{rest}",
        f"http_request_duration_seconds_count{{{_API}, {_PREDICT}}}": f"0+100x{2 * rest}",
        f'http_requests_total{{{_API}, {_PREDICT}, status_code="200"}}': f"0+100x{2 * rest}",
    }


_LAG = f'edge_spool_live_lag_seconds{{{_EDGE}, k8s_pod_name="edge-0"}}'

SLOS = (
    Slo(
        "PredictAvailability",
        "Predictions are answered",
        0.995,
        f"sum by (k8s_namespace_name, service_name) (rate(http_requests_total{{{PREDICT}, {HTTP_FAILED}}}[$w])) "
        f"/ sum by (k8s_namespace_name, service_name) (rate(http_requests_total{{{PREDICT}}}[$w]))",
        "k8s_namespace_name, service_name",
        f"sum by (k8s_namespace_name, service_name) (rate(http_requests_total{{{PREDICT}}}[1h])) > 0.01",
        "api",
        "overview",
        {"k8s_namespace_name": "plant", "service_name": "api"},
        lambda minutes: _requests(1, minutes),
        lambda minutes: _requests(20, minutes),
        _recovered_requests,
    ),
    Slo(
        "PredictLatency",
        "Predictions are answered within 250 ms",
        0.99,
        f"1 - sum by (k8s_namespace_name, service_name) (rate(http_request_duration_seconds_bucket"
        f'{{{PREDICT}, le="0.25"}}[$w])) '
        f"/ sum by (k8s_namespace_name, service_name) (rate(http_request_duration_seconds_count{{{PREDICT}}}[$w]))",
        "k8s_namespace_name, service_name",
        f"sum by (k8s_namespace_name, service_name) (rate(http_requests_total{{{PREDICT}}}[1h])) > 0.01",
        "api",
        "overview",
        {"k8s_namespace_name": "plant", "service_name": "api"},
        lambda minutes: _durations(2, minutes),
        lambda minutes: _durations(40, minutes),
        _recovered_durations,
    ),
    Slo(
        "IngestFreshness",
        "New readings reach the store within 5 s",
        0.99,
        "avg by (k8s_namespace_name, service_name) "
        '(avg_over_time((edge_spool_live_lag_seconds{service_name="edge"} > bool 5)[$w:1m]))',
        "k8s_namespace_name, service_name",
        # At least half an hour of data: in the first minutes of a release, a late start would be a large share
        "max by (k8s_namespace_name, service_name) "
        '(count_over_time(edge_spool_live_lag_seconds{service_name="edge"}[1h:1m])) > 30',
        "edge",
        "ingestion",
        {"k8s_namespace_name": "plant", "service_name": "edge"},
        lambda minutes: {_LAG: f"1x{minutes}"},
        lambda minutes: {_LAG: f"30x{minutes}"},
        lambda minutes: {_LAG: f"30x{minutes} 0x{minutes + 200}"},
    ),
)
