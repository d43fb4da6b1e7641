"""Which series are meant, wherever rules and dashboards ask for requests."""

from aurum.resilience.status import HTTP_SERVER_FAULTS, SERVER_FAULTS
from aurum.runtime.health import PROBES
from aurum.runtime.rpc_methods import METHODS

BY_SERVICE = "k8s_namespace_name, service_name"
# What asks an API whether it is there is no request of anybody's, and a stream lasts as long as its client.
ASKED = f'endpoint!~"{"|".join((*PROBES, "/api/events"))}"'
ANSWERED = f'method!~".+/({"|".join(method.short_name for method in METHODS.values() if method.endless)})"'
PREDICT = 'endpoint=~"/api/predict|/api/machines/{machine_id}/predict"'
RPC_FAILED = f'code=~"{"|".join(SERVER_FAULTS)}"'
HTTP_FAILED = f'status_code=~"{HTTP_SERVER_FAULTS.start // 100}.."'
EDGES = 'service_name=~"edge|edge-sim"'
