"""Every metric of the platform, and the functions that record them. Base units: seconds and bytes.

No label takes a machine id, a path or anything else without a bound: `endpoint` is the route's template, and labels
that come from data pass through `bounded`.
"""

import platform
import threading
from collections.abc import Callable, Iterable
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

_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

system_info = Info("system", "What runs here.")

http_requests_total = Counter("http_requests_total", "HTTP requests.", ["method", "endpoint", "status_code"])
http_request_duration_seconds = Histogram(
    "http_request_duration_seconds", "Time to answer an HTTP request.", ["method", "endpoint"], buckets=_FAST
)
http_connections_ended_total = Counter(
    "http_connections_ended_total", "Connections ended for what they took: time, size or number.", ["why"]
)
http_body_bytes = Gauge("http_body_bytes", "Bytes of the bodies of requests that are being answered.")
http_bodies_refused_total = Counter("http_bodies_refused_total", "Requests refused since bodies held too many bytes.")
http_requests_in_progress = Gauge("http_requests_in_progress", "HTTP requests being answered.")

rpc_server_requests_total = Counter("rpc_server_requests_total", "gRPC calls answered.", ["method", "code"])
rpc_server_duration_seconds = Histogram(
    "rpc_server_duration_seconds", "Time to answer a gRPC call.", ["method"], buckets=_FAST
)
rpc_server_in_progress = Gauge("rpc_server_in_progress", "gRPC calls being answered.", ["method"])
rpc_client_requests_total = Counter("rpc_client_requests_total", "gRPC calls made.", ["method", "code"])
rpc_client_duration_seconds = Histogram(
    "rpc_client_duration_seconds", "Time until a gRPC call was answered.", ["method"], buckets=_FAST
)

db_queries_total = Counter("db_queries_total", "Statements of the store.", ["operation", "status"])
db_query_duration_seconds = Histogram(
    "db_query_duration_seconds", "Time of a statement of the store.", ["operation"], buckets=_FAST
)
db_connections_active = Gauge("db_connections_active", "Open connections to the store.")

