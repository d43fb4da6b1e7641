"""The alarms of the plant: watches machines by the rules, keeps the journal, takes what operators do.

The journal is in the store, so all replicas of the API have the same alarms: each adds what it sees, and takes over
what the others have added. What two of them see is one alarm, since a second raise changes nothing.
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
_WHILE_AWAY = 3.0  # seconds, while the store cannot be asked
_EVERY = 1.0  # seconds between two looks at what has changed
_LOOK_AT_ALL = 5  # looks, after which every machine is looked at: what is silent does not change
_WITHOUT_PAUSE = 200  # machines
_TAKE_OVER = 2  # looks, after which the journal is read for what others have added
_MOST_ALARMS = 20_000  # kept in memory; those that are over go first
_MOST_WAITING = 10_000  # transitions that could not be written yet; then the oldest go
_PAGE = 1000
_MOST_READ = 20_000  # entries of the journal, at once
_STATES: tuple[State, ...] = ("unacknowledged", "acknowledged", "returned", "shelved", "suppressed")


class AlarmDesk:
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
        """All that were raised lately, the last to change first."""
        return iter(self._alarms)

    def flood(self, sites: frozenset[str]) -> tuple[int, int]:
        """Alarms of the last ten minutes; since when that is a flood, in µs, or 0. sites: whose alarms count; all if
        empty."""
        now = self._now()
        if sites:
            return self._flood.part(now, lambda machine_id: self._is_of(machine_id, sites))
        return self._look_for_a_flood(now), self._flood.since_us

    @property
    def revision(self) -> int:
        """Changes when there is more to ask for."""
        return self._revision

    def summary(self, sites: frozenset[str]) -> dict[str, Any]:
        """What a console shows everywhere. sites: whose alarms count; all if empty."""
        return {
            "revision": self._revision_of(sites) if sites else self._revision,
            "loaded": self.loaded,
            "counts": self._counts_of(sites) if sites else self._counts,
            "flood": bool(self.flood(sites)[1] if sites else self._flood.since_us),
        }

    async def acknowledge(self, alarm_id: str, by: str) -> Alarm:
        """Raises NotFoundError, FailedPreconditionError, or UnavailableError if it could not be written down."""
        alarm = self._alarm(alarm_id)
        if alarm.acknowledged:
            raise FailedPreconditionError(f"alarm {alarm_id} is acknowledged already", reason="ACKNOWLEDGED")
        return await self._act(alarm, "acknowledged", by)

    async def shelve(self, alarm_id: str, until_us: int, by: str, reason: str) -> Alarm:
        """Raises NotFoundError, UnavailableError."""
        return await self._act(self._alarm(alarm_id), "shelved", by, until_us, reason)

    async def unshelve(self, alarm_id: str, by: str) -> Alarm:
        """Raises NotFoundError, FailedPreconditionError, UnavailableError."""
        alarm = self._alarm(alarm_id)
        if alarm.shelved_until_us <= self._now():
            raise FailedPreconditionError(f"alarm {alarm_id} is not shelved", reason="NOT_SHELVED")
        return await self._act(alarm, "unshelved", by)

    async def journal(
        self, start_us: int, end_us: int, limit: int, wanted: Callable[[str], bool] | None = None
    ) -> list[Transition]:
        """What has happened, the newest first; of the machines that are wanted. Raises AurumError."""
        events = await self._ingestion.events(
            KIND, "", start_us, end_us, limit, None if wanted is None else lambda event: wanted(_machine_of(event))
        )
        read = (alarm_journal.decode(event.content, f"{event.id} at {event.at_us}") for event in events)
        return [transition for transition in read if transition is not None]

    async def run(self) -> None:
        """Watches the plant, for as long as it runs."""
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
        """Reads what the journal has beyond what was read of it, at most its newest _MOST_READ entries."""
        events = await self._ingestion.events_after(KIND, self._alarms.number, _MOST_READ)
        for event in events:
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
                await asyncio.sleep(0)  # requests have their turn

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
        """Of what this replica has seen itself."""
        changed = self._alarms.see(transition)
        if changed is None:
            return
        self._tell(transition, changed)
        if len(self._waiting) >= _MOST_WAITING:
            self._alarms.give_up(self._waiting.popleft())
            metrics.alarm_transitions_dropped_total.inc()
        self._waiting.append(transition)

    async def _act(self, alarm: Alarm, kind: Kind, by: str, until_us: int = 0, reason: str = "") -> Alarm:
        """Of an operator: answered when it is written down."""
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
        """Notes what has changed, for consoles and metrics."""
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
        if found != self._counts:  # a shelving ends by itself
            self._counts = found
            self._revision += 1
        for state in _STATES:
            metrics.alarms.labels(state).set(counts[state])
        self._look_for_a_flood(now)

    def _look_for_a_flood(self, now: int) -> int:
        """Alarms of the last ten minutes."""
        found = self._flood.look(now)
        metrics.alarm_flood.set(1 if self._flood.since_us else 0)
        return found

    def _counts_of(self, sites: frozenset[str]) -> dict[State, int]:
        now = self._now()
        counts = collections.Counter(alarm.state(now) for alarm in self._alarms if self._is_of(alarm.machine_id, sites))
        return {state: counts[state] for state in _STATES}

    def _revision_of(self, sites: frozenset[str]) -> int:
        """Changes with the alarms of some sites alone: what others' do is not told."""
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
