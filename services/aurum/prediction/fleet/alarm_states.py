"""The alarms of the fleet: detects transitions by the rules and the state in the journal.

It is free of I/O. What it detects waits in `pending` until it has been written to the journal.
"""

import collections
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from aurum.alarms.journaled import JournaledAlarms
from aurum.alarms.lifecycle import (
    CHATTER_US,
    RULE_CHANGED,
    RULE_REMOVED,
    TYPE_NOT_COVERED,
    Alarm,
    Transition,
    TransitionKind,
    alarm_id,
)
from aurum.alarms.metrics import alarm_transitions_dropped_total
from aurum.alarms.rules import AlarmRule, AlarmRules
from aurum.prediction.fleet import metrics
from aurum.prediction.fleet.array_conditions import ArrayCondition, Observations
from aurum.prediction.fleet.silence_alarms import ActiveSilence, SilenceAlarms, SilenceView
from aurum.prediction.fleet.silence_groups import NO_GROUP, Group, Senders
from aurum.prediction.fleet.step_locator import Flags, Integers
from aurum.readings.history import FAULT

MAX_ALARMS = 20_000  # kept in memory; alarms in state normal are dropped first
_MAX_PENDING = 10_000  # unwritten transitions; beyond this the oldest are dropped


@dataclass(frozen=True, slots=True)
class FleetView:
    """A copy of what the alarm rules need to know of the machines, by their number.

    Attributes:
        ids: The machines. The list may grow meanwhile.
        type_names: The names of machine types.
        types: The number of the type of each machine.
        evaluated: Whether this scorer evaluates the rules for a machine.
        observations: The state of the machines.
        senders: From where their readings come; None if it is not known of any.
    """

    ids: Sequence[str]
    type_names: Sequence[str]
    types: Integers
    evaluated: Flags
    observations: Observations
    senders: Senders | None = None

    @property
    def known_senders(self) -> Senders:
        """From where the readings of the machines come."""
        nowhere = np.zeros(len(self.evaluated), np.int64)
        return self.senders or Senders([""], nowhere, [""], nowhere)


def watched_sensors(rules: AlarmRules) -> tuple[str, ...]:
    """Returns the sensors whose latest readings the rules need."""
    limits = (rule.sensor or rule.rate for rule in rules.rules)
    return tuple(dict.fromkeys([FAULT, *(limit.sensor for limit in limits if limit is not None)]))


class _RuleState:
    """One rule for all machines: its condition, and its alarms by the journal.

    Attributes:
        replaced: Whether the rule is new or has changed, and has not been evaluated since.
    """

    def __init__(self, condition: ArrayCondition, *, replaced: bool = False) -> None:
        self.condition = condition
        self.replaced = replaced
        self.active: Flags = np.zeros(0, np.bool_)
        self.suppressed: Flags = np.zeros(0, np.bool_)

    def with_rule(self, rule: AlarmRule) -> "_RuleState":
        """Returns the state after a change of the rule, with the same alarms."""
        changed = _RuleState(ArrayCondition(rule), replaced=True)
        changed.extend(len(self.active))
        changed.condition.alarming[:] = self.condition.alarming
        changed.condition.hold_us[:] = self.condition.hold_us
        changed.active, changed.suppressed = self.active, self.suppressed
        return changed

    def extend(self, machines: int) -> None:
        self.condition.extend(machines)
        more = np.zeros(max(0, machines - len(self.active)), np.bool_)
        self.active, self.suppressed = np.concatenate([self.active, more]), np.concatenate([self.suppressed, more])

    def note(self, machine: int, alarm: Alarm) -> None:
        """Notes what the journal says of the alarm of a machine.

        An alarm that chatters is cleared only after its condition has been over for a while. A release by a parent
        counts as a raise, so it may begin or end that.
        """
        self.active[machine], self.suppressed[machine] = alarm.active, alarm.suppressed
        self.condition.hold_us[machine] = CHATTER_US if alarm.active and alarm.chatters else 0


