"""Predictions, their explanations and their features."""

import math
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from aurum.api.context import ApiContext, Caller, Context, require_feature
from aurum.api.schemas import ExplanationOut, FactorOut, FeaturesOut, PastPredictionsOut, PredictIn, PredictionOut
from aurum.api.scope import require_machine
from aurum.api.serializers import (
    finite_or_none,
    parse_query_time,
    past_prediction_out,
    prediction_out,
    to_optional_datetime,
)
from aurum.runtime.errors import FAILURES, InvalidArgumentError
from aurum.runtime.telemetry.logging import set_request_context
from aurum.v1 import prediction_pb2

router = APIRouter(tags=["predictions"], dependencies=[Depends(require_feature("predictive"))])


@router.post("/api/predict")
async def predict(context: Context, caller: Caller, body: PredictIn) -> PredictionOut:
    """Predicts risk, remaining useful life and anomaly score of a machine by its readings, or of given features."""
    if body.machine_id is not None:
        if body.features is not None:
            raise InvalidArgumentError.for_field("features", "must not be given together with machine_id")
        await require_machine(context, caller, body.machine_id)
        return await _predict_machine(context, body.machine_id)
    if body.machine_type is None or not body.features:
        raise InvalidArgumentError.for_field("machine_id", "or machine_type and features must be given")
    features = {name: math.nan if value is None else value for name, value in body.features.items()}
    request = prediction_pb2.PredictRequest(machine_type=body.machine_type, features=features)
    return prediction_out(await context.prediction.predict(request))


@router.post("/api/machines/{machine_id}/predict")
async def predict_machine(context: Context, machine_id: str) -> PredictionOut:
    """Predicts risk, remaining useful life and anomaly score of a machine by its latest readings."""
    return await _predict_machine(context, machine_id)


@router.get("/api/machines/{machine_id}/predictions")
async def past_predictions(
    context: Context,
    machine_id: str,
    start: Annotated[str | None, Query(description="Start, inclusive; ISO 8601 or a number since 1970.")] = None,
    end: Annotated[str | None, Query(description="End, exclusive; ISO 8601 or a number since 1970.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> PastPredictionsOut:
    """Returns the recorded predictions of a machine, about one per minute in which it had new readings."""
    set_request_context(machine_id=machine_id)
    predictions = await context.ingestion.list_predictions(
        machine_id, parse_query_time("start", start), parse_query_time("end", end), limit
    )
    return PastPredictionsOut(
        machine_id=machine_id, items=[past_prediction_out(prediction) for prediction in predictions]
    )


@router.get("/api/machines/{machine_id}/explanation", dependencies=[Depends(require_feature("analytics"))])
async def explain_machine(
    context: Context, machine_id: str, top: Annotated[int, Query(ge=1, le=50)] = 5
) -> ExplanationOut:
    """Returns the features that contributed most to the prediction, with their signed contributions."""
    response = await _explain(context, machine_id, top)
    return ExplanationOut(
        prediction=prediction_out(response.prediction),
        factors=[
            FactorOut(
                feature=factor.feature,
                sensor=factor.sensor,
                value=finite_or_none(factor.value),
                contribution=factor.contribution,
            )
            for factor in response.factors
        ],
        step=response.step or None,
        step_unit=response.step_unit or None,
    )


@router.get("/api/machines/{machine_id}/features", dependencies=[Depends(require_feature("analytics"))])
async def machine_features(context: Context, machine_id: str) -> FeaturesOut:
    """Returns the present features of a machine; null where the readings do not suffice."""
    response = await _explain(context, machine_id, 1)
    prediction = response.prediction
    return FeaturesOut(
        machine_id=machine_id,
        machine_type=prediction.machine_type,
        model_version=prediction.model_version or None,
        as_of=to_optional_datetime(prediction.as_of_us),
        features={name: finite_or_none(value) for name, value in sorted(response.features.items())},
    )


async def _predict_machine(context: ApiContext, machine_id: str) -> PredictionOut:
    set_request_context(machine_id=machine_id)
    try:
        response = await context.prediction.predict(
            prediction_pb2.PredictRequest(machine_id=machine_id, written_us=context.recent_writes.last(machine_id))
        )
    except FAILURES as error:
        degraded = await context.prediction_fallback.substitute(machine_id, context.prediction.fallback_spec, error)
        return prediction_out(degraded.prediction, degraded.age)
    context.machine_cache.store_prediction(machine_id, response)
    return prediction_out(response)


async def _explain(context: ApiContext, machine_id: str, top: int) -> prediction_pb2.ExplainResponse:
    set_request_context(machine_id=machine_id)
    return await context.prediction.explain(
        prediction_pb2.ExplainRequest(request=prediction_pb2.PredictRequest(machine_id=machine_id), top=top)
    )
