"""Implements the gRPC PredictionService with a predictor and a model registry."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np

from aurum.prediction import metrics
from aurum.prediction.model.calibration import TAIL_LEVELS
from aurum.prediction.model.skill import UnknownReason, refusal
from aurum.prediction.serving.first_models import ModelTraining
from aurum.prediction.serving.predictor import Predictor
from aurum.prediction.serving.registry import ModelEntry, ModelRegistry
from aurum.prediction.serving.scoring import Explanation, Prediction
from aurum.readings.batch import machine_id_problem
from aurum.runtime.audit import Act, AuditLog
from aurum.runtime.errors import AurumError, InvalidArgumentError
from aurum.runtime.telemetry.logging import set_request_context
from aurum.runtime.telemetry.tracing import set_span_attributes
from aurum.security.rpc_authorizer import current_caller, require_machines
from aurum.v1 import prediction_pb2, prediction_pb2_grpc

_FACTORS, _MAX_FACTORS = 5, 200
_MAX_BATCH = 1000
_MAX_ROWS = 4096


class PredictionServicer(prediction_pb2_grpc.PredictionServiceServicer):
    """Implements the RPCs of the PredictionService."""

    def __init__(
        self,
        predictor: Predictor,
        registry: ModelRegistry,
        on_prediction: Callable[[Prediction, prediction_pb2.PredictResponse], None],
        audit: AuditLog,
        from_window: Callable[[str, int], Awaitable[Prediction | None]] | None = None,
        *,
        trainings: Callable[[], Sequence[ModelTraining]] = tuple,
    ) -> None:
        """Connects the RPCs to their parts.

        Args:
            predictor: Makes the predictions.
            registry: The models.
            on_prediction: Called with each prediction and its response.
            audit: The audit log for changes of models.
            from_window: Predicts a machine from readings that are in memory; returns None if they are not, or not the
                latest. None: they never are.
            trainings: Returns how far the training of the first models is.
        """
        self._trainings = trainings
        self._from_window = from_window
        self._audit = audit
        self._on_prediction = on_prediction
        self._predictor = predictor
        self._registry = registry

    async def Predict(  # noqa: N802
        self, request: prediction_pb2.PredictRequest, context: Any
    ) -> prediction_pb2.PredictResponse:
        """Predicts one machine, or one row of features."""
        _check_request(request, "")
        if request.machine_id:
            set_request_context(machine_id=request.machine_id)
            answer = await self._predict_machine(request.machine_id, request.written_us)
        else:
            answer = await self._predictor.predict_features(request.machine_type, request.features)
        set_span_attributes({"aurum.machine_type": answer.machine_type, "aurum.degraded": bool(answer.degraded_reason)})
        response = response_of(answer)
        self._on_prediction(answer, response)
        return response

    async def _predict_machine(self, machine_id: str, written_us: int) -> Prediction:
        """Predicts a machine from the readings in memory if they are the latest, else from a query."""
        known = await self._from_window(machine_id, written_us) if self._from_window is not None else None
        metrics.track_source("query" if known is None else "window")
        if known is not None:
            return known
        answer = (await self._predictor.predict([machine_id]))[0]
        if isinstance(answer, AurumError):
            raise answer
        return answer

    async def PredictBatch(  # noqa: N802
        self, request_iterator: AsyncIterator[prediction_pb2.PredictBatchRequest], context: Any
    ) -> AsyncGenerator[prediction_pb2.PredictBatchResponse]:
        """Predicts the machines or rows of each request of the stream, in one response per request."""
        async for request in request_iterator:
            require_machines([])  # checks that the caller is still allowed
            if request.HasField("rows"):
                if request.requests:
                    raise InvalidArgumentError.for_field("rows", "must not be given together with requests")
                yield prediction_pb2.PredictBatchResponse(rows=await self._rows(request.rows))
                continue
            if not 1 <= len(request.requests) <= _MAX_BATCH:
                raise InvalidArgumentError.for_field("requests", f"must be 1 to {_MAX_BATCH}")
            for index, each in enumerate(request.requests):
                _check_request(each, f"requests[{index}].")
            machine_ids = list(dict.fromkeys(each.machine_id for each in request.requests if each.machine_id))
            answers = dict(zip(machine_ids, await self._predictor.predict(machine_ids), strict=True))
            items = []
            for each in request.requests:
                answer: Prediction | AurumError
                if each.machine_id:
                    answer = answers[each.machine_id]
                else:
                    try:
                        answer = await self._predictor.predict_features(each.machine_type, each.features)
                    except AurumError as error:
                        answer = error
                item = _batch_item(answer)
                if isinstance(answer, Prediction):
                    self._on_prediction(answer, item.prediction)
                items.append(item)
            yield prediction_pb2.PredictBatchResponse(items=items)

    async def _rows(self, rows: prediction_pb2.FeatureRows) -> prediction_pb2.PredictedRows:
        width = len(rows.features)
        if not rows.machine_type:
            raise InvalidArgumentError.for_field("rows.machine_type", "must be given")
        if not width or len(rows.values) % (8 * width):
            raise InvalidArgumentError.for_field(
                "rows.values", f"has {len(rows.values)} bytes, which are not rows of {width} features of 8 bytes each"
            )
        values = np.frombuffer(rows.values, dtype="<f8").reshape(-1, width)
        if len(values) > _MAX_ROWS:
            raise InvalidArgumentError.for_field("rows.values", f"has {len(values)} rows; {_MAX_ROWS} are allowed")
        model, result = await self._predictor.predict_rows(rows.machine_type, list(rows.features), values)
        return prediction_pb2.PredictedRows(
            model_version=model.card.version,
            unit=model.card.unit,
            risk_score=[] if result.risk is None else result.risk.tolist(),
            rul=[] if result.rul is None else result.rul.tolist(),
            lower=[] if result.quantiles is None else result.quantiles[:, 0].tolist(),
            upper=[] if result.quantiles is None else result.quantiles[:, -1].tolist(),
            anomaly_score=result.anomaly.tolist(),
            risk_unknown_reason=str(model.withheld.get("risk", "")),
            rul_unknown_reason=str(model.withheld.get("rul", "")),
            without_skill=model.without_skill,
        )

    async def Explain(  # noqa: N802
        self, request: prediction_pb2.ExplainRequest, context: Any
    ) -> prediction_pb2.ExplainResponse:
        """Predicts one machine or row of features and returns the strongest factors."""
        _check_request(request.request, "request.")
        top = request.top or _FACTORS
        if top > _MAX_FACTORS:
            raise InvalidArgumentError.for_field("top", f"must be at most {_MAX_FACTORS}")
        explanation: Explanation
        if request.request.machine_id:
            set_request_context(machine_id=request.request.machine_id)
            explanation = await self._predictor.explain(request.request.machine_id, top)
        else:
            explanation = await self._predictor.explain_features(
                request.request.machine_type, request.request.features, top
            )
        return prediction_pb2.ExplainResponse(
            prediction=response_of(explanation.prediction),
            factors=[
                prediction_pb2.Factor(
                    feature=factor.feature,
                    sensor=factor.sensor,
                    value=factor.value,
                    contribution=factor.contribution,
                )
                for factor in explanation.factors
            ],
            features=explanation.features,
            step=explanation.step,
            step_unit=explanation.step_unit,
        )

    async def GetModel(  # noqa: N802
        self, request: prediction_pb2.GetModelRequest, context: Any
    ) -> prediction_pb2.GetModelResponse:
        """Returns the card, state and drift of a model."""
        entry = await asyncio.to_thread(self._registry.get, request.machine_type, request.version)
        return prediction_pb2.GetModelResponse(model=await self._model(entry))

    async def ListModels(  # noqa: N802
        self, request: prediction_pb2.ListModelsRequest, context: Any
    ) -> prediction_pb2.ListModelsResponse:
        """Returns all models in the folder of models, and how far the training of the first models is."""
        entries = await asyncio.to_thread(self._registry.list)
        return prediction_pb2.ListModelsResponse(
            models=[await self._model(entry) for entry in entries],
            trainings=[
                prediction_pb2.ModelTraining(machine_type=each.machine_type, state=each.state, problem=each.problem)
                for each in self._trainings()
            ],
        )

    async def ActivateModel(  # noqa: N802
        self, request: prediction_pb2.ActivateModelRequest, context: Any
    ) -> prediction_pb2.ActivateModelResponse:
        """Makes a version the champion or the shadow model, and writes an audit event."""
        if not request.version and not request.shadow:
            raise InvalidArgumentError.for_field("version", "must name the version to activate")
        change = self._registry.set_shadow if request.shadow else partial(self._registry.activate, force=request.force)
        kind = "model.shadow" if request.shadow else "model.activate"

        async def activate(act: Act) -> ModelEntry:
            entry = await asyncio.to_thread(change, request.machine_type, request.version)
            act.after = entry.card.version
            return entry

        before = self._champion(request.machine_type)
        entry = await self._audit.perform(current_caller(), kind, request.machine_type, activate, before)
        return prediction_pb2.ActivateModelResponse(model=await self._model(entry))

    async def RollbackModel(  # noqa: N802
        self, request: prediction_pb2.RollbackModelRequest, context: Any
    ) -> prediction_pb2.RollbackModelResponse:
        """Makes the previous champion the champion again, and writes an audit event."""

        async def roll_back(act: Act) -> ModelEntry:
            entry = await asyncio.to_thread(self._registry.roll_back, request.machine_type)
            act.after = entry.card.version
            return entry

        before = self._champion(request.machine_type)
        entry = await self._audit.perform(current_caller(), "model.rollback", request.machine_type, roll_back, before)
        return prediction_pb2.RollbackModelResponse(model=await self._model(entry))

    def _champion(self, machine_type: str) -> str | None:
        active = self._registry.active(machine_type)
        return active.card.version if active else None

    async def _model(self, entry: ModelEntry) -> prediction_pb2.Model:
        drift = await self._predictor.drift_of(entry.card.machine_type, entry.card.version) if entry.active else []
        return prediction_pb2.Model(
            machine_type=entry.card.machine_type,
            version=entry.card.version,
            active=entry.active,
            trained_us=int(datetime.fromisoformat(entry.card.created).timestamp() * 1e6),
            card_json=entry.card.model_dump_json(),
            shadow=entry.shadow,
            previous=entry.previous,
            without_skill=refusal(entry.card),
            forced=entry.forced,
            drift=[
                prediction_pb2.FeatureDrift(
                    feature=each.feature,
                    stability_index=each.stability_index,
                    out_of_range=each.out_of_range,
                    changes=each.changes,
                )
                for each in drift
            ],
        )


def _check_request(request: prediction_pb2.PredictRequest, prefix: str) -> None:
    """Raises InvalidArgumentError for an invalid request and PermissionDeniedError for a machine of others.

    Args:
        request: The request.
        prefix: Where the request is within the received message, for the names of fields in errors.
    """
    if request.machine_id:
        if problem := machine_id_problem(request.machine_id):
            raise InvalidArgumentError.for_field(f"{prefix}machine_id", problem)
        require_machines([request.machine_id])
        if request.features:
            raise InvalidArgumentError.for_field(f"{prefix}features", "must not be given together with machine_id")
    elif not request.machine_type or not request.features:
        raise InvalidArgumentError.for_field(f"{prefix}machine_id", "or machine_type and features must be given")


def _batch_item(answer: Prediction | AurumError) -> prediction_pb2.PredictBatchItem:
    if isinstance(answer, AurumError):
        return prediction_pb2.PredictBatchItem(error=answer.message)
    return prediction_pb2.PredictBatchItem(prediction=response_of(answer))


def response_of(prediction: Prediction) -> prediction_pb2.PredictResponse:
    """Returns a prediction as a message."""
    response = prediction_pb2.PredictResponse(
        machine_id=prediction.machine_id,
        machine_type=prediction.machine_type,
        model_version=prediction.model_version,
        risk_score=0.0 if prediction.risk_score is None else prediction.risk_score,
        anomaly_score=prediction.anomaly_score,
        degraded=bool(prediction.degraded_reason),
        degraded_reason=prediction.degraded_reason,
        as_of_us=prediction.as_of_us,
        inputs_sha256=prediction.inputs_sha256,
        horizon=prediction.horizon,
        life=prediction.life,
        causes=[prediction_pb2.CauseRisk(mode=mode, risk=risk) for mode, risk in prediction.causes],
        rule=prediction.rule,
        risk_unknown_reason=str(prediction.risk_unknown or ""),
        rul_unknown_reason=str(prediction.rul_unknown or ""),
        risk_unknown=_unknown_reason(prediction.risk_unknown),
        rul_unknown=_unknown_reason(prediction.rul_unknown),
        without_skill=prediction.without_skill,
        anomaly_threshold=prediction.anomaly_threshold,
    )
    if prediction.rul:
        estimate, lower, upper = prediction.rul
        response.rul.CopyFrom(
            prediction_pb2.Rul(
                estimate=estimate,
                lower=lower,
                upper=upper,
                unit=prediction.unit,
                quantiles=prediction.quantiles,
                cap=prediction.cap,
                lower_tail=[
                    prediction_pb2.Quantile(level=level, value=value)
                    for level, value in zip(TAIL_LEVELS.tolist(), prediction.tail, strict=False)
                ],
            )
        )
    return response


def _unknown_reason(reason: UnknownReason | None) -> prediction_pb2.UnknownReason | None:
    if reason is None:
        return None
    return prediction_pb2.UnknownReason(code=reason.code, parameters=reason.parameters)
