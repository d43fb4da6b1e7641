"""In-memory view of the plant: the state of each machine and its latest prediction.

Background tasks keep it up to date from ingestion's Watch: scorers publish their predictions there. The view serves
lists, the console and the fallback. Its size is bounded by the number of machines that ingestion keeps.
"""

import asyncio
import collections
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

from aurum.api.backends import IngestionBackend, PredictionBackend
from aurum.readings.transport.watch_machines import watched_machines, watched_predictions
from aurum.resilience import Criticality, criticality_scope
from aurum.runtime.errors import AurumError, DeadlineError, UnavailableError
from aurum.v1 import ingestion_pb2, prediction_pb2

logger = logging.getLogger(__name__)

_PROBE_SECONDS, _UNREACHABLE_AFTER = 3.0, 9.0  # between probes; since the last answer
_FAILURE_LOG_SECONDS = 60.0  # between two log lines about a service that does not answer
_UNREACHABLE_PROBE_SECONDS = 0.5  # between probes while a service is unreachable
_BACKOFF, _MAX_BACKOFF = 0.5, 5.0  # seconds
_WAIT_FOR_PREDICTIONS = 2.0  # seconds, after the machines: ingestion sends those that it has at once
_MAX_EARLY = 10_000  # predictions of machines that the stream has not delivered yet


@dataclass(slots=True)
class MachineView:
    """The last known state of a machine, and its latest prediction."""

    machine: ingestion_pb2.Machine
    prediction: prediction_pb2.PredictResponse | None = None
    predicted_at: float = 0.0  # time.time() at which it was published or received
    version: int = 0