ml_predictions_total = Counter("ml_predictions_total", "Predictions.", ["machine_type", "model_version", "degraded"])
ml_prediction_duration_seconds = Histogram(
    "ml_prediction_duration_seconds", "Time of the model for one call.", ["machine_type"], buckets=_FAST
)
ml_prediction_risk_score = Histogram(
    "ml_prediction_risk_score",
    "Risk scores that were predicted.",
    ["machine_type"],
    buckets=(0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
)
prediction_drift = Gauge(
    "prediction_drift",
    "Largest population stability index of the model's main features against its training data.",
    ["machine_type"],
)

prediction_feature_drift = Gauge(
    "prediction_feature_drift",
    "Population stability index of a main feature against the training data.",
    ["machine_type", "feature"],
)
prediction_feature_changes_total = Counter(
    "prediction_feature_changes_total",
    "Changes of a main feature's mean over the predictions (ADWIN).",
    ["machine_type", "feature"],
)
prediction_shadow_risk_difference = Histogram(
    "prediction_shadow_risk_difference",
    "How far the shadow model's risk is from the champion's.",
    ["machine_type"],
    buckets=(0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8),
)
prediction_batch_size = Histogram(
    "prediction_batch_size", "Predictions that the model made in one call.", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
prediction_batch_waiting = Gauge("prediction_batch_waiting", "Predictions that wait for the model.")
prediction_batch_refused_total = Counter(
    "prediction_batch_refused_total", "Predictions refused because too many waited for the model."
)
prediction_rescored_total = Counter(
    "prediction_rescored_total", "Looks at past predictions for readings that came late.", ["result"]
)
prediction_out_of_range_ratio = Gauge(
    "prediction_out_of_range_ratio",
    "Share of the latest predictions with a main feature beyond all that the model saw in training.",
    ["machine_type"],
)
prediction_model_calibration_error = Gauge(
    "prediction_model_calibration_error",
    "Expected calibration error of the active model's risk, on runs that its calibration had not seen.",
    ["machine_type"],
)
prediction_model_interval_coverage = Gauge(
    "prediction_model_interval_coverage",
    "Share of the lives left that the active model's intervals held, on runs that they had not seen.",
    ["machine_type"],
)

data_ingestion_total = Counter("data_ingestion_total", "Readings received.", ["transport", "result"])
data_ingestion_errors_total = Counter("data_ingestion_errors_total", "Batches refused.", ["transport", "reason"])
data_ingestion_duration_seconds = Histogram(
    "data_ingestion_duration_seconds", "Time from a batch's arrival until it is durable.", ["transport"], buckets=_FAST
)
ingestion_queue_bytes = Gauge("ingestion_queue_bytes", "Bytes of batches waiting to be stored.")
ingestion_recent_bytes = Gauge("ingestion_recent_bytes", "Bytes of readings in memory that are not flushed yet.")
ingestion_store_bytes = Gauge("ingestion_store_bytes", "Bytes of the store on disk.", ["part"])
ingestion_segments = Gauge("ingestion_segments", "Segments in the store.")
ingestion_disk_free_bytes = Gauge("ingestion_disk_free_bytes", "Bytes free on the disk of the store.")
ingestion_segments_merged_total = Counter("ingestion_segments_merged_total", "Small segments merged into larger ones.")
ingestion_maintenance_failures_total = Counter(
    "ingestion_maintenance_failures_total", "Pieces of the store's maintenance that failed and are tried again."
)
ingestion_readings_expired_total = Counter("ingestion_readings_expired_total", "Readings removed by retention.")
ingestion_sequence_gaps_closed_total = Counter(
    "ingestion_sequence_gaps_closed_total",
    "Gaps in the sequences of sources that left very many, which nothing can fill any more.",
)
ingestion_tails = Gauge("ingestion_tails", "Series whose latest readings are held in memory, since they are asked for.")
ingestion_machines = Gauge("ingestion_machines", "Machines known.")
ingestion_watchers = Gauge("ingestion_watchers", "Open Watch streams.")

circuit_breaker_state = Gauge("circuit_breaker_state", "0 closed, 1 open, 2 half-open.", ["name"])
circuit_breaker_failures_total = Counter("circuit_breaker_failures_total", "Failures that breakers counted.", ["name"])
circuit_breaker_rejections_total = Counter("circuit_breaker_rejections_total", "Calls that breakers refused.", ["name"])
retry_attempts_total = Counter("retry_attempts_total", "Attempts after the first.", ["name"])
retry_exhausted_total = Counter("retry_exhausted_total", "Calls that failed in every attempt.", ["name"])
retry_budget_tokens = Gauge("retry_budget_tokens", "Retries that the budget still allows.", ["name"])
retry_budget_exhausted_total = Counter(
    "retry_budget_exhausted_total", "Retries that the budget did not allow.", ["name"]
)
concurrency_limit = Gauge("concurrency_limit", "Calls allowed at a time.", ["name"])
concurrency_limit_rejections_total = Counter(
    "concurrency_limit_rejections_total",
    "Calls refused because as many as allowed were in progress.",
    ["name", "criticality"],
)
policy_generation = Gauge("policy_generation", "Generation of the policy document in force; 0 is the built-in one.")
policy_refused = Gauge("policy_refused", "1 while the latest policy document is refused and an earlier one in force.")
policy_shadow_decisions_total = Counter(
    "policy_shadow_decisions_total",
    "What policies in shadow mode would have done: opening, breaker_rejection, limit_rejection, timeout.",
    ["name", "decision"],
)
policy_reloads_total = Counter("policy_reloads_total", "Changes of the policy document.", ["result"])
hedges_total = Counter("hedges_total", "Second attempts beside one that took long.", ["name"])
fallbacks_total = Counter("fallbacks_total", "Degraded answers in place of a dependency's.", ["name", "source"])
faults_injected_total = Counter("faults_injected_total", "Faults that were injected on request.", ["kind"])
outcomes_dropped_total = Counter("outcomes_dropped_total", "Outcomes of calls that could not be recorded.")

alarms = Gauge("alarms", "Alarms by their state (ISA-18.2).", ["state"])
alarm_transitions_total = Counter("alarm_transitions_total", "What happened to alarms.", ["transition"])
alarm_transitions_dropped_total = Counter(
    "alarm_transitions_dropped_total", "Transitions of alarms that could not be written down."
)
alarm_flood = Gauge("alarm_flood", "1 while more than ten alarms were raised in ten minutes.")

stream_places_in_use = Gauge(
    "stream_places_in_use", "Streams that are open: ingest, watch, query, events, other.", ["kind"]
)
streams_refused_total = Counter(
    "streams_refused_total", "Streams refused, since their kind or their caller had all of its places.", ["kind", "why"]
)
auth_refused_total = Counter("auth_refused_total", "Requests refused for who sent them.", ["why"])
event_streams = Gauge("event_streams", "Open event streams, one for each console.")

prediction_history_dropped_total = Counter(
    "prediction_history_dropped_total", "Predictions that could not be written down."
)

edge_spool_bytes = Gauge("edge_spool_bytes", "Bytes of the batches that wait in the spool, about.")
edge_spool_limit_bytes = Gauge("edge_spool_limit_bytes", "Bytes that the spool's files may have.")
edge_spool_disk_bytes = Gauge("edge_spool_disk_bytes", "Bytes of the spool's files.")
edge_spool_live_lag_seconds = Gauge(
    "edge_spool_live_lag_seconds", "Age of the oldest batch that is not part of a backlog."
)
edge_spool_batches = Gauge("edge_spool_batches", "Batches in the spool.")
edge_spool_oldest_age_seconds = Gauge("edge_spool_oldest_age_seconds", "Age of the oldest batch in the spool.")
edge_spool_seconds_until_full = Gauge(
    "edge_spool_seconds_until_full", "At the rate of the last minute; +Inf while the spool does not grow."
)
edge_spool_accepted_total = Counter("edge_spool_accepted_total", "Batches accepted from devices.")
edge_spool_forwarded_total = Counter("edge_spool_forwarded_total", "Batches that the uplink acknowledged.")
edge_spool_refused_total = Counter("edge_spool_refused_total", "Batches refused because the spool was full.")
edge_spool_dropped_total = Counter("edge_spool_dropped_total", "Batches given up.", ["reason"])

damaged_items = Gauge("damaged_items", "Things that cannot be read and are set apart, at the moment.", ["kind"])
unknown_total = Counter(
    "unknown_total", "What newer versions wrote and this one does not know, which is passed over.", ["what"]
)
damaged_found_total = Counter("damaged_found_total", "Things that were found damaged and set apart.", ["kind"])

edge_dead_letters_waiting = Gauge(
    "edge_dead_letters_waiting", "Batches that ingestion refused for good and nobody has looked after yet."
)
edge_dead_letter_bytes = Gauge("edge_dead_letter_bytes", "Bytes of these batches.")
edge_dead_letters_total = Counter("edge_dead_letters_total", "Batches that ingestion refused for good.", ["reason"])

edge_input_connected = Gauge("edge_input_connected", "Whether an input has what it listens to (1) or not.", ["input"])
edge_input_messages_total = Counter(
    "edge_input_messages_total",
    "Messages, notifications, answers and files that an input has heard.",
    ["input", "result"],
)
edge_input_readings_total = Counter(
    "edge_input_readings_total", "Readings of an input, by what became of them.", ["input", "result"]
)
edge_input_held_back_seconds_total = Counter(
    "edge_input_held_back_seconds_total",
    "Seconds that an input has read nothing, as the spool had no room or it had sent its share.",
    ["input"],
)
edge_input_rebirths_total = Counter("edge_input_rebirths_total", "Sparkplug rebirths that were asked for.", ["input"])
edge_input_sources = Gauge("edge_input_sources", "Devices that were heard behind an input.", ["input"])
edge_input_worst_quality = Gauge(
    "edge_input_worst_quality", "Share of good values of the device behind an input that has the fewest.", ["input"]
)
edge_input_clock_skew_seconds = Gauge(
    "edge_input_clock_skew_seconds", "Of the device behind an input whose clock is off most, about.", ["input"]
)

simulator_readings_total = Counter("simulator_readings_total", "Readings that the simulators made.", ["result"])
simulator_buffer_batches = Gauge("simulator_buffer_batches", "Batches that the devices still hold.")

operator_reconciles_total = Counter("operator_reconciles_total", "Looks at everything that is to be.", ["result"])
operator_reconcile_duration_seconds = Histogram(
    "operator_reconcile_duration_seconds", "Time to work out and write what is to be.", buckets=_FAST
)
operator_backoff_seconds = Gauge(
    "operator_backoff_seconds", "Longest wait before a request that failed is made again; 0 while none fails."
)
operator_objects_failing = Gauge(
    "operator_objects_failing", "Objects whose last request to the API server failed.", ["kind"]
)
operator_request_errors_total = Counter(
    "operator_request_errors_total", "Requests to the API server that failed.", ["kind"]
)
operator_problems = Gauge(
    "operator_problems", "Things that the operator cannot understand and leaves as they are, such as the defaults."
)
operator_writes_total = Counter("operator_writes_total", "Writes to the API server.", ["kind"])
operator_policies = Gauge("operator_policies", "Policies by what has become of them.", ["state"])
operator_pods_lagging = Gauge("operator_pods_lagging", "Pods that do not have the policies that they are to have.")
operator_leader = Gauge("operator_leader", "1 while this operator is the one that writes.")

event_loop_lag_seconds = Histogram(
    "event_loop_lag_seconds",
    "How much later than it asked for a coroutine went on.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)
errors_total = Counter("errors_total", "Errors.", ["type"])
spans_dropped_total = Counter("spans_dropped_total", "Spans that could not be exported.")
audit_events_dropped_total = Counter(
    "audit_events_dropped_total", "Audit events that could not be exported; they are in the log all the same."
)

for _result in ("applied", "refused"):
    policy_reloads_total.labels(_result)
for _result in ("done", "failed"):
    operator_reconciles_total.labels(_result)
for _kind in ("configmap", "pod", "status", "event", "lease"):
    operator_writes_total.labels(_kind)
for _kind in ("list", "configmap", "pod", "status", "event"):
    operator_objects_failing.labels(_kind)
    operator_request_errors_total.labels(_kind)
for _state in ("converged", "progressing", "rolled_back", "refused", "not_accepted"):
    operator_policies.labels(_state)
for _reason in ("expired", "invalid", "full", "damaged", "dead_letters_full"):
    edge_spool_dropped_total.labels(_reason)
for _part in ("log", "tables"):
    ingestion_store_bytes.labels(_part)
for _result in ("accepted", "duplicate"):
    for _transport in ("stream", "unary"):
        data_ingestion_total.labels(_transport, _result)
edge_spool_seconds_until_full.set(float("inf"))

_seen: dict[str, set[str]] = {}
_seen_lock = threading.Lock()


def bounded(label: str, value: str, limit: int = 50) -> str:
    """`value`, or "other" once `limit` different values of `label` were seen: a label set cannot grow without end."""
    with _seen_lock:
        values = _seen.setdefault(label, set())
        if value in values:
            return value
        if len(values) >= limit:
            return "other"
        values.add(value)
        return value


def exemplar() -> dict[str, str] | None:
    """The current trace, for an exemplar; None if it is not recorded and thus cannot be looked up."""
    span = trace.get_current_span().get_span_context()
    if not span.is_valid or not span.trace_flags.sampled:
        return None
    return {"trace_id": format(span.trace_id, "032x"), "span_id": format(span.span_id, "016x")}


def describe_system(service: str, environment: str) -> None:
    system_info.info(
        {"service": service, "version": __version__, "environment": environment, "python": platform.python_version()}
    )


def track_request(method: str, endpoint: str, status_code: int | str) -> None:
    http_requests_total.labels(bounded("method", method), endpoint, str(status_code)).inc(exemplar=exemplar())


def track_request_duration(method: str, endpoint: str, seconds: float) -> None:
    http_request_duration_seconds.labels(bounded("method", method), endpoint).observe(seconds, exemplar())


def track_rpc_server(method: str, code: str, seconds: float) -> None:
    rpc_server_requests_total.labels(method, code).inc(exemplar=exemplar())
    rpc_server_duration_seconds.labels(method).observe(seconds, exemplar())


def track_rpc_client(method: str, code: str, seconds: float) -> None:
    rpc_client_requests_total.labels(method, code).inc(exemplar=exemplar())
    rpc_client_duration_seconds.labels(method).observe(seconds, exemplar())


def track_prediction(
    machine_type: str, model_version: str, duration: float, risk_score: float, degraded: bool = False
) -> None:
    kind = bounded("machine_type", machine_type)
    version = bounded("model_version", model_version, limit=200)
    ml_predictions_total.labels(kind, version, str(degraded).lower()).inc(exemplar=exemplar())
    ml_prediction_duration_seconds.labels(kind).observe(duration, exemplar())
    ml_prediction_risk_score.labels(kind).observe(risk_score, exemplar())


def track_predictions(machine_type: str, model_version: str, duration: float, risk_scores: Iterable[float]) -> None:
    """Many by one model, which took `duration` seconds together."""
    kind = bounded("machine_type", machine_type)
    risk = ml_prediction_risk_score.labels(kind)
    count = 0
    for score in risk_scores:
        risk.observe(score)
        count += 1
    version = bounded("model_version", model_version, limit=200)
    ml_predictions_total.labels(kind, version, "false").inc(count, exemplar=exemplar())
    ml_prediction_duration_seconds.labels(kind).observe(duration, exemplar())


def track_degraded_prediction(machine_type: str, model_version: str) -> None:
    """A degraded answer was given in place of the prediction service's."""
    version = bounded("model_version", model_version or "rule", limit=200)
    ml_predictions_total.labels(bounded("machine_type", machine_type or "unknown"), version, "true").inc(
        exemplar=exemplar()
    )


def track_drift(machine_type: str, psi: float, out_of_range: float) -> None:
    kind = bounded("machine_type", machine_type)
    prediction_drift.labels(kind).set(psi)
    prediction_out_of_range_ratio.labels(kind).set(out_of_range)


def track_feature_drift(machine_type: str, feature: str, psi: float, changes: int) -> None:
    """changes: since the last call."""
    labels = bounded("machine_type", machine_type), bounded("feature", feature, limit=400)
    prediction_feature_drift.labels(*labels).set(psi)
    prediction_feature_changes_total.labels(*labels).inc(changes)


def track_shadow(machine_type: str, difference: float) -> None:
    prediction_shadow_risk_difference.labels(bounded("machine_type", machine_type)).observe(difference, exemplar())


def track_model(machine_type: str, calibration_error: float, interval_coverage: float) -> None:
    """A model serves, with what its card says of it."""
    kind = bounded("machine_type", machine_type)
    prediction_model_calibration_error.labels(kind).set(calibration_error)
    prediction_model_interval_coverage.labels(kind).set(interval_coverage)


def track_ingestion(readings: int, duration: float, transport: str = "unary", duplicates: int = 0) -> None:
    """`readings` stored and `duplicates` recognised after `duration` seconds."""
    data_ingestion_total.labels(transport, "accepted").inc(readings, exemplar())
    if duplicates:
        data_ingestion_total.labels(transport, "duplicate").inc(duplicates, exemplar())
    data_ingestion_duration_seconds.labels(transport).observe(duration, exemplar())


def track_ingestion_error(reason: str, transport: str = "unary") -> None:
    data_ingestion_errors_total.labels(transport, bounded("reason", reason)).inc(exemplar=exemplar())


def track_db_query(operation: str, seconds: float, status: str = "ok") -> None:
    db_queries_total.labels(operation, status).inc(exemplar=exemplar())
    db_query_duration_seconds.labels(operation).observe(seconds, exemplar())


def track_db_connections(change: int) -> None:
    db_connections_active.inc(change)


def track_circuit_breaker_state(name: str, state: str) -> None:
    circuit_breaker_state.labels(name).set({STATE_CLOSED: 0, STATE_OPEN: 1, STATE_HALF_OPEN: 2}[state])


def track_circuit_breaker_failure(name: str) -> None:
    circuit_breaker_failures_total.labels(name).inc(exemplar=exemplar())


def track_retry(name: str) -> None:
    retry_attempts_total.labels(name).inc(exemplar=exemplar())


def track_policy_reload(result: str) -> None:
    policy_reloads_total.labels(result).inc()


def track_fallback(name: str, source: str) -> None:
    """A degraded answer was given. source: last_good or rule."""
    fallbacks_total.labels(name, source).inc(exemplar=exemplar())


def track_error(kind: str) -> None:
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
    """Shows a dependency's metrics from the start, not only after its first failure.

    state: of its breaker. limit: calls at a time. tokens: asked for at each scrape.
    """
    _gone.pop(name, None)
    track_circuit_breaker_state(name, state)
    concurrency_limit.labels(name).set(limit)
    retry_budget_tokens.labels(name).set_function(tokens)
    for counter in _BY_TARGET:
        counter.labels(name)


def forget_target(name: str) -> None:
    """Removes the series of a dependency that is called under this name no more."""
    while len(_gone) >= _GONE:
        del _gone[next(iter(_gone))]
    _gone[name] = None
    for metric in (circuit_breaker_state, concurrency_limit, retry_budget_tokens, *_BY_TARGET):
        metric.remove(name)
    for criticality in Criticality:
        concurrency_limit_rejections_total.remove(name, criticality.name.lower())
    _rejections.cache_clear()


def forget_policy_shadow(name: str) -> None:
    """Removes the series of a policy that is in shadow mode no more, and gives its place among the names back."""
    for decision in get_args(Decision):
        policy_shadow_decisions_total.remove(name, decision)
    with _seen_lock:
        _seen.get("shadow", set()).discard(name)


@lru_cache(maxsize=1000)
def _rejections(name: str) -> Counter:
    return circuit_breaker_rejections_total.labels(name)


def _on_resilience_event(event: events.Event) -> None:
    if event.policy in _gone:
        return
    match event.kind:
        case "breaker_state":
            track_circuit_breaker_state(event.policy, event.value)
        case "breaker_failure":
            track_circuit_breaker_failure(event.policy)
        case "breaker_rejection":
            _rejections(event.policy).inc()  # a refusal is to cost next to nothing, so it has no exemplar
        case "retry":
            track_retry(event.policy)
        case "retry_exhausted":
            retry_exhausted_total.labels(event.policy).inc(exemplar=exemplar())
        case "budget_exhausted":
            retry_budget_exhausted_total.labels(event.policy).inc(exemplar=exemplar())
        case "hedge":
            hedges_total.labels(event.policy).inc(exemplar=exemplar())
        case "limit_rejection":
            concurrency_limit_rejections_total.labels(event.policy, event.value).inc()
        case "shadow_decision":
            policy_shadow_decisions_total.labels(bounded("shadow", event.policy), event.value).inc()
        case "limit_change":
            concurrency_limit.labels(event.policy).set(int(event.value))


events.subscribe(_on_resilience_event)
