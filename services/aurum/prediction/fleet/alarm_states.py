"""The alarms of the fleet: detects transitions by the rules and the state in the journal.

It is free of I/O. What it detects waits in `pending` until it has been written to the journal.
"""

import collections
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from aurum.alarms.journaled import JournaledAlarms
from aurum.alarms.lifecycle import Alarm, Transition, TransitionKind
from aurum.alarms.metrics import alarm_transitions_dropped_total
from aurum.alarms.rules import AlarmRules
from aurum.prediction.fleet import metrics
from aurum.prediction.fleet.array_conditions import ArrayCondition, Observations
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
    """

    ids: Sequence[str]
    type_names: Sequence[str]
    types: Integers
    evaluated: Flags
    observations: Observations


def watched_sensors(rules: AlarmRules) -> tuple[str, ...]:
    """Returns the sensors whose latest readings the rules need."""
    limits = (rule.sensor or rule.rate for rule in rules.rules)
    return tuple(dict.fromkeys([FAULT, *(limit.sensor for limit in limits if limit is not None)]))


class _RuleState:
    """One rule for all machines: its condition, and its alarms by the journal."""

    def __init__(self, condition: ArrayCondition) -> None:
        self.condition = condition
        self.active: Flags = np.zeros(0, np.bool_)
        self.suppressed: Flags = np.zeros(0, np.bool_)

    def extend(self, machines: int) -> None:
        self.condition.extend(machines)
        more = np.zeros(max(0, machines - len(self.active)), np.bool_)
        self.active, self.suppressed = np.concatenate([self.active, more]), np.concatenate([self.suppressed, more])


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
        self._machines: dict[str, int] = {}
        self._evaluated: Flags = np.zeros(0, np.bool_)

    def condition(self, rule: str) -> ArrayCondition:
        """Returns the condition of a rule."""
        return self._rules[rule].condition

    def read(self, entries: Iterable[tuple[int, Transition]], now_us: int) -> None:
        """Applies entries of the journal, each with its number."""
        for number, transition in entries:
            self.alarms.apply_entry(number, transition, now_us)
            self._follow(transition)
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
            changes = state.condition.evaluate(view.observations, wanted & ~suppressed)
            for index, machine in enumerate(changes.machines.tolist()):
                value = float(changes.values[index])
                self._detect(
                    Transition(
                        "raised" if changes.alarming[index] else "cleared",
                        view.ids[machine],
                        name,
                        int(changes.times[index]),
                        value=None if np.isnan(value) else value,
                    )
                )
            begun = new & wanted & ((state.condition.since > 0) | (rule.rate is not None))
            if begun.any():
                resumed.append((name, np.flatnonzero(begun).tolist()))
        metrics.alarm_unwritten.set(len(self.pending))
        return resumed

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
                state = self._rules[alarm.rule]
                state.condition.alarming[self._machines[alarm.machine_id]] = alarm.active

    def _known_alarms(self) -> Iterator[Alarm]:
        return (alarm for alarm in self.alarms if alarm.rule in self._rules)

    def _follow(self, transition: Transition) -> None:
        alarm = self.alarms.find(transition.alarm_id)
        if alarm is not None and alarm.rule in self._rules:
            self._set(alarm)

    def _set(self, alarm: Alarm) -> None:
        machine = self._machines.get(alarm.machine_id)
        if machine is not None:
            state = self._rules[alarm.rule]
            state.active[machine], state.suppressed[machine] = alarm.active, alarm.suppressed

    def _detect(self, transition: Transition) -> None:
        """Applies a transition, and queues it for the journal."""
        if self.alarms.apply_own(transition) is None:
            return
        self._follow(transition)
        if len(self.pending) >= _MAX_PENDING:
            self.alarms.settle(self.pending.popleft())
            alarm_transitions_dropped_total.inc()
        self.pending.append(transition)
