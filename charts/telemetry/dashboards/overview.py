"""Overview: the golden signals of every service, the objectives, and what is deployed."""

from charts.telemetry.dashboards.panels import (
    ANY,
    NAMESPACE,
    Page,
    Panel,
    Query,
    Row,
    latest,
    matchers_for,
    or_zero,
    quantile,
    rate,
    share,
    total,
)
from charts.telemetry.selectors import ANSWERED, ASKED, HTTP_FAILED, RPC_FAILED
from charts.telemetry.slos import SLOS, Slo

_HTTP, _RPC = f"{ANY}, {ASKED}", f"{ANY}, {ANSWERED}"
_FAILED = f"{_HTTP}, {HTTP_FAILED}"


def _left(slo: Slo, window: str) -> str:
    worst = f"max({slo.record}:ratio_{window}{{{NAMESPACE}}})"
    return f"1 - (({worst} >= 0) or on () vector(0)) / {1 - slo.goal:.4g}"


def _burn(slo: Slo) -> str:
    return f"((max({slo.record}:ratio_1h{{{NAMESPACE}}}) >= 0) or on () vector(0)) / {1 - slo.goal:.4g}"


# The edges of the map: calls as their clients' spans name the callee, and batches, which travel on streams.
_CALLS = rate("traces_span_metrics_calls_total", f'{ANY}, peer_service=~"$service"', "service_name, peer_service")
_BATCHES = (
    f"label_replace({rate('edge_spool_forwarded_total', matchers_for('edge|edge-sim'))}, "
    '"peer_service", "ingestion", "", "")'
)
_DEVICES = (
    f"label_replace(label_replace({rate('edge_spool_accepted_total', matchers_for('edge'))}, "
    '"peer_service", "edge", "", ""), "service_name", "iot-sim", "", "")'
)
_DEGRADED = f"""sum({rate("ml_predictions_total", f'{ANY}, degraded="true"')}) or on () vector(0)"""
_NODES = f'label_replace({latest("up")}, "id", "$1", "service_name", "(.+)")'
_EDGES = (
    f'label_replace(label_replace({_CALLS} or {_BATCHES} or {_DEVICES}, "source", "$1", "service_name", "(.+)"), '
    '"target", "$1", "peer_service", "(.+)")'
)

