"""Evaluates the alarm rules of the fleet periodically, and writes the transitions to the journal.

The journal is in the store, so a scorer that takes over a machine knows its alarms. It begins to evaluate a machine
only after it has read the journal for a while, so that the former scorer has written what it detected.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from aurum.alarms import journal
from aurum.alarms.followed_rules import FollowedRules
from aurum.alarms.lifecycle import Transition
from aurum.prediction.fleet import metrics
from aurum.prediction.fleet.alarm_states import MAX_ALARMS, AlarmStates, FleetView, watched_sensors
from aurum.prediction.fleet.delay_history import DelayHistory
from aurum.readings.limits import MAX_EVENTS
from aurum.readings.transport.recorded_events import list_events_after
from aurum.resilience import Criticality, criticality_scope
from aurum.runtime.errors import AurumError
from aurum.runtime.grpc.client import Dependency
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc

logger = logging.getLogger(__name__)

_ROUND_SECONDS = 0.5
_RETRY_SECONDS = 2.0  # between rounds while the store is unreachable


class AlarmJournal:
    """The journal in the store."""

    def __init__(self, ingestion: Dependency) -> None:
        self._ingestion = ingestion
        self._stub = ingestion_pb2_grpc.IngestionServiceStub(ingestion.channel)

    async def read_after(self, number: int) -> list[ingestion_pb2.Event]:
        """Returns the entries after an event number in their order, the newest MAX_ALARMS, and some earlier ones.

        Raises:
            AurumError: Ingestion did not answer.
        """
        return await list_events_after(self._ingestion, self._stub, journal.EVENT_KIND, number, MAX_ALARMS)

    async def write(self, transitions: list[Transition]) -> None:
        """Appends transitions. It is idempotent. Raises AurumError if ingestion did not answer."""
        request = ingestion_pb2.RecordEventsRequest(events=[journal.to_event(each) for each in transitions])
        with criticality_scope(Criticality.ALARM):
            await self._ingestion.unary(self._stub.RecordEvents, request)


class AlarmEvaluation:
    """Evaluates the rules in rounds.

    Args:
        rules: The rules in force.
        alarm_journal: The journal.
        history: Finds out since when conditions hold.
        watch: Makes the view contain sensors.
        view: Returns the machines, or None while new readings may be missing.
        clock: Present time in seconds since 1970.
    """

    def __init__(
        self,
        rules: FollowedRules,
        alarm_journal: AlarmJournal,
        history: DelayHistory,
        *,
        watch: Callable[[tuple[str, ...]], Awaitable[None]],
        view: Callable[[], Awaitable[FleetView | None]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rules = rules
        self._evaluated_rules = rules.current
        self._states = AlarmStates(rules.current)
        self._journal = alarm_journal
        self._history = history
        self._watch = watch
        self._view = view
        self._clock = clock

    async def run(self) -> None:
        """Runs until cancelled."""
        unreachable = False
        while True:
            try:
                await self.run_round()
                unreachable = False
            except AurumError as error:
                if not unreachable:
                    logger.warning("alarm evaluation is paused until ingestion answers: %s", error.message)
                unreachable = True
            await asyncio.sleep(_RETRY_SECONDS if unreachable else _ROUND_SECONDS)

    async def run_round(self) -> None:
        """Reads the journal, evaluates the rules and writes the transitions. Raises AurumError."""
        if not self._rules.loaded:
            return  # the rules of the file would raise and clear alarms that those of the store do not
        await self._read_journal()
        rules = self._rules.current
        if rules is not self._evaluated_rules:
            await self._watch(watched_sensors(rules))
            self._states.replace_rules(rules)
            self._evaluated_rules = rules
        view = await self._view()
        if view is not None:
            with metrics.alarm_evaluation_seconds.time():
                resumed = self._states.evaluate(view)
            for rule, machines in resumed:
                self._history.look_up(self._states.condition(rule), {view.ids[each]: each for each in machines})
        while self._states.pending:
            part = [self._states.pending[index] for index in range(min(MAX_EVENTS, len(self._states.pending)))]
            await self._journal.write(part)
            self._states.written(len(part))

    async def _read_journal(self) -> None:
        alarms = self._states.alarms
        events = await self._journal.read_after(alarms.last_number)
        unread = [event for event in events if not alarms.has_entry(journal.key_of(event))]
        entries = ((event.number, journal.from_event(event)) for event in unread)
        now_us = int(self._clock() * 1e6)
        self._states.read(((number, entry) for number, entry in entries if entry is not None), now_us)
        if events:
            alarms.last_number = max(alarms.last_number, events[-1].number)