class MachineCache:
    """Follows all machines with their predictions, and lists changes since a version.

    Attributes:
        problem: Why machines cannot be followed although ingestion answers; None if they are followed.
        closed: Whether the cache is closed.
    """

    def __init__(
        self, ingestion: IngestionBackend, prediction: PredictionBackend, interval: float, *, predictions: bool = True
    ) -> None:
        """Creates an empty view.

        Args:
            ingestion: The client of ingestion.
            prediction: The client of prediction.
            interval: The minimum seconds between two updates.
            predictions: Whether to follow predictions.
        """
        self._ingestion = ingestion
        self._prediction = prediction
        self._interval_ms = int(interval * 1000)
        self._predictions = predictions
        self._views: collections.OrderedDict[str, MachineView] = collections.OrderedDict()  # latest change last
        # Predictions, with time.time(), of machines that the stream has not delivered yet
        self._early: collections.OrderedDict[str, tuple[prediction_pb2.PredictResponse, float]] = (
            collections.OrderedDict()
        )
        self._version = 0
        self._last_answers: dict[str, float] = {}  # time.monotonic() by service
        self._failures_logged: dict[str, float] = {}  # likewise, of services that do not answer
        self._started = time.monotonic()
        self._received_at: float | None = None  # time.monotonic() of the first response
        self._with_readings = self._predicted = False
        self.problem: str | None = None
        self.closed = False

    def close(self) -> None:
        """Marks the cache as closed, upon which event streams end."""
        self.closed = True

    def get_machine(self, machine_id: str) -> ingestion_pb2.Machine | None:
        """Returns the last known state of a machine with the latest reading of each sensor, or None."""
        view = self._views.get(machine_id)
        return view.machine if view else None

    def prediction_with_age(self, machine_id: str) -> tuple[prediction_pb2.PredictResponse, float] | None:
        """Returns the latest prediction of a machine and its age in seconds, or None."""
        view = self._views.get(machine_id)
        if view and view.prediction:
            return view.prediction, max(0.0, time.time() - view.predicted_at)
        prediction, at = self._early.get(machine_id, (None, 0.0))
        return (prediction, max(0.0, time.time() - at)) if prediction else None

    def store_prediction(
        self, machine_id: str, prediction: prediction_pb2.PredictResponse, at: float | None = None
    ) -> None:
        """Stores a prediction, unless a later one is known.

        Args:
            machine_id: The machine.
            prediction: Its prediction, from a request or from a scorer.
            at: When it was made, as time.time(); by default now.
        """
        at = time.time() if at is None else at
        view = self._views.get(machine_id)
        if view:
            if _is_later(prediction, at, view):
                view.prediction, view.predicted_at = prediction, at
                self._mark_changed(view)
            return
        self._early[machine_id] = prediction, at
        self._early.move_to_end(machine_id)
        while len(self._early) > _MAX_EARLY:
            self._early.popitem(last=False)

    def count_machines(self, sites: frozenset[str]) -> int:
        """Returns the number of machines of some sites, or of all if `sites` is empty."""
        if not sites:
            return len(self._views)
        return sum(1 for view in self._views.values() if view.machine.site in sites)

    @property
    def version(self) -> int:
        """A number that increases with each change of a machine."""
        return self._version

    def changed_since(self, version: int) -> Iterator[MachineView]:
        """Yields the machines that changed after `version`, the latest change first."""
        for view in reversed(self._views.values()):
            if view.version <= version:
                return
            yield view

    def readiness_problem(self, within: float) -> str | None:
        """Returns why the cache is not ready, or None if it is ready.

        It is ready when it has the data that the fallback needs. After `within` seconds it counts as ready without
        them, since degraded answers are better than none, and without predictions if none comes soon after the
        machines, since a plant may have none. The problem that machines cannot be followed is returned regardless of
        the time.

        Args:
            within: Seconds after the start during which missing data is reported.
        """
        if self.problem:
            return self.problem
        now = time.monotonic()
        if now > self._started + within:
            return None
        if self._received_at is None:
            return "the machines are not loaded yet"
        missing = self._predictions and self._with_readings and not self._predicted
        is_new = now < self._received_at + _WAIT_FOR_PREDICTIONS
        return "the machines have no predictions yet" if missing and is_new else None

    def unreachable_services(self) -> list[str]:
        """Returns the names of the services that have not answered for a while."""
        since = time.monotonic() - _UNREACHABLE_AFTER
        return [name for name in ("ingestion", "prediction") if self._last_answers.get(name, -1e9) < since]

    async def probe_services(self) -> None:
        """Checks periodically which services answer. Runs until cancelled."""
        while True:
            for name, backend in (("ingestion", self._ingestion), ("prediction", self._prediction)):
                try:
                    with criticality_scope(Criticality.ALARM):  # an overloaded service must still answer probes
                        await backend.check_health()
                except AurumError as error:
                    self._record_failed_check(name, error.message)
                else:
                    self._record_answer(name)
            await asyncio.sleep(_UNREACHABLE_PROBE_SECONDS if self.unreachable_services() else _PROBE_SECONDS)

    def _record_failed_check(self, name: str, problem: str) -> None:
        """Logs a failed check, unless one of the same service was logged within the last minute."""
        now = time.monotonic()
        if now - self._failures_logged.get(name, -1e9) >= _FAILURE_LOG_SECONDS:
            self._failures_logged[name] = now
            logger.warning(
                "the health check of %s failed: %s; it is repeated, and failures are logged once a minute",
                name,
                problem,
            )

    def _record_answer(self, name: str) -> None:
        self._last_answers[name] = time.monotonic()
        if self._failures_logged.pop(name, None) is not None:
            logger.info("%s answers its health check again", name)

    async def follow_machines(self) -> None:
        """Follows the state of all machines. Runs until cancelled."""
        backoff = _BACKOFF
        while True:
            try:
                async for response in self._ingestion.watch_machines(self._interval_ms, predictions=self._predictions):
                    backoff = _BACKOFF
                    self.problem = None
                    for machine in watched_machines(response):
                        self._update_machine(machine)
                    for prediction, published_us in watched_predictions(response):
                        self._predicted = True
                        self.store_prediction(prediction.machine_id, prediction, published_us / 1e6)
                    self._received_at = self._received_at or time.monotonic()
            except AurumError as error:
                logger.warning("the stream of machine states broke and will be reopened: %s", error.message)
                # If ingestion is unreachable, all replicas are affected, and degraded answers are better than none
                unreachable = isinstance(error, UnavailableError | DeadlineError)
                self.problem = None if unreachable else f"the machines cannot be followed: {error.message}"
            await asyncio.sleep(backoff)
            backoff = min(_MAX_BACKOFF, 2 * backoff)

    def _update_machine(self, machine: ingestion_pb2.Machine) -> None:
        view = self._views.get(machine.machine_id)
        if view is None:
            prediction, at = self._early.pop(machine.machine_id, (None, 0.0))
            view = self._views[machine.machine_id] = MachineView(machine, prediction, at)
        view.machine = machine
        self._with_readings = self._with_readings or machine.last_seen_us > 0
        self._mark_changed(view)

    def _mark_changed(self, view: MachineView) -> None:
        self._version += 1
        view.version = self._version
        self._views.move_to_end(view.machine.machine_id)


def _is_later(prediction: prediction_pb2.PredictResponse, at: float, view: MachineView) -> bool:
    """Returns whether a prediction uses later readings than the known one, or the same and was made later."""
    known = view.prediction
    return known is None or (prediction.as_of_us, at) > (known.as_of_us, view.predicted_at)
