"""Predictions, their explanations and their features."""

import math
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from aurum.api.context import ApiContext, Caller, Context, require_feature
from aurum.api.schemas import ExplanationOut, FactorOut, FeaturesOut, PastPredictionsOut, PredictIn, PredictionOut
from aurum.api.scope import require_machine
from aurum.api.serializers import finite, optional_moment, past_prediction_out, prediction_out, query_time
from aurum.runtime.errors import FAILURES, InvalidArgumentError
from aurum.runtime.telemetry.logging import set_request_context
from aurum.v1 import prediction_pb2

router = APIRouter(tags=["predictions"], dependencies=[Depends(require_feature("predictive"))])


@router.post("/api/predict")
async def predict(context: Context, caller: Caller, body: PredictIn) -> PredictionOut:
    """Risk, remaining useful life and anomaly: of a machine by its latest readings, or of features that are given."""
    if body.machine_id is not None:
        if body.features is not None:
            raise InvalidArgumentError.of("features", "must not be given together with machine_id")
        await require_machine(context, caller, body.machine_id)
        return await _predict_machine(context, body.machine_id)
    if body.machine_type is None or not body.features:
        raise InvalidArgumentError.of("machine_id", "or machine_type and features must be given")
    features = {name: math.nan if value is None else value for name, value in body.features.items()}
    request = prediction_pb2.PredictRequest(machine_type=body.machine_type, features=features)
    return prediction_out(await context.prediction.predict(request))


@router.post("/api/machines/{machine_id}/predict")
async def predict_machine(context: Context, machine_id: str) -> PredictionOut:
    """The same for one machine."""
    return await _predict_machine(context, machine_id)


@router.get("/api/machines/{machine_id}/predictions")
async def past_predictions(
    context: Context,
    machine_id: str,
    start: Annotated[str | None, Query(description="ISO 8601 or a number since 1970; inclusive.")] = None,
    end: Annotated[str | None, Query(description="Likewise; exclusive.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> PastPredictionsOut:
    """What was predicted of a machine, about once a minute while anyone asked."""
    set_request_context(machine_id=machine_id)
    found = await context.ingestion.predictions(machine_id, query_time("start", start), query_time("end", end), limit)
    return PastPredictionsOut(machine_id=machine_id, items=[past_prediction_out(each) for each in found])


@router.get("/api/machines/{machine_id}/explanation", dependencies=[Depends(require_feature("analytics"))])
async def explain_machine(
    context: Context, machine_id: str, top: Annotated[int, Query(ge=1, le=50)] = 5
) -> ExplanationOut:
    """The features that moved the prediction most, with their signed contributions."""
    response = await _explain(context, machine_id, top)
    return ExplanationOut(
        prediction=prediction_out(response.prediction),
        factors=[
            FactorOut(
                feature=factor.feature,
                sensor=factor.sensor,
                value=finite(factor.value),
                contribution=factor.contribution,
            )
            for factor in response.factors
        ],
    )


@router.get("/api/machines/{machine_id}/features", dependencies=[Depends(require_feature("analytics"))])
async def machine_features(context: Context, machine_id: str) -> FeaturesOut:
    """The model's features of a machine now; null where the readings give none."""
    response = await _explain(context, machine_id, 1)
    prediction = response.prediction
    return FeaturesOut(
        machine_id=machine_id,
        machine_type=prediction.machine_type,
        model_version=prediction.model_version or None,
        as_of=optional_moment(prediction.as_of_us),
        features={name: finite(value) for name, value in sorted(response.features.items())},
    )


async def _predict_machine(context: ApiContext, machine_id: str) -> PredictionOut:
    set_request_context(machine_id=machine_id)
    try:
        response = await context.prediction.predict(prediction_pb2.PredictRequest(machine_id=machine_id))
    except FAILURES as error:
        degraded = await context.fallback.answer(machine_id, context.prediction.fallback, error)
        return prediction_out(degraded.prediction, degraded.age)
    context.plant.note_prediction(machine_id, response)
    return prediction_out(response)


async def _explain(context: ApiContext, machine_id: str, top: int) -> prediction_pb2.ExplainResponse:
    set_request_context(machine_id=machine_id)
    return await context.prediction.explain(
        prediction_pb2.ExplainRequest(request=prediction_pb2.PredictRequest(machine_id=machine_id), top=top)
    )
