"""The alarms as their journal has them: a fold over its entries in the order in which the store took them.

That order is the store's own, since transitions are dated by devices and by operators, whose clocks differ. What a
replica has seen itself and has not yet read back stands on top of it; once it is read back it takes its place.
"""

from collections import OrderedDict
from collections.abc import Iterator

from aurum.alarms.lifecycle import Alarm, Transition, apply, changes


def key_of(transition: Transition) -> str:
    """What identifies an entry of the journal: whoever saw the same writes the same."""
    return f"{transition.at_us}~{transition.alarm_id}~{transition.kind}"


class JournaledAlarms:
    """At most `most` alarms; those that are over go first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._read: OrderedDict[str, Alarm] = OrderedDict()  # as the journal has them, as far as it was read
        self._own: dict[str, dict[str, Transition]] = {}  # by alarm: seen here and not read back, by key
        self._shown: OrderedDict[str, Alarm] = OrderedDict()  # both together; changed last at the end
        self._known: OrderedDict[str, None] = OrderedDict()  # keys that were read
        self.number = 0  # of the last entry that was read

    def find(self, alarm_id: str) -> Alarm | None:
        return self._shown.get(alarm_id)

    def __iter__(self) -> Iterator[Alarm]:
        """The last to change first."""
        return reversed(self._shown.values())

    def see(self, transition: Transition) -> Alarm | None:
        """Takes what this replica has seen; the alarm if that changes it."""
        alarm = self._shown.get(transition.alarm_id) or _unknown(transition)
        if not changes(alarm, transition):
            return None
        if key_of(transition) not in self._known:
            self._own.setdefault(transition.alarm_id, {})[key_of(transition)] = transition
        return self._show(transition)

    def read(self, number: int, transition: Transition, now_us: int) -> Alarm | None:
        """Takes the next entry of the journal; the alarm if that changes it."""
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
        """Takes something seen here for read, since it will never be written."""
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
        if alarm == before:
            return None
        self._shown.move_to_end(alarm_id)
        return alarm

    def _forget_one(self, now_us: int) -> None:
        over = next((alarm_id for alarm_id, alarm in self._shown.items() if alarm.state(now_us) == "normal"), None)
        alarm_id = over if over is not None else next(iter(self._shown))
        for kept in (self._shown, self._read, self._own):
            kept.pop(alarm_id, None)


def _unknown(transition: Transition) -> Alarm:
    return Alarm(transition.machine_id, transition.rule)
