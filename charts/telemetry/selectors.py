"""Which series are meant, wherever rules and dashboards ask for requests."""

BY_SERVICE = "k8s_namespace_name, service_name"
# What asks an API whether it is there is no request of anybody's, and a stream lasts as long as its client.
ASKED = 'endpoint!~"/livez|/readyz|/metrics|/api/events"'
ANSWERED = 'method!~".+/(Ingest|Watch)"'
PREDICT = 'endpoint=~"/api/predict|/api/machines/{machine_id}/predict"'
RPC_FAILED = 'code=~"UNAVAILABLE|INTERNAL|UNKNOWN|DEADLINE_EXCEEDED|DATA_LOSS|RESOURCE_EXHAUSTED"'
EDGES = 'service_name=~"edge|edge-sim"'
