"""The models: versions, which of them serve, evaluation metrics and drift."""

import json

from fastapi import APIRouter, Depends

from aurum.api.context import Context, require_feature
from aurum.api.schemas import FeatureDriftOut, ModelOut, ModelsOut, ModelTrainingOut
from aurum.v1 import prediction_pb2

router = APIRouter(tags=["predictions"], dependencies=[Depends(require_feature("predictive"))])


@router.get("/api/models")
async def list_models(context: Context) -> ModelsOut:
    """Returns all models by machine type and version, and how far the training of first models is.

    Drift is that of the champion at the replica that answered.
    """
    answer = await context.prediction.list_models()
    return ModelsOut(
        items=[_model_out(model) for model in answer.models],
        training=[
            ModelTrainingOut(machine_type=each.machine_type, state=each.state, problem=each.problem or None)
            for each in answer.trainings
        ],
    )


def _model_out(model: prediction_pb2.Model) -> ModelOut:
    card = json.loads(model.card_json)
    evaluation = card["evaluation"]
    deciding = card.get("later_lives") or evaluation
    return ModelOut(
        machine_type=model.machine_type,
        version=model.version,
        kind=card["kind"],
        champion=model.active,
        shadow=model.shadow,
        previous=model.previous,
        created=card["created"],
        unit=card["unit"],
        horizon=card["horizon"],
        rul_cap=card["rul_cap"],
        metrics=evaluation["metrics"] if evaluation else None,
        skill=deciding["skill"] if deciding else None,
        without_skill=model.without_skill or None,
        forced=model.forced,
        drift=[
            FeatureDriftOut(
                feature=drift.feature,
                stability_index=drift.stability_index if drift.HasField("stability_index") else None,
                out_of_range=drift.out_of_range,
                changes=drift.changes,
            )
            for drift in model.drift
        ],
    )
