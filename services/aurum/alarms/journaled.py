"""The state of all alarms, as a fold over the entries of the journal in the order of the store's numbers.

The store's order is used because the times in transitions come from different clocks. Transitions that this replica has
detected and not yet read back are applied on top. Once they are read back, they count at their place in the journal.
"""

import itertools
from collections import OrderedDict
from collections.abc import Iterator

from aurum.alarms.lifecycle import Alarm, Transition, apply_transition, has_effect

_MAX_EXAMINED = 100  # alarms, normal or shelved, that are examined to find one to drop


def journal_key(transition: Transition) -> str:
    """Returns the key of a journal entry. Replicas that detect the same transition produce the same key."""
    return f"{transition.at_us}~{transition.entry_id}"


class JournaledAlarms:
    """The alarms by the journal and this replica's own transitions.

    Attributes:
        last_number: The store's number of the last journal entry that was applied.
    """

    def __init__(self, max_alarms: int) -> None:
        """Starts without alarms. max_alarms: Number of alarms to keep; those in state normal are dropped first."""
        self._max_alarms = max_alarms
        self._by_journal: OrderedDict[str, Alarm] = OrderedDict()  # state by the journal's entries alone
        self._own: dict[str, dict[str, Transition]] = {}  # by alarm and key: detected here and not read back
        self._current: OrderedDict[str, Alarm] = OrderedDict()  # state with own transitions; latest change last
        self._normal: OrderedDict[str, None] = OrderedDict()  # alarms in state normal, or shelved and otherwise normal
        self._applied_keys: OrderedDict[str, None] = OrderedDict()  # keys of the journal's entries
        self.last_number = 0

    def find(self, alarm_id: str) -> Alarm | None:
        """Returns an alarm by its id, or None."""
        return self._current.get(alarm_id)

    def __iter__(self) -> Iterator[Alarm]:
        """Iterates over the alarms, the latest change first."""
        return reversed(self._current.values())

    def apply_own(self, transition: Transition) -> Alarm | None:
        """Applies a transition of this replica. Returns the alarm if it changes, else None."""
        alarm = self._current.get(transition.alarm_id) or _new_alarm(transition)
        if not has_effect(alarm, transition):
            return None
        if journal_key(transition) not in self._applied_keys:
            self._own.setdefault(transition.alarm_id, {})[journal_key(transition)] = transition
        return self._update_current(transition)

    def apply_entry(self, number: int, transition: Transition, now_us: int) -> Alarm | None:
        """Applies the next entry of the journal. An entry that was applied already has no effect.

        Args:
            number: The entry's number in the store.
            transition: The entry.
            now_us: The present time in µs since 1970.

        Returns:
            The alarm if it changes, else None.
        """
        self.last_number = max(self.last_number, number)
        key = journal_key(transition)
        if key in self._applied_keys:
            return None
        self._applied_keys[key] = None
        while len(self._applied_keys) > 2 * self._max_alarms:
            self._applied_keys.popitem(last=False)
        if transition.past:
            return None
        self._move_to_journal(key, transition)
        changed = self._update_current(transition)
        if len(self._current) > self._max_alarms:
            self._drop_one(now_us)
        return changed

    def has_entry(self, key: str) -> bool:
        """Returns whether the journal's entry with a key, see `journal_key`, was applied. Old ones are forgotten."""
        return key in self._applied_keys

    def settle(self, transition: Transition) -> None:
        """Treats a transition of this replica as part of the journal, because it will never be written."""
        self._move_to_journal(journal_key(transition), transition)

    def _move_to_journal(self, key: str, transition: Transition) -> None:
        alarm_id = transition.alarm_id
        self._by_journal[alarm_id] = apply_transition(
            self._by_journal.get(alarm_id) or _new_alarm(transition), transition
        )
        own = self._own.get(alarm_id)
        if own is not None:
            own.pop(key, None)
            if not own:
                del self._own[alarm_id]

    def _update_current(self, transition: Transition) -> Alarm | None:
        alarm_id = transition.alarm_id
        before = self._current.get(alarm_id) or _new_alarm(transition)
        alarm = self._by_journal.get(alarm_id) or _new_alarm(transition)
        for own in self._own.get(alarm_id, {}).values():
            alarm = apply_transition(alarm, own)
        self._current[alarm_id] = alarm
        if alarm != before or alarm_id not in self._normal:
            self._normal.pop(alarm_id, None)
            if alarm.acknowledged and not (alarm.active or alarm.suppressed or alarm.parent):
                self._normal[alarm_id] = None
        if alarm == before:
            return None
        self._current.move_to_end(alarm_id)
        return alarm

    def _drop_one(self, now_us: int) -> None:
        candidates = itertools.islice(self._normal, _MAX_EXAMINED)
        normal = next((alarm_id for alarm_id in candidates if self._current[alarm_id].state(now_us) == "normal"), None)
        alarm_id = normal if normal is not None else next(iter(self._current))
        for alarms in (self._current, self._by_journal, self._own, self._normal):
            alarms.pop(alarm_id, None)


def _new_alarm(transition: Transition) -> Alarm:
    return Alarm(transition.machine_id, transition.rule)
