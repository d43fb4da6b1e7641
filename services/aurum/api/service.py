"""The API service: its application, its HTTP server and its background tasks."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

from fastapi import FastAPI

from aurum import __version__
from aurum.alarms.followed_rules import FollowedRules
from aurum.alarms.rules import AlarmRulesError
from aurum.api import problems
from aurum.api.access_control_factory import build_access_control
from aurum.api.accounting.budget import AccountBudget
from aurum.api.accounting.today import TodayAccounts
from aurum.api.alarm_preview import RulesPreview
from aurum.api.alarm_rules import RulesDesk
from aurum.api.alarm_service import AlarmService
from aurum.api.backends import IngestionBackend, PredictionBackend
from aurum.api.body_budget import BodyBudget
from aurum.api.context import ApiContext
from aurum.api.emission_factors import load_emission_factors
from aurum.api.ended_sessions import EndedSessions
from aurum.api.fallback import PredictionFallback
from aurum.api.gateway_watch import GatewayWatch
from aurum.api.live_feed import LiveFeed
from aurum.api.machine_cache import MachineCache
from aurum.api.middleware import RequestMiddleware
from aurum.api.own_source import OwnSource
from aurum.api.platform_view import PlatformView
from aurum.api.query_parameters import KnownParameters
from aurum.api.recent_writes import RecentWrites
from aurum.api.request_spans import RequestSpans
from aurum.api.routes import (
    alarm_bulk,
    alarm_journal,
    alarm_limits,
    alarm_rules,
    alarms,
    carbon,
    console,
    cost,
    energy,
    energy_report,
    events,
    life_suggestions,
    machines,
    maintenance,
    maintenance_records,
    models,
    outcomes,
    planned_stops,
    platform,
    predictions,
    readings,
    reports,
    session,
    system,
    today,
    water,
)
from aurum.api.scope import InScope
from aurum.api.settings import ApiSettings
from aurum.maintenance.costs import CostTableError, load_costs
from aurum.runtime.grpc.stream_shares import Share, StreamShares, query_share
from aurum.runtime.health import PROBES
from aurum.runtime.http.connection_limits import ConnectionLimits
from aurum.runtime.http.server import http_server
from aurum.runtime.listener import listen
from aurum.runtime.service import Service
from aurum.runtime.settings import SettingsError
from aurum.runtime.telemetry.logging import APP_NAME
from aurum.sustainability.plan import AccountingPlanError, load_plan

_SLOWEST_REFRESH = 5.0  # seconds
# Probes, scrapes and endless streams
_UNTRACED = frozenset({*PROBES, "/api/events"})
_ROUTES = (
    system,
    machines,
    readings,
    predictions,
    maintenance,
    maintenance_records,
    life_suggestions,
    models,
    outcomes,
    planned_stops,
    energy,
    cost,
    carbon,
    water,
    today,
    alarms,
    alarm_limits,
    alarm_bulk,
    alarm_journal,
    alarm_rules,
    reports,
    energy_report,
    events,
    platform,
    session,
    console,
)


def create_app(context: ApiContext) -> FastAPI:
    """Returns the FastAPI application with all routes, error handlers and the middleware."""
    app = FastAPI(
        title=APP_NAME,
        version=__version__,
        summary="Predictive maintenance, energy and carbon for industrial machines",
        docs_url=None,  # our own page pins external files by their hashes
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # RequestSpans and RequestMiddleware have them
    )
    app.state.context = context
    for module in _ROUTES:
        app.include_router(module.router, dependencies=[KnownParameters, InScope], responses=problems.DOCUMENTED)
    problems.install(app, console.not_found_page)
    app.add_middleware(
        RequestMiddleware,
        max_body_bytes=context.settings.api_max_body_bytes,
        admission=context.policies.admission(),
        faults=context.faults,
        health=context.health,
        access_control=context.access_control,
        bodies=BodyBudget(context.settings.api_body_budget_bytes),
        routes=[route for module in _ROUTES for route in module.router.routes],
    )
    return app


@contextlib.asynccontextmanager
async def api(service: Service[ApiSettings]) -> AsyncGenerator[None]:
    """Runs the API service: HTTP server and background tasks. Raises SettingsError for invalid settings or files."""
    settings = service.settings
    try:
        plan, costs = load_plan(settings.sustainability_plan), load_costs(settings.costs_file)
        rules = FollowedRules(settings.alarm_rules, with_store=True)
    except (AccountingPlanError, CostTableError, AlarmRulesError) as error:
        raise SettingsError(str(error)) from error
    listener = listen(settings.api_host, settings.api_port, "AURUM_API_PORT")
    ingestion = IngestionBackend(service.dependency("ingestion", settings.ingestion_target))
    prediction = PredictionBackend(service.dependency("prediction", settings.prediction_target))
    ended_sessions = EndedSessions(ingestion)
    machine_cache = MachineCache(
        ingestion,
        prediction,
        min(settings.api_refresh_interval, _SLOWEST_REFRESH),
        predictions=settings.feature_predictive,
    )
    alarm_service = AlarmService(ingestion, machine_cache, rules)
    rules_desk = RulesDesk(ingestion, rules)
    admin_servers = {
        name: service.admin_dependency(f"{name}-admin", address) for name, address in settings.admin_addresses.items()
    }
    admission = service.policies.admission()
    platform_view = PlatformView(service.overview, admin_servers, service.spans)
    gateway_watch = GatewayWatch(admin_servers)
    live_feed = LiveFeed(machine_cache, alarm_service, gateway_watch.hanging)
    factors = load_emission_factors(service)
    account_budget = AccountBudget()
    context = ApiContext(
        settings=settings,
        health=service.health,
        policies=service.policies,
        faults=service.faults,
        ingestion=ingestion,
        prediction=prediction,
        machine_cache=machine_cache,
        prediction_fallback=PredictionFallback(machine_cache, ingestion),
        alarm_service=alarm_service,
        rules_desk=rules_desk,
        rules_preview=RulesPreview(ingestion, machine_cache),
        live_feed=live_feed,
        platform_view=platform_view,
        accounting_plan=plan,
        emission_factors=factors,
        today_accounts=TodayAccounts(ingestion, plan, factors, account_budget, _accounted(settings)),
        account_budget=account_budget,
        cost_table=costs,
        access_control=build_access_control(service, ended_sessions),
        ended_sessions=ended_sessions,
        audit=service.audit,
        admin_servers={name: server for name, server in admin_servers.items() if name != "api"},
        stream_shares=_stream_shares(settings, lambda: max(admission.limit, admission.config.limit)),
        own_source=OwnSource(),
        recent_writes=RecentWrites(),
    )
    service.health.on_change(lambda serving: None if serving else machine_cache.close())
    service.health.add_check("plant", lambda: machine_cache.readiness_problem(settings.api_first_look))
    service.spawn(machine_cache.follow_machines(), "plant-view")
    service.spawn(machine_cache.probe_services(), "probe")
    service.spawn(rules.run(), "alarm-rules")
    service.spawn(rules_desk.run(), "stored-alarm-rules")
    service.spawn(alarm_service.run(), "alarms")
    if context.access_control.authenticates:
        service.spawn(ended_sessions.run(), "ended-sessions")
    service.spawn(live_feed.run(), "live-feed")
    service.spawn(gateway_watch.run(), "gateways")
    service.spawn(platform_view.collect(), "traces")
    limits = ConnectionLimits(
        head_seconds=settings.api_head_timeout,
        body_seconds=settings.api_body_timeout,
        per_address=settings.api_max_connections_per_address,
        connections=settings.api_max_connections,
    )
    app = create_app(context)
    await asyncio.to_thread(app.openapi)  # takes a quarter of a second once, for which all requests would wait
    async with http_server(
        RequestSpans(app, _UNTRACED),
        listener,
        settings.shutdown_grace,
        limits,
        settings.api_trusted_proxies,
    ):
        yield


def _accounted(settings: ApiSettings) -> tuple[str, ...]:
    """Returns the quantities whose accounts are enabled."""
    return tuple(name for name in ("energy", "carbon", "water") if getattr(settings, f"feature_{name}"))


def _stream_shares(settings: ApiSettings, calls: Callable[[], int]) -> StreamShares:
    """Returns the shares of the API. calls: Returns the requests that it handles at a time, long responses included."""
    return StreamShares(
        {
            "events": Share(lambda: settings.api_max_event_streams, "AURUM_API_MAX_EVENT_STREAMS"),
            "query": query_share(settings, calls),
        },
        settings.stream_caller_share,
    )
