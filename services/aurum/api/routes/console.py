"""The web console: its pages, files and settings."""

from collections.abc import Mapping
from types import MappingProxyType

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from aurum import __version__
from aurum.api.console_files import load_console
from aurum.api.context import Context
from aurum.runtime.errors import NotFoundError

router = APIRouter()

_FILES = load_console()
_HEADERS = {
    # Forbids inline scripts and styles, external content, and framing
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
    "Vary": "Accept-Encoding",
}


class ConsoleOut(BaseModel):
    """The settings of the console."""

    version: str
    environment: str
    features: dict[str, bool]
    faults_enabled: bool
    traces_kept: bool
    jaeger_url: str | None
    grafana_url: str | None
    logs_url: str | None
    simulation_speed: float | None


@router.get("/api/console", tags=["system"])
async def console_settings(context: Context) -> ConsoleOut:
    """Returns the settings of the console."""
    settings = context.settings
    names = ("predictive", "carbon", "energy", "water", "analytics")
    return ConsoleOut(
        version=__version__,
        environment=settings.environment,
        features={name: getattr(settings, f"feature_{name}") for name in names},
        faults_enabled=settings.faults_enabled,
        traces_kept=context.platform_view.keeps_traces,
        jaeger_url=settings.console_jaeger_url,
        grafana_url=settings.console_grafana_url,
        logs_url=settings.console_logs_url,
        simulation_speed=settings.console_simulation_speed or None,
    )


@router.get("/", include_in_schema=False)
@router.get("/machines/{machine_id}", include_in_schema=False)
@router.get("/alarms", include_in_schema=False)
@router.get("/platform", include_in_schema=False)
@router.get("/compare", include_in_schema=False)
@router.get("/connect", include_in_schema=False)
async def page(request: Request) -> Response:
    """Returns the page of the console."""
    return _file_response(request, "index.html")


def not_found_page(request: Request) -> Response:
    """Returns the page of the console for an address that leads nowhere."""
    answer = _file_response(request, "index.html", {**_HEADERS, "Cache-Control": "no-store"})
    if answer.status_code == 200:
        answer.status_code = 404
    return answer


@router.get("/docs", include_in_schema=False)
async def reference(request: Request) -> Response:
    """Returns the page with the API reference."""
    return _file_response(request, "reference.html")


@router.get("/console/{path:path}", include_in_schema=False)
async def file(request: Request, path: str) -> Response:
    """Returns a file of the console."""
    return _file_response(request, path)


def _file_response(request: Request, path: str, headers: Mapping[str, str] = MappingProxyType(_HEADERS)) -> Response:
    console_file = _FILES.get(path)
    if console_file is None:
        raise NotFoundError(f"the console has no file {path!r}")
    headers = {**headers, "ETag": console_file.etag}
    if request.headers.get("if-none-match") == console_file.etag:
        return Response(status_code=304, headers=headers)
    if console_file.compressed is not None and "gzip" in request.headers.get("accept-encoding", ""):
        return Response(
            console_file.compressed, headers={**headers, "Content-Encoding": "gzip"}, media_type=console_file.media_type
        )
    return Response(console_file.content, headers=headers, media_type=console_file.media_type)
