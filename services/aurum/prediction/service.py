"""The prediction service: its models, its gRPC server and its background tasks."""

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncGenerator

from aurum.alarms.followed_rules import FollowedRules
from aurum.alarms.rules import AlarmRulesError
from aurum.alarms.stored_rules import StoredRules
from aurum.prediction.fleet.fleet_scorer import FleetScorer
from aurum.prediction.learning.background_training import BackgroundTraining, default_threads
from aurum.prediction.learning.past_predictions import PastPredictions
from aurum.prediction.serving.batching import BatchLimits
from aurum.prediction.serving.history import PredictionHistory
from aurum.prediction.serving.outcomes import OutcomeScorer
from aurum.prediction.serving.predictor import Predictor
from aurum.prediction.serving.readings_client import ReadingsClient
from aurum.prediction.serving.registry import ModelRegistry
from aurum.prediction.serving.rescoring import Rescorer
from aurum.prediction.serving.scoring import Prediction
from aurum.prediction.serving.servicer import PredictionServicer, response_of
from aurum.prediction.settings import PredictionSettings
from aurum.readings.transport.recorded_events import list_events_after
from aurum.runtime.grpc.client import Dependency
from aurum.runtime.rpc_methods import PREDICTION_SERVICE
from aurum.runtime.service import Service
from aurum.runtime.settings import SettingsError
from aurum.security.rpc_authorizer import rpc_authorizer
from aurum.v1 import ingestion_pb2_grpc, prediction_pb2, prediction_pb2_grpc

logger = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def prediction(service: Service[PredictionSettings]) -> AsyncGenerator[None]:
    """Runs the prediction service. A model that cannot be loaded is reported as damaged, and the others serve."""
    settings = service.settings
    try:
        rules = FollowedRules(settings.alarm_rules, with_store=True)
    except AlarmRulesError as error:
        raise SettingsError(f"AURUM_ALARM_RULES: {error}") from error
    service.spawn(rules.run(), "alarm-rules")
    registry = await asyncio.to_thread(ModelRegistry, settings.models_path, settings.prediction_false_alarms)
    logger.info("models loaded", extra={"machine_types": registry.types})
    ingestion = service.dependency("ingestion", settings.ingestion_target)
    service.spawn(_stored_rules(rules, ingestion).run(), "stored-alarm-rules")
    limits = BatchLimits(
        settings.prediction_batch_most, settings.prediction_batch_waiting, settings.prediction_batch_wait
    )
    predictor = Predictor(ReadingsClient(ingestion), registry, limits)
    history = PredictionHistory(ingestion, settings.prediction_history_interval)
    service.spawn(history.run(), "prediction-history")

    def record_rescored(prediction: Prediction) -> None:
        response = response_of(prediction)
        response.rescored = True
        history.enqueue(response)

    rescorer = Rescorer(
        predictor.predict, record_rescored, settings.prediction_rescore_after, settings.prediction_rescore_rate
    )
    service.spawn(rescorer.run(), "prediction-rescoring")

    def record(prediction: Prediction, response: prediction_pb2.PredictResponse) -> None:
        if history.record_if_due(response):
            rescorer.schedule(prediction)

    def record_scored(prediction: Prediction, response: prediction_pb2.PredictResponse) -> None:
        if history.record_if_due(response) and rescorer.has_capacity:
            rescorer.schedule(prediction)

    fleet = FleetScorer(service, ingestion, predictor, registry, rules, record_scored)
    outcomes = OutcomeScorer(
        ingestion, ReadingsClient(ingestion, once=True), registry, fleet.owns, settings.prediction_outcome_interval
    )
    service.spawn(outcomes.run(), "prediction-outcomes")
    from_window = fleet.predict if settings.prediction_window_lag > 0 else None
    training = BackgroundTraining(settings.models_path, settings.trained_at_start, default_threads())
    servicer = PredictionServicer(
        predictor, registry, record, service.audit, from_window, trainings=lambda: training.trainings
    )
    service.spawn(_watch_models(registry, settings.prediction_model_poll), "model-watch")
    try:
        async with service.rpc_server(
            lambda server: prediction_pb2_grpc.add_PredictionServiceServicer_to_server(servicer, server),
            [PREDICTION_SERVICE],
            settings.prediction_host,
            settings.prediction_port,
            setting="AURUM_PREDICTION_PORT",
            authorizer=rpc_authorizer(settings, settings.prediction_host, "AURUM_PREDICTION_HOST"),
        ):
            fleet.start()
            if settings.trained_at_start:
                service.spawn(training.run(), "first-models")
                past = PastPredictions(
                    ingestion, ReadingsClient(ingestion, once=True), registry, predictor.compute, rules
                )
                service.spawn(past.run(settings.trained_at_start), "past-predictions")
            yield
    finally:
        fleet.close()
        predictor.close()


def _stored_rules(rules: FollowedRules, ingestion: Dependency) -> StoredRules:
    stub = ingestion_pb2_grpc.IngestionServiceStub(ingestion.channel)
    return StoredRules(rules, functools.partial(list_events_after, ingestion, stub))


async def _watch_models(registry: ModelRegistry, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        for model in await asyncio.to_thread(registry.refresh):
            logger.info(
                "new champion loaded; it answers requests from now on",
                extra={"machine_type": model.card.machine_type, "model_version": model.card.version},
            )
