"""Compares the recorded forecasts with what happened, and records a scorecard for each machine type and month."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator

from aurum.maintenance.lives import stops_of
from aurum.maintenance.records import RECORD, RecordError, decode
from aurum.maintenance.scorecard import FORECAST, SCORECARD, encode
from aurum.maintenance.track_record import Forecast, Month, month_of, month_start, track
from aurum.prediction import metrics
from aurum.prediction.serving.readings_client import ReadingsClient
from aurum.prediction.serving.registry import ModelRegistry
from aurum.readings.history import FAULT, Stop
from aurum.resilience import Criticality, criticality_scope
from aurum.runtime.errors import AurumError
from aurum.runtime.grpc.client import Dependency
from aurum.runtime.time_units import DAY_US
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc, prediction_pb2

logger = logging.getLogger(__name__)

_MEMORY_US = 89 * DAY_US  # forecasts are kept for 90 days
_PAGE = 1000
_MOST_EVENTS = 20_000  # of a machine and kind
_PAUSE = 0.05  # seconds between two machines, so that ingestion has time for others


class OutcomeScorer:
    """Compares forecasts with recorded failures and overhauls, and with fault signals.

    Args:
        ingestion: The ingestion service.
        reader: Reads the fault signals.
        registry: The models; only machine types with a champion have forecasts.
        owns: Whether this process scores a machine type. Another one scores the others.
        interval: Seconds between two rounds.
    """

    def __init__(
        self,
        ingestion: Dependency,
        reader: ReadingsClient,
        registry: ModelRegistry,
        owns: Callable[[str], bool],
        interval: float,
    ) -> None:
        self._ingestion = ingestion
        self._stub = ingestion_pb2_grpc.IngestionServiceStub(ingestion.channel)
        self._reader = reader
        self._registry = registry
        self._owns = owns
        self._interval = interval
        self._recorded: dict[tuple[str, str], bytes] = {}  # machine type and month → the scorecard that is stored

    async def run(self) -> None:
        """Scores the forecasts of all machine types in turn. Runs until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            for machine_type in filter(self._owns, self._registry.types):
                try:
                    with criticality_scope(Criticality.BATCH):
                        await self.score_type(machine_type)
                except AurumError as error:
                    metrics.prediction_outcome_errors_total.inc()
                    logger.warning(
                        "predictions for %s could not be compared with what happened; it is tried again in %g s: %s",
                        machine_type,
                        self._interval,
                        error.message,
                    )

    async def score_type(self, machine_type: str) -> dict[str, Month]:
        """Compares the forecasts of the machines of a type. Returns the result by month. Raises AurumError."""
        now_us = int(time.time() * 1e6)
        since_us = now_us - _MEMORY_US
        months: dict[str, Month] = {}
        for machine_id in await self._machines(machine_type):
            for month, found in (await self._track(machine_id, since_us)).items():
                months.setdefault(month, Month()).add(found)
            await asyncio.sleep(_PAUSE)
        model = self._registry.active(machine_type)
        unit = model.card.unit if model else ""
        cards = {
            month: encode(found, unit)
            for month, found in months.items()
            # A month whose first forecasts are forgotten keeps its scorecard
            if month_start(month) >= since_us or month == month_of(now_us)
        }
        changed = {month: card for month, card in cards.items() if self._recorded.get((machine_type, month)) != card}
        events = [
            ingestion_pb2.Event(kind=SCORECARD, at_us=month_start(month), id=machine_type, content=card)
            for month, card in changed.items()
        ]
        if events:
            await self._ingestion.unary(self._stub.RecordEvents, ingestion_pb2.RecordEventsRequest(events=events))
        self._recorded = {key: card for key, card in self._recorded.items() if key[0] != machine_type}
        self._recorded |= {(machine_type, month): card for month, card in cards.items()}
        total = Month()
        for found in months.values():
            total.add(found)
        metrics.track_outcomes(machine_type, total)
        return months

    async def _machines(self, machine_type: str) -> list[str]:
        request = ingestion_pb2.ListMachinesRequest(machine_type=machine_type, page_size=_PAGE, omit_sensors=True)
        names: list[str] = []
        while True:
            answer = await self._ingestion.unary(self._stub.ListMachines, request)
            names += [machine.machine_id for machine in answer.machines]
            if not answer.next_page_token:
                return names
            request.page_token = answer.next_page_token

    async def _track(self, machine_id: str, since_us: int) -> dict[str, Month]:
        forecasts = list(_forecasts(await self._events(FORECAST, machine_id, since_us)))
        if not forecasts:
            return {}
        records = []
        for event in await self._events(RECORD, machine_id, 0):
            try:
                records.append(decode(event.at_us, event.id, event.content))
            except RecordError as error:
                logger.warning("a maintenance record of %s cannot be read and is left out: %s", machine_id, error)
        # A failure that is both recorded and signalled ends a life once, since there are no forecasts in between
        return track(forecasts, stops_of(records) + await self._faults(machine_id, since_us))

    async def _faults(self, machine_id: str, since_us: int) -> list[Stop]:
        """Returns the failures that the fault signal of a machine shows, if it has one."""
        found = await self._reader.reduced(machine_id, [FAULT], since_us)
        column = found.columns.get(FAULT)
        if column is None:
            return []
        times, values = column
        faulty = values > 0
        begins = [index for index in range(len(values)) if faulty[index] and (index == 0 or not faulty[index - 1])]
        stops = []
        for begin in begins:
            later = [index for index in range(begin, len(values)) if not faulty[index]]
            end = int(times[later[0]]) if later else None
            stops.append(Stop(int(times[begin]), end, failed=True))
        return stops

    async def _events(self, kind: str, machine_id: str, since_us: int) -> list[ingestion_pb2.Event]:
        request = ingestion_pb2.ListEventsRequest(kind=kind, machine_id=machine_id, start_us=since_us, limit=_PAGE)
        events: list[ingestion_pb2.Event] = []
        while len(events) < _MOST_EVENTS:
            answer = await self._ingestion.unary(self._stub.ListEvents, request)
            events += answer.events
            if not answer.next_page_token:
                break
            request.page_token = answer.next_page_token
        return events


def _forecasts(events: list[ingestion_pb2.Event]) -> Iterator[Forecast]:
    for event in events:
        try:
            response = prediction_pb2.PredictResponse.FromString(event.content)
        except ValueError as error:
            logger.warning("forecast %s of %s cannot be read and is left out: %s", event.id, event.machine_id, error)
            continue
        yield Forecast(event.at_us, response.life, response.horizon, response.risk_score)
