"""Metrics of services that accept readings."""

from functools import cache

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


class _OfTransport:
    """The series of a transport. To look them up for each batch would cost more than to count it."""

    def __init__(self, transport: str) -> None:
        self.accepted = data_ingestion_total.labels(transport, "accepted")
        self.duplicate = data_ingestion_total.labels(transport, "duplicate")
        self.duration = data_ingestion_duration_seconds.labels(transport)


_of_transport = cache(_OfTransport)
for _transport in ("stream", "unary"):
    _of_transport(_transport)


def track_ingestion(readings: int, duration: float, transport: str = "unary", duplicates: int = 0) -> None:
    """Records a batch that is durable.

    Args:
        readings: The readings that were stored.
        duration: Seconds from the arrival until the batch was durable.
        transport: "stream" or "unary".
        duplicates: The readings of a duplicate.
    """
    series, trace = _of_transport(transport), exemplar()
    series.accepted.inc(readings, trace)
    if duplicates:
        series.duplicate.inc(duplicates, trace)
    series.duration.observe(duration, trace)


def track_ingestion_error(reason: str, transport: str = "unary") -> None:
    """Records a batch that was refused with `reason`."""
    data_ingestion_errors_total.labels(transport, bounded("reason", reason)).inc(exemplar=exemplar())
