"""Metrics of services that accept readings."""

from prometheus_client import Counter, Histogram

from aurum.runtime.metrics import FAST, bounded, exemplar

data_ingestion_total = Counter("data_ingestion_total", "Readings received.", ["transport", "result"])
data_ingestion_errors_total = Counter("data_ingestion_errors_total", "Batches refused.", ["transport", "reason"])
data_ingestion_duration_seconds = Histogram(
    "data_ingestion_duration_seconds",
    "Time from the arrival of a batch until it is durable.",
    ["transport"],
    buckets=FAST,
)
for _result in ("accepted", "duplicate"):
    for _transport in ("stream", "unary"):
        data_ingestion_total.labels(_transport, _result)


def track_ingestion(readings: int, duration: float, transport: str = "unary", duplicates: int = 0) -> None:
    """Records a batch that is durable.

    Args:
        readings: The readings that were stored.
        duration: Seconds from the arrival until the batch was durable.
        transport: "stream" or "unary".
        duplicates: The readings of a duplicate.
    """
    data_ingestion_total.labels(transport, "accepted").inc(readings, exemplar())
    if duplicates:
        data_ingestion_total.labels(transport, "duplicate").inc(duplicates, exemplar())
    data_ingestion_duration_seconds.labels(transport).observe(duration, exemplar())


def track_ingestion_error(reason: str, transport: str = "unary") -> None:
    """Records a batch that was refused with `reason`."""
    data_ingestion_errors_total.labels(transport, bounded("reason", reason)).inc(exemplar=exemplar())
