"""Key figures of a process, for an overview of the platform without Prometheus."""

import os
import socket
import time
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client.metrics_core import Metric

from aurum import __version__
from aurum.resilience.status import HTTP_SERVER_FAULTS, SERVER_FAULTS
from aurum.runtime import metrics

_BEGUN = time.time()
_PROBES = frozenset({"/livez", "/readyz", "/metrics", "/health", "/api/events"})
_HEALTH = "Health/Check"


def overview() -> dict[str, Any]:
    """Returns the process, its requests without probes and, if there is one, its spool.

    The histogram buckets of the requests are in seconds and cumulative.
    """
    return {
        "instance": socket.gethostname(),
        "pid": os.getpid(),
        "version": __version__,
        "uptime_seconds": round(time.time() - _BEGUN, 1),
        "requests": _requests(),
        "spool": _spool(),
        "readings": _total(metrics.data_ingestion_total) + _total(metrics.simulator_readings_total),
        "batches": _total(metrics.edge_spool_accepted_total),
        "predictions": _total(metrics.ml_predictions_total),
        "degraded": _total(metrics.fallbacks_total),
        "retries": _total(metrics.retry_attempts_total),
    }


def _requests() -> dict[str, Any]:
    total = failed = 0.0
    for labels, value in _samples(metrics.http_requests_total, "_total"):
        if labels["endpoint"] not in _PROBES:
            total += value
            failed += value if int(labels["status_code"]) in HTTP_SERVER_FAULTS else 0
    for labels, value in _samples(metrics.rpc_server_requests_total, "_total"):
        if not labels["method"].endswith(_HEALTH):
            total += value
            failed += value if labels["code"] in SERVER_FAULTS else 0
    buckets: dict[float, float] = {}
    for metric, label, ignored in (
        (metrics.http_request_duration_seconds, "endpoint", _PROBES),
        (metrics.rpc_server_duration_seconds, "method", frozenset()),
    ):
        for labels, value in _samples(metric, "_bucket"):
            if labels[label] not in ignored and not labels[label].endswith(_HEALTH):
                bound = float(labels["le"])
                buckets[bound] = buckets.get(bound, 0.0) + value
    finite = sorted(bound for bound in buckets if bound != float("inf"))
    return {
        "total": total,
        "failed": failed,
        "bounds": finite,
        "counts": [buckets[bound] for bound in finite],
        "observed": buckets.get(float("inf"), 0.0),
        "in_progress": _total(metrics.http_requests_in_progress) + _total(metrics.rpc_server_in_progress),
    }


def _spool() -> dict[str, float] | None:
    batches = _total(metrics.edge_spool_batches)
    if not batches and not _total(metrics.edge_spool_accepted_total):
        return None
    return {
        "batches": batches,
        "bytes": _total(metrics.edge_spool_bytes),
        "oldest_seconds": _total(metrics.edge_spool_oldest_age_seconds),
    }


def _samples(metric: Any, suffix: str) -> Iterable[tuple[dict[str, str], float]]:
    family: Metric
    for family in metric.collect():
        for sample in family.samples:
            if sample.name.endswith(suffix):
                yield sample.labels, sample.value


def _total(metric: Any) -> float:
    """Returns the sum of a counter or a gauge over all labels."""
    values: Iterator[float] = (
        sample.value for family in metric.collect() for sample in family.samples if not sample.name.endswith("_created")
    )
    return sum(values)
