"""Metrics of the operator."""

from prometheus_client import Counter, Gauge, Histogram

from aurum.runtime.metrics import FAST

operator_reconciles_total = Counter("operator_reconciles_total", "Reconciliations.", ["result"])
operator_reconcile_duration_seconds = Histogram(
    "operator_reconcile_duration_seconds", "Time to derive the desired state and to write it.", buckets=FAST
)
operator_backoff_seconds = Gauge(
    "operator_backoff_seconds", "Longest wait before a failed request is repeated; 0 while none fails."
)
operator_objects_failing = Gauge(
    "operator_objects_failing", "Objects whose last request to the API server failed.", ["kind"]
)
operator_request_errors_total = Counter("operator_request_errors_total", "Failed requests to the API server.", ["kind"])
operator_problems = Gauge(
    "operator_problems", "Inputs that the operator cannot interpret and leaves unchanged, such as the default policies."
)
operator_writes_total = Counter("operator_writes_total", "Writes to the API server.", ["kind"])
operator_policies = Gauge("operator_policies", "Policies by state.", ["state"])
operator_pods_lagging = Gauge(
    "operator_pods_lagging", "Pods that have not yet reported the policies that they should have."
)
operator_certificate_seconds_left = Gauge(
    "operator_certificate_seconds_left", "Seconds until the first of the certificates that the operator issues ends."
)
operator_leader = Gauge("operator_leader", "1 while this process is the leader.")
for _result in ("done", "failed"):
    operator_reconciles_total.labels(_result)
for _kind in ("configmap", "pod", "status", "event", "lease", "secret"):
    operator_writes_total.labels(_kind)
for _kind in ("list", "configmap", "pod", "status", "event", "secret"):
    operator_objects_failing.labels(_kind)
    operator_request_errors_total.labels(_kind)
for _state in ("converged", "progressing", "rolled_back", "refused", "not_accepted"):
    operator_policies.labels(_state)
