"""Maintenance advice."""

import time
from datetime import datetime
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends, Query

from aurum.api.context import ApiContext, Context, require_feature
from aurum.api.planned_stops import planned_stops
from aurum.api.serializers import to_datetime, to_optional_datetime
from aurum.api.sustainability_schemas import AdviceOption, AdviceOut
from aurum.maintenance.advice import (
    MaintenanceOption,
    RulDistribution,
    cheapest_option,
    maintenance_options,
    next_best_option,
)
from aurum.maintenance.costs import TypeCosts
from aurum.maintenance.planned_stops import hours_per_unit, life_until, next_dates
from aurum.runtime.errors import FailedPreconditionError
from aurum.runtime.telemetry.logging import set_request_context
from aurum.runtime.telemetry.tracing import current_trace_id
from aurum.v1 import prediction_pb2

router = APIRouter(tags=["machines"])

_RECOMMENDATIONS = {
    "now": "maintain it now: it is expected to cost {savings} less than {next}",
    "later": "no maintenance yet: it is cheapest in about {after:.0f} {unit}; ask again before then",
    "planned_stop": "wait for the planned stop {when}: it is expected to cost {savings} less than {next}",
    "at_failure": "let it run: a failure is not expected to cost more than maintenance before it",
}
_ALTERNATIVES = {
    "now": "maintenance now",
    "later": "waiting",
    "planned_stop": "waiting for a planned stop",
    "at_failure": "waiting for the failure",
}


@router.get("/api/machines/{machine_id}/advice", dependencies=[Depends(require_feature("predictive"))])
async def advice(
    context: Context,
    machine_id: str,
    planned_stop: Annotated[
        float | None,
        Query(
            gt=0,
            description="Time until the next planned stop, in the unit of the RUL; by default the dates that are set.",
        ),
    ] = None,
) -> AdviceOut:
    """Returns the expected costs of maintenance now, at each planned stop and after the failure.

    The costs are in money, energy, emissions and water. A negative cost means that the value of the life that is still
    used exceeds the expected cost of a failure. The best option is compared with the next best one. There is no advice
    if the model has no skill.
    """
    set_request_context(machine_id=machine_id)
    prediction = await context.prediction.predict(
        prediction_pb2.PredictRequest(machine_id=machine_id, written_us=context.recent_writes.last(machine_id))
    )
    costs = context.cost_table.costs_for(prediction.machine_type)
    _require_advisable(prediction)
    if costs is None:
        raise FailedPreconditionError(
            f"the cost table has no entry for machine type {prediction.machine_type!r}; add one, or '*' for all others",
            reason="NO_COSTS",
        )
    unit = prediction.rul.unit
    stops, notes = await _stops(context, prediction, costs, planned_stop)
    options = maintenance_options(_distribution(prediction.rul, costs), costs, sorted(stops))
    best, other = cheapest_option(options), next_best_option(options)
    saves = other.expected["money"] - best.expected["money"]
    when = stops.get(best.after) if best.after is not None else None
    return AdviceOut(
        machine_id=machine_id,
        machine_type=prediction.machine_type,
        model_version=prediction.model_version,
        as_of=to_optional_datetime(prediction.as_of_us),
        unit=unit,
        rul_estimate=prediction.rul.estimate,
        rul_lower=prediction.rul.lower,
        rul_upper=prediction.rul.upper,
        currency=context.cost_table.currency,
        options=[
            _option_out(option, stops.get(option.after) if option.after is not None else None) for option in options
        ],
        best=best.when,
        next_best=other.when,
        saves=saves,
        saves_on_failure=options[-1].expected["money"] - best.expected["money"],
        notes=notes,
        advice=_RECOMMENDATIONS[best.when].format(
            savings=f"{saves:,.0f} {context.cost_table.currency}",
            next=_ALTERNATIVES[other.when],
            after=best.after or 0.0,
            unit=unit,
            when=f"on {when:%Y-%m-%d %H:%M} UTC" if when else f"in {best.after or 0.0:.0f} {unit}",
        )
        + _mode_remark(prediction),
        likely_mode=_likely_mode(prediction),
        trace_id=current_trace_id(),
    )


def _distribution(rul: prediction_pb2.Rul, costs: TypeCosts) -> RulDistribution:
    quantiles = np.array([*(each.value for each in rul.lower_tail), *rul.quantiles])
    levels = np.arange(1, len(rul.quantiles) + 1) / (len(rul.quantiles) + 1)
    tail_levels = np.array([each.level for each in rul.lower_tail])
    return RulDistribution(np.concatenate([tail_levels, levels]), quantiles, rul.cap, costs.life)


def _likely_mode(prediction: prediction_pb2.PredictResponse) -> str | None:
    return prediction.causes[0].mode if prediction.causes else None


async def _stops(
    context: ApiContext, prediction: prediction_pb2.PredictResponse, costs: TypeCosts, planned_stop: float | None
) -> tuple[dict[float, datetime | None], list[str]]:
    """Returns the life until each planned stop with its date, and notes on stops that cannot be compared."""
    if planned_stop is not None:
        return {planned_stop: None}, []
    now_us = time.time_ns() // 1000
    set_stops = await planned_stops(context.ingestion, prediction.machine_id, now_us)
    dates = next_dates(set_stops, costs.planned_stops, now_us)
    hours = hours_per_unit(prediction.rul.unit, costs)
    if dates and hours is not None:
        return {life_until(at_us, now_us, hours): to_datetime(at_us) for at_us in dates}, []
    constant: dict[float, datetime | None] = {} if costs.planned_stop is None else {costs.planned_stop: None}
    if not dates:
        return constant, []
    return constant, [
        f"{len(dates)} planned stops are not compared: the RUL is in {prediction.rul.unit}, and the cost table has no "
        f"hours_per_unit for {prediction.machine_type!r}"
    ]


def _require_advisable(prediction: prediction_pb2.PredictResponse) -> None:
    """Raises FailedPreconditionError if no model predicts the RUL, or if the model has no skill."""
    named = f"there is no advice for {prediction.machine_id}"
    if lacking := prediction.rul_unknown_reason or prediction.without_skill:
        parameters = dict(prediction.rul_unknown.parameters)
        raise FailedPreconditionError(f"{named}: {lacking}", reason="NO_SKILL", metadata=parameters)
    if not prediction.HasField("rul") or not prediction.rul.quantiles:
        raise FailedPreconditionError(
            f"{named}, because no model predicts its RUL: "
            f"{prediction.degraded_reason or 'its model was not trained on lives'}",
            reason="NO_RUL",
        )


def _mode_remark(prediction: prediction_pb2.PredictResponse) -> str:
    """Returns the end of an advice, which names the most likely failure mode; empty if the model knows no modes."""
    mode = _likely_mode(prediction)
    return f"; the most likely failure mode is {mode}" if mode else ""


def _option_out(option: MaintenanceOption, at: datetime | None) -> AdviceOption:
    return AdviceOption(
        when=option.when,
        at=at,
        after=option.after,
        failure_probability=option.failure_probability,
        life_used=option.life_used,
        **option.expected,
    )
