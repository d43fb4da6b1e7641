"""The objects that the routes share, and the dependencies that provide them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from aurum.api.accounting import AccountBudget
from aurum.api.alarm_desk import AlarmDesk
from aurum.api.backends import IngestionBackend, PredictionBackend
from aurum.api.emission_factors import EmissionFactors
from aurum.api.ended_sessions import EndedSessions
from aurum.api.fallback import PredictionFallback
from aurum.api.gatekeeper import Gatekeeper
from aurum.api.live_feed import LiveFeed
from aurum.api.own_source import OwnSource
from aurum.api.plant_view import PlantView
from aurum.api.platform_view import PlatformView
from aurum.api.sustainability_schemas import TodayOut
from aurum.maintenance.costs import CostTable
from aurum.runtime.audit import AuditLog
from aurum.runtime.errors import UnimplementedError
from aurum.runtime.faults import Faults
from aurum.runtime.health import Health
from aurum.runtime.http_client import HttpDependency
from aurum.runtime.policies import Policies
from aurum.runtime.settings import Settings
from aurum.runtime.stream_shares import StreamShares
from aurum.security.identity import Identity
from aurum.sustainability.plan import Plan


@dataclass(slots=True)
class TodayKept:
    """Cached answers about the use of the present day."""

    answers: dict[tuple[int, str], tuple[float, TodayOut]] = field(default_factory=dict)  # by midnight and site
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class ApiContext:
    """The objects that the routes share.

    Attributes:
        settings: The settings of the process.
        health: The health of the service.
        policies: The resilience policies in force.
        faults: The injected faults.
        ingestion: Client of the ingestion service.
        prediction: Client of the prediction service.
        plant: The in-memory view of all machines.
        fallback: Answers when prediction cannot be reached.
        alarms: The alarms of the plant.
        feed: The event stream for consoles.
        platform: The state of all processes, and notable traces.
        plan: The accounting plan.
        factors: Emission factors.
        costs: The table of maintenance costs.
        gatekeeper: Authenticates and authorizes callers.
        ended_sessions: Sessions that were signed out.
        audit: The audit log.
        admin_servers: The admin servers of the other services, by name.
        streams: Limits on long answers.
        source: The source of readings whose callers name none.
        today: Cached answers about the present day.
        accounts: The budget for the memory of accounts.
    """

    settings: Settings
    health: Health
    policies: Policies
    faults: Faults
    ingestion: IngestionBackend
    prediction: PredictionBackend
    plant: PlantView
    fallback: PredictionFallback
    alarms: AlarmDesk
    feed: LiveFeed
    platform: PlatformView
    plan: Plan
    factors: EmissionFactors
    costs: CostTable
    gatekeeper: Gatekeeper
    ended_sessions: EndedSessions
    audit: AuditLog
    admin_servers: Mapping[str, HttpDependency]
    streams: StreamShares
    source: OwnSource
    today: TodayKept = field(default_factory=TodayKept)
    accounts: AccountBudget = field(default_factory=AccountBudget)


async def _context(request: Request) -> ApiContext:
    context: ApiContext = request.app.state.context
    return context


Context = Annotated[ApiContext, Depends(_context)]


async def _caller(request: Request) -> Identity:
    identity: Identity = request.state.identity
    return identity


Caller = Annotated[Identity, Depends(_caller)]


def require_feature(name: str) -> Callable[[ApiContext], Awaitable[None]]:
    """Returns a route dependency that answers 501 if a feature is switched off."""

    async def check(context: Context) -> None:
        if not getattr(context.settings, f"feature_{name}"):
            raise UnimplementedError(
                f"the feature {name} is switched off here (AURUM_FEATURE_{name.upper()})", reason="FEATURE_OFF"
            )

    return check
