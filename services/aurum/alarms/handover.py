"""The report with which a shift hands its alarms over to the next one."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aurum.alarms.lifecycle import Transition
from aurum.alarms.period import PeriodAlarm
from aurum.alarms.rules import PRIORITIES

WORST = 10  # machines
MOST_LISTED = 500  # alarms or comments in each list


@dataclass(frozen=True, slots=True)
class OpenAlarm:
    """An alarm that is active or not acknowledged at the end of the shift.

    Attributes:
        alarm: The alarm.
        active: Whether its condition holds.
        acknowledged: Whether its last raise is acknowledged.
        since_us: When it was raised, in µs since 1970; 0 if unknown.
    """

    alarm: PeriodAlarm
    active: bool
    acknowledged: bool
    since_us: int


@dataclass(frozen=True, slots=True)
class MachineCount:
    """A machine with its raises in the shift, and how many of its alarms are open at the end."""

    machine_id: str
    raised: int
    open: int


@dataclass(frozen=True, slots=True)
class HandoverReport:
    """What a shift hands over. Lists have at most MOST_LISTED items; the counts are of all.

    Attributes:
        raised: Number of raises in the shift.
        cleared: Number of alarms that were cleared.
        acknowledged: Number of acknowledgements.
        open_count: Number of alarms that are open at the end.
        shelved_count: Number of alarms that are shelved at the end.
        comment_count: Number of comments of the shift.
        open: Alarms that are open at the end, the urgent and then the oldest first; shelved and suppressed ones not.
        raised_alarms: Alarms that were raised, with how often, the most frequent first.
        shelved: Alarms that are shelved at the end, with the shelving.
        comments: Comments of the shift, the oldest first.
        worst: The machines with most raises, at most WORST.
    """

    raised: int
    cleared: int
    acknowledged: int
    open_count: int
    shelved_count: int
    comment_count: int
    open: Sequence[OpenAlarm]
    raised_alarms: Sequence[tuple[PeriodAlarm, int]]
    shelved: Sequence[tuple[PeriodAlarm, Transition]]
    comments: Sequence[Transition]
    worst: Sequence[MachineCount]


def handover_report(alarms: Iterable[PeriodAlarm], start_us: int, end_us: int) -> HandoverReport:
    """Makes the report of a shift.

    Args:
        alarms: The alarms of the shift.
        start_us: Start in µs since 1970, inclusive.
        end_us: End in µs since 1970, exclusive.
    """
    alarms = list(alarms)
    last_us = end_us - 1
    counts = {
        each.alarm.alarm_id: Counter(entry.kind for entry, _ in each.effective(start_us, end_us)) for each in alarms
    }
    raised = [(each, count) for each in alarms if (count := counts[each.alarm.alarm_id]["raised"])]
    shelved = [(each, shelving) for each in alarms if (shelving := each.shelving(last_us)) is not None]
    opened = [open_alarm for each in alarms if (open_alarm := _open_alarm(each, last_us)) is not None]
    comments = sorted(
        (entry for each in alarms for entry in each.between(start_us, end_us) if entry.kind == "commented"),
        key=lambda entry: entry.at_us,
    )
    raises: Counter[str] = Counter()
    for each, count in raised:
        if each.alarm.is_parent:
            continue  # it stands for many machines
        raises[each.alarm.machine_id] += count
    open_by_machine = Counter(each.alarm.alarm.machine_id for each in opened)
    worst = sorted(raises.items(), key=lambda item: (-item[1], item[0]))[:WORST]
    return HandoverReport(
        raised=raises.total(),
        cleared=sum(count["cleared"] for count in counts.values()),
        acknowledged=sum(count["acknowledged"] for count in counts.values()),
        open_count=len(opened),
        shelved_count=len(shelved),
        comment_count=len(comments),
        open=sorted(opened, key=lambda each: (-PRIORITIES.index(each.alarm.priority), each.since_us))[:MOST_LISTED],
        raised_alarms=sorted(raised, key=lambda pair: -pair[1])[:MOST_LISTED],
        shelved=shelved[:MOST_LISTED],
        comments=comments[:MOST_LISTED],
        worst=[MachineCount(machine_id, count, open_by_machine[machine_id]) for machine_id, count in worst],
    )


def _open_alarm(alarm: PeriodAlarm, at_us: int) -> OpenAlarm | None:
    """Returns an alarm as it is open at a time in µs since 1970; None if it is not."""
    active, acknowledged = alarm.is_active(at_us), alarm.is_acknowledged(at_us)
    if acknowledged and not active:
        return None
    if alarm.shelving(at_us) is not None or alarm.is_suppressed(at_us):
        return None
    return OpenAlarm(alarm, active, acknowledged, alarm.active_since(at_us))
