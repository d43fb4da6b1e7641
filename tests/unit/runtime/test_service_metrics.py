"""Each process exposes the metrics of its own service only."""

import subprocess
import sys

import pytest

OWNERS = {
    "alarm_flood": "api",
    "db_": "ingestion",
    "edge_": "edge",
    "http_requests": "api",
    "ingestion_": "ingestion",
    "operator_": "operator",
    "prediction_": "prediction",
}
MODULES = {
    "api": "aurum.api.service",
    "edge": "aurum.edge.gateway",
    "ingestion": "aurum.ingestion.service",
    "operator": "aurum.operator.service",
    "prediction": "aurum.prediction.service",
}
LIST = """
import aurum.cli, aurum.platform_settings, {module}
from prometheus_client import REGISTRY
print(*(metric.name for metric in REGISTRY.collect()))
"""


@pytest.mark.parametrize(("service", "module"), MODULES.items())
def test_service_exposes_only_its_own_metrics(service: str, module: str) -> None:
    listed = subprocess.run(
        [sys.executable, "-c", LIST.format(module=module)], check=True, capture_output=True, text=True, timeout=60
    )
    names = listed.stdout.split()
    assert "rpc_server_requests" in names
    exposed = {prefix for prefix in OWNERS if any(name.startswith(prefix) for name in names)}
    assert exposed == {prefix for prefix, owner in OWNERS.items() if owner == service}
