"""Infrastructure: processes, gRPC, breakers, queues, and the telemetry itself."""

from charts.telemetry.dashboards.panels import (
    ANY,
    NAMESPACE,
    Page,
    Panel,
    Query,
    Row,
    largest,
    matchers_for,
    or_zero,
    quantile,
    rate,
    share,
    total,
)
from charts.telemetry.selectors import ANSWERED, RPC_FAILED

_POD = "k8s_pod_name"
_RPC = f"{ANY}, {ANSWERED}"
_GATEWAY = 'job="gateway-collector"'


def _failed(kind: str) -> str:
    return or_zero(
        f"sum by (exporter) (rate(otelcol_exporter_{kind}_total{{{NAMESPACE}}}[$__rate_interval]))", "exporter"
    )


PAGE = Page(
    "infrastructure",
    "AurumAI / Infrastructure",
    "CPU, memory and event loops of every pod, gRPC by method, resilience, and dropped telemetry.",
    "docs/observability.md",
    (
        Row(
            "Processes",
            (
                Panel(
                    "CPU",
                    "Cores that each pod uses.",
                    "docs/kubernetes.md",
                    "none",
                    (Query(rate("process_cpu_seconds_total", ANY, _POD), "{{k8s_pod_name}}"),),
                ),
                Panel(
                    "Memory",
                    "Resident memory of each pod's service, without its collector.",
                    "docs/kubernetes.md",
                    "bytes",
                    (Query(largest("process_resident_memory_bytes", ANY, _POD), "{{k8s_pod_name}}"),),
                ),
                Panel(
                    "Event-loop lag, 99 %",
                    "99th percentile of the event loops' delay. Above 100 ms a task blocks the loop.",
                    "docs/runbooks/AurumAISlowRequests.md",
                    "s",
                    (Query(quantile(0.99, "event_loop_lag_seconds", ANY, _POD), "{{k8s_pod_name}}"),),
                    limit=0.1,
                ),
                Panel(
                    "Garbage collections",
                    "Runs of Python's garbage collector per second, of all generations.",
                    "docs/observability.md",
                    "ops",
                    (Query(rate("python_gc_collections_total", ANY, _POD), "{{k8s_pod_name}}"),),
                ),
                Panel(
                    "Open files",
                    "Open files as a share of the process's limit.",
                    "docs/kubernetes.md",
                    "percentunit",
                    (
                        Query(
                            f"max by ({_POD}) (process_open_fds{{{ANY}}} / process_max_fds{{{ANY}}})",
                            "{{k8s_pod_name}}",
                        ),
                    ),
                    limit=0.8,
                    most=1.0,
                ),
                Panel(
                    "Restarts",
                    "Restarts of each pod's service in the last hour.",
                    "docs/kubernetes.md",
                    "short",
                    (Query(f"sum by ({_POD}) (changes(process_start_time_seconds{{{ANY}}}[1h]))", "{{k8s_pod_name}}"),),
                ),
            ),
        ),
        Row(
            "gRPC",
            (
                Panel(
                    "Calls answered, by method",
                    "Calls per second, by method.",
                    "docs/observability.md",
                    "reqps",
                    (Query(rate("rpc_server_requests_total", ANY, "method"), "{{method}}"),),
                ),
                Panel(
                    "Errors, by method",
                    "Share of calls that failed because of the server.",
                    "docs/runbooks/AurumAIErrors.md",
                    "percentunit",
                    (
                        Query(
                            share(
                                rate("rpc_server_requests_total", f"{ANY}, {RPC_FAILED}", "method"),
                                rate("rpc_server_requests_total", ANY, "method"),
                            ),
                            "{{method}}",
                        ),
                    ),
                    limit=0.01,
                    most=1.0,
                ),
                Panel(
                    "Latency, 95 %, by method",
                    "95th percentile of the time to answer a call, without streams. Dots link to traces.",
                    "docs/runbooks/AurumAISlowRequests.md",
                    "s",
                    (
                        Query(
                            quantile(0.95, "rpc_server_duration_seconds", _RPC, "method"), "{{method}}", exemplars=True
                        ),
                    ),
                ),
                Panel(
                    "Calls made, by code",
                    "Attempts of clients per second, by status code.",
                    "docs/resilience.md",
                    "reqps",
                    (Query(rate("rpc_client_requests_total", ANY, "service_name, code"), "{{service_name}} {{code}}"),),
                ),
                Panel(
                    "Calls made, 95 %",
                    "95th percentile of the duration of an attempt, measured by the client.",
                    "docs/runbooks/AurumAISlowRequests.md",
                    "s",
                    (
                        Query(
                            quantile(0.95, "rpc_client_duration_seconds", _RPC, "service_name, method"),
                            "{{service_name}} {{method}}",
                            exemplars=True,
                        ),
                    ),
                ),
                Panel(
                    "Exceptions",
                    "Errors per second, by type.",
                    "docs/runbooks/AurumAIErrors.md",
                    "cps",
                    (
                        Query(
                            or_zero(rate("errors_total", ANY, "service_name, type"), "type"),
                            "{{service_name}} {{type}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Protection",
            (
                Panel(
                    "Breakers",
                    "State of each circuit breaker in the pod where it is worst.",
                    "docs/runbooks/AurumAIBreakerOpen.md",
                    "none",
                    (Query(largest("circuit_breaker_state", ANY, "name"), "{{name}}"),),
                    "states",
                    states=((0, "closed", "green"), (1, "open", "red"), (2, "half-open", "yellow")),
                    least=None,
                ),
                Panel(
                    "Retries",
                    "Attempts per second after the first.",
                    "docs/runbooks/AurumAIManyRetries.md",
                    "reqps",
                    (Query(rate("retry_attempts_total", ANY, "name"), "{{name}}"),),
                    limit=50,
                ),
                Panel(
                    "Retry budget",
                    "Retries that the budget still allows, in the pod with the fewest.",
                    "docs/runbooks/AurumAIManyRetries.md",
                    "short",
                    (Query(f"min by (name) (retry_budget_tokens{{{ANY}}})", "{{name}}"),),
                ),
                Panel(
                    "Queues",
                    "Batches to be stored, batches in spools, and requests in progress.",
                    "docs/resilience.md",
                    "short",
                    (
                        Query(total("http_requests_in_progress", matchers_for("api")), "{{service_name}} requests"),
                        Query(total("rpc_server_in_progress"), "{{service_name}} calls"),
                        Query(
                            total("edge_spool_batches", matchers_for("edge|edge-sim")),
                            "{{service_name}} batches in spools",
                        ),
                        Query(
                            total("simulator_buffer_batches", matchers_for(".+-sim")) + " or on () vector(0)",
                            "batches with devices",
                        ),
                    ),
                ),
                Panel(
                    "Concurrency limits",
                    "Maximum number of calls in progress. Adaptive limits follow the latency of the called service.",
                    "docs/resilience.md",
                    "short",
                    (Query(f'min by (name) (concurrency_limit{{{ANY}, name!~".+/streams"}})', "{{name}}"),),
                ),
                Panel(
                    "Streams",
                    "Open streams by kind, and streams refused because their kind or caller had used its share.",
                    "docs/security.md",
                    "short",
                    (
                        Query(total("stream_places_in_use", ANY, "kind"), "{{kind}}"),
                        Query(rate("streams_refused_total", ANY, "kind, why"), "{{kind}} refused a second: {{why}}"),
                    ),
                ),
                Panel(
                    "Refused",
                    "Calls per second that limits refused, by criticality, and that breakers refused.",
                    "docs/resilience.md",
                    "reqps",
                    (
                        Query(
                            or_zero(rate("concurrency_limit_rejections_total", ANY, "criticality"), "criticality"),
                            "limit: {{criticality}}",
                        ),
                        Query(rate("circuit_breaker_rejections_total", ANY, "name"), "breaker: {{name}}"),
                    ),
                ),
            ),
        ),
        Row(
            "Telemetry",
            (
                Panel(
                    "Spans dropped by services",
                    "Spans per second that a service could not send to its collector.",
                    "docs/runbooks/AurumAITelemetryDropped.md",
                    "cps",
                    (Query(rate("spans_dropped_total"), "{{service_name}}"),),
                ),
                Panel(
                    "Dropped by collectors",
                    "Spans and metric points per second that collectors could not queue or send.",
                    "docs/runbooks/AurumAITelemetryDropped.md",
                    "cps",
                    tuple(
                        Query(
                            _failed(f"{how}_failed_{signal}"), f"{{{{exporter}}}} {signal.replace('_', ' ')}, {reason}"
                        )
                        for how, reason in (("enqueue", "queue full"), ("send", "not sent"))
                        for signal in ("spans", "metric_points")
                    ),
                ),
                Panel(
                    "Collectors' queues",
                    "Share of the collectors' queues that is in use.",
                    "docs/runbooks/AurumAITelemetryDropped.md",
                    "percentunit",
                    (
                        Query(
                            f"max by ({_POD}, exporter) (otelcol_exporter_queue_size{{{NAMESPACE}}} "
                            f"/ otelcol_exporter_queue_capacity{{{NAMESPACE}}})",
                            "{{k8s_pod_name}} {{exporter}}",
                        ),
                    ),
                    limit=0.8,
                    most=1.0,
                ),
                Panel(
                    "Collectors' memory",
                    "Resident memory of the collectors.",
                    "docs/kubernetes.md",
                    "bytes",
                    (Query(largest("otelcol_process_memory_rss", NAMESPACE, _POD), "{{k8s_pod_name}}"),),
                ),
                Panel(
                    "Spans",
                    "Spans per second that arrive at the services' collectors, and that the gateway forwards.",
                    "docs/observability.md",
                    "cps",
                    (
                        Query(
                            rate(
                                "otelcol_receiver_accepted_spans_total",
                                f'{NAMESPACE}, service_name="collector"',
                                "receiver",
                            ),
                            "arrived",
                        ),
                        Query(
                            rate("otelcol_exporter_sent_spans_total", f"{NAMESPACE}, {_GATEWAY}", "exporter"),
                            "kept by the gateway",
                        ),
                    ),
                ),
                Panel(
                    "Traces lost in sampling",
                    "Traces per second dropped before the sampling decision. Raise collector.sampling.maxTraces.",
                    "docs/runbooks/AurumAITelemetryDropped.md",
                    "cps",
                    (
                        Query(
                            f"sum(rate(otelcol_processor_tail_sampling_sampling_trace_dropped_too_early_total{{{NAMESPACE}}}"
                            "[$__rate_interval]))",
                            "given up",
                        ),
                    ),
                ),
            ),
        ),
    ),
)
