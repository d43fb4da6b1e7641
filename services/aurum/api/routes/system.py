"""Health, probes, metrics, and the resilience state of the platform."""

import asyncio
from typing import Any

from fastapi import APIRouter, Response

from aurum import __version__
from aurum.api.context import Context
from aurum.api.platform_view import state_of
from aurum.api.schemas import Features, HealthResponse, Observability
from aurum.runtime.admin.server import metrics_response, readiness_response
from aurum.runtime.telemetry.logging import APP_NAME

router = APIRouter()


@router.get("/health", tags=["system"])
async def health(context: Context) -> HealthResponse:
    """Whether the platform can do its work: degraded without one of its services, unhealthy without any."""
    settings = context.settings
    missing = [*context.machine_cache.unreachable_services(), *filter(None, [context.machine_cache.problem])]
    return HealthResponse(
        status="healthy" if not missing else "degraded" if len(missing) == 1 else "unhealthy",
        app_name=APP_NAME,
        app_version=__version__,
        environment=settings.environment,
        features=Features(
            predictive=settings.feature_predictive,
            carbon=settings.feature_carbon,
            energy=settings.feature_energy,
            water=settings.feature_water,
            analytics=settings.feature_analytics,
        ),
        observability=Observability(
            logging=settings.log_format, tracing_enabled=settings.tracing_enabled, prometheus_enabled=True
        ),
    )


@router.get("/livez", tags=["system"])
async def livez() -> dict[str, str]:
    return {"status": "alive", "service": "api"}


@router.get("/readyz", tags=["system"])
async def readyz(context: Context) -> Response:
    return readiness_response(context.health)


@router.get("/metrics", tags=["system"])
async def metrics() -> Response:
    """This process's metrics in the OpenMetrics format; each service has its own on its admin port."""
    return metrics_response()


@router.get("/api/resilience", tags=["system"])
async def resilience(context: Context) -> dict[str, Any]:
    """Live breakers, budgets and limits of every service, and the policy generation that each has loaded."""
    servers = context.admin_servers.items()
    others = await asyncio.gather(*(state_of(name, server, "/policy", server.address) for name, server in servers))
    own = {"reachable": True, "address": context.settings.admin_addresses.get("api"), **context.policies.state()}
    return {"services": [own, *others]}
