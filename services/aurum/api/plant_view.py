"""What the API knows of the plant without asking: the state of each machine and its latest prediction.

Kept current in the background, for risk in lists, for the console and for a fallback; bounded by the number of
machines that ingestion keeps.
"""

import asyncio
import collections
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

from aurum.api.backends import IngestionBackend, PredictionBackend
from aurum.resilience import Criticality, criticality_scope
from aurum.runtime.errors import AurumError, DeadlineError, UnavailableError
from aurum.runtime.tracing import traced_operation
from aurum.v1 import ingestion_pb2, prediction_pb2

logger = logging.getLogger(__name__)

_WATCH_INTERVAL_MS = 100
_SCORED_AT_ONCE = 200  # machines in one round; the others have their turn in the next
_MACHINES_PER_CALL = 4  # few, so that scoring never holds up a prediction that somebody waits for
_PROBE_EVERY, _HEARD_WITHIN = 3.0, 9.0  # seconds between two questions; since an answer, for a service to be there
_PROBE_SOON = 0.5  # seconds, while a service is not there
_BACKOFF, _MAX_BACKOFF = 0.5, 5.0  # seconds


@dataclass(slots=True)
class MachineView:
    machine: ingestion_pb2.Machine
    prediction: prediction_pb2.PredictResponse | None = None
    predicted_at: float = 0.0  # time.time()
    scored_us: int = 0  # last_seen_us when it was last tried
    version: int = 0


class PlantView:
    def __init__(self, ingestion: IngestionBackend, prediction: PredictionBackend, refresh_interval: float) -> None:
        self._ingestion = ingestion
        self._prediction = prediction
        self._refresh_interval = refresh_interval
        self._views: collections.OrderedDict[str, MachineView] = collections.OrderedDict()  # changed last at the end
        self._version = 0
        self._heard: dict[str, float] = {}  # service → time.monotonic() of its last answer
        self._begun = time.monotonic()
        self._seen, self._scored = asyncio.Event(), False
        self.problem: str | None = None  # why the machines cannot be followed, though ingestion answers
        self.closed = False

    def close(self) -> None:
        """Lets streams end."""
        self.closed = True

    def prediction_of(self, machine_id: str) -> prediction_pb2.PredictResponse | None:
        view = self._views.get(machine_id)
        return view.prediction if view else None

    def machine(self, machine_id: str) -> ingestion_pb2.Machine | None:
        """A machine as it was last heard of, with the latest reading of each sensor."""
        view = self._views.get(machine_id)
        return view.machine if view else None

    def last_good(self, machine_id: str) -> tuple[prediction_pb2.PredictResponse, float] | None:
        """The latest prediction of a machine and its age in seconds."""
        view = self._views.get(machine_id)
        return (view.prediction, time.time() - view.predicted_at) if view and view.prediction else None

    def note_prediction(self, machine_id: str, prediction: prediction_pb2.PredictResponse) -> None:
        """Takes over a prediction that was asked for."""
        view = self._views.get(machine_id)
        if view:
            view.prediction, view.predicted_at = prediction, time.time()
            view.scored_us = max(view.scored_us, view.machine.last_seen_us)  # no need to ask again in the background
            self._touch(view)

    def machines_of(self, sites: frozenset[str]) -> int:
        """How many there are; of all sites if none is named."""
        if not sites:
            return len(self._views)
        return sum(1 for view in self._views.values() if view.machine.site in sites)

    @property
    def version(self) -> int:
        return self._version

    def changed_since(self, version: int) -> Iterator[MachineView]:
        """What changed after `version`, the latest first."""
        for view in reversed(self._views.values()):
            if view.version <= version:
                return
            yield view

    def first_look(self, within: float, scored: bool) -> str | None:
        """What is not known yet that a fallback needs, for `within` seconds at most: better degraded than not at all.
        Without such a limit, that the machines cannot be followed. scored: whether predictions belong to it."""
        if self.problem:
            return self.problem
        if time.monotonic() > self._begun + within:
            return None
        if not self._seen.is_set():
            return "the machines are not known yet"
        return "the machines have no predictions yet" if scored and not self._scored else None

    def unreachable(self) -> list[str]:
        """The services that were not heard of lately."""
        since = time.monotonic() - _HEARD_WITHIN
        return [name for name in ("ingestion", "prediction") if self._heard.get(name, -1e9) < since]

    async def probe(self) -> None:
        """Finds out which services answer, for as long as it runs."""
        while True:
            for name, backend in (("ingestion", self._ingestion), ("prediction", self._prediction)):
                try:
                    with criticality_scope(Criticality.ALARM):  # it must be heard when there is too much to do
                        await backend.check()
                except AurumError as error:
                    logger.warning("%s does not answer: %s", name, error.message)
                else:
                    self._heard[name] = time.monotonic()
            await asyncio.sleep(_PROBE_SOON if self.unreachable() else _PROBE_EVERY)

    async def follow(self) -> None:
        """Follows the state of all machines, for as long as it runs."""
        backoff = _BACKOFF
        while True:
            try:
                async for response in self._ingestion.watch(_WATCH_INTERVAL_MS):
                    backoff = _BACKOFF
                    self.problem = None
                    for machine in response.machines:
                        self._take(machine)
                    self._seen.set()
            except AurumError as error:
                logger.warning("machines are not followed at the moment: %s", error.message)
                # Without ingestion every replica knows as little, and answers that say so are better than none
                away = isinstance(error, UnavailableError | DeadlineError)
                self.problem = None if away else f"the machines cannot be followed: {error.message}"
            await asyncio.sleep(backoff)
            backoff = min(_MAX_BACKOFF, 2 * backoff)

    async def score(self) -> None:
        """Predicts for the machines that have new readings, those first that wait longest; for as long as it runs."""
        await self._seen.wait()
        while True:
            started = time.monotonic()
            before = time.time() - self._refresh_interval
            due = [
                view
                for view in self._views.values()
                if view.machine.last_seen_us > view.scored_us and view.predicted_at <= before
            ]
            due.sort(key=lambda view: view.scored_us)
            part = due[:_SCORED_AT_ONCE]
            try:
                await self._score(part)
                self._scored = self._scored or len(part) == len(due)
            except AurumError as error:
                logger.warning("machines are not scored at the moment: %s", error.message)
            await asyncio.sleep(max(0.2, self._refresh_interval - (time.monotonic() - started)))

    async def _score(self, views: list[MachineView]) -> None:
        for start in range(0, len(views), _MACHINES_PER_CALL):
            part = views[start : start + _MACHINES_PER_CALL]
            with (
                traced_operation("score machines", {"aurum.machines": len(part)}),
                criticality_scope(Criticality.BATCH),
            ):
                items = await self._prediction.predict_batch([view.machine.machine_id for view in part])
            for view, item in zip(part, items, strict=True):
                view.scored_us = view.machine.last_seen_us
                if item.HasField("prediction"):
                    view.prediction, view.predicted_at = item.prediction, time.time()
                    self._touch(view)

    def _take(self, machine: ingestion_pb2.Machine) -> None:
        view = self._views.get(machine.machine_id)
        if view is None:
            view = self._views[machine.machine_id] = MachineView(machine)
        view.machine = machine
        self._touch(view)

    def _touch(self, view: MachineView) -> None:
        self._version += 1
        view.version = self._version
        self._views.move_to_end(view.machine.machine_id)
