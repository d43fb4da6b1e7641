"""Metrics of the API service."""

from prometheus_client import Counter, Gauge, Histogram

from aurum.runtime.metrics import FAST, bounded, exemplar

http_requests_total = Counter("http_requests_total", "HTTP requests.", ["method", "endpoint", "status_code"])
http_request_duration_seconds = Histogram(
    "http_request_duration_seconds", "Duration of HTTP requests in seconds.", ["method", "endpoint"], buckets=FAST
)
http_body_bytes = Gauge("http_body_bytes", "Bytes of the bodies of HTTP requests in progress.")
http_bodies_refused_total = Counter(
    "http_bodies_refused_total", "HTTP requests refused because the budget for bodies was exhausted."
)
http_requests_in_progress = Gauge("http_requests_in_progress", "HTTP requests in progress.")
alarms = Gauge("alarms", "Alarms by their state (ISA-18.2).", ["state"])
alarm_transitions_total = Counter("alarm_transitions_total", "Transitions of alarms by kind.", ["transition"])
alarm_transitions_dropped_total = Counter(
    "alarm_transitions_dropped_total", "Transitions of alarms that were dropped before they could be recorded."
)
alarm_flood = Gauge(
    "alarm_flood", "1 during an alarm flood: more than ten alarms in ten minutes, until fewer than five."
)
event_streams = Gauge("event_streams", "Open event streams of consoles.")


def track_request(method: str, endpoint: str, status_code: int | str) -> None:
    """Counts an HTTP request. endpoint: The template of its path."""
    http_requests_total.labels(bounded("method", method), endpoint, str(status_code)).inc(exemplar=exemplar())


def track_request_duration(method: str, endpoint: str, seconds: float) -> None:
    """Records the duration of an HTTP request. endpoint: The template of its path."""
    http_request_duration_seconds.labels(bounded("method", method), endpoint).observe(seconds, exemplar())
