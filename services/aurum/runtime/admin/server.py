"""The admin server of each process: /metrics, /livez, /readyz, /policy and /overview.

It has /spans if spans are kept, and /faults if faults are enabled.
"""

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from prometheus_client import REGISTRY
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aurum.runtime import damage
from aurum.runtime.errors import InvalidArgumentError
from aurum.runtime.faults import Faults, parse_fault
from aurum.runtime.health import Health
from aurum.runtime.telemetry.span_ring import SpanRing

_MAX_FAULT = 10_000  # bytes
_TRACE_ID = re.compile(r"[0-9a-f]{32}")


def metrics_response() -> Response:
    """Returns all metrics of this process in the OpenMetrics format, which includes exemplars."""
    return Response(generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})


def readiness_response(health: Health) -> JSONResponse:
    """Returns 200 if the service is ready, else 503 with what is missing."""
    missing = health.missing()
    content = {"status": "not ready" if missing else "ready", "missing": missing, "damaged": damage.counts()}
    return JSONResponse(content, status_code=503 if missing else 200)


def admin_app(
    service: str,
    health: Health,
    faults: Faults,
    *,
    policy: Callable[[], dict[str, Any]],
    overview: Callable[[], dict[str, Any]],
    spans: SpanRing | None,
) -> Starlette:
    """Creates the application of the admin server.

    Args:
        service: Name of the service.
        health: State for the probes.
        faults: Faults of the process.
        policy: Returns the live state of the policies.
        overview: Returns the state of the whole process.
        spans: The latest spans, or None if they are not kept.
    """

    async def spans_route(request: Request) -> Response:
        trace_id = request.query_params.get("trace_id", "")
        if not _TRACE_ID.fullmatch(trace_id):
            return JSONResponse({"detail": "trace_id: must be 32 hexadecimal digits"}, status_code=422)
        return JSONResponse({"spans": spans.trace(trace_id) if spans else []})

    async def faults_route(request: Request) -> Response:
        if request.method == "POST":
            return _add_fault(faults, await request.body())
        cleared = faults.clear() if request.method == "DELETE" else 0
        return JSONResponse({"service": service, "cleared": cleared, "faults": faults.active()})

    routes = [
        Route("/metrics", _answering(metrics_response)),
        Route("/livez", _answering(lambda: JSONResponse({"status": "alive", "service": service}))),
        Route("/readyz", _answering(lambda: readiness_response(health))),
        Route("/policy", _answering(lambda: JSONResponse(policy()))),
        Route("/overview", _answering(lambda: JSONResponse(overview()))),
    ]
    if spans is not None:
        routes.append(Route("/spans", spans_route))
    if faults.enabled:
        routes.append(Route("/faults", faults_route, methods=["GET", "POST", "DELETE"]))
    return Starlette(routes=routes)


def _answering(respond: Callable[[], Response]) -> Callable[[Request], Awaitable[Response]]:
    """Returns an endpoint whose response does not depend on the request."""

    async def endpoint(request: Request) -> Response:
        return respond()

    return endpoint


def _add_fault(faults: Faults, body: bytes) -> Response:
    try:
        if len(body) > _MAX_FAULT:
            raise InvalidArgumentError.for_field("body", f"is larger than {_MAX_FAULT} bytes")
        id_ = faults.inject(parse_fault(json.loads(body)))
    except InvalidArgumentError as error:
        return JSONResponse({"detail": error.message}, status_code=422)
    except (ValueError, RecursionError) as error:
        return JSONResponse({"detail": f"body: is not JSON: {error}"}, status_code=422)
    return JSONResponse({"id": id_, "faults": faults.active()}, status_code=201)
