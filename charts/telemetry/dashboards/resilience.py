"""Resilience: one call on its way through its policies, from the outermost to the innermost."""

from charts.telemetry.dashboards.panels import (
    ANY,
    Page,
    Panel,
    Query,
    Row,
    Variable,
    largest,
    matchers_for,
    or_zero,
    quantile,
    rate,
    share,
    total,
)
from charts.telemetry.selectors import ANSWERED

_CALL = f'{ANY}, name=~"$call"'
_POD = "name, k8s_pod_name"

PAGE = Page(
    "resilience",
    "AurumAI / Resilience",
    "The policies of a call in their order: admission, fallback, retry, breaker, limit, timeout.",
    "docs/resilience.md",
    (
        Row(
            "1. Admission of the server",
            (
                Panel(
                    "Concurrency limit",
                    "Maximum number of calls that each server handles at a time.",
                    "docs/policies.md",
                    "short",
                    (Query(f'min by (name) (concurrency_limit{{{ANY}, name=~".+/calls"}})', "{{name}}"),),
                ),
                Panel(
                    "In progress",
                    "Calls in progress on servers.",
                    "docs/policies.md",
                    "short",
                    (
                        Query(total("rpc_server_in_progress", f"{ANY}, {ANSWERED}"), "{{service_name}} gRPC"),
                        Query(total("http_requests_in_progress", matchers_for("api")), "{{service_name}} HTTP"),
                    ),
                ),
                Panel(
                    "Refused, by criticality",
                    "Refused calls per second. Batch calls are refused first, alarms last.",
                    "docs/policies.md",
                    "reqps",
                    (
                        Query(
                            or_zero(
                                rate(
                                    "concurrency_limit_rejections_total",
                                    f'{ANY}, name=~".+/(calls|streams)"',
                                    "criticality",
                                ),
                                "criticality",
                            ),
                            "{{criticality}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "2. Fallback",
            (
                Panel(
                    "Degraded answers",
                    "Degraded answers per second in place of a dependency's, by source.",
                    "docs/resilience.md",
                    "reqps",
                    (Query(or_zero(rate("fallbacks_total", _CALL, "name, source"), "source"), "{{name}} {{source}}"),),
                    width=12,
                ),
                Panel(
                    "Degraded share",
                    "Share of degraded predictions, at the API and in prediction.",
                    "docs/runbooks/AurumAIPredictAvailabilityBurn.md",
                    "percentunit",
                    (
                        Query(
                            share(
                                rate("ml_predictions_total", f'{ANY}, degraded="true"'),
                                rate("ml_predictions_total", ANY),
                            ),
                            "{{service_name}}",
                        ),
                    ),
                    width=12,
                    most=1.0,
                ),
            ),
        ),
        Row(
            "3. Retry, its budget, hedging",
            (
                Panel(
                    "Retries",
                    "Attempts per second after the first.",
                    "docs/runbooks/AurumAIManyRetries.md",
                    "reqps",
                    (Query(rate("retry_attempts_total", _CALL, "name"), "{{name}}"),),
                    width=6,
                    limit=50,
                ),
                Panel(
                    "Failed in every attempt",
                    "Calls per second that failed in every attempt.",
                    "docs/runbooks/AurumAIManyRetries.md",
                    "reqps",
                    (Query(rate("retry_exhausted_total", _CALL, "name"), "{{name}}"),),
                    width=6,
                ),
                Panel(
                    "Budget",
                    "Retries that the budget still allows, by pod, and retries per second that it did not allow.",
                    "docs/runbooks/AurumAIManyRetries.md",
                    "short",
                    (
                        Query(f"min by ({_POD}) (retry_budget_tokens{{{_CALL}}})", "{{name}} {{k8s_pod_name}}"),
                        Query(rate("retry_budget_exhausted_total", _CALL, "name"), "{{name}} not allowed"),
                    ),
                    width=6,
                ),
                Panel(
                    "Hedges",
                    "Second attempts per second in parallel to a slow one.",
                    "docs/policies.md",
                    "reqps",
                    (Query(rate("hedges_total", _CALL, "name"), "{{name}}"),),
                    width=6,
                ),
            ),
        ),
        Row(
            "4. Circuit breaker",
            (
                Panel(
                    "State",
                    "State of each pod's breaker. Open ones refuse all calls, half-open ones let probes pass.",
                    "docs/runbooks/AurumAIBreakerOpen.md",
                    "none",
                    (Query(largest("circuit_breaker_state", _CALL, _POD), "{{name}} {{k8s_pod_name}}"),),
                    "states",
                    width=12,
                    states=((0, "closed", "green"), (1, "open", "red"), (2, "half-open", "yellow")),
                    least=None,
                ),
                Panel(
                    "Counted and refused",
                    "Failures that breakers counted and calls that they refused, per second.",
                    "docs/runbooks/AurumAIBreakerOpen.md",
                    "reqps",
                    (
                        Query(rate("circuit_breaker_failures_total", _CALL, "name"), "{{name}} failures"),
                        Query(rate("circuit_breaker_rejections_total", _CALL, "name"), "{{name}} not let through"),
                    ),
                    width=12,
                ),
            ),
        ),
        Row(
            "5. Limit and timeout",
            (
                Panel(
                    "Limit",
                    "Lowest limit of all pods on the calls in progress. Adaptive limits follow the latency.",
                    "docs/policies.md",
                    "short",
                    (Query(f"min by (name) (concurrency_limit{{{_CALL}}})", "{{name}}"),),
                ),
                Panel(
                    "Attempts",
                    "Duration of attempts, measured by the client. Dots link to traces.",
                    "docs/runbooks/AurumAISlowRequests.md",
                    "s",
                    tuple(
                        Query(
                            quantile(each, "rpc_client_duration_seconds", f"{ANY}, {ANSWERED}", "service_name"),
                            f"{{{{service_name}}}} {each * 100:g} %",
                            exemplars=True,
                        )
                        for each in (0.5, 0.99)
                    ),
                ),
                Panel(
                    "Timed out",
                    "Attempts per second that ended at their timeout or deadline.",
                    "docs/policies.md",
                    "reqps",
                    (
                        Query(
                            or_zero(
                                rate(
                                    "rpc_client_requests_total",
                                    f'{ANY}, code="DEADLINE_EXCEEDED"',
                                    "service_name, method",
                                ),
                                "service_name",
                            ),
                            "{{service_name}} {{method}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Policies in force",
            (
                Panel(
                    "Generation",
                    "Generation of the document that each pod has in force. It should be the same within a service.",
                    "docs/runbooks/AurumAIPolicyNotConverged.md",
                    "none",
                    (Query(largest("policy_generation", ANY, "k8s_pod_name"), "{{k8s_pod_name}}"),),
                ),
                Panel(
                    "Documents",
                    "Reloads in the last hour, and whether a pod refused the latest document.",
                    "docs/runbooks/AurumAIPolicyRefused.md",
                    "short",
                    (
                        Query(f"sum by (result) (increase(policy_reloads_total{{{ANY}}}[1h]))", "{{result}}"),
                        Query(total("policy_refused"), "{{service_name}} refuses"),
                    ),
                ),
                Panel(
                    "Policies by state",
                    "ResiliencePolicy and TelemetryPolicy resources by state, and laggards.",
                    "docs/operator.md",
                    "short",
                    (
                        Query(largest("operator_policies", matchers_for("operator"), "state"), "{{state}}"),
                        Query(largest("operator_pods_lagging", matchers_for("operator")), "pods that lag"),
                    ),
                ),
                Panel(
                    "In shadow",
                    "Decisions per second of policies in shadow mode.",
                    "docs/policies.md",
                    "reqps",
                    (
                        Query(
                            or_zero(rate("policy_shadow_decisions_total", _CALL, "name, decision"), "decision"),
                            "{{name}} {{decision}}",
                        ),
                    ),
                    width=12,
                ),
                Panel(
                    "Injected faults",
                    "Faults per second that `aurum fault` injected.",
                    "docs/resilience.md",
                    "reqps",
                    (
                        Query(
                            or_zero(rate("faults_injected_total", ANY, "service_name, kind"), "kind"),
                            "{{service_name}} {{kind}}",
                        ),
                    ),
                    width=12,
                ),
            ),
        ),
    ),
    variables=(
        Variable(
            "call",
            "Call",
            "Calling and called service.",
            'label_values(circuit_breaker_state{k8s_namespace_name=~"$namespace", service_name=~"$service"}, name)',
        ),
    ),
)
