"""The alarms of the plant: reads their journal and performs the actions of operators.

The journal is in the store, so that all replicas of the API have the same alarms. Scorers, in the prediction service,
evaluate the alarm rules and append the transitions that they detect. The API appends the actions of operators.
"""

import asyncio
import collections
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from aurum.alarms import journal
from aurum.alarms.flood import FloodDetector
from aurum.alarms.followed_rules import FollowedRules
from aurum.alarms.journaled import JournaledAlarms
from aurum.alarms.lifecycle import Alarm, AlarmState, Priority, Quantity, Transition, TransitionKind
from aurum.alarms.rules import AlarmRule
from aurum.api import metrics
from aurum.api.alarm_groups import GroupSites, is_group
from aurum.api.backends import IngestionBackend
from aurum.api.machine_cache import MachineCache
from aurum.resilience import Criticality, criticality_scope
from aurum.runtime.errors import AurumError, FailedPreconditionError, NotFoundError, UnavailableError

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 3.0  # between two reads of the journal while the store is unreachable
_ROUND_SECONDS = 0.5  # between two reads of the journal
_PER_SLICE = 200  # entries of the journal that are handled before the event loop gets control
_MAX_ALARMS = 20_000  # kept in memory; alarms in state normal are dropped first
_MAX_READ = 20_000  # entries of the journal in one read
_MOST_NAMED = 5  # alarms in an error message
_SAME_COMMENT_US = 60_000_000  # within which the same comment is taken for a repeated request
_STATES: tuple[AlarmState, ...] = ("unacknowledged", "acknowledged", "returned", "shelved", "suppressed")


