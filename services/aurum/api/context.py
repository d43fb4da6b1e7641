"""The objects that the routes share, and the dependencies that provide them."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from aurum.api.access_control import AccessControl
from aurum.api.accounting.budget import AccountBudget
from aurum.api.accounting.today import TodayAccounts
from aurum.api.alarm_preview import RulesPreview
from aurum.api.alarm_rules import RulesDesk
from aurum.api.alarm_service import AlarmService
from aurum.api.backends import IngestionBackend, PredictionBackend
from aurum.api.emission_factors import EmissionFactors
from aurum.api.ended_sessions import EndedSessions
from aurum.api.fallback import PredictionFallback
from aurum.api.live_feed import LiveFeed
from aurum.api.machine_cache import MachineCache
from aurum.api.own_source import OwnSource
from aurum.api.platform_view import PlatformView
from aurum.api.recent_writes import RecentWrites
from aurum.api.settings import ApiSettings
from aurum.maintenance.costs import CostTable
from aurum.runtime.audit import AuditLog
from aurum.runtime.errors import UnimplementedError
from aurum.runtime.faults import Faults
from aurum.runtime.grpc.stream_shares import StreamShares
from aurum.runtime.health import Health
from aurum.runtime.http.client import HttpDependency
from aurum.runtime.policy.policies import Policies
from aurum.security.identity import Identity
from aurum.sustainability.plan import AccountingPlan


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
        machine_cache: The in-memory view of all machines.
        prediction_fallback: Answers when prediction cannot be reached.
        alarm_service: The alarms of the plant.
        rules_desk: The alarm rules in force, and their changes by engineers.
        rules_preview: Computes previews of alarm rules.
        live_feed: The event stream for consoles.
        platform_view: The state of all processes, and notable traces.
        accounting_plan: The accounting plan.
        emission_factors: Emission factors.
        today_accounts: The accounts of the present day.
        account_budget: The budget for the memory of accounts.
        cost_table: The table of maintenance costs.
        access_control: Authenticates and authorizes callers.
        ended_sessions: Sessions that were signed out.
        audit: The audit log.
        admin_servers: The admin servers of the other services, by name.
        stream_shares: Limits on long answers.
        own_source: The source of readings whose callers name none.
        recent_writes: When this replica last wrote readings of each machine.
    """

    settings: ApiSettings
    health: Health
    policies: Policies
    faults: Faults
    ingestion: IngestionBackend
    prediction: PredictionBackend
    machine_cache: MachineCache
    prediction_fallback: PredictionFallback
    alarm_service: AlarmService
    rules_desk: RulesDesk
    rules_preview: RulesPreview
    live_feed: LiveFeed
    platform_view: PlatformView
    accounting_plan: AccountingPlan
    emission_factors: EmissionFactors
    today_accounts: TodayAccounts
    account_budget: AccountBudget
    cost_table: CostTable
    access_control: AccessControl
    ended_sessions: EndedSessions
    audit: AuditLog
    admin_servers: Mapping[str, HttpDependency]
    stream_shares: StreamShares
    own_source: OwnSource
    recent_writes: RecentWrites


async def _context(request: Request) -> ApiContext:
    context: ApiContext = request.app.state.context
    return context


Context = Annotated[ApiContext, Depends(_context)]


async def _caller(request: Request) -> Identity:
    identity: Identity = request.state.identity
    return identity


Caller = Annotated[Identity, Depends(_caller)]


def require_feature(name: str) -> Callable[[ApiContext], Awaitable[None]]:
    """Returns a route dependency that answers 501 if a feature is disabled."""

    async def check(context: Context) -> None:
        if not getattr(context.settings, f"feature_{name}"):
            raise UnimplementedError(
                f"the feature {name} is disabled (AURUM_FEATURE_{name.upper()})", reason="FEATURE_OFF"
            )

    return check
