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

from aurum.alarms.conditions import Condition, Observed
from aurum.alarms.flood import Flood
from aurum.alarms.journaled import JournaledAlarms
from aurum.alarms.lifecycle import Alarm, Kind, State, Transition
from aurum.alarms.rules import AlarmRules, Rule
from aurum.api import alarm_journal
from aurum.api.backends import IngestionBackend
from aurum.api.plant_view import MachineView, PlantView
from aurum.readings.history import FAULT
from aurum.resilience import Criticality, criticality_scope
from aurum.runtime import metrics
from aurum.runtime.errors import AurumError, FailedPreconditionError, NotFoundError, UnavailableError
from aurum.v1 import ingestion_pb2

logger = logging.getLogger(__name__)

KIND = "alarm"
_WHILE_AWAY = 3.0  # seconds between rounds while the store is unreachable
_EVERY = 1.0  # seconds between rounds of evaluation
_LOOK_AT_ALL = 5  # every fifth round also evaluates waiting conditions of machines that have not changed
_WITHOUT_PAUSE = 200  # machines, or entries of the journal, that are taken before the event loop gets control
_TAKE_OVER = 2  # every second round reads the journal
_MOST_ALARMS = 20_000  # kept in memory; alarms that are over are dropped first
_MOST_WAITING = 10_000  # unwritten transitions; beyond this the oldest are dropped
_PAGE = 1000
_MOST_READ = 20_000  # entries of the journal in one read
_STATES: tuple[State, ...] = ("unacknowledged", "acknowledged", "returned", "shelved", "suppressed")


