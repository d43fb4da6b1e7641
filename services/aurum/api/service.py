"""The API service: its application, its HTTP server, what it keeps current in the background."""

import contextlib
import itertools
import time
from collections.abc import AsyncGenerator

from fastapi import FastAPI

from aurum.runtime import tracing  # isort: skip - before the instrumentation, which reads what it sets
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

from aurum import __version__
from aurum.api import problems
from aurum.api.backends import IngestionBackend, PredictionBackend
from aurum.api.context import ApiContext
from aurum.api.middleware import RequestMiddleware
from aurum.api.plant_view import PlantView
from aurum.api.routes import events, machines, planned, predictions, readings, system
from aurum.runtime.listening import http_server, listen
from aurum.runtime.logging import APP_NAME
from aurum.runtime.service import Service

_UNTRACED = "livez,readyz,metrics,api/events"  # probes, scrapes, and streams that outlive any request


def create_app(context: ApiContext) -> FastAPI:
    """The application over its context."""
    app = FastAPI(
        title=APP_NAME,
        version=__version__,
        summary="Predictive maintenance, energy and carbon for industrial machines",
        redoc_url=None,
    )
    app.state.context = context
    for module in (system, machines, readings, predictions, planned, events):
        app.include_router(module.router)
    problems.install(app)
    app.add_middleware(RequestMiddleware, max_body_bytes=context.settings.api_max_body_bytes)
    if context.settings.tracing_enabled:
        FastAPIInstrumentor.instrument_app(app, excluded_urls=_UNTRACED, exclude_spans=["send", "receive"])
    return app


@contextlib.asynccontextmanager
async def api(service: Service) -> AsyncGenerator[None]:
    """Serves HTTP."""
    settings = service.settings
    listener = listen(settings.api_host, settings.api_port, "AURUM_API_PORT")
    ingestion = IngestionBackend(service.dependency("ingestion", settings.ingestion_target))
    prediction = PredictionBackend(service.dependency("prediction", settings.prediction_target))
    plant = PlantView(ingestion, prediction, settings.api_refresh_interval)
    context = ApiContext(
        settings=settings,
        health=service.health,
        policies=service.policies,
        ingestion=ingestion,
        prediction=prediction,
        plant=plant,
        source_id=f"api-{time.time_ns() // 1000:x}",
        next_sequence=itertools.count(1).__next__,
    )
    service.health.on_change(lambda serving: None if serving else plant.close())
    service.spawn(plant.follow(), "plant-view")
    if settings.feature_predictive:
        service.spawn(plant.score(), "scoring")
    async with http_server(create_app(context), listener, settings.shutdown_grace):
        yield


__all__ = ["api", "create_app", "tracing"]
