"""Every route of the API and every RPC of every contract, by what the code itself says."""

import importlib
import pkgutil
from typing import Any

from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from aurum import v1
from aurum.api import service

OF_THE_FRAMEWORK = frozenset({("GET", "/openapi.json")})


def routes() -> frozenset[tuple[str, str]]:
    """Method and template of each route of the API. HEAD counts as GET."""
    return OF_THE_FRAMEWORK | {
        (method, route.path)
        for module in service._ROUTES
        for route in module.router.routes
        for method in route.methods - {"HEAD"}  # type: ignore[attr-defined]
    }


def rpcs() -> dict[str, Any]:
    """The descriptor of every RPC of every contract, and of what a server of ours has besides, by its full name."""
    contracts = [importlib.import_module(f"aurum.v1.{each.name}") for each in pkgutil.iter_modules(v1.__path__)]
    files = [each for each in (*contracts, health_pb2, reflection_pb2) if hasattr(each, "DESCRIPTOR")]
    services = [service for file in files for service in file.DESCRIPTOR.services_by_name.values()]
    return {f"/{each.full_name}/{method.name}": method for each in services for method in each.methods}
