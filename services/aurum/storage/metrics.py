"""Metrics of databases."""

from prometheus_client import Counter, Gauge, Histogram

from aurum.runtime.metrics import FAST, exemplar

db_queries_total = Counter("db_queries_total", "Statements of the store.", ["operation", "status"])
db_query_duration_seconds = Histogram(
    "db_query_duration_seconds", "Time of a statement of the store.", ["operation"], buckets=FAST
)
db_connections_active = Gauge("db_connections_active", "Open connections to the store.")


def track_db_query(operation: str, seconds: float, status: str = "ok") -> None:
    """Records a statement that took `seconds`."""
    db_queries_total.labels(operation, status).inc(exemplar=exemplar())
    db_query_duration_seconds.labels(operation).observe(seconds, exemplar())


def track_db_connections(change: int) -> None:
    """Records that connections were opened, or closed if `change` is negative."""
    db_connections_active.inc(change)
