"""Maintenance advice."""

from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends, Query

from aurum.api.context import Context, require_feature
from aurum.api.serializers import to_optional_datetime
from aurum.api.sustainability_schemas import AdviceOption, AdviceOut
from aurum.maintenance.advice import MaintenanceOption, RulDistribution, cheapest_option, maintenance_options
from aurum.runtime.errors import FailedPreconditionError
from aurum.runtime.telemetry.logging import set_request_context
from aurum.runtime.telemetry.tracing import current_trace_id
from aurum.v1 import prediction_pb2

router = APIRouter(tags=["machines"])

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
        advice=_RECOMMENDATIONS[best.when].format(savings=f"{saves:,.0f} {context.cost_table.currency}")
        + _mode_remark(prediction),
        likely_mode=_likely_mode(prediction),
        trace_id=current_trace_id(),
    )


def _likely_mode(prediction: prediction_pb2.PredictResponse) -> str | None:
    return prediction.causes[0].mode if prediction.causes else None


def _mode_remark(prediction: prediction_pb2.PredictResponse) -> str:
    """Returns the end of an advice, which names the most likely failure mode; empty if the model knows no modes."""
    mode = _likely_mode(prediction)
    return f"; the most likely failure mode is {mode}" if mode else ""


def _option_out(option: MaintenanceOption) -> AdviceOption:
    return AdviceOption(
        when=option.when,
        after=option.after,
        failure_probability=option.failure_probability,
        life_used=option.life_used,
        **option.expected,
    )
