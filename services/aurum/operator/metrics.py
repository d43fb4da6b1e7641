"""Metrics of the operator."""

from prometheus_client import Counter, Gauge, Histogram

from aurum.runtime.metrics import FAST

operator_reconciles_total = Counter("operator_reconciles_total", "Looks at everything that is to be.", ["result"])
operator_reconcile_duration_seconds = Histogram(
    "operator_reconcile_duration_seconds", "Time to work out and write what is to be.", buckets=FAST
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
for _result in ("done", "failed"):
    operator_reconciles_total.labels(_result)
for _kind in ("configmap", "pod", "status", "event", "lease"):
    operator_writes_total.labels(_kind)
for _kind in ("list", "configmap", "pod", "status", "event"):
    operator_objects_failing.labels(_kind)
    operator_request_errors_total.labels(_kind)
for _state in ("converged", "progressing", "rolled_back", "refused", "not_accepted"):
    operator_policies.labels(_state)
