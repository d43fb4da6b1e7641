"""The alarms of a rule of silence: of single machines, and parents that stand for the machines of a gateway or site.

Scorers share the groups through the journal. Each suppresses, releases, raises and clears the alarms of its own
machines; any of them raises a parent, and clears one without machines. What two of them write has its effect once.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from aurum.alarms.journaled import JournaledAlarms
from aurum.alarms.lifecycle import OTHERS_RETURNED, Alarm, Transition, TransitionKind, alarm_id
from aurum.alarms.rules import AlarmRule
from aurum.prediction.fleet import metrics
from aurum.prediction.fleet.array_conditions import Observations
from aurum.prediction.fleet.silence_groups import (
    MOST_ALONE,
    NO_GROUP,
    Group,
    GroupState,
    Senders,
    cause_of,
    gather_us,
    group_id,
    parent_priority,
    together_since,
)
from aurum.prediction.fleet.step_locator import Flags

Detect = Callable[[Transition], None]
Raise = Callable[[int, int, float], None]


@dataclass(frozen=True, slots=True)
class SilenceView:
    """What the rules of silence need to know of the machines, by their number.

    Attributes:
        ids: The machines.
        senders: From where their readings come.
        observations: Their state.
        covered: The machines that this scorer evaluates and the rule covers.
        raise_alarm: Raises the alarm of a machine, with the time in µs since 1970 and the silence in seconds.
    """

    ids: Sequence[str]
    senders: Senders
    observations: Observations
    covered: Flags
    raise_alarm: Raise

    @property
    def at_us(self) -> int:
        """The present time in µs since 1970."""
        return self.observations.at_us

    def count_silent(self, group: Group, longer_us: int, *, than: bool, without: Iterable[int] = ()) -> int:
        """Counts the live machines of a group by their silence.

        Args:
            group: The group.
            longer_us: A duration in µs.
            than: Whether to count those that are silent for longer, or those that are not.
            without: Machines that do not count.
        """
        observations = self.observations
        chosen = self.covered & (observations.last_seen != 0)
        if observations.live is not None:
            chosen = chosen & observations.live
        chosen = chosen & ((observations.at_us - observations.last_seen > longer_us) == than)
        excluded = set(without)
        machines = np.flatnonzero(chosen).tolist()
        return sum(machine not in excluded and self.senders.group_of(machine) == group for machine in machines)


class ActiveSilence:
    """The active alarms of silence by rule, of all machines, so that they need not be searched."""

    def __init__(self, alarms: JournaledAlarms) -> None:
        self._alarms = alarms
        self._ids: dict[str, dict[str, None]] = collections.defaultdict(dict)

    def note(self, alarm: Alarm) -> None:
        """Notes an alarm that may have changed."""
        if alarm.active and alarm.quantity == "silence":
            self._ids[alarm.rule][alarm.alarm_id] = None
        elif alarm.rule in self._ids:
            self._ids[alarm.rule].pop(alarm.alarm_id, None)

    def of(self, rule: str) -> Iterator[Alarm]:
        """Yields the active alarms of a rule."""
        for each in list(self._ids.get(rule, ())):
            alarm = self._alarms.find(each)
            if alarm is None:
                del self._ids[rule][each]  # it was dropped
            else:
                yield alarm

    def parents(self) -> list[Alarm]:
        """Returns the active parents of all rules."""
        return [alarm for rule in list(self._ids) for alarm in self.of(rule) if alarm.is_parent]


@dataclass(frozen=True, slots=True)
class _Silent:
    """The silent machines of a rule in one evaluation.

    Attributes:
        own: The machines of this scorer by group, with the times of their last readings in µs since 1970.
        others: The active alarms of other machines by group.
        parents: The active parents by group.
    """

    own: dict[Group, dict[int, int]]
    others: dict[Group, list[Alarm]]
    parents: dict[Group, Alarm]


class SilenceAlarms:
    """Raises and clears the alarms of one rule of silence."""

    def __init__(self, rule: AlarmRule, alarms: JournaledAlarms, active: ActiveSilence, detect: Detect) -> None:
        """Starts without groups.

        Args:
            rule: The rule.
            alarms: All alarms by the journal.
            active: The active ones of silence.
            detect: Applies a transition, and queues it for the journal.
        """
        self.rule = rule
        self._limit_us = int(rule.limit * 1e6)
        self._alarms = alarms
        self._active = active
        self._detect = detect
        self._groups: dict[Group, GroupState] = {}  # with an active parent

    def update(self, view: SilenceView, silent: Flags) -> None:
        """Raises what has to be raised after the condition was evaluated, singly or by group, and ends parents.

        Args:
            view: The machines.
            silent: Those for which the condition holds.
        """
        found = self._find(view, silent)
        for group in found.own.keys() | found.parents.keys():
            machines, others = found.own[group], found.others[group]
            if group == NO_GROUP:
                self._raise(view, machines)
            elif group in found.parents:
                self._continue_parent(view, group, found.parents[group].alarm_id, machines, others)
            else:
                self._begin_parent(view, group, machines, others)
        for group, parent in found.parents.items():
            state = self._groups.setdefault(group, GroupState())
            if any(alarm.parent == parent.alarm_id for alarm in self._active.of(self.rule.name)):
                state.note_members()
            elif state.is_over(view.at_us, chatters=parent.chatters):
                self._detect(Transition("cleared", parent.machine_id, self.rule.name, view.at_us))
                self._groups.pop(group, None)

    def _find(self, view: SilenceView, silent: Flags) -> _Silent:
        found = _Silent(collections.defaultdict(dict), collections.defaultdict(list), {})
        own: set[str] = set()
        for machine in np.flatnonzero(silent & view.covered).tolist():
            machine_id = view.ids[machine]
            alarm = self._active_alarm(machine_id)
            # An active alarm stays in its group, also if the machine has another gateway meanwhile
            group = (alarm.gateway, alarm.site) if alarm is not None else view.senders.group_of(machine)
            found.own[group][machine] = int(view.observations.last_seen[machine])
            own.add(machine_id)
        for alarm in self._active.of(self.rule.name):
            if alarm.is_parent:
                found.parents[alarm.gateway, alarm.site] = alarm
            elif alarm.machine_id not in own:
                found.others[alarm.gateway, alarm.site].append(alarm)
        return found

    def _continue_parent(
        self, view: SilenceView, group: Group, parent_id: str, machines: dict[int, int], others: list[Alarm]
    ) -> None:
        """Takes further machines under an active parent, or releases all if most machines have returned."""
        inside = [each for each in machines if self._is_under(view.ids[each], parent_id)]
        new = [each for each in machines if self._active_alarm(view.ids[each]) is None]
        count = len(inside) + len(new) + sum(alarm.parent == parent_id for alarm in others)
        state = self._groups.setdefault(group, GroupState())
        if not state.continues(count, view.at_us, self._limit_us):
            self._release(view, inside)
            self._raise(view, new)
            return
        since = together_since(machines.values(), self._limit_us)
        alone = [each for each in self._alone(view, machines) if machines[each] >= since]
        self._suppress(view, [*new, *alone], parent_id)

    def _begin_parent(self, view: SilenceView, group: Group, machines: dict[int, int], others: list[Alarm]) -> None:
        """Begins a parent if enough machines have fallen silent together, else raises their own alarms."""
        own = {each: machines[each] for each in machines if not self._is_apart(view.ids[each])}
        elsewhere = [alarm.raised_us - self._limit_us for alarm in others if not alarm.apart]
        since = together_since([*own.values(), *elsewhere], self._limit_us)
        members = [each for each, at in own.items() if at >= since]
        count = len(members) + sum(at >= since for at in elsewhere)
        if members and count > MOST_ALONE:
            self._groups[group] = GroupState(count)
            parent_id = self._raise_parent(view, group, min(own[each] for each in members))
            self._suppress(view, members, parent_id)
            return
        self._release(view, [each for each in own if self._is_under(view.ids[each], self._parent_id(group))])
        if all(self._active_alarm(view.ids[each]) is not None for each in own):
            return
        gather = gather_us(self._limit_us)
        expected = count + view.count_silent(group, self._limit_us - gather, than=True, without=machines)
        waits = {each for each in members if view.at_us - own[each] - self._limit_us < gather}
        self._raise(view, own if expected <= MOST_ALONE else own.keys() - waits)

    def _raise_parent(self, view: SilenceView, group: Group, first_us: int) -> str:
        rule, machine_id = self.rule, group_id(group)
        sending = view.count_silent(group, self._limit_us - gather_us(self._limit_us), than=False)
        self._detect(
            Transition(
                "raised",
                machine_id,
                rule.name,
                view.at_us,
                value=(view.at_us - first_us) / 1e6,
                text=rule.text,
                priority=parent_priority(rule.priority),
                quantity=rule.quantity,
                limit=rule.limit,
                gateway=group[0],
                site=group[1],
                cause=cause_of(group, view.senders.connected, whole=not sending),
            )
        )
        metrics.alarm_groups_total.labels("gateway" if group[0] else "site").inc()
        return alarm_id(machine_id, rule.name)

    def _suppress(self, view: SilenceView, machines: Iterable[int], parent_id: str) -> None:
        """Puts machines under a parent, and raises the alarms of those that have none."""
        for machine in machines:
            machine_id = view.ids[machine]
            if not self._is_under(machine_id, parent_id):
                self._detect(Transition("suppressed", machine_id, self.rule.name, view.at_us, parent=parent_id))
            self._raise(view, [machine])

    def _release(self, view: SilenceView, machines: Iterable[int]) -> None:
        for machine in machines:
            alarm = self._active_alarm(view.ids[machine])
            if alarm is not None:
                kind: TransitionKind = "unsuppressed"
                reason, parent = OTHERS_RETURNED, alarm.parent
                self._detect(Transition(kind, alarm.machine_id, alarm.rule, view.at_us, reason=reason, parent=parent))

    def _raise(self, view: SilenceView, machines: Iterable[int]) -> None:
        """Raises the alarms of machines that have no active one."""
        for machine in machines:
            if self._active_alarm(view.ids[machine]) is None:
                last_seen = int(view.observations.last_seen[machine])
                view.raise_alarm(machine, last_seen + self._limit_us, (view.at_us - last_seen) / 1e6)

    def _alone(self, view: SilenceView, machines: Iterable[int]) -> Iterator[int]:
        """Yields the machines with an active alarm of their own that no parent has released."""
        for machine in machines:
            alarm = self._active_alarm(view.ids[machine])
            if alarm is not None and not (alarm.parent or alarm.apart):
                yield machine

    def _parent_id(self, group: Group) -> str:
        return alarm_id(group_id(group), self.rule.name)

    def _active_alarm(self, machine_id: str) -> Alarm | None:
        alarm = self._alarms.find(alarm_id(machine_id, self.rule.name))
        return alarm if alarm is not None and alarm.active else None

    def _is_apart(self, machine_id: str) -> bool:
        alarm = self._active_alarm(machine_id)
        return alarm is not None and alarm.apart

    def _is_under(self, machine_id: str, parent_id: str) -> bool:
        alarm = self._active_alarm(machine_id)
        return alarm is not None and alarm.parent == parent_id
