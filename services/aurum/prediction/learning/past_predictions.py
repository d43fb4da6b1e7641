"""Predicts the simulated past of machines, once the first model of their type serves.

Each prediction uses only readings up to its moment, with the features and the model that a request at that moment would
have used. It is marked as rescored, since it was made later. Alarms that the rules would have raised on them are
written too. The marks in the store tell which types are done.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

import numpy as np

from aurum.alarms.followed_rules import FollowedRules
from aurum.alarms.journal import to_event
from aurum.maintenance.scorecard import FORECAST
from aurum.prediction.learning.past_alarms import past_alarms
from aurum.prediction.model.features import TIME, FeatureSpec, features_of, steps_of
from aurum.prediction.model.model import Model
from aurum.prediction.model.regimes import Indices
from aurum.prediction.serving.forecasts import ForecastThinning
from aurum.prediction.serving.history import KIND, event_of
from aurum.prediction.serving.inputs import PredictionInput, missing_sensor
from aurum.prediction.serving.readings_client import MachineReadings, ReadingsClient
from aurum.prediction.serving.registry import ModelRegistry
from aurum.prediction.serving.scoring import Prediction, prediction_of
from aurum.prediction.serving.servicer import response_of
from aurum.readings.batch import Column, Timestamps, Values
from aurum.readings.limits import MAX_EVENTS
from aurum.readings.simulated_past import KIND as PAST
from aurum.readings.simulated_past import SimulatedPast, pasts_of
from aurum.resilience import Criticality, criticality_scope
from aurum.runtime.errors import AurumError
from aurum.runtime.grpc.client import Dependency
from aurum.runtime.time_units import HOUR_US
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc

logger = logging.getLogger(__name__)

DONE = "past_predicted"  # kind of the events that mark a type whose past is predicted
_LOOK_SECONDS = 2.0  # between two looks for new models and pasts
_LEAST_US = HOUR_US * 9 // 10  # between two predictions of a machine
_EVENTS_AT_ONCE = 500


class PastPredictions:
    """Predicts simulated pasts.

    Args:
        ingestion: The ingestion service.
        readings: Reads from it.
        registry: The models.
        compute: Runs a function on the model thread.
        rules: The alarm rules, by which the past gets the alarms on its predictions.
    """

    def __init__(
        self,
        ingestion: Dependency,
        readings: ReadingsClient,
        registry: ModelRegistry,
        compute: Callable[[Callable[[], list[Prediction]]], Awaitable[list[Prediction]]],
        rules: FollowedRules,
    ) -> None:
        self._ingestion = ingestion
        self._stub = ingestion_pb2_grpc.IngestionServiceStub(ingestion.channel)
        self._readings = readings
        self._registry = registry
        self._compute = compute
        self._rules = rules

    async def run(self, machine_types: Sequence[str]) -> None:
        """Predicts the past of machines of these types as their models come, until all are done."""
        waits = False
        while True:
            try:
                with criticality_scope(Criticality.BATCH):
                    if await self._predict_ready(machine_types):
                        return
                waits = False
            except AurumError as error:
                if not waits:
                    logger.info("predicting the past waits for ingestion: %s", error.message)
                waits = True
            await asyncio.sleep(_LOOK_SECONDS)

    async def _predict_ready(self, machine_types: Sequence[str]) -> bool:
        """Predicts what can be predicted now. Returns whether nothing is left to do."""
        pasts = pasts_of(await self._events(PAST))
        if not pasts:
            return False
        done = {event.id for event in await self._events(DONE)}
        left = 0
        for past in pasts:
            for machine_type in machine_types:
                if _done_id(past, machine_type) in done:
                    continue
                model = self._registry.active(machine_type)
                if model is None or not past.complete or not self._rules.loaded:
                    left += 1
                else:
                    await self._predict(past, machine_type, model)
        return not left

    async def _predict(self, past: SimulatedPast, machine_type: str, model: Model) -> None:
        """Predicts the past of the machines of one type at a site."""
        recorded = raised = 0
        for machine_id in await self._machines(past.site, machine_type) if model.predicts_risk else ():
            readings = await self._readings.history(machine_id, model.spec, past.start_us, past.end_us + 1)
            predictions = await self._compute(lambda readings=readings: predict_past(model, machine_type, readings))  # type: ignore[misc]
            alarms = past_alarms(self._rules.current, predictions, past.end_us)
            events = [*_events_of(predictions), *map(to_event, alarms)]
            for start in range(0, len(events), _EVENTS_AT_ONCE):
                await self._record(events[start : start + _EVENTS_AT_ONCE])
            recorded += len(predictions)
            raised += sum(each.kind == "raised" for each in alarms)
        await self._record([ingestion_pb2.Event(kind=DONE, at_us=past.end_us, id=_done_id(past, machine_type))])
        logger.info(
            "the simulated past is predicted",
            extra={"site": past.site, "machine_type": machine_type, "predictions": recorded, "alarms": raised},
        )

    async def _events(self, kind: str) -> Sequence[ingestion_pb2.Event]:
        request = ingestion_pb2.ListEventsRequest(kind=kind, limit=MAX_EVENTS)
        return (await self._ingestion.unary(self._stub.ListEvents, request)).events

    async def _machines(self, site: str, machine_type: str) -> list[str]:
        request = ingestion_pb2.ListMachinesRequest(
            site=site, machine_type=machine_type, page_size=MAX_EVENTS, omit_sensors=True
        )
        found: list[str] = []
        while True:
            answer = await self._ingestion.unary(self._stub.ListMachines, request)
            found += [machine.machine_id for machine in answer.machines]
            if not answer.next_page_token:
                return found
            request.page_token = answer.next_page_token

    async def _record(self, events: Sequence[ingestion_pb2.Event]) -> None:
        await self._ingestion.unary(self._stub.RecordEvents, ingestion_pb2.RecordEventsRequest(events=events))


def predict_past(model: Model, machine_type: str, readings: MachineReadings) -> list[Prediction]:
    """Predicts a machine at the end of each step of its lives, at most about once an hour.

    Args:
        model: The model, which predicts a risk.
        machine_type: The type of the machine.
        readings: The past.

    Returns:
        The predictions, the oldest first; none if the machine lacks sensors that the model needs.
    """
    if missing_sensor(model.spec, readings.columns) is not None:
        return []
    predictions: list[Prediction] = []
    for columns in _lives(readings.columns, model.spec):
        steps = steps_of(columns, model.spec)
        if not len(steps.ages):
            continue
        as_of = _ends_of_steps(columns, model.spec, steps.ages)
        rows = _spaced(as_of)
        if not len(rows):
            continue
        features = features_of(steps, rows)
        result = model.predict(features)
        given = PredictionInput(readings.machine_id, machine_type, model)
        predictions += [
            prediction_of(model, given, result, position, features[position], int(as_of[row]))
            for position, row in enumerate(rows.tolist())
        ]
    return predictions


def _lives(columns: Mapping[str, Column], spec: FeatureSpec) -> Iterator[dict[str, Column]]:
    """Yields the readings up to the end of each life, the first life first."""
    ends: list[int] = []
    if spec.axis != TIME:
        times, life = columns[spec.axis]
        times = times[~np.isnan(life)]
        ends = times[1:][np.diff(life[~np.isnan(life)]) < 0].tolist()
    for end in ends:
        yield {name: (at[at < end], values[at < end]) for name, (at, values) in columns.items()}
    yield dict(columns)


def _ends_of_steps(columns: Mapping[str, Column], spec: FeatureSpec, ages: Values) -> Timestamps:
    """Returns the time of the last reading in each step; 0 for a step without readings."""
    if spec.axis == TIME:
        times = np.unique(np.concatenate([at for at, _ in columns.values()]))
        counted = times / HOUR_US
    else:
        times, counted = columns[spec.axis]
        falls = np.flatnonzero(np.diff(counted) < 0)
        begin = int(falls[-1]) + 1 if len(falls) else 0
        times, counted = times[begin:], counted[begin:]
    step = np.floor(counted / spec.step).astype(np.int64)
    wanted = np.rint(ages / spec.step).astype(np.int64) - 1
    last = np.searchsorted(step, wanted, side="right") - 1
    there = (last >= 0) & (step[np.maximum(last, 0)] == wanted)
    ends: Timestamps = np.where(there, times[np.maximum(last, 0)], 0)
    return ends


def _spaced(as_of: Timestamps) -> Indices:
    """Returns the steps that are at least _LEAST_US apart, without those that have no readings."""
    chosen: list[int] = []
    before = 0
    for row, at_us in enumerate(as_of.tolist()):
        if at_us - before >= _LEAST_US:
            chosen.append(row)
            before = at_us
    return np.array(chosen, np.intp)


def _events_of(predictions: Sequence[Prediction]) -> Iterator[ingestion_pb2.Event]:
    forecasts = ForecastThinning()
    for prediction in predictions:
        response = response_of(prediction)
        response.rescored = True
        yield event_of(response, KIND)
        if forecasts.is_due(response):
            yield event_of(response, FORECAST)


def _done_id(past: SimulatedPast, machine_type: str) -> str:
    return f"{past.name}~{past.end_us}~{machine_type}"
