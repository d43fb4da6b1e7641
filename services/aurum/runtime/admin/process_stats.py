"""Key figures of a process, for an overview of the platform without Prometheus."""

import os
import socket
import time
from collections.abc import Iterator

from prometheus_client import REGISTRY

from aurum import __version__
from aurum.resilience.status import HTTP_SERVER_FAULTS, SERVER_FAULTS
from aurum.runtime.health import PROBES

_BEGUN = time.time()
_PROBES = frozenset({*PROBES, "/health", "/api/events"})
_HEALTH = "Health/Check"


_HTTP_REQUESTS = "http_requests_total"
_HTTP_SECONDS = "http_request_duration_seconds_bucket"
_RPC_REQUESTS = "rpc_server_requests_total"
_RPC_SECONDS = "rpc_server_duration_seconds_bucket"
_FIGURES = {
    "readings": ("data_ingestion_total", "simulator_readings_total"),
    "batches": ("edge_spool_accepted_total",),
    "predictions": ("ml_predictions_total",),
    "degraded": ("fallbacks_total",),
    "retries": ("retry_attempts_total",),
}
_IN_PROGRESS = ("http_requests_in_progress", "rpc_server_in_progress")
_SPOOL = {
    "batches": "edge_spool_batches",
    "bytes": "edge_spool_bytes",
    "oldest_seconds": "edge_spool_oldest_age_seconds",
    "disk_bytes": "edge_spool_disk_bytes",
    "limit_bytes": "edge_spool_limit_bytes",
    "waiting_writes": "edge_spool_waiting_writes",
}
_DROPPED = "edge_spool_dropped_total"
# By name, since each service has its own metrics and a process has only some of them.
_NAMES = {
    *(_HTTP_REQUESTS, _HTTP_SECONDS, _RPC_REQUESTS, _RPC_SECONDS, *_IN_PROGRESS, *_SPOOL.values(), _DROPPED),
    *(name for names in _FIGURES.values() for name in names),
}

Samples = dict[str, list[tuple[dict[str, str], float]]]
"""Metric name → its series, as labels and value."""


def process_stats() -> dict[str, object]:
    """Returns the process, its requests without probes and, if there is one, its spool.

    The histogram buckets of the requests are in seconds and cumulative. Figures of metrics that this process does not
    have are 0.
    """
    samples: Samples = {name: [] for name in _NAMES}
    for family in REGISTRY.restricted_registry(_NAMES).collect():
        for sample in family.samples:
            samples[sample.name].append((sample.labels, sample.value))
    return {
        "instance": socket.gethostname(),
        "pid": os.getpid(),
        "version": __version__,
        "uptime_seconds": round(time.time() - _BEGUN, 1),
        "requests": _requests(samples),
        "spool": _spool(samples),
        **{figure: _total(samples, *names) for figure, names in _FIGURES.items()},
    }


def _requests(samples: Samples) -> dict[str, object]:
    total = failed = 0.0
    for labels, value in samples[_HTTP_REQUESTS]:
        if labels["endpoint"] not in _PROBES:
            total += value
            failed += value if int(labels["status_code"]) in HTTP_SERVER_FAULTS else 0
    for labels, value in samples[_RPC_REQUESTS]:
        if not labels["method"].endswith(_HEALTH):
            total += value
            failed += value if labels["code"] in SERVER_FAULTS else 0
    buckets: dict[float, float] = {}
    for labels, value in _durations(samples):
        bound = float(labels["le"])
        buckets[bound] = buckets.get(bound, 0.0) + value
    finite = sorted(bound for bound in buckets if bound != float("inf"))
    return {
        "total": total,
        "failed": failed,
        "bounds": finite,
        "counts": [buckets[bound] for bound in finite],
        "observed": buckets.get(float("inf"), 0.0),
        "in_progress": _total(samples, *_IN_PROGRESS),
    }


def _durations(samples: Samples) -> Iterator[tuple[dict[str, str], float]]:
    """Yields the buckets of the durations of requests, without probes."""
    for labels, value in samples[_HTTP_SECONDS]:
        if labels["endpoint"] not in _PROBES:
            yield labels, value
    for labels, value in samples[_RPC_SECONDS]:
        if not labels["method"].endswith(_HEALTH):
            yield labels, value


def _spool(samples: Samples) -> dict[str, object] | None:
    """Returns the state of the spool, or None if the process has none or nothing ever arrived in it.

    `dropped` has the batches that will never be forwarded, by reason.
    """
    if not _total(samples, "edge_spool_batches", "edge_spool_accepted_total"):
        return None
    dropped = {labels["reason"]: int(count) for labels, count in samples[_DROPPED] if count}
    return {**{figure: _total(samples, name) for figure, name in _SPOOL.items()}, "dropped": dropped}


def _total(samples: Samples, *names: str) -> float:
    """Returns the sum of counters or gauges over all labels."""
    return sum(value for name in names for _, value in samples[name])
