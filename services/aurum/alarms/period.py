"""The alarms of a period, from the entries of the journal since its start and their present states.

The journal tells what changed, not what was. What an alarm was at a moment follows from its last entry before, or else
from its first entry after, or else, without any, from its present state. So no entry from before the period is needed.
For the present moment this is exact. For a moment in the past, an acknowledgement or shelving from before the period is
not known if the next entry is a raise, the release by a parent, or another shelving; the alarm then counts as
acknowledged and not shelved.
"""

import bisect
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from aurum.alarms.lifecycle import Alarm, Priority, Transition, TransitionKind


@dataclass(frozen=True, slots=True)
class PeriodAlarm:
    """An alarm with its entries since the start of a period.

    Attributes:
        alarm: Its present state.
        entries: Its entries since the start of the period up to now, the oldest first.
        priority: Its priority.
    """

    alarm: Alarm
    entries: Sequence[Transition]
    priority: Priority

    def between(self, start_us: int, end_us: int) -> Sequence[Transition]:
        """Returns the entries from `start_us` until before `end_us`, in µs since 1970."""
        at = operator.attrgetter("at_us")
        return self.entries[
            bisect.bisect_left(self.entries, start_us, key=at) : bisect.bisect_left(self.entries, end_us, key=at)
        ]

    def effective(self, start_us: int, end_us: int) -> Iterator[tuple[Transition, bool]]:
        """Yields the entries of a period without raises of an active alarm and clears of an inactive one.

        Args:
            start_us: Start in µs since 1970, inclusive.
            end_us: End in µs since 1970, exclusive.

        Yields:
            The entry, and whether the alarm was announced then: neither shelved nor suppressed.
        """
        active, suppressed = self.is_active(start_us - 1), self._is_suppressed_by_rule(start_us - 1)
        has_parent = self._has_parent(start_us - 1)
        shelving = self.shelving(start_us - 1)
        shelved_until_us = shelving.until_us if shelving is not None else 0
        for entry in self.between(start_us, end_us):
            if (entry.kind == "raised" and active) or (entry.kind == "cleared" and not active):
                continue
            match entry.kind:
                case "raised" | "cleared":
                    active = entry.kind == "raised"
                    has_parent = has_parent and active
                case "suppressed" | "unsuppressed" if entry.parent:
                    has_parent = entry.kind == "suppressed"
                case "suppressed" | "unsuppressed":
                    suppressed = entry.kind == "suppressed"
                case "shelved" | "unshelved":
                    shelved_until_us = entry.until_us
            yield entry, not (suppressed or has_parent) and shelved_until_us <= entry.at_us

    def is_active(self, at_us: int) -> bool:
        """Returns whether the condition held at a time in µs since 1970."""
        return self._was(at_us, "raised", "cleared", present=self.alarm.active)

    def is_suppressed(self, at_us: int) -> bool:
        """Returns whether its rule or a parent hid the alarm at a time in µs since 1970."""
        return self._is_suppressed_by_rule(at_us) or self._has_parent(at_us)

    def _is_suppressed_by_rule(self, at_us: int) -> bool:
        own = [entry for entry in self.entries if not entry.parent]
        return self._was(at_us, "suppressed", "unsuppressed", present=self.alarm.suppressed, entries=own)

    def _has_parent(self, at_us: int) -> bool:
        """Returns whether a parent suppressed the alarm; the end of the condition ends that too."""
        steps = [entry for entry in self.entries if entry.parent or entry.kind == "cleared"]
        before = [entry for entry in steps if entry.at_us <= at_us]
        if before:
            return before[-1].kind == "suppressed"
        return steps[0].kind == "unsuppressed" if steps else bool(self.alarm.parent)

    def is_acknowledged(self, at_us: int) -> bool:
        """Returns whether the last raise before a time in µs since 1970 was acknowledged then, or needed it not.

        What is raised under a parent needs no acknowledgement until the parent releases it.
        """
        steps = [entry for entry in self.entries if entry.kind in ("raised", "acknowledged") or self._releases(entry)]
        before = [entry for entry in steps if entry.at_us <= at_us]
        if before and self.entries[-1].at_us > at_us:
            last = before[-1]
            return last.kind == "acknowledged" or (last.kind == "raised" and self._has_parent(last.at_us))
        if before or not steps:
            return self.alarm.acknowledged  # nothing has changed it since
        return steps[0].kind != "acknowledged"

    def _releases(self, entry: Transition) -> bool:
        """Returns whether a parent releases the active alarm by an entry."""
        return entry.kind == "unsuppressed" and bool(entry.parent) and self.is_active(entry.at_us)

    def shelving(self, at_us: int) -> Transition | None:
        """Returns the shelving in effect at a time in µs since 1970, or None.

        Of one from before the period only the end may be known.
        """
        before, after = self._around(at_us, "shelved", "unshelved")
        if before is not None:
            return before if before.kind == "shelved" and before.until_us > at_us else None
        alarm = self.alarm
        if after is None and alarm.shelved_until_us > at_us:
            until, by, reason = alarm.shelved_until_us, alarm.shelved_by, alarm.reason
            return Transition("shelved", alarm.machine_id, alarm.rule, 0, by, until, reason=reason)
        if after is not None and after.kind == "unshelved":
            return Transition("shelved", alarm.machine_id, alarm.rule, 0, until_us=after.at_us)
        return None

    def active_since(self, at_us: int) -> int:
        """Returns when the alarm that was active at a time was raised, in µs since 1970.

        0 if that was before the period, and is not known because the alarm was raised again since.
        """
        raised = [entry.at_us for entry in self.entries if entry.kind == "raised" and entry.at_us <= at_us]
        if raised:
            return raised[-1]
        return self.alarm.raised_us if self.alarm.raised_us <= at_us else 0

    def _was(
        self,
        at_us: int,
        begins: TransitionKind,
        ends: TransitionKind,
        *,
        present: bool,
        entries: Sequence[Transition] | None = None,
    ) -> bool:
        before, after = self._around(at_us, begins, ends, entries=entries)
        if before is not None:
            return before.kind == begins
        return after.kind == ends if after is not None else present

    def _around(
        self, at_us: int, *kinds: TransitionKind, entries: Sequence[Transition] | None = None
    ) -> tuple[Transition | None, Transition | None]:
        """Returns the last entry of these kinds up to a time, and the first one after it."""
        before = None
        for entry in self.entries if entries is None else entries:
            if entry.kind not in kinds:
                continue
            if entry.at_us > at_us:
                return before, entry
            before = entry
        return before, None


def alarms_of_period(
    entries: Iterable[Transition], present: Iterable[Alarm], priorities: Mapping[str, Priority]
) -> list[PeriodAlarm]:
    """Returns the alarms of a period: those that have entries in it, and those that are not normal now.

    Args:
        entries: The entries since the start of the period, in any order, each once.
        present: The present alarms. One that is not among them counts as normal now.
        priorities: Priorities by rule, for entries of versions that recorded none.
    """
    by_alarm: dict[str, list[Transition]] = {}
    for entry in entries:
        by_alarm.setdefault(entry.alarm_id, []).append(entry)
    known = {alarm.alarm_id: alarm for alarm in present}
    found = []
    for alarm_id in by_alarm.keys() | known.keys():
        own = sorted(by_alarm.get(alarm_id, ()), key=lambda entry: entry.at_us)
        alarm = known.get(alarm_id) or Alarm(own[0].machine_id, own[0].rule)
        stated: Priority | Literal[""] = next((entry.priority for entry in reversed(own) if entry.priority), "")
        found.append(PeriodAlarm(alarm, own, stated or alarm.priority or priorities.get(alarm.rule, "low")))
    return sorted(found, key=lambda each: each.alarm.alarm_id)
