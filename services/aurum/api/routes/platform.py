"""The platform itself: its processes, the traces that are worth a look, and faults where they are allowed."""

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from aurum.api.context import ApiContext, Caller, Context
from aurum.runtime.audit import Act
from aurum.runtime.errors import FailedPreconditionError, NotFoundError, UnimplementedError
from aurum.runtime.faults import Fault
from aurum.runtime.http_client import HttpDependency

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


@router.get("")
async def platform(context: Context) -> PlatformOut:
    """Every process of every service at this moment: what it does, its breakers, budgets, limits and policies."""
    return PlatformOut(instances=await context.platform.instances())


@router.get("/traces")
async def traces(context: Context) -> TracesOut:
    """The last requests that failed, were degraded or slow, as this replica has seen them."""
    _keeps_traces(context)
    return TracesOut(items=[TraceOut.model_validate(each, from_attributes=True) for each in context.platform.traces])


@router.get("/traces/{trace_id}")
async def trace(context: Context, trace_id: Annotated[str, Path(pattern="^[0-9a-f]{32}$")]) -> TraceDetail:
    """One of them, with its spans."""
    _keeps_traces(context)
    found = context.platform.trace(trace_id)
    if found is None:
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
        told = list(await context.platform.each(service, tell))
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
        return list(await context.platform.each(service, tell))

    told = await context.audit.perform(caller, "fault.clear", service, clear)
    return FaultsOut(service=service, processes=len(told))


def _keeps_traces(context: ApiContext) -> None:
    if not context.platform.keeps_traces:
        raise UnimplementedError(
            "spans are not kept in memory here (AURUM_TRACING_RING_SPANS); look into the tracing backend",
            reason="NO_SPANS_KEPT",
        )


def _faults_enabled(context: ApiContext) -> None:
    if not context.settings.faults_enabled:
        raise FailedPreconditionError(
            "faults cannot be injected here; set AURUM_FAULTS_ENABLED, never in production", reason="FAULTS_OFF"
        )
