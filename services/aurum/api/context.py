"""What every route needs."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

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
    """What the plant has used today, which serves all who ask for a while."""

    answers: dict[tuple[int, str], tuple[float, TodayOut]] = field(default_factory=dict)  # by midnight and site
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class ApiContext:
    """source: of what this process writes for callers that name none."""

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


async def _context(request: Request) -> ApiContext:
    context: ApiContext = request.app.state.context
    return context


Context = Annotated[ApiContext, Depends(_context)]


async def _caller(request: Request) -> Identity:
    identity: Identity = request.state.identity
    return identity


Caller = Annotated[Identity, Depends(_caller)]


def require_feature(name: str) -> Callable[[ApiContext], Awaitable[None]]:
    """A dependency that answers 501 when a feature is switched off."""

    async def check(context: Context) -> None:
        if not getattr(context.settings, f"feature_{name}"):
            raise UnimplementedError(
                f"the feature {name} is switched off here (AURUM_FEATURE_{name.upper()})", reason="FEATURE_OFF"
            )

    return check
