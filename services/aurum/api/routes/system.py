"""Health, probes, metrics, and the resilience state of the platform."""

import asyncio
from typing import Any

from fastapi import APIRouter, Response

from aurum import __version__
from aurum.api.context import Context
from aurum.api.platform_view import poll_process
from aurum.api.schemas import Features, HealthResponse, Observability
from aurum.runtime.admin.server import metrics_response, readiness_response
from aurum.runtime.telemetry.logging import APP_NAME

router = APIRouter()


@router.get("/health", tags=["system"])
async def health(context: Context) -> HealthResponse:
    """Returns the health of the platform: degraded if one service is unreachable, unhealthy if several are."""
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
    """Answers 200 while the process is alive."""
    return {"status": "alive", "service": "api"}


@router.get("/readyz", tags=["system"])
async def readyz(context: Context) -> Response:
    """Answers 200 if the API is ready, else 503 with the reason."""
    return readiness_response(context.health)


@router.get("/metrics", tags=["system"])
async def metrics() -> Response:
    """Returns the metrics of this process in the OpenMetrics format. Other services have theirs on admin ports."""
    return metrics_response()


@router.get("/api/resilience", tags=["system"])
async def resilience(context: Context) -> dict[str, Any]:
    """Returns breakers, budgets, limits and the loaded policy generation of every service."""
    servers = context.admin_servers.items()
    others = await asyncio.gather(*(poll_process(name, server, "/policy", server.address) for name, server in servers))
    own = {"reachable": True, "address": context.settings.admin_addresses.get("api"), **context.policies.state()}
    return {"services": [own, *others]}