class AlarmService:
    """The state of all alarms, and the actions of operators.

    Attributes:
        loaded: Whether the journal has been read.
    """

    def __init__(
        self,
        ingestion: IngestionBackend,
        machine_cache: MachineCache,
        rules: FollowedRules,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ingestion = ingestion
        self._machine_cache = machine_cache
        self._rules = rules
        self._clock = clock
        self._alarms = JournaledAlarms(_MAX_ALARMS)
        self._flood = FloodDetector()
        self._counts: dict[AlarmState, int] = {}
        self._revision = 0
        self._changes: collections.Counter[str] = collections.Counter()  # of alarms, by machine
        self._group_sites = GroupSites()
        self.loaded = False

    def rule(self, name: str) -> AlarmRule | None:
        """Returns a rule by its name, or None."""
        return self._rules.find(name)

    def rules_for(self, machine_type: str) -> list[AlarmRule]:
        """Returns the rules in force for machines of a type, in their order."""
        return [rule for rule in self._rules.current.rules if rule.applies_to(machine_type)]

    @property
    def priorities(self) -> dict[str, Priority]:
        """The priorities of the rules in force, by name."""
        return {rule.name: rule.priority for rule in self._rules.current.rules}

    def present_value(self, machine_id: str, quantity: Quantity, sensor: str) -> float | None:
        """Returns the present value of what a rule limits; None if it is not known, as that of a rate.

        Args:
            machine_id: The machine.
            quantity: What the rule limits.
            sensor: The sensor, for the quantity `sensor`.
        """
        machine = self._machine_cache.get_machine(machine_id)
        if machine is None or quantity == "rate":
            return None
        if quantity == "silence":
            return max(0.0, (self._now() - machine.last_seen_us) / 1e6) if machine.last_seen_us else None
        if quantity == "sensor":
            return next((state.value for state in machine.sensors if state.sensor == sensor), None)
        found = self._machine_cache.prediction_with_age(machine_id)
        if found is None or found[0].degraded:  # rules assess predictions of models only
            return None
        prediction = found[0]
        if quantity == "rul":
            return prediction.rul.estimate if prediction.HasField("rul") else None
        return prediction.risk_score if quantity == "risk" else prediction.anomaly_score

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
            "groups": sum(alarm.is_parent and alarm.active for alarm in self._alarms if self._may_see(alarm, sites)),
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

    async def comment(self, alarm_id: str, by: str, text: str) -> Alarm:
        """Comments on an alarm. The same comment again within a minute, such as a repeated request, changes nothing.

        Raises:
            NotFoundError: There is no such alarm.
            UnavailableError: The comment could not be recorded.
        """
        alarm = self._require_alarm(alarm_id)
        now = self._now()
        if (alarm.commented_by, alarm.comment) == (by, text) and now - alarm.commented_us < _SAME_COMMENT_US:
            return alarm
        await self.perform_all([Transition("commented", alarm.machine_id, alarm.rule, now, by, comment=text)])
        return self._require_alarm(alarm_id)

    async def run(self) -> None:
        """Reads the journal periodically. Runs until cancelled."""
        unreachable = False
        while True:
            try:
                await self.read_journal()
                unreachable = False
            except AurumError as error:
                if not unreachable:
                    logger.warning("the alarms are not updated until ingestion answers: %s", error.message)
                unreachable = True
            self._update_counts()
            await asyncio.sleep(_RETRY_SECONDS if unreachable else _ROUND_SECONDS)

    async def read_journal(self) -> None:
        """Reads the journal's new entries since the last read, at most the newest _MAX_READ.

        Raises:
            AurumError: The store did not answer.
        """
        events = await self._ingestion.list_events_after(journal.EVENT_KIND, self._alarms.last_number, _MAX_READ)
        for count, event in enumerate(events, start=1):
            if count % _PER_SLICE == 0:
                await asyncio.sleep(0)  # lets the event loop handle requests
            if self._alarms.has_entry(journal.key_of(event)):
                continue
            transition = journal.from_event(event)
            if transition is not None:
                self._account_for(transition, self._alarms.apply_entry(event.number, transition, self._now()))
        if events:
            self._alarms.last_number = max(self._alarms.last_number, events[-1].number)
        self.loaded = True

    async def _perform(self, alarm: Alarm, kind: TransitionKind, by: str, until_us: int = 0, reason: str = "") -> Alarm:
        """Records an action of an operator and then applies it, so that a confirmed action is durable."""
        await self.perform_all(
            [Transition(kind, alarm.machine_id, alarm.rule, self._now(), by, until_us, reason=reason)]
        )
        return self._require_alarm(alarm.alarm_id)

    async def perform_all(self, transitions: Sequence[Transition]) -> None:
        """Records actions of an operator in one write and then applies them.

        Args:
            transitions: The actions, at most MAX_EVENTS of aurum.readings.limits.

        Raises:
            UnavailableError: They could not be recorded.
        """
        if not transitions:
            return
        try:
            with criticality_scope(Criticality.ALARM):
                await self._ingestion.record_events([journal.to_event(transition) for transition in transitions])
        except AurumError as error:
            alarms = ", ".join(transition.alarm_id for transition in transitions[:_MOST_NAMED])
            more = f" and {len(transitions) - _MOST_NAMED} more" if len(transitions) > _MOST_NAMED else ""
            raise UnavailableError(f"the action on {alarms}{more} was not recorded: {error.message}") from error
        for transition in transitions:
            self._account_for(transition, self._alarms.apply_own(transition))
        self._update_counts()

    def _account_for(self, transition: Transition, changed: Alarm | None) -> None:
        """Updates the revision, metrics and flood detection after a transition, if it changed an alarm."""
        if changed is None:
            return
        self._revision += 1
        self._changes[transition.machine_id] += 1
        metrics.alarm_transitions_total.labels(transition.kind).inc()
        self._group_sites.note(transition)
        released = transition.kind == "unsuppressed" and transition.parent and changed.active
        if released or (transition.kind == "raised" and not changed.parent):
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

    def _may_see(self, alarm: Alarm, sites: frozenset[str]) -> bool:
        return not sites or self._is_at(alarm.machine_id, sites)

    def site_of_group(self, machine_id: str) -> str | None:
        """Returns the site of a group, given by the field `machine_id` of its alarms; None if it is unknown."""
        return self._group_sites.site_of(machine_id)

    def _is_at(self, machine_id: str, sites: frozenset[str]) -> bool:
        if is_group(machine_id):
            return self._group_sites.site_of(machine_id) in sites
        machine = self._machine_cache.get_machine(machine_id)
        return machine is not None and machine.site in sites

    def _now(self) -> int:
        return int(self._clock() * 1e6)
