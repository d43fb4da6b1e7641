"""Metrics of the API service."""

from functools import lru_cache

from prometheus_client import Counter, Gauge, Histogram

from aurum.runtime.metrics import FAST, bounded, exemplar

http_requests_total = Counter("http_requests_total", "HTTP requests.", ["method", "endpoint", "status_code"])
http_request_duration_seconds = Histogram(
    "http_request_duration_seconds", "Time to answer an HTTP request.", ["method", "endpoint"], buckets=FAST
)
http_body_bytes = Gauge("http_body_bytes", "Bytes of the bodies of requests in progress.")
http_bodies_refused_total = Counter(
    "http_bodies_refused_total", "Requests refused because request bodies held too many bytes of memory."
)
http_requests_in_progress = Gauge("http_requests_in_progress", "HTTP requests in progress.")
gateways_hanging = Gauge(
    "gateways_hanging", "Edge gateways that have answered this process and do not answer any more."
)
alarms = Gauge("alarms", "Alarms by state (ISA-18.2).", ["state"])
alarm_transitions_total = Counter("alarm_transitions_total", "Transitions of alarms.", ["transition"])
alarm_flood = Gauge(
    "alarm_flood", "1 during a flood: from more than ten new alarms in ten minutes until there are fewer than five."
)
event_streams = Gauge("event_streams", "Open event streams, one for each console.")


@lru_cache(maxsize=5000)  # more than there are series, of which the labels are bounded
def _requests(method: str, endpoint: str, status_code: str) -> Counter:
    return http_requests_total.labels(method, endpoint, status_code)


@lru_cache(maxsize=1000)
def _durations(method: str, endpoint: str) -> Histogram:
    return http_request_duration_seconds.labels(method, endpoint)


def track_request(method: str, endpoint: str, status_code: int | str) -> None:
    """Counts an HTTP request. endpoint: The template of its path."""
    _requests(bounded("method", method), endpoint, str(status_code)).inc(exemplar=exemplar())


def track_request_duration(method: str, endpoint: str, seconds: float) -> None:
    """Records the duration of an HTTP request. endpoint: The template of its path."""
    _durations(bounded("method", method), endpoint).observe(seconds, exemplar())
