"""The platform itself: its processes, notable traces, and fault injection if it is enabled."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from aurum.api.context import ApiContext, Caller, Context
from aurum.runtime.audit import Act
from aurum.runtime.errors import FailedPreconditionError, NotFoundError, UnimplementedError
from aurum.runtime.faults import Fault
from aurum.runtime.http.client import HttpDependency
from aurum.security.identity import Identity

router = APIRouter(prefix="/api/platform", tags=["system"])


class PlatformOut(BaseModel):
    """The state of all processes of the platform."""

    instances: list[dict[str, Any]] = Field(
        description="State of each process: policies as in /api/resilience, requests, and `rates` since a poll."
    )


class TraceOut(BaseModel):
    """A notable trace."""

    trace_id: str
    name: str
    start: float = Field(description="Seconds since 1970.")
    seconds: float
    reason: str = Field(description="Why the trace is notable: failed, degraded or slow.")
    detail: str


class TracesOut(BaseModel):
    """The latest notable traces."""

    items: list[TraceOut] = Field(description="Traces, the newest first.")


class TraceDetail(TraceOut):
    """A notable trace with its spans."""

    spans: list[dict[str, Any]] = Field(description="Spans of all services, ordered by start.")


class FaultsOut(BaseModel):
    """The processes to which a fault was given."""

    service: str
    processes: int = Field(description="Number of processes of the service.")


_PLANT_WIDE = frozenset({"damaged", "inputs"})  # parts of a process's state that name machines and devices


@router.get("")
async def platform(context: Context, caller: Caller) -> PlatformOut:
    """Returns the state of every process of every service: requests, breakers, budgets, limits and policies.

    Damaged items and inputs are omitted for callers that are bound to sites, since they name machines of all sites.
    """
    states = await context.platform_view.instances()
    if caller.sites:
        states = [{name: value for name, value in state.items() if name not in _PLANT_WIDE} for state in states]
    return PlatformOut(instances=states)


@router.get("/traces")
async def traces(context: Context, caller: Caller) -> TracesOut:
    """Returns the latest traces that failed, were degraded or slow, as recorded by this replica.

    Callers that are bound to sites get the traces of their own requests only.
    """
    _require_traces(context)
    visible = [trace for trace, spans in context.platform_view.traces if _may_see(caller, spans)]
    return TracesOut(items=[TraceOut.model_validate(trace, from_attributes=True) for trace in visible])


@router.get("/traces/{trace_id}")
async def trace(
    context: Context, caller: Caller, trace_id: Annotated[str, Path(pattern="^[0-9a-f]{32}$")]
) -> TraceDetail:
    """Returns a notable trace with the spans of all services."""
    _require_traces(context)
    kept = context.platform_view.trace(trace_id)
    if kept is None or not _may_see(caller, kept[1]):
        raise NotFoundError(f"trace {trace_id} is not in memory at this replica", reason="TRACE_NOT_FOUND")
    summary, spans = kept
    return TraceDetail(**TraceOut.model_validate(summary, from_attributes=True).model_dump(), spans=spans)


@router.post("/faults/{service}", status_code=201)
async def add_fault(context: Context, caller: Caller, service: str, fault: Fault) -> FaultsOut:
    """Injects a fault into each process of a service for a limited time. Requires AURUM_FAULTS_ENABLED."""
    _require_faults_enabled(context)

    async def call(server: HttpDependency, address: str) -> Any:
        return await server.post_json("/faults", fault.model_dump(mode="json"), at=address)

    async def add(act: Act) -> list[Any]:
        answers = list(await context.platform_view.call_processes(service, call))
        act.after = fault.model_dump(mode="json")
        return answers

    answers = await context.audit.perform(caller, "fault.add", service, add)
    return FaultsOut(service=service, processes=len(answers))


@router.delete("/faults/{service}")
async def clear_faults(context: Context, caller: Caller, service: str) -> FaultsOut:
    """Ends all injected faults of a service."""
    _require_faults_enabled(context)

    async def call(server: HttpDependency, address: str) -> Any:
        return await server.delete_json("/faults", at=address)

    async def clear(act: Act) -> list[Any]:
        return list(await context.platform_view.call_processes(service, call))

    answers = await context.audit.perform(caller, "fault.clear", service, clear)
    return FaultsOut(service=service, processes=len(answers))


def _may_see(caller: Identity, spans: Sequence[Mapping[str, Any]]) -> bool:
    """Returns whether the caller is bound to no site, or all spans of a trace that name a user are its own.

    All of them must be its own, since a caller can state any trace id in its requests.
    """
    users = {span["attributes"].get("user_id") for span in spans} - {None}
    return not caller.sites or users == {caller.user_id}


def _require_traces(context: ApiContext) -> None:
    if not context.platform_view.keeps_traces:
        raise UnimplementedError(
            "this replica keeps no spans in memory (AURUM_TRACING_RING_SPANS); use the tracing backend",
            reason="NO_SPANS_KEPT",
        )


def _require_faults_enabled(context: ApiContext) -> None:
    if not context.settings.faults_enabled:
        raise FailedPreconditionError(
            "fault injection is disabled; set AURUM_FAULTS_ENABLED, but never in production", reason="FAULTS_OFF"
        )
