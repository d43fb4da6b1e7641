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
    instances: list[dict[str, Any]] = Field(
        description="Each process: its policies as in /api/resilience, its requests, and `rates` since an earlier look."
    )


class TraceOut(BaseModel):
    trace_id: str
    name: str
    start: float = Field(description="Seconds since 1970.")
    seconds: float
    reason: str = Field(description="failed, degraded or slow.")
    detail: str


class TracesOut(BaseModel):
    items: list[TraceOut] = Field(description="The newest first.")


class TraceDetail(TraceOut):
    spans: list[dict[str, Any]] = Field(description="Of all services, by their start.")


class FaultsOut(BaseModel):
    service: str
    processes: int = Field(description="That were told.")


_OF_ALL_SITES = frozenset({"damaged", "inputs"})  # parts of a process's state that name machines and devices


@router.get("")
async def platform(context: Context, caller: Caller) -> PlatformOut:
    """Every process of every service at this moment: what it does, its breakers, budgets, limits and policies. Who is
    bound to sites is not told what is damaged, nor what inputs hear, since that names machines of all sites.
    """
    found = await context.platform_view.instances()
    if caller.sites:
        found = [{name: value for name, value in each.items() if name not in _OF_ALL_SITES} for each in found]
    return PlatformOut(instances=found)


@router.get("/traces")
async def traces(context: Context, caller: Caller) -> TracesOut:
    """The last requests that failed, were degraded or slow, as this replica has seen them. Who is bound to sites sees
    its own requests.
    """
    _keeps_traces(context)
    found = [each for each, spans in context.platform_view.traces if _may_see(caller, spans)]
    return TracesOut(items=[TraceOut.model_validate(each, from_attributes=True) for each in found])


@router.get("/traces/{trace_id}")
async def trace(
    context: Context, caller: Caller, trace_id: Annotated[str, Path(pattern="^[0-9a-f]{32}$")]
) -> TraceDetail:
    """One of them, with its spans."""
    _keeps_traces(context)
    found = context.platform_view.trace(trace_id)
    if found is None or not _may_see(caller, found[1]):
        raise NotFoundError(f"trace {trace_id} is not kept here (any more)", reason="TRACE_NOT_FOUND")
    of_it, spans = found
    return TraceDetail(**TraceOut.model_validate(of_it, from_attributes=True).model_dump(), spans=spans)


@router.post("/faults/{service}", status_code=201)
async def add_fault(context: Context, caller: Caller, service: str, fault: Fault) -> FaultsOut:
    """Begins a fault in each process of a service, for a time; only where AURUM_FAULTS_ENABLED is set."""
    _faults_enabled(context)

    async def tell(server: HttpDependency, address: str) -> Any:
        return await server.post_json("/faults", fault.model_dump(mode="json"), at=address)

    async def add(act: Act) -> list[Any]:
        told = list(await context.platform_view.each(service, tell))
        act.after = fault.model_dump(mode="json")
        return told

    told = await context.audit.perform(caller, "fault.add", service, add)
    return FaultsOut(service=service, processes=len(told))


@router.delete("/faults/{service}")
async def clear_faults(context: Context, caller: Caller, service: str) -> FaultsOut:
    """Ends all faults of a service."""
    _faults_enabled(context)

    async def tell(server: HttpDependency, address: str) -> Any:
        return await server.delete_json("/faults", at=address)

    async def clear(act: Act) -> list[Any]:
        return list(await context.platform_view.each(service, tell))

    told = await context.audit.perform(caller, "fault.clear", service, clear)
    return FaultsOut(service=service, processes=len(told))


def _may_see(caller: Identity, spans: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the caller may see a trace: it is bound to no site, or all spans with a user are its own.

    All of them must be, since a caller can state any trace id in its requests.
    """
    users = {span["attributes"].get("user_id") for span in spans} - {None}
    return not caller.sites or users == {caller.user_id}


def _keeps_traces(context: ApiContext) -> None:
    if not context.platform_view.keeps_traces:
        raise UnimplementedError(
            "spans are not kept in memory here (AURUM_TRACING_RING_SPANS); look into the tracing backend",
            reason="NO_SPANS_KEPT",
        )


def _faults_enabled(context: ApiContext) -> None:
    if not context.settings.faults_enabled:
        raise FailedPreconditionError(
            "faults cannot be injected here; set AURUM_FAULTS_ENABLED, never in production", reason="FAULTS_OFF"
        )