class AlarmDesk:
    """Evaluates the alarm rules for all machines, and performs the actions of operators."""

    def __init__(
        self,
        ingestion: IngestionBackend,
        plant: PlantView,
        rules: AlarmRules,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ingestion = ingestion
        self._plant = plant
        self._rules = {rule.name: rule for rule in rules.rules}
        self._clock = clock
        self._alarms = JournaledAlarms(_MOST_ALARMS)
        self._conditions: dict[str, list[Condition]] = {}  # by machine
        self._waiting: collections.deque[Transition] = collections.deque()
        self._flood = Flood()
        self._counts: dict[State, int] = {}
        self._revision = 0
        self._changes: collections.Counter[str] = collections.Counter()  # of alarms, by machine
        self._version = -1
        self.loaded = False

    def rule(self, name: str) -> Rule | None:
        return self._rules.get(name)

    def find(self, alarm_id: str) -> Alarm | None:
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
            return self._flood.part(now, lambda machine_id: self._is_of(machine_id, sites))
        return self._look_for_a_flood(now), self._flood.since_us

    @property
    def revision(self) -> int:
        """A number that increases with each change of an alarm or of the counts by state."""
        return self._revision

    def summary(self, sites: frozenset[str]) -> dict[str, Any]:
        """Returns the summary that each console page shows. sites: The sites whose alarms count; all if empty."""
        return {
            "revision": self._revision_of(sites) if sites else self._revision,
            "loaded": self.loaded,
            "counts": self._counts_of(sites) if sites else self._counts,
            "flood": bool(self.flood(sites)[1] if sites else self._flood.since_us),
        }

    async def acknowledge(self, alarm_id: str, by: str) -> Alarm:
        """Acknowledges an alarm.

        Raises:
            NotFoundError: There is no such alarm.
            FailedPreconditionError: The alarm is acknowledged already.
            UnavailableError: The acknowledgement could not be recorded.
        """
        alarm = self._alarm(alarm_id)
        if alarm.acknowledged:
            raise FailedPreconditionError(f"alarm {alarm_id} is acknowledged already", reason="ACKNOWLEDGED")
        return await self._act(alarm, "acknowledged", by)

    async def shelve(self, alarm_id: str, until_us: int, by: str, reason: str) -> Alarm:
        """Shelves an alarm until a time in µs since 1970. Raises NotFoundError or UnavailableError."""
        return await self._act(self._alarm(alarm_id), "shelved", by, until_us, reason)

    async def unshelve(self, alarm_id: str, by: str) -> Alarm:
        """Ends the shelving of an alarm.

        Raises:
            NotFoundError: There is no such alarm.
            FailedPreconditionError: The alarm is not shelved.
            UnavailableError: The action could not be recorded.
        """
        alarm = self._alarm(alarm_id)
        if alarm.shelved_until_us <= self._now():
            raise FailedPreconditionError(f"alarm {alarm_id} is not shelved", reason="NOT_SHELVED")
        return await self._act(alarm, "unshelved", by)

    async def journal(
        self, start_us: int, end_us: int, limit: int, wanted: Callable[[str], bool] | None = None
    ) -> list[Transition]:
        """Returns the transitions in a time range, the newest first.

        Args:
            start_us: Start of the range in µs since 1970.
            end_us: End of the range in µs since 1970.
            limit: Maximum number of transitions.
            wanted: Selects machines by their ids; None for all.

        Raises:
            AurumError: The store did not answer.
        """
        events = await self._ingestion.events(
            KIND, "", start_us, end_us, limit, None if wanted is None else lambda event: wanted(_machine_of(event))
        )
        read = (alarm_journal.decode(event.content, f"{event.id} at {event.at_us}") for event in events)
        return [transition for transition in read if transition is not None]

    async def run(self) -> None:
        """Evaluates the alarm rules periodically. Runs until cancelled."""
        look = 0
        away = False
        while True:
            try:
                await self._turn(look)
                away = False
            except AurumError as error:
                if not away:
                    logger.warning("alarm evaluation is paused until ingestion answers: %s", error.message)
                away = True
            self._count()
            look += 1
            await asyncio.sleep(_WHILE_AWAY if away else _EVERY)

    async def _turn(self, look: int) -> None:
        if not self.loaded:
            await self._load()
        elif look % _TAKE_OVER == 0:
            await self._catch_up()
        await self._look(everywhere=look % _LOOK_AT_ALL == 0)
        await self._write()

    async def _load(self) -> None:
        await self._catch_up()
        self.loaded = True

    async def _catch_up(self) -> None:
        """Reads the journal's new entries since the last read, at most the newest _MOST_READ."""
        events = await self._ingestion.events_after(KIND, self._alarms.number, _MOST_READ)
        for count, event in enumerate(events, start=1):
            if count % _WITHOUT_PAUSE == 0:
                await asyncio.sleep(0)  # lets the event loop handle requests
            transition = alarm_journal.decode(event.content, f"{event.id} at {event.at_us}")
            if transition is None:
                continue
            self._tell(transition, self._alarms.read(event.number, transition, self._now()))
            for condition in self._conditions.get(transition.machine_id, ()):
                if condition.rule.name == transition.rule:
                    condition.alarming = self._is_active(transition.machine_id, transition.rule)
        if events:
            self._alarms.number = max(self._alarms.number, events[-1].number)

    async def _look(self, *, everywhere: bool) -> None:
        version = self._plant.version
        changed = list(self._plant.changed_since(self._version))
        self._version = version
        await self._judge_all(changed, only_waiting=False)
        if everywhere:
            await self._judge_all(list(self._plant.changed_since(-1)), only_waiting=True)

    async def _judge_all(self, views: Sequence[MachineView], *, only_waiting: bool) -> None:
        for number, view in enumerate(views, start=1):
            conditions = self._conditions_of(view)
            if only_waiting:
                conditions = [condition for condition in conditions if condition.waits]
            if conditions:
                observed = _observed(view, self._now())
                for condition in conditions:
                    self._judge(view.machine.machine_id, condition, observed)
            if number % _WITHOUT_PAUSE == 0:
                await asyncio.sleep(0)  # lets the event loop handle requests

    def _judge(self, machine_id: str, condition: Condition, observed: Observed) -> None:
        rule = condition.rule
        quiet = observed.faulty and rule.suppress_in_fault
        known = self._alarms.find(Alarm(machine_id, rule.name).alarm_id)
        if known is not None and known.suppressed != quiet and (known.active or known.suppressed):
            self._note(Transition("suppressed" if quiet else "unsuppressed", machine_id, rule.name, observed.at_us))
        if quiet:
            return
        told = condition.observe(observed)
        if told is not None:
            alarming, value, at = told
            self._note(Transition("raised" if alarming else "cleared", machine_id, rule.name, at, value=value))

    def _conditions_of(self, view: MachineView) -> list[Condition]:
        machine = view.machine
        known = self._conditions.get(machine.machine_id)
        if known is None:
            known = self._conditions[machine.machine_id] = [
                Condition(rule, self._is_active(machine.machine_id, rule.name))
                for rule in self._rules.values()
                if rule.holds_for(machine.machine_type)
            ]
        return known

    def _is_active(self, machine_id: str, rule: str) -> bool:
        alarm = self._alarms.find(Alarm(machine_id, rule).alarm_id)
        return alarm is not None and alarm.active

    def _note(self, transition: Transition) -> None:
        """Applies a transition that this replica has detected, and queues it for the journal."""
        changed = self._alarms.see(transition)
        if changed is None:
            return
        self._tell(transition, changed)
        if len(self._waiting) >= _MOST_WAITING:
            self._alarms.give_up(self._waiting.popleft())
            metrics.alarm_transitions_dropped_total.inc()
        self._waiting.append(transition)

    async def _act(self, alarm: Alarm, kind: Kind, by: str, until_us: int = 0, reason: str = "") -> Alarm:
        """Records an action of an operator and then applies it, so that a confirmed action is durable."""
        transition = Transition(kind, alarm.machine_id, alarm.rule, self._now(), by, until_us, reason=reason)
        try:
            with criticality_scope(Criticality.ALARM):
                await self._ingestion.record([_event(transition)])
        except AurumError as error:
            raise UnavailableError(f"alarm {alarm.alarm_id} is as it was: {error.message}") from error
        self._tell(transition, self._alarms.see(transition))
        self._count()
        return self._alarm(alarm.alarm_id)

    async def _write(self) -> None:
        while self._waiting:
            part = [self._waiting[index] for index in range(min(_PAGE, len(self._waiting)))]
            with criticality_scope(Criticality.ALARM):
                await self._ingestion.record([_event(transition) for transition in part])
            for _ in range(min(len(part), len(self._waiting))):
                self._waiting.popleft()

    def _tell(self, transition: Transition, changed: Alarm | None) -> None:
        """Updates the revision, metrics and flood detection after a transition, if it changed an alarm."""
        if changed is None:
            return
        self._revision += 1
        self._changes[transition.machine_id] += 1
        metrics.alarm_transitions_total.labels(transition.kind).inc()
        if transition.kind == "raised":
            self._flood.note(transition.at_us, transition.machine_id)

    def _alarm(self, alarm_id: str) -> Alarm:
        alarm = self._alarms.find(alarm_id)
        if alarm is None:
            raise NotFoundError(f"there is no alarm {alarm_id!r}", reason="ALARM_NOT_FOUND")
        return alarm

    def _count(self) -> None:
        now = self._now()
        counts = collections.Counter(alarm.state(now) for alarm in self._alarms)
        found = {state: counts[state] for state in _STATES}
        if found != self._counts:  # also without a transition, when the time of a shelving ends
            self._counts = found
            self._revision += 1
        for state in _STATES:
            metrics.alarms.labels(state).set(counts[state])
        self._look_for_a_flood(now)

    def _look_for_a_flood(self, now: int) -> int:
        """Updates the flood state and its metric. Returns the number of alarms in the last ten minutes."""
        found = self._flood.look(now)
        metrics.alarm_flood.set(1 if self._flood.since_us else 0)
        return found

    def _counts_of(self, sites: frozenset[str]) -> dict[State, int]:
        now = self._now()
        counts = collections.Counter(alarm.state(now) for alarm in self._alarms if self._is_of(alarm.machine_id, sites))
        return {state: counts[state] for state in _STATES}

    def _revision_of(self, sites: frozenset[str]) -> int:
        """Returns a revision that depends only on the alarms of some sites, so that it reveals nothing of others."""
        return sum(changes for machine_id, changes in self._changes.items() if self._is_of(machine_id, sites))

    def _is_of(self, machine_id: str, sites: frozenset[str]) -> bool:
        machine = self._plant.machine(machine_id)
        return machine is not None and machine.site in sites

    def _now(self) -> int:
        return int(self._clock() * 1e6)


def _observed(view: MachineView, now_us: int) -> Observed:
    machine, prediction = view.machine, view.prediction
    sensors = {state.sensor: (state.timestamp_us, state.value) for state in machine.sensors}
    fault = sensors.get(FAULT)
    told = prediction is not None and not prediction.degraded
    return Observed(
        now_us,
        machine.last_seen_us,
        sensors,
        fault is not None and fault[1] >= 0.5,
        prediction.risk_score if prediction is not None and told else None,
        prediction.rul.estimate if prediction is not None and told and prediction.HasField("rul") else None,
        prediction.anomaly_score if prediction is not None and told else None,
        prediction.as_of_us if prediction is not None else 0,
    )


def _id(transition: Transition) -> str:
    return f"{transition.alarm_id}~{transition.kind}"


def _machine_of(event: ingestion_pb2.Event) -> str:
    return event.id.partition("~")[0]


def _event(transition: Transition) -> ingestion_pb2.Event:
    return ingestion_pb2.Event(
        kind=KIND,
        machine_id="",
        at_us=transition.at_us,
        id=_id(transition),
        content=alarm_journal.encode(transition),
    )