PAGE = Page(
    "overview",
    "AurumAI / Overview",
    "Requests, errors, latency and saturation of every service, the objectives and their remaining error budgets.",
    "docs/observability.md",
    (
        Row(
            "Now",
            (
                Panel(
                    "Alerts",
                    "Firing alerts. Each has a runbook.",
                    "docs/runbooks",
                    "short",
                    (Query(or_zero('sum by (alertname) (ALERTS{alertstate="firing"})', "alertname"), "{{alertname}}"),),
                    "stat",
                    width=6,
                    height=4,
                    limit=1,
                ),
                Panel(
                    "Pods seen",
                    "Pods whose admin port was scraped.",
                    "docs/runbooks/AurumAIApiAbsent.md",
                    "short",
                    (Query(latest("up"), "{{service_name}}"),),
                    "stat",
                    width=9,
                    height=4,
                ),
                Panel(
                    "Machines",
                    "Machines in the store.",
                    "docs/data.md",
                    "short",
                    (Query(f"max(ingestion_machines{{{matchers_for('ingestion')}}})", "machines"),),
                    "stat",
                    width=3,
                    height=4,
                ),
                Panel(
                    "Readings",
                    "Readings per second that became durable.",
                    "docs/ingestion.md",
                    "cps",
                    (
                        Query(
                            rate("data_ingestion_total", f'{matchers_for("ingestion")}, result="accepted"', "result"),
                            "readings",
                        ),
                    ),
                    "stat",
                    width=3,
                    height=4,
                ),
                Panel(
                    "Degraded",
                    "Share of predictions that come from a rule or are an earlier prediction.",
                    "docs/runbooks/AurumAIPredictAvailabilityBurn.md",
                    "percentunit",
                    (
                        Query(
                            share(_DEGRADED, f"sum({rate('ml_predictions_total')})"),
                            "degraded",
                        ),
                    ),
                    "stat",
                    width=3,
                    height=4,
                    limit=0.05,
                ),
            ),
        ),
        Row(
            "Golden signals",
            (
                Panel(
                    "Requests",
                    "HTTP requests, without probes, and gRPC calls per second.",
                    "docs/observability.md",
                    "reqps",
                    (
                        Query(
                            or_zero(rate("http_requests_total", _HTTP), "service_name", "api"), "{{service_name}} HTTP"
                        ),
                        Query(rate("rpc_server_requests_total"), "{{service_name}} gRPC"),
                    ),
                ),
                Panel(
                    "Errors",
                    "Share of server errors: 5xx and the equivalent gRPC codes.",
                    "docs/runbooks/AurumAIErrors.md",
                    "percentunit",
                    (
                        Query(
                            or_zero(
                                f"{rate('http_requests_total', _FAILED)} / {rate('http_requests_total', _HTTP)}",
                                "service_name",
                                "api",
                            ),
                            "{{service_name}} HTTP",
                        ),
                        Query(
                            share(
                                rate("rpc_server_requests_total", f"{ANY}, {RPC_FAILED}"),
                                rate("rpc_server_requests_total"),
                            ),
                            "{{service_name}} gRPC",
                        ),
                    ),
                    limit=0.01,
                ),
                Panel(
                    "Latency, 95 %",
                    "95th percentile of the time to answer; 0 without requests. Dots link to traces.",
                    "docs/runbooks/AurumAISlowRequests.md",
                    "s",
                    (
                        Query(
                            or_zero(quantile(0.95, "http_request_duration_seconds", _HTTP), "service_name", "api"),
                            "{{service_name}} HTTP",
                            exemplars=True,
                        ),
                        Query(
                            quantile(0.95, "rpc_server_duration_seconds", _RPC), "{{service_name}} gRPC", exemplars=True
                        ),
                    ),
                    limit=1.0,
                ),
                Panel(
                    "Saturation: CPU",
                    "Cores that each service uses, over all its pods.",
                    "docs/kubernetes.md",
                    "none",
                    (Query(rate("process_cpu_seconds_total"), "{{service_name}}"),),
                ),
                Panel(
                    "Saturation: in progress",
                    "Requests and calls in progress.",
                    "docs/resilience.md",
                    "short",
                    (
                        Query(total("http_requests_in_progress", matchers_for("api")), "{{service_name}} HTTP"),
                        Query(total("rpc_server_in_progress", _RPC), "{{service_name}} gRPC"),
                    ),
                ),
                Panel(
                    "Saturation: event loop",
                    "99th percentile of the event loops' delay. Above 100 ms a task blocks the loop.",
                    "docs/runbooks/AurumAISlowRequests.md",
                    "s",
                    (Query(quantile(0.99, "event_loop_lag_seconds"), "{{service_name}}"),),
                    limit=0.1,
                ),
            ),
        ),
        Row(
            "Objectives",
            (
                Panel(
                    "Budget left, last day",
                    "Remaining share of the day's error budget. A negative share means that it was exceeded.",
                    "docs/slo.md",
                    "percentunit",
                    tuple(Query(_left(slo, "1d"), slo.title) for slo in SLOS),
                    "stat",
                    limit=0.5,
                    low=True,
                    least=None,
                    most=1.0,
                ),
                Panel(
                    "Burn rate, 1 h",
                    "Consumption of the error budget as a multiple of the allowed rate. At 14.4 an alert fires.",
                    "docs/slo.md",
                    "none",
                    tuple(Query(_burn(slo), slo.title) for slo in SLOS),
                    width=16,
                    limit=14.4,
                ),
            ),
        ),
        Row(
            "What runs",
            (
                Panel(
                    "Service map",
                    "Calls per second between services, and batches per second that gateways forward.",
                    "docs/architecture.md",
                    "reqps",
                    (
                        Query(f'label_replace({_NODES}, "title", "$1", "service_name", "(.+)")', latest=True),
                        Query(f'label_join({_EDGES}, "id", " to ", "source", "target")', latest=True),
                    ),
                    "map",
                    width=12,
                    height=11,
                ),
                Panel(
                    "Policy generation",
                    "Generation of the policy document that each pod has in force.",
                    "docs/runbooks/AurumAIPolicyNotConverged.md",
                    "none",
                    (
                        Query(
                            latest("policy_generation", ANY, "max", "service_name, k8s_pod_name"),
                            "{{k8s_pod_name}}",
                            latest=True,
                        ),
                    ),
                    "table",
                    width=12,
                    height=11,
                    hidden=("Time",),
                ),
            ),
        ),
    ),
)
