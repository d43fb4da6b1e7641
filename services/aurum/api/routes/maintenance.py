"""Maintenance advice, and records of maintenance."""

import hashlib
import json
import time
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends, Query

from aurum.api.context import Caller, Context, require_feature
from aurum.api.schemas import MaintenanceIn, MaintenanceOut, MaintenanceRecords
from aurum.api.serializers import moment, optional_moment, query_time
from aurum.api.sustainability_schemas import AdviceOption, AdviceOut
from aurum.maintenance.advice import MaintenanceOption, RulDistribution, cheapest_option, maintenance_options
from aurum.readings.batch import MAX_AHEAD_US
from aurum.runtime import damage
from aurum.runtime.audit import Act
from aurum.runtime.errors import FailedPreconditionError, InvalidArgumentError
from aurum.runtime.telemetry.logging import set_request_context
from aurum.runtime.telemetry.tracing import current_trace_id
from aurum.v1 import ingestion_pb2, prediction_pb2

router = APIRouter(tags=["machines"])

_KIND = "maintenance"  # kind of the event
_ID_LENGTH = 20

_WORDS = {"now": "maintain it now", "planned_stop": "wait for the planned stop", "at_failure": "let it run"}


@router.get("/api/machines/{machine_id}/advice", dependencies=[Depends(require_feature("predictive"))])
async def advice(
    context: Context,
    machine_id: str,
    planned_stop: Annotated[
        float | None,
        Query(gt=0, description="Until the next planned stop, in the unit of the RUL; by default the cost table's."),
    ] = None,
) -> AdviceOut:
    """What acting now, at the next planned stop or at the failure is expected to cost, in money, energy, emissions and
    water. An amount below 0 is life that is still used, worth more than the risk that it brings.
    """
    set_request_context(machine_id=machine_id)
    found = await context.prediction.predict(prediction_pb2.PredictRequest(machine_id=machine_id))
    costs = context.cost_table.costs_for(found.machine_type)
    if not found.HasField("rul") or not found.rul.quantiles:
        raise FailedPreconditionError(
            f"there is no advice for {machine_id}, since no model tells its RUL: "
            f"{found.degraded_reason or 'its model was not trained on lives'}",
            reason="NO_RUL",
        )
    if costs is None:
        raise FailedPreconditionError(
            f"the cost table has nothing for machine type {found.machine_type!r}; add it, or '*' for all others",
            reason="NO_COSTS",
        )
    quantiles = np.array(found.rul.quantiles)
    levels = np.arange(1, len(quantiles) + 1) / (len(quantiles) + 1)
    choices = maintenance_options(
        RulDistribution(levels, quantiles, found.rul.cap), costs, planned_stop or costs.planned_stop
    )
    best = cheapest_option(choices)
    saves = choices[-1].expected["money"] - best.expected["money"]
    return AdviceOut(
        machine_id=machine_id,
        machine_type=found.machine_type,
        model_version=found.model_version,
        as_of=optional_moment(found.as_of_us),
        unit=found.rul.unit,
        rul_estimate=found.rul.estimate,
        rul_lower=found.rul.lower,
        rul_upper=found.rul.upper,
        currency=context.cost_table.currency,
        options=[_option(each) for each in choices],
        best=best.when,
        saves=saves,
        advice=f"{_WORDS[best.when]}: it is expected to cost {saves:,.0f} {context.cost_table.currency} less than a failure"
        if best.when != "at_failure"
        else f"{_WORDS[best.when]}: a failure is not expected to cost more than maintenance before it",
        trace_id=current_trace_id(),
    )


@router.post("/api/machines/{machine_id}/maintenance", status_code=201)
async def record_maintenance(context: Context, caller: Caller, machine_id: str, body: MaintenanceIn) -> MaintenanceOut:
    """Writes down that a machine was maintained. The same at the same time is one record."""
    set_request_context(machine_id=machine_id)
    await context.ingestion.get_machine(machine_id)
    now_us = int(time.time() * 1e6)
    at_us = query_time("at", body.at) if body.at else now_us
    if at_us <= 0:
        raise InvalidArgumentError.of("at", "must be after the beginning of 1970")
    if at_us > now_us + MAX_AHEAD_US:
        raise InvalidArgumentError.of("at", "is in the future; a maintenance record describes work that was done")
    content = {"text": body.text, "by": body.by if caller.kind == "open" else caller.user_id}
    # A digest of the content, so that a repeated request makes no second record, but another record at this time does
    id_ = hashlib.sha256("\0".join(content.values()).encode()).hexdigest()[:_ID_LENGTH]
    event = ingestion_pb2.Event(
        kind=_KIND, machine_id=machine_id, at_us=at_us, id=id_, content=json.dumps(content).encode()
    )

    async def record(act: Act) -> None:
        await context.ingestion.record_events([event])
        act.after = body.text

    await context.audit.perform(caller, "maintenance.record", machine_id, record)
    return MaintenanceOut(id=id_, at=moment(at_us), **content)


@router.get("/api/machines/{machine_id}/maintenance")
async def list_maintenance(
    context: Context,
    machine_id: str,
    start: Annotated[str | None, Query(description="ISO 8601 or a number since 1970; inclusive.")] = None,
    end: Annotated[str | None, Query(description="Likewise; exclusive.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> MaintenanceRecords:
    """When a machine was maintained, the newest first."""
    set_request_context(machine_id=machine_id)
    found = await context.ingestion.list_events(
        _KIND, machine_id, query_time("start", start), query_time("end", end), limit
    )
    read = (_record(event) for event in found)
    return MaintenanceRecords(machine_id=machine_id, items=[record for record in read if record is not None])


def _record(event: ingestion_pb2.Event) -> MaintenanceOut | None:
    """Decodes a maintenance record. Returns None and reports the damage if it cannot be read."""
    try:
        content = json.loads(event.content)
        return MaintenanceOut(id=event.id, at=moment(event.at_us), text=content["text"], by=content["by"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        name = f"maintenance record {event.id} of machine {event.machine_id} at {event.at_us}"
        damage.report("event", name, f"{type(error).__name__}: {error}", "it is left out of the list")
        return None


def _option(option: MaintenanceOption) -> AdviceOption:
    return AdviceOption(
        when=option.when,
        after=option.after,
        failure_probability=option.failure_probability,
        life_used=option.life_used,
        **option.expected,
    )
