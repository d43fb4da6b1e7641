"""Resilience: one call on its way through its policies, from the outermost to the innermost."""

from charts.telemetry.dashboards.panels import (
    ANY,
    Page,
    Panel,
    Query,
    Row,
    Variable,
    largest,
    of,
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
    "A call as its policies see it: fallback, retry, breaker, limit, timeout; and which policies are in force.",
    "docs/resilience.md",
    (
        Row(
            "1. Taken on: admission of the server",
            (
                Panel(
                    "Allowed at a time",
                    "What each server answers at a time, at most.",
                    "docs/policies.md",
                    "short",
                    (Query(f'min by (name) (concurrency_limit{{{ANY}, name=~".+/calls"}})', "{{name}}"),),
                ),
                Panel(
                    "In progress",
                    "Calls that servers are answering.",
                    "docs/policies.md",
                    "short",
                    (
                        Query(total("rpc_server_in_progress", f"{ANY}, {ANSWERED}"), "{{service_name}} gRPC"),
                        Query(total("http_requests_in_progress", of("api")), "{{service_name}} HTTP"),
                    ),
                ),
                Panel(
                    "Refused, by criticality",
                    "Calls a second that were refused; batches go first, alarms last.",
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
            "2. Answered in any case: fallback",
            (
                Panel(
                    "Degraded answers",
                    "Answers a second in place of a dependency's, by what stood in.",
                    "docs/resilience.md",
                    "reqps",
                    (Query(or_zero(rate("fallbacks_total", _CALL, "name, source"), "source"), "{{name}} {{source}}"),),
                    width=12,
                ),
                Panel(
                    "Degraded share",
                    "Share of predictions that were degraded, at the API and in prediction.",
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
            "3. Tried again: retry, its budget, hedging",
            (
                Panel(
                    "Retries",
                    "Attempts a second after the first.",
                    "docs/runbooks/AurumAIManyRetries.md",
                    "reqps",
                    (Query(rate("retry_attempts_total", _CALL, "name"), "{{name}}"),),
                    width=6,
                    limit=50,
                ),
                Panel(
                    "Failed in every attempt",
                    "Calls a second that no attempt saved.",
                    "docs/runbooks/AurumAIManyRetries.md",
                    "reqps",
                    (Query(rate("retry_exhausted_total", _CALL, "name"), "{{name}}"),),
                    width=6,
                ),
                Panel(
                    "Budget",
                    "Retries that the budget still allows, by pod, and those a second that it did not allow.",
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
                    "Second attempts a second beside one that took long.",
                    "docs/policies.md",
                    "reqps",
                    (Query(rate("hedges_total", _CALL, "name"), "{{name}}"),),
                    width=6,
                ),
            ),
        ),
        Row(
            "4. Let through: circuit breaker",
            (
                Panel(
                    "State",
                    "Of each pod's breaker: open ones let nothing through, half-open ones a few to see.",
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
                    "Failures that breakers counted, and calls that they did not let through, a second.",
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
            "5. Sent: limit and timeout",
            (
                Panel(
                    "Limit",
                    "Calls allowed at a time, the least of all pods; adaptive ones move with the latency.",
                    "docs/policies.md",
                    "short",
                    (Query(f"min by (name) (concurrency_limit{{{_CALL}}})", "{{name}}"),),
                ),
                Panel(
                    "Attempts",
                    "Time of attempts, as the client saw it. Dots lead to traces.",
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
                    "Out of time",
                    "Attempts a second that were given up at their timeout or deadline.",
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
                    "Of the document that each pod has in force; all pods of a service are to have the same.",
                    "docs/runbooks/AurumAIPolicyNotConverged.md",
                    "none",
                    (Query(largest("policy_generation", ANY, "k8s_pod_name"), "{{k8s_pod_name}}"),),
                ),
                Panel(
                    "Documents",
                    "Reloads in the last hour, and whether a pod refuses the latest document.",
                    "docs/runbooks/AurumAIPolicyRefused.md",
                    "short",
                    (
                        Query(f"sum by (result) (increase(policy_reloads_total{{{ANY}}}[1h]))", "{{result}}"),
                        Query(total("policy_refused"), "{{service_name}} refuses"),
                    ),
                ),
                Panel(
                    "Policies, by what became of them",
                    "ResiliencePolicy and TelemetryPolicy resources, by state, and pods that lag behind.",
                    "docs/operator.md",
                    "short",
                    (
                        Query(largest("operator_policies", of("operator"), "state"), "{{state}}"),
                        Query(largest("operator_pods_lagging", of("operator")), "pods that lag"),
                    ),
                ),
                Panel(
                    "In shadow",
                    "What policies in shadow mode would have done, a second.",
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
                    "Faults on request",
                    "Faults a second that were injected by `aurum fault`.",
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
            "From which service to which.",
            'label_values(circuit_breaker_state{k8s_namespace_name=~"$namespace", service_name=~"$service"}, name)',
        ),
    ),
)
