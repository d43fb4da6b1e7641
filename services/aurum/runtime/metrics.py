"""Metrics that every process has, and what the metrics of all services share. Base units: seconds and bytes.

No label takes a machine id, a path or anything else without a bound: `endpoint` is the route's template, and labels
that come from data pass through `bounded`.
"""

import platform
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import get_args

from opentelemetry import trace
from prometheus_client import Counter, Gauge, Histogram, Info, disable_created_metrics

from aurum import __version__
from aurum.resilience import events
from aurum.resilience.circuit_breaker import STATE_CLOSED, STATE_HALF_OPEN, STATE_OPEN
from aurum.resilience.criticality import Criticality
from aurum.resilience.shadow import Decision

disable_created_metrics()  # they would double the series and say little

FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

system_info = Info("system", "Constant labels of the process.")

http_connections_ended_total = Counter(
    "http_connections_ended_total",
    "Connections closed by the server because they exceeded a limit of time, size or number.",
    ["why"],
)

rpc_server_requests_total = Counter("rpc_server_requests_total", "gRPC calls answered.", ["method", "code"])
rpc_server_duration_seconds = Histogram(
    "rpc_server_duration_seconds", "Time to answer a gRPC call.", ["method"], buckets=FAST
)
rpc_server_in_progress = Gauge("rpc_server_in_progress", "gRPC calls in progress on the server.", ["method"])
rpc_client_requests_total = Counter("rpc_client_requests_total", "gRPC calls made.", ["method", "code"])
rpc_client_duration_seconds = Histogram(
    "rpc_client_duration_seconds", "Time until a gRPC call was answered.", ["method"], buckets=FAST
)


circuit_breaker_state = Gauge(
    "circuit_breaker_state", "State of a circuit breaker: 0 closed, 1 open, 2 half-open.", ["name"]
)
circuit_breaker_failures_total = Counter(
    "circuit_breaker_failures_total", "Failures that circuit breakers counted.", ["name"]
)
circuit_breaker_rejections_total = Counter(
    "circuit_breaker_rejections_total", "Calls that circuit breakers refused.", ["name"]
)
retry_attempts_total = Counter("retry_attempts_total", "Attempts after the first.", ["name"])
retry_exhausted_total = Counter("retry_exhausted_total", "Calls that failed in every attempt.", ["name"])
retry_budget_tokens = Gauge("retry_budget_tokens", "Retries that the budget still allows.", ["name"])
retry_budget_exhausted_total = Counter(
    "retry_budget_exhausted_total", "Retries that the budget did not allow.", ["name"]
)
concurrency_limit = Gauge("concurrency_limit", "Maximum number of calls in progress.", ["name"])
concurrency_limit_rejections_total = Counter(
    "concurrency_limit_rejections_total",
    "Calls refused because the concurrency limit was reached.",
    ["name", "criticality"],
)
policy_generation = Gauge("policy_generation", "Generation of the policy document in force; 0 for the built-in one.")
policy_refused = Gauge(
    "policy_refused", "1 while the latest policy document is refused and an earlier one is in force."
)
policy_shadow_decisions_total = Counter(
    "policy_shadow_decisions_total",
    "Decisions of policies in shadow mode: opening, breaker_rejection, limit_rejection, timeout.",
    ["name", "decision"],
)
policy_reloads_total = Counter("policy_reloads_total", "Changes of the policy document.", ["result"])
hedges_total = Counter("hedges_total", "Second attempts in parallel to a slow one.", ["name"])
fallbacks_total = Counter("fallbacks_total", "Degraded answers in place of a dependency's.", ["name", "source"])
faults_injected_total = Counter("faults_injected_total", "Injected faults.", ["kind"])
outcomes_dropped_total = Counter("outcomes_dropped_total", "Outcomes of calls that could not be recorded.")


stream_places_in_use = Gauge(
    "stream_places_in_use", "Open streams by kind: ingest, watch, follow, query, events, other.", ["kind"]
)
streams_refused_total = Counter(
    "streams_refused_total", "Streams refused because their kind or their caller had used its share.", ["kind", "why"]
)


