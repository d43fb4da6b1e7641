"""The alarms of the plant: evaluates the alarm rules, keeps the journal and performs the actions of operators.

The journal is in the store, so that all replicas of the API have the same alarms. Each replica appends the transitions
that it detects and reads those of the others. Raising an active alarm again has no effect, so detection by several
replicas still results in one alarm.
"""

import asyncio
import collections
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from aurum.alarms.conditions import Observation, RuleCondition
from aurum.alarms.flood import FloodDetector
from aurum.alarms.journaled import JournaledAlarms
from aurum.alarms.lifecycle import Alarm, AlarmState, Transition, TransitionKind
from aurum.alarms.lifecycle import alarm_id as make_alarm_id
from aurum.alarms.rules import AlarmRule, AlarmRules
from aurum.api import alarm_journal, metrics
from aurum.api.backends import IngestionBackend
from aurum.api.machine_cache import MachineCache, MachineView
from aurum.readings.history import FAULT
from aurum.readings.limits import MAX_EVENTS
from aurum.resilience import Criticality, criticality_scope
from aurum.runtime.errors import AurumError, FailedPreconditionError, NotFoundError, UnavailableError
from aurum.v1 import ingestion_pb2

logger = logging.getLogger(__name__)

EVENT_KIND = "alarm"
_RETRY_SECONDS = 3.0  # between rounds while the store is unreachable
_ROUND_SECONDS = 1.0  # between rounds of evaluation
_FULL_ROUND = 5  # every fifth round also evaluates waiting conditions of machines that have not changed
_PER_SLICE = 200  # machines or entries of the journal that are handled before the event loop gets control
_JOURNAL_ROUND = 2  # every second round reads the journal
_MAX_ALARMS = 20_000  # kept in memory; alarms in state normal are dropped first
_MAX_PENDING = 10_000  # unwritten transitions; beyond this the oldest are dropped
_MAX_READ = 20_000  # entries of the journal in one read
_STATES: tuple[AlarmState, ...] = ("unacknowledged", "acknowledged", "returned", "shelved", "suppressed")


