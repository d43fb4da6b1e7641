"""The admin server that each process has: /metrics, /livez, /readyz, /policy. It needs no web framework's weight."""

from collections.abc import Callable
from typing import Any

from prometheus_client import REGISTRY
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aurum.runtime.health import Health


def metrics_response() -> Response:
    """All metrics of this process in the OpenMetrics format, which carries exemplars."""
    return Response(generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})


def readiness_response(health: Health) -> JSONResponse:
    missing = health.missing()
    content = {"status": "not ready" if missing else "ready", "missing": missing}
    return JSONResponse(content, status_code=503 if missing else 200)


def admin_app(service: str, health: Health, policy: Callable[[], dict[str, Any]]) -> Starlette:
    """The admin server's application. `policy` gives the live state of the resilience policies."""

    async def metrics_route(request: Request) -> Response:
        return metrics_response()

    async def livez(request: Request) -> Response:
        return JSONResponse({"status": "alive", "service": service})

    async def readyz(request: Request) -> Response:
        return readiness_response(health)

    async def policy_route(request: Request) -> Response:
        return JSONResponse(policy())

    return Starlette(
        routes=[
            Route("/metrics", metrics_route),
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/policy", policy_route),
        ]
    )