damaged_items = Gauge("damaged_items", "Items that cannot be read and are set apart at present.", ["kind"])
unknown_total = Counter("unknown_total", "Fields or values from newer versions that this version ignores.", ["what"])
damaged_found_total = Counter("damaged_found_total", "Items found damaged and set apart.", ["kind"])


event_loop_lag_seconds = Histogram(
    "event_loop_lag_seconds",
    "Delay of a coroutine beyond the time for which it was scheduled.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)
errors_total = Counter("errors_total", "Errors by type.", ["type"])
spans_dropped_total = Counter("spans_dropped_total", "Spans that could not be exported.")
audit_events_dropped_total = Counter(
    "audit_events_dropped_total", "Audit events that could not be exported. The log still contains them."
)

for _result in ("applied", "refused"):
    policy_reloads_total.labels(_result)

_seen: dict[str, set[str]] = {}
_seen_lock = threading.Lock()


def bounded(label: str, value: str, limit: int = 50) -> str:
    """Returns `value`, or "other" if `limit` other values of the label were seen before.

    It bounds the number of series of labels whose values come from data.
    """
    with _seen_lock:
        values = _seen.setdefault(label, set())
        if value in values:
            return value
        if len(values) >= limit:
            return "other"
        values.add(value)
        return value


def exemplar() -> dict[str, str] | None:
    """Returns the current trace for an exemplar, or None if the trace is not recorded and so cannot be looked up."""
    span = trace.get_current_span().get_span_context()
    if not span.is_valid or not span.trace_flags.sampled:
        return None
    return _exemplar_of(span.trace_id, span.span_id)


@lru_cache(maxsize=64)
def _exemplar_of(trace_id: int, span_id: int) -> dict[str, str]:
    return {"trace_id": format(trace_id, "032x"), "span_id": format(span_id, "016x")}


def describe_system(service: str, environment: str) -> None:
    """Sets the constant labels of this process."""
    system_info.info(
        {"service": service, "version": __version__, "environment": environment, "python": platform.python_version()}
    )


class RpcSeries:
    """The series of the calls of one gRPC method; to look them up for each call would cost as much as to count it."""

    def __init__(self, method: str, requests: Counter, duration: Histogram) -> None:
        self._method = method
        self._requests = requests
        self._by_code: dict[str, Counter] = {}  # one for each status code
        self._duration = duration.labels(method)

    def track(self, code: str, seconds: float) -> None:
        """Records a call. seconds: Its duration."""
        count = self._by_code.get(code)
        if count is None:
            count = self._by_code[code] = self._requests.labels(self._method, code)
        example = exemplar()
        count.inc(exemplar=example)
        self._duration.observe(seconds, example)


@lru_cache(maxsize=1000)
def _rpc_server(method: str) -> RpcSeries:
    return RpcSeries(method, rpc_server_requests_total, rpc_server_duration_seconds)


@lru_cache(maxsize=1000)
def _rpc_client(method: str) -> RpcSeries:
    return RpcSeries(method, rpc_client_requests_total, rpc_client_duration_seconds)


@lru_cache(maxsize=1000)
def rpc_in_progress(method: str) -> Gauge:
    """Returns the number of calls of a method that the server has in progress."""
    return rpc_server_in_progress.labels(method)


def track_rpc_server(method: str, code: str, seconds: float) -> None:
    """Records a gRPC call that was answered. seconds: Duration of the call."""
    _rpc_server(method).track(code, seconds)


def track_rpc_client(method: str, code: str, seconds: float) -> None:
    """Records a gRPC call that was made. seconds: Duration of the call."""
    _rpc_client(method).track(code, seconds)


def track_circuit_breaker_state(name: str, state: str) -> None:
    """Records the state of a breaker. state: closed, open or half-open."""
    circuit_breaker_state.labels(name).set({STATE_CLOSED: 0, STATE_OPEN: 1, STATE_HALF_OPEN: 2}[state])


def track_circuit_breaker_failure(name: str) -> None:
    """Records a failure that a breaker counted."""
    circuit_breaker_failures_total.labels(name).inc(exemplar=exemplar())


def track_retry(name: str) -> None:
    """Records an attempt after the first."""
    retry_attempts_total.labels(name).inc(exemplar=exemplar())


def track_policy_reload(result: str) -> None:
    """Records a change of the policy document. result: applied or refused."""
    policy_reloads_total.labels(result).inc()


def track_fallback(name: str, source: str) -> None:
    """Records a degraded answer. source: last_good or rule."""
    fallbacks_total.labels(name, source).inc(exemplar=exemplar())


def track_error(kind: str) -> None:
    """Records an error by its type."""
    errors_total.labels(bounded("error", kind, limit=100)).inc(exemplar=exemplar())


_BY_TARGET = (
    circuit_breaker_failures_total,
    circuit_breaker_rejections_total,
    retry_attempts_total,
    retry_exhausted_total,
    retry_budget_exhausted_total,
    hedges_total,
)
_GONE = 1000  # names that are remembered
_gone: dict[str, None] = {}  # names of targets that are no more, of whom calls in progress may still tell


def initialise_target(name: str, state: str, limit: int, tokens: Callable[[], float]) -> None:
    """Creates the series of a dependency, so that they exist before its first failure.

    Args:
        name: Name of the target.
        state: State of its breaker.
        limit: Allowed calls at a time.
        tokens: Returns the tokens of its retry budget, called at each scrape.
    """
    _gone.pop(name, None)
    track_circuit_breaker_state(name, state)
    concurrency_limit.labels(name).set(limit)
    retry_budget_tokens.labels(name).set_function(tokens)
    for counter in _BY_TARGET:
        counter.labels(name)


def forget_target(name: str) -> None:
    """Removes the series of a dependency that is no longer called under this name."""
    while len(_gone) >= _GONE:
        del _gone[next(iter(_gone))]
    _gone[name] = None
    for metric in (circuit_breaker_state, concurrency_limit, retry_budget_tokens, *_BY_TARGET):
        metric.remove(name)
    for criticality in Criticality:
        concurrency_limit_rejections_total.remove(name, criticality.name.lower())
    _rejections.cache_clear()


def forget_policy_shadow(name: str) -> None:
    """Removes the series of a policy that is no longer in shadow mode. Its name no longer counts for the bound."""
    for decision in get_args(Decision):
        policy_shadow_decisions_total.remove(name, decision)
    with _seen_lock:
        _seen.get("shadow", set()).discard(name)


@lru_cache(maxsize=1000)
def _rejections(name: str) -> Counter:
    return circuit_breaker_rejections_total.labels(name)


def _track_limit_rejection(event: events.Event) -> None:
    concurrency_limit_rejections_total.labels(event.policy, event.value).inc()


def _track_shadow_decision(event: events.Event) -> None:
    policy_shadow_decisions_total.labels(bounded("shadow", event.policy), event.value).inc()


# A rejection by a breaker must cost next to nothing, so it has no exemplar.
_TRACKERS: dict[str, Callable[[events.Event], None]] = {
    "breaker_state": lambda event: track_circuit_breaker_state(event.policy, event.value),
    "breaker_failure": lambda event: track_circuit_breaker_failure(event.policy),
    "breaker_rejection": lambda event: _rejections(event.policy).inc(),
    "retry": lambda event: track_retry(event.policy),
    "retry_exhausted": lambda event: retry_exhausted_total.labels(event.policy).inc(exemplar=exemplar()),
    "budget_exhausted": lambda event: retry_budget_exhausted_total.labels(event.policy).inc(exemplar=exemplar()),
    "hedge": lambda event: hedges_total.labels(event.policy).inc(exemplar=exemplar()),
    "limit_rejection": _track_limit_rejection,
    "shadow_decision": _track_shadow_decision,
    "limit_change": lambda event: concurrency_limit.labels(event.policy).set(int(event.value)),
}


def _on_resilience_event(event: events.Event) -> None:
    """Records an event, unless its target is gone."""
    track = _TRACKERS.get(event.kind)
    if track is not None and event.policy not in _gone:
        track(event)


events.subscribe(_on_resilience_event)
