"""Planned stops of machines: dates that advice compares."""

import time

from fastapi import APIRouter

from aurum.api.context import Caller, Context
from aurum.api.planned_stops import add_planned_stop, cancel_planned_stop, planned_stops
from aurum.api.schemas import PlannedStopIn, PlannedStopOut, PlannedStops
from aurum.api.serializers import parse_query_time, to_datetime
from aurum.maintenance.planned_stops import PlannedStop
from aurum.runtime.audit import Act
from aurum.runtime.errors import InvalidArgumentError
from aurum.runtime.telemetry.logging import set_request_context

router = APIRouter(prefix="/api/machines/{machine_id}/planned-stops", tags=["machines"])

_LATEST_US = 4_102_444_800_000_000  # the year 2100


@router.get("")
async def list_planned_stops(context: Context, machine_id: str) -> PlannedStops:
    """Returns the future planned stops of a machine, the next first."""
    set_request_context(machine_id=machine_id)
    now_us = time.time_ns() // 1000
    found = await planned_stops(context.ingestion, machine_id, now_us)
    return PlannedStops(machine_id=machine_id, items=[_stop_out(stop, now_us) for stop in found])


@router.post("", status_code=201)
async def plan_stop(context: Context, caller: Caller, machine_id: str, body: PlannedStopIn) -> PlannedStopOut:
    """Plans a stop of a machine. A repeated request does not add a second stop at the same time."""
    set_request_context(machine_id=machine_id)
    await context.ingestion.get_machine(machine_id)
    at_us = parse_query_time("at", body.at)
    if at_us > _LATEST_US:
        raise InvalidArgumentError.for_field("at", "must be before the year 2100")
    by = body.by if caller.kind == "open" else caller.user_id

    async def add(act: Act) -> PlannedStop:
        stop = await add_planned_stop(context.ingestion, machine_id, at_us, body.text, by)
        act.after = to_datetime(stop.at_us).isoformat()
        return stop

    stop = await context.audit.perform(caller, "planned_stop.add", machine_id, add)
    return _stop_out(stop, time.time_ns() // 1000)


@router.delete("/{stop_id}", status_code=204)
async def cancel_stop(context: Context, caller: Caller, machine_id: str, stop_id: str) -> None:
    """Cancels a planned stop of a machine."""
    set_request_context(machine_id=machine_id)

    async def cancel(_: Act) -> None:
        await cancel_planned_stop(context.ingestion, machine_id, stop_id)

    await context.audit.perform(caller, "planned_stop.cancel", machine_id, cancel, stop_id)


def _stop_out(stop: PlannedStop, now_us: int) -> PlannedStopOut:
    return PlannedStopOut(
        id=stop.id,
        at=to_datetime(stop.at_us),
        in_hours=round(max(0, stop.at_us - now_us) / 3.6e9, 3),
        text=stop.text,
        by=stop.by,
    )