class AlarmService:
    """Evaluates the alarm rules for all machines, and performs the actions of operators."""

    def __init__(
        self,
        ingestion: IngestionBackend,
        machine_cache: MachineCache,
        rules: AlarmRules,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ingestion = ingestion
        self._machine_cache = machine_cache
        self._rules = {rule.name: rule for rule in rules.rules}
        self._clock = clock
        self._alarms = JournaledAlarms(_MAX_ALARMS)
        self._conditions: dict[str, list[RuleCondition]] = {}  # by machine
        self._pending: collections.deque[Transition] = collections.deque()
        self._flood = FloodDetector()
        self._counts: dict[AlarmState, int] = {}
        self._revision = 0
        self._changes: collections.Counter[str] = collections.Counter()  # of alarms, by machine
        self._version = -1
        self.loaded = False

    def rule(self, name: str) -> AlarmRule | None:
        """Returns a rule by its name, or None."""
        return self._rules.get(name)

    def find(self, alarm_id: str) -> Alarm | None:
        """Returns an alarm by its id, or None."""
        return self._alarms.find(alarm_id)

    @property
    def alarms(self) -> Iterator[Alarm]:
        """Recent alarms, the latest change first."""
        return iter(self._alarms)

    def flood(self, sites: frozenset[str]) -> tuple[int, int]:
        """Returns the number of alarms in the last ten minutes, and the start of the flood.

        Args:
            sites: The sites whose alarms count; all if empty.

        Returns:
            The number, and the start of the flood in µs since 1970, or 0 if there is none.
        """
        now = self._now()
        if sites:
            return self._flood.count_selected(now, lambda machine_id: self._is_at(machine_id, sites))
        return self._update_flood(now), self._flood.since_us

    @property
    def revision(self) -> int:
        """A number that increases with each change of an alarm or of the counts by state."""
        return self._revision

    def summary(self, sites: frozenset[str]) -> dict[str, Any]:
        """Returns the summary that each console page shows. sites: The sites whose alarms count; all if empty."""
        return {
            "revision": self._revision_at_sites(sites) if sites else self._revision,
            "loaded": self.loaded,
            "counts": self._count_at_sites(sites) if sites else self._counts,
            "flood": bool(self.flood(sites)[1] if sites else self._flood.since_us),
        }

    async def acknowledge(self, alarm_id: str, by: str) -> Alarm:
        """Acknowledges an alarm.

        Raises:
            NotFoundError: There is no such alarm.
            FailedPreconditionError: The alarm is already acknowledged.
            UnavailableError: The acknowledgement could not be recorded.
        """
        alarm = self._require_alarm(alarm_id)
        if alarm.acknowledged:
            raise FailedPreconditionError(f"alarm {alarm_id} is already acknowledged", reason="ACKNOWLEDGED")
        return await self._perform(alarm, "acknowledged", by)

    async def shelve(self, alarm_id: str, until_us: int, by: str, reason: str) -> Alarm:
        """Shelves an alarm.

        Args:
            alarm_id: The alarm.
            until_us: When the shelving ends, in µs since 1970.
            by: The operator.
            reason: Why the alarm is shelved.

        Raises:
            NotFoundError: There is no such alarm.
            UnavailableError: The shelving could not be recorded.
        """
        return await self._perform(self._require_alarm(alarm_id), "shelved", by, until_us, reason)

    async def unshelve(self, alarm_id: str, by: str) -> Alarm:
        """Ends the shelving of an alarm.

        Raises:
            NotFoundError: There is no such alarm.
            FailedPreconditionError: The alarm is not shelved.
            UnavailableError: The action could not be recorded.
        """
        alarm = self._require_alarm(alarm_id)
        if alarm.shelved_until_us <= self._now():
            raise FailedPreconditionError(f"alarm {alarm_id} is not shelved", reason="NOT_SHELVED")
        return await self._perform(alarm, "unshelved", by)

    async def journal(
        self, start_us: int, end_us: int, limit: int, selects: Callable[[str], bool] | None = None
    ) -> list[Transition]:
        """Returns the transitions in a time range, the newest first.

        Args:
            start_us: Start of the range in µs since 1970.
            end_us: End of the range in µs since 1970.
            limit: Maximum number of transitions.
            selects: Whether to return the transitions of a machine, by its id; None for all.

        Raises:
            AurumError: The store did not answer.
        """
        events = await self._ingestion.list_events(
            EVENT_KIND,
            "",
            start_us,
            end_us,
            limit,
            None if selects is None else lambda event: selects(_machine_of(event)),
        )
        decoded = (alarm_journal.decode(event.content, f"{event.id} at {event.at_us}") for event in events)
        return [transition for transition in decoded if transition is not None]

    async def run(self) -> None:
        """Evaluates the alarm rules periodically. Runs until cancelled."""
        round_number = 0
        unreachable = False
        while True:
            try:
                await self._run_round(round_number)
                unreachable = False
            except AurumError as error:
                if not unreachable:
                    logger.warning("alarm evaluation is paused until ingestion answers: %s", error.message)
                unreachable = True
            self._update_counts()
            round_number += 1
            await asyncio.sleep(_RETRY_SECONDS if unreachable else _ROUND_SECONDS)

    async def _run_round(self, round_number: int) -> None:
        if not self.loaded:
            await self._load()
        elif round_number % _JOURNAL_ROUND == 0:
            await self._read_journal()
        await self._evaluate(everywhere=round_number % _FULL_ROUND == 0)
        await self._write_pending()

    async def _load(self) -> None:
        await self._read_journal()
        self.loaded = True

    async def _read_journal(self) -> None:
        """Reads the journal's new entries since the last read, at most the newest _MAX_READ."""
        events = await self._ingestion.list_events_after(EVENT_KIND, self._alarms.last_number, _MAX_READ)
        for count, event in enumerate(events, start=1):
            if count % _PER_SLICE == 0:
                await asyncio.sleep(0)  # lets the event loop handle requests
            transition = alarm_journal.decode(event.content, f"{event.id} at {event.at_us}")
            if transition is None:
                continue
            self._account_for(transition, self._alarms.apply_entry(event.number, transition, self._now()))
            for condition in self._conditions.get(transition.machine_id, ()):
                if condition.rule.name == transition.rule:
                    condition.alarming = self._is_active(transition.machine_id, transition.rule)
        if events:
            self._alarms.last_number = max(self._alarms.last_number, events[-1].number)

    async def _evaluate(self, *, everywhere: bool) -> None:
        version = self._machine_cache.version
        changed = list(self._machine_cache.changed_since(self._version))
        self._version = version
        await self._evaluate_machines(changed, only_waiting=False)
        if everywhere:
            await self._evaluate_machines(list(self._machine_cache.changed_since(-1)), only_waiting=True)

    async def _evaluate_machines(self, views: Sequence[MachineView], *, only_waiting: bool) -> None:
        for number, view in enumerate(views, start=1):
            conditions = self._conditions_of(view)
            if only_waiting:
                conditions = [condition for condition in conditions if condition.waits]
            if conditions:
                observation = _observe(view, self._now())
                for condition in conditions:
                    self._evaluate_condition(view.machine.machine_id, condition, observation)
            if number % _PER_SLICE == 0:
                await asyncio.sleep(0)  # lets the event loop handle requests

    def _evaluate_condition(self, machine_id: str, condition: RuleCondition, observation: Observation) -> None:
        rule = condition.rule
        suppressed = observation.faulty and rule.suppress_in_fault
        alarm = self._alarms.find(make_alarm_id(machine_id, rule.name))
        if alarm is not None and alarm.suppressed != suppressed and (alarm.active or alarm.suppressed):
            kind: TransitionKind = "suppressed" if suppressed else "unsuppressed"
            self._apply_detected(Transition(kind, machine_id, rule.name, observation.at_us))
        if suppressed:
            return
        change = condition.evaluate(observation)
        if change is not None:
            alarming, value, at = change
            self._apply_detected(
                Transition("raised" if alarming else "cleared", machine_id, rule.name, at, value=value)
            )

    def _conditions_of(self, view: MachineView) -> list[RuleCondition]:
        machine = view.machine
        conditions = self._conditions.get(machine.machine_id)
        if conditions is None:
            conditions = self._conditions[machine.machine_id] = [
                RuleCondition(rule, self._is_active(machine.machine_id, rule.name))
                for rule in self._rules.values()
                if rule.applies_to(machine.machine_type)
            ]
        return conditions

    def _is_active(self, machine_id: str, rule: str) -> bool:
        alarm = self._alarms.find(make_alarm_id(machine_id, rule))
        return alarm is not None and alarm.active

    def _apply_detected(self, transition: Transition) -> None:
        """Applies a transition that this replica has detected, and queues it for the journal."""
        changed = self._alarms.apply_own(transition)
        if changed is None:
            return
        self._account_for(transition, changed)
        if len(self._pending) >= _MAX_PENDING:
            self._alarms.settle(self._pending.popleft())
            metrics.alarm_transitions_dropped_total.inc()
        self._pending.append(transition)

    async def _perform(self, alarm: Alarm, kind: TransitionKind, by: str, until_us: int = 0, reason: str = "") -> Alarm:
        """Records an action of an operator and then applies it, so that a confirmed action is durable."""
        transition = Transition(kind, alarm.machine_id, alarm.rule, self._now(), by, until_us, reason=reason)
        try:
            with criticality_scope(Criticality.ALARM):
                await self._ingestion.record_events([_to_event(transition)])
        except AurumError as error:
            raise UnavailableError(f"the action on alarm {alarm.alarm_id} was not recorded: {error.message}") from error
        self._account_for(transition, self._alarms.apply_own(transition))
        self._update_counts()
        return self._require_alarm(alarm.alarm_id)

    async def _write_pending(self) -> None:
        while self._pending:
            part = [self._pending[index] for index in range(min(MAX_EVENTS, len(self._pending)))]
            with criticality_scope(Criticality.ALARM):
                await self._ingestion.record_events([_to_event(transition) for transition in part])
            for _ in range(min(len(part), len(self._pending))):
                self._pending.popleft()

    def _account_for(self, transition: Transition, changed: Alarm | None) -> None:
        """Updates the revision, metrics and flood detection after a transition, if it changed an alarm."""
        if changed is None:
            return
        self._revision += 1
        self._changes[transition.machine_id] += 1
        metrics.alarm_transitions_total.labels(transition.kind).inc()
        if transition.kind == "raised":
            self._flood.record_alarm(transition.at_us, transition.machine_id)

    def _require_alarm(self, alarm_id: str) -> Alarm:
        alarm = self._alarms.find(alarm_id)
        if alarm is None:
            raise NotFoundError(f"there is no alarm {alarm_id!r}", reason="ALARM_NOT_FOUND")
        return alarm

    def _update_counts(self) -> None:
        now = self._now()
        counts = collections.Counter(alarm.state(now) for alarm in self._alarms)
        by_state = {state: counts[state] for state in _STATES}
        if by_state != self._counts:  # also without a transition, when a shelving expires
            self._counts = by_state
            self._revision += 1
        for state in _STATES:
            metrics.alarms.labels(state).set(counts[state])
        self._update_flood(now)

    def _update_flood(self, now: int) -> int:
        """Updates the flood state and its metric. Returns the number of alarms in the last ten minutes."""
        recent = self._flood.update(now)
        metrics.alarm_flood.set(1 if self._flood.since_us else 0)
        return recent

    def _count_at_sites(self, sites: frozenset[str]) -> dict[AlarmState, int]:
        now = self._now()
        counts = collections.Counter(alarm.state(now) for alarm in self._alarms if self._is_at(alarm.machine_id, sites))
        return {state: counts[state] for state in _STATES}

    def _revision_at_sites(self, sites: frozenset[str]) -> int:
        """Returns a revision that depends only on the alarms of some sites, so that it reveals nothing of others."""
        return sum(changes for machine_id, changes in self._changes.items() if self._is_at(machine_id, sites))

    def _is_at(self, machine_id: str, sites: frozenset[str]) -> bool:
        machine = self._machine_cache.get_machine(machine_id)
        return machine is not None and machine.site in sites

    def _now(self) -> int:
        return int(self._clock() * 1e6)


def _observe(view: MachineView, now_us: int) -> Observation:
    machine, prediction = view.machine, view.prediction
    sensors = {state.sensor: (state.timestamp_us, state.value) for state in machine.sensors}
    fault = sensors.get(FAULT)
    usable = prediction is not None and not prediction.degraded
    return Observation(
        now_us,
        machine.last_seen_us,
        sensors,
        fault is not None and fault[1] >= 0.5,
        prediction.risk_score if prediction is not None and usable else None,
        prediction.rul.estimate if prediction is not None and usable and prediction.HasField("rul") else None,
        prediction.anomaly_score if prediction is not None and usable else None,
        prediction.as_of_us if prediction is not None else 0,
    )


def _event_id(transition: Transition) -> str:
    return f"{transition.alarm_id}~{transition.kind}"


def _machine_of(event: ingestion_pb2.Event) -> str:
    return event.id.partition("~")[0]


def _to_event(transition: Transition) -> ingestion_pb2.Event:
    return ingestion_pb2.Event(
        kind=EVENT_KIND,
        machine_id="",
        at_us=transition.at_us,
        id=_event_id(transition),
        content=alarm_journal.encode(transition),
    )