class AlarmStates:
    """Detects transitions of the alarms of this scorer's machines.

    Attributes:
        alarms: All alarms by the journal.
        pending: Transitions that have been detected and not been written.
    """

    def __init__(self, rules: AlarmRules) -> None:
        self.alarms = JournaledAlarms(MAX_ALARMS)
        self.pending: collections.deque[Transition] = collections.deque()
        self._rules = {rule.name: _RuleState(ArrayCondition(rule)) for rule in rules.rules}
        self._active_silence = ActiveSilence(self.alarms)
        self._silence: dict[str, SilenceAlarms] = {}
        self._machines: dict[str, int] = {}
        self._evaluated: Flags = np.zeros(0, np.bool_)
        self._types: Integers = np.zeros(0, np.int64)  # of the machines at the last evaluation
        self._to_justify = True  # whether there may be alarms that no rule justifies

    def replace_rules(self, rules: AlarmRules) -> None:
        """Evaluates other rules from now on. Alarms that they do not justify are cleared with a reason."""
        states: dict[str, _RuleState] = {}
        for rule in rules.rules:
            state = self._rules.get(rule.name)
            if state is None:
                states[rule.name] = self._new_state(rule)
            else:
                states[rule.name] = state if state.condition.rule == rule else state.with_rule(rule)
        self._rules = states
        self._to_justify = True

    def _new_state(self, rule: AlarmRule) -> _RuleState:
        """Returns the state of a rule that is new, with alarms of an earlier rule of this name."""
        state = _RuleState(ArrayCondition(rule), replaced=True)
        state.extend(len(self._machines))
        for alarm in self.alarms:
            machine = self._machines.get(alarm.machine_id) if alarm.rule == rule.name else None
            if machine is not None:
                state.note(machine, alarm)
                state.condition.alarming[machine] = alarm.active
        return state

    def condition(self, rule: str) -> ArrayCondition:
        """Returns the condition of a rule."""
        return self._rules[rule].condition

    def read(self, entries: Iterable[tuple[int, Transition]], now_us: int) -> None:
        """Applies entries of the journal, each with its number."""
        for number, transition in entries:
            self.alarms.apply_entry(number, transition, now_us)
            self._follow(transition)
            self._to_justify |= transition.kind == "raised"
            state, machine = self._rules.get(transition.rule), self._machines.get(transition.machine_id)
            if state is not None and machine is not None:
                state.condition.alarming[machine] = state.active[machine]

    def evaluate(self, view: FleetView) -> list[tuple[str, list[int]]]:
        """Evaluates all rules, and queues the transitions.

        Returns:
            For each rule the machines whose delays may have begun before they were first evaluated here.
        """
        self._extend(view)
        new = view.evaluated & ~self._evaluated
        self._evaluated = view.evaluated.copy()
        if new.any():
            self._begin(np.flatnonzero(new).tolist())
        self._clear_unjustified(view, moved=bool(new.any()))
        fault = view.observations.sensors[FAULT]
        faulty = (fault[0] != 0) & (fault[1] >= 0.5)
        resumed: list[tuple[str, list[int]]] = []
        for name, state in self._rules.items():
            rule = state.condition.rule
            applies = np.array([rule.applies_to(machine_type) for machine_type in view.type_names], np.bool_)
            wanted = view.evaluated & applies[view.types]
            suppressed = faulty & rule.suppress_in_fault
            at = view.observations.at_us
            for machine in np.flatnonzero(
                wanted & (state.suppressed != suppressed) & (state.active | state.suppressed)
            ).tolist():
                kind: TransitionKind = "suppressed" if suppressed[machine] else "unsuppressed"
                self._detect(Transition(kind, view.ids[machine], name, at))
            if state.replaced:
                self._clear_ended(state, view, wanted & ~suppressed)
            changes = state.condition.evaluate(view.observations, wanted & ~suppressed)
            for index, machine in enumerate(changes.machines.tolist()):
                if rule.stale is not None and changes.alarming[index]:
                    continue  # raised below, alone or with others
                value = float(changes.values[index])
                at_us, known = int(changes.times[index]), None if np.isnan(value) else value
                if changes.alarming[index]:
                    self._raise(state, view, machine, at_us, known)
                else:
                    self._detect(Transition("cleared", view.ids[machine], name, at_us, value=known))
            if rule.stale is not None:
                self._update_silence(state, view, view.evaluated & applies[view.types])
            begun = (new | state.replaced) & wanted & ((state.condition.since > 0) | (rule.rate is not None))
            if begun.any():
                resumed.append((name, np.flatnonzero(begun).tolist()))
            state.replaced = False
        self._clear_unjustified_parents(view.observations.at_us)
        metrics.alarm_unwritten.set(len(self.pending))
        return resumed

    def _update_silence(self, state: _RuleState, view: FleetView, covered: Flags) -> None:
        rule, senders = state.condition.rule, view.known_senders
        silence = self._silence.get(rule.name)
        if silence is None or silence.rule is not rule:
            silence = SilenceAlarms(rule, self.alarms, self._active_silence, self._detect)
            self._silence[rule.name] = silence

        def raise_alarm(machine: int, at_us: int, seconds: float) -> None:
            self._raise(state, view, machine, at_us, seconds, senders.group_of(machine))

        silence.update(
            SilenceView(view.ids, senders, view.observations, covered, raise_alarm), state.condition.alarming
        )

    def _clear_unjustified_parents(self, at_us: int) -> None:
        """Clears parents of rules that are removed, or are no rules of silence any more."""
        for parent in self._active_silence.parents():
            state = self._rules.get(parent.rule)
            if state is None or state.condition.rule.stale is None:
                self._clear(parent, at_us, RULE_REMOVED if state is None else RULE_CHANGED)

    def _raise(  # noqa: PLR0917
        self,
        state: _RuleState,
        view: FleetView,
        machine: int,
        at_us: int,
        value: float | None,
        group: Group = NO_GROUP,
    ) -> None:
        rule, machine_id = state.condition.rule, view.ids[machine]
        self._detect(
            Transition(
                "raised",
                machine_id,
                rule.name,
                at_us,
                value=value,
                text=rule.text,
                priority=rule.priority,
                quantity=rule.quantity,
                sensor=rule.sensor_name,
                limit=rule.limit_at(float(view.observations.thresholds[machine])),
                gateway=group[0],
                site=group[1],
            )
        )

    def _clear_unjustified(self, view: FleetView, *, moved: bool) -> None:
        """Clears alarms of rules that are removed, or that do not cover the type of their machine any more."""
        retyped = not np.array_equal(self._types, view.types)
        if not (self._to_justify or moved or retyped):
            return
        self._to_justify, self._types = False, view.types.copy()
        for alarm in list(self.alarms):
            machine = self._machines.get(alarm.machine_id)
            if machine is None or not view.evaluated[machine] or not (alarm.active or alarm.suppressed):
                continue
            state = self._rules.get(alarm.rule)
            if state is None:
                self._clear(alarm, view.observations.at_us, RULE_REMOVED)
            elif not state.condition.rule.applies_to(view.type_names[view.types[machine]]):
                self._clear(alarm, view.observations.at_us, TYPE_NOT_COVERED)
                state.condition.reset(machine, alarming=False)

    def _clear_ended(self, state: _RuleState, view: FleetView, wanted: Flags) -> None:
        """Clears the alarms of a changed rule whose condition is not met any more, without its delay."""
        condition = state.condition
        for machine in condition.ended(view.observations, wanted).tolist():
            alarm = self.alarms.find(alarm_id(view.ids[machine], condition.rule.name))
            if alarm is not None and alarm.active:
                self._clear(alarm, view.observations.at_us, RULE_CHANGED)
            condition.reset(machine, alarming=False)

    def _clear(self, alarm: Alarm, at_us: int, reason: str) -> None:
        if alarm.suppressed:
            self._detect(Transition("unsuppressed", alarm.machine_id, alarm.rule, at_us, reason=reason))
        if alarm.active:
            self._detect(Transition("cleared", alarm.machine_id, alarm.rule, at_us, reason=reason))

    def written(self, count: int) -> None:
        """Notes that the first pending transitions were written."""
        for _ in range(min(count, len(self.pending))):
            self.pending.popleft()
        metrics.alarm_unwritten.set(len(self.pending))

    def _extend(self, view: FleetView) -> None:
        known = len(view.evaluated)
        for number in range(len(self._machines), known):
            self._machines[view.ids[number]] = number
        self._evaluated = np.concatenate([self._evaluated, np.zeros(known - len(self._evaluated), np.bool_)])
        for state in self._rules.values():
            state.extend(known)

    def _begin(self, machines: list[int]) -> None:
        """Takes the state of the alarms of machines that are evaluated from now on from the journal."""
        for state in self._rules.values():
            for machine in machines:
                state.condition.reset(machine, alarming=False)
                state.active[machine] = state.suppressed[machine] = False
        chosen = set(machines)
        for alarm in self._known_alarms():
            if self._machines.get(alarm.machine_id) in chosen:
                self._set(alarm)
                state, machine = self._rules[alarm.rule], self._machines[alarm.machine_id]
                state.condition.alarming[machine] = alarm.active

    def _known_alarms(self) -> Iterator[Alarm]:
        return (alarm for alarm in self.alarms if alarm.rule in self._rules)

    def _follow(self, transition: Transition) -> None:
        alarm = self.alarms.find(transition.alarm_id)
        if alarm is None:
            return
        self._active_silence.note(alarm)
        if alarm.rule in self._rules:
            self._set(alarm)

    def _set(self, alarm: Alarm) -> None:
        machine = self._machines.get(alarm.machine_id)
        if machine is not None:
            self._rules[alarm.rule].note(machine, alarm)

    def _detect(self, transition: Transition) -> None:
        """Applies a transition, and queues it for the journal."""
        if self.alarms.apply_own(transition) is None:
            return
        self._follow(transition)
        if len(self.pending) >= _MAX_PENDING:
            self.alarms.settle(self.pending.popleft())
            alarm_transitions_dropped_total.inc()
        self.pending.append(transition)
