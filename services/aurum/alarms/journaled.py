"""The state of all alarms, as a fold over the entries of the journal in the order of the store's numbers.

The store's order is used because the times in transitions come from different clocks. Transitions that this replica has
detected and not yet read back are applied on top. Once they are read back, they count at their place in the journal.
"""

import itertools
from collections import OrderedDict
from collections.abc import Iterator

from aurum.alarms.lifecycle import Alarm, Transition, apply, changes

_SEARCHED = 100  # alarms that are over and may be shelved, among which one to drop is searched


def key_of(transition: Transition) -> str:
    """Returns the key of a journal entry. Replicas that detect the same transition produce the same key."""
    return f"{transition.at_us}~{transition.alarm_id}~{transition.kind}"


class JournaledAlarms:
    """The alarms by the journal and this replica's own transitions.

    It keeps at most `most` alarms and drops those that are over first.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._read: OrderedDict[str, Alarm] = OrderedDict()  # state by the entries that were read
        self._own: dict[str, dict[str, Transition]] = {}  # by alarm and key: detected here and not read back
        self._shown: OrderedDict[str, Alarm] = OrderedDict()  # state by both; latest change last
        self._known: OrderedDict[str, None] = OrderedDict()  # keys of the entries that were read
        self._over: OrderedDict[str, None] = OrderedDict()  # alarms that are normal when they are not shelved
        self.number = 0  # of the last entry that was read

    def find(self, alarm_id: str) -> Alarm | None:
        return self._shown.get(alarm_id)

    def __iter__(self) -> Iterator[Alarm]:
        """Iterates over the alarms, the latest change first."""
        return reversed(self._shown.values())

    def see(self, transition: Transition) -> Alarm | None:
        """Applies a transition of this replica. Returns the alarm if it changes, else None."""
        alarm = self._shown.get(transition.alarm_id) or _unknown(transition)
        if not changes(alarm, transition):
            return None
        if key_of(transition) not in self._known:
            self._own.setdefault(transition.alarm_id, {})[key_of(transition)] = transition
        return self._show(transition)

    def read(self, number: int, transition: Transition, now_us: int) -> Alarm | None:
        """Applies the next entry of the journal. Returns the alarm if it changes, else None."""
        self.number = max(self.number, number)
        key = key_of(transition)
        if key in self._known:
            return None
        self._known[key] = None
        while len(self._known) > 2 * self._most:
            self._known.popitem(last=False)
        self._settle(key, transition)
        changed = self._show(transition)
        if len(self._shown) > self._most:
            self._forget_one(now_us)
        return changed

    def give_up(self, transition: Transition) -> None:
        """Treats a transition of this replica as read back, because it will never be written."""
        self._settle(key_of(transition), transition)

    def _settle(self, key: str, transition: Transition) -> None:
        alarm_id = transition.alarm_id
        self._read[alarm_id] = apply(self._read.get(alarm_id) or _unknown(transition), transition)
        own = self._own.get(alarm_id)
        if own is not None:
            own.pop(key, None)
            if not own:
                del self._own[alarm_id]

    def _show(self, transition: Transition) -> Alarm | None:
        alarm_id = transition.alarm_id
        before = self._shown.get(alarm_id) or _unknown(transition)
        alarm = self._read.get(alarm_id) or _unknown(transition)
        for own in self._own.get(alarm_id, {}).values():
            alarm = apply(alarm, own)
        self._shown[alarm_id] = alarm
        if alarm != before or alarm_id not in self._over:
            self._over.pop(alarm_id, None)
            if alarm.acknowledged and not (alarm.active or alarm.suppressed):
                self._over[alarm_id] = None
        if alarm == before:
            return None
        self._shown.move_to_end(alarm_id)
        return alarm

    def _forget_one(self, now_us: int) -> None:
        some = itertools.islice(self._over, _SEARCHED)
        over = next((alarm_id for alarm_id in some if self._shown[alarm_id].state(now_us) == "normal"), None)
        alarm_id = over if over is not None else next(iter(self._shown))
        for kept in (self._shown, self._read, self._own, self._over):
            kept.pop(alarm_id, None)


def _unknown(transition: Transition) -> Alarm:
    return Alarm(transition.machine_id, transition.rule)
