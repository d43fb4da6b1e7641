"""Maintenance advice, and records of maintenance."""

import hashlib
import json
import time
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends, Query

from aurum.api.context import Caller, Context, require_feature
from aurum.api.schemas import MaintenanceIn, MaintenanceOut, MaintenanceRecords
from aurum.api.serializers import parse_query_time, to_datetime, to_optional_datetime
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

_EVENT_KIND = "maintenance"
_ID_LENGTH = 20

_RECOMMENDATIONS = {
    "now": "maintain it now: it is expected to cost {savings} less than a failure",
    "planned_stop": "wait for the planned stop: it is expected to cost {savings} less than a failure",
    "at_failure": "let it run: a failure is not expected to cost more than maintenance before it",
}


@router.get("/api/machines/{machine_id}/advice", dependencies=[Depends(require_feature("predictive"))])
async def advice(
    context: Context,
    machine_id: str,
    planned_stop: Annotated[
        float | None,
        Query(
            gt=0,
            description="Time until the next planned stop, in the unit of the RUL; by default from the cost table.",
        ),
    ] = None,
) -> AdviceOut:
    """Returns the expected costs of maintenance now, at the next planned stop and after the failure.

    The costs are in money, energy, emissions and water. A negative cost means that the value of the life that is still
    used exceeds the expected cost of a failure.
    """
    set_request_context(machine_id=machine_id)
    prediction = await context.prediction.predict(
        prediction_pb2.PredictRequest(machine_id=machine_id, written_us=context.recent_writes.last(machine_id))
    )
    costs = context.cost_table.costs_for(prediction.machine_type)
    if not prediction.HasField("rul") or not prediction.rul.quantiles:
        raise FailedPreconditionError(
            f"there is no advice for {machine_id}, because no model predicts its RUL: "
            f"{prediction.degraded_reason or 'its model was not trained on lives'}",
            reason="NO_RUL",
        )
    if costs is None:
        raise FailedPreconditionError(
            f"the cost table has no entry for machine type {prediction.machine_type!r}; add one, or '*' for all others",
            reason="NO_COSTS",
        )
    quantiles = np.array(prediction.rul.quantiles)
    levels = np.arange(1, len(quantiles) + 1) / (len(quantiles) + 1)
    options = maintenance_options(
        RulDistribution(levels, quantiles, prediction.rul.cap), costs, planned_stop or costs.planned_stop
    )
    best = cheapest_option(options)
    saves = options[-1].expected["money"] - best.expected["money"]
    return AdviceOut(
        machine_id=machine_id,
        machine_type=prediction.machine_type,
        model_version=prediction.model_version,
        as_of=to_optional_datetime(prediction.as_of_us),
        unit=prediction.rul.unit,
        rul_estimate=prediction.rul.estimate,
        rul_lower=prediction.rul.lower,
        rul_upper=prediction.rul.upper,
        currency=context.cost_table.currency,
        options=[_option_out(option) for option in options],
        best=best.when,
        saves=saves,
        advice=_RECOMMENDATIONS[best.when].format(savings=f"{saves:,.0f} {context.cost_table.currency}"),
        trace_id=current_trace_id(),
    )


@router.post("/api/machines/{machine_id}/maintenance", status_code=201)
async def record_maintenance(context: Context, caller: Caller, machine_id: str, body: MaintenanceIn) -> MaintenanceOut:
    """Records that a machine was maintained. A repeated request does not add a second record."""
    set_request_context(machine_id=machine_id)
    await context.ingestion.get_machine(machine_id)
    now_us = int(time.time() * 1e6)
    at_us = parse_query_time("at", body.at) if body.at else now_us
    if at_us <= 0:
        raise InvalidArgumentError.for_field("at", "must be after 1970-01-01")
    if at_us > now_us + MAX_AHEAD_US:
        raise InvalidArgumentError.for_field("at", "must not be in the future")
    content = {"text": body.text, "by": body.by if caller.kind == "open" else caller.user_id}
    # A digest of the content, so that a repeated request makes no second record, but another record at this time does
    id_ = hashlib.sha256("\0".join(content.values()).encode()).hexdigest()[:_ID_LENGTH]
    event = ingestion_pb2.Event(
        kind=_EVENT_KIND, machine_id=machine_id, at_us=at_us, id=id_, content=json.dumps(content).encode()
    )

    async def record(act: Act) -> None:
        await context.ingestion.record_events([event])
        act.after = body.text

    await context.audit.perform(caller, "maintenance.record", machine_id, record)
    return MaintenanceOut(id=id_, at=to_datetime(at_us), **content)


@router.get("/api/machines/{machine_id}/maintenance")
async def list_maintenance(
    context: Context,
    machine_id: str,
    start: Annotated[str | None, Query(description="Start, inclusive; ISO 8601 or a number since 1970.")] = None,
    end: Annotated[str | None, Query(description="End, exclusive; ISO 8601 or a number since 1970.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> MaintenanceRecords:
    """Returns the maintenance records of a machine, the newest first."""
    set_request_context(machine_id=machine_id)
    events = await context.ingestion.list_events(
        _EVENT_KIND, machine_id, parse_query_time("start", start), parse_query_time("end", end), limit
    )
    decoded = (_decode_record(event) for event in events)
    return MaintenanceRecords(machine_id=machine_id, items=[record for record in decoded if record is not None])


def _decode_record(event: ingestion_pb2.Event) -> MaintenanceOut | None:
    """Decodes a maintenance record. Returns None and reports the damage if it cannot be read."""
    try:
        content = json.loads(event.content)
        return MaintenanceOut(id=event.id, at=to_datetime(event.at_us), text=content["text"], by=content["by"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        name = f"maintenance record {event.id} of machine {event.machine_id} at {event.at_us}"
        damage.report("event", name, f"{type(error).__name__}: {error}", "it is left out of the list")
        return None


def _option_out(option: MaintenanceOption) -> AdviceOption:
    return AdviceOption(
        when=option.when,
        after=option.after,
        failure_probability=option.failure_probability,
        life_used=option.life_used,
        **option.expected,
    )
