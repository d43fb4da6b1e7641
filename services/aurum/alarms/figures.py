"""Figures that tell whether operators can work with the alarms of a plant.

The definitions follow ANSI/ISA-18.2-2016 (IEC 62682), clause 16 "Monitoring and assessment", and EEMUA publication 191,
whose targets are given per operator position. The standards measure in intervals of ten minutes from the start of the
period; a last interval that is not complete does not count as one. Only raises that were announced count: not those
while the alarm was shelved or suppressed.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from aurum.alarms.flood import BEGINS, ENDS
from aurum.alarms.lifecycle import CHATTER_RAISES, CHATTER_US, Priority
from aurum.alarms.period import PeriodAlarm
from aurum.alarms.rules import PRIORITIES
from aurum.runtime.time_units import DAY_US, MINUTE_US

INTERVAL_US = 10 * MINUTE_US
STALE_US = DAY_US  # time for which an alarm is active, after which it is stale
TOP = 10  # most frequent rules and machines that are named
MOST_LISTED = 100  # chattering and stale alarms that are named


@dataclass(frozen=True, slots=True)
class Frequency:
    """How often something raised alarms in the period, and its share of all raises, from 0 to 1."""

    name: str
    count: int
    share: float


@dataclass(frozen=True, slots=True)
class AlarmFigures:
    """The figures of a period.

    Attributes:
        intervals: Number of complete intervals of ten minutes.
        raised: Number of announced raises.
        average_rate: Raises in ten minutes per operator position, on average. ISA-18.2: about 1 is acceptable, and 2
            the most that can be managed.
        peak_rate: Most raises in an interval, per operator position. ISA-18.2: at most 10.
        busy_share: Share of the intervals with more than ten raises per operator position. ISA-18.2: below 1 %.
        flood_share: Share of the intervals in a flood, which begins with an interval of more than ten raises per
            operator position and ends before the next one of fewer than five. ISA-18.2: below 1 %.
        by_priority: Share of the raises by priority. ISA-18.2: about 80 % low, 15 % medium, 5 % high or urgent.
        top_rules: The rules that raised most, at most ten.
        top_rules_share: Their share of all raises. It says little in a plant with few rules.
        top_machines: The machines with most raises, at most ten.
        top_machines_share: Their share of all raises.
        top_alarms_share: Share of the ten most frequent alarms, each a rule for a machine. ISA-18.2: at most 1 to 5 %.
        chattering: Ids of alarms that were raised three times within ten minutes, at most 100. ISA-18.2: none.
        chattering_count: Their number.
        stale: Ids of alarms that had been active for more than 24 hours at the end, at most 100. ISA-18.2: fewer
            than 5.
        stale_count: Their number.
    """

    intervals: int
    raised: int
    average_rate: float | None
    peak_rate: float | None
    busy_share: float | None
    flood_share: float | None
    by_priority: dict[Priority, float]
    top_rules: Sequence[Frequency]
    top_rules_share: float
    top_machines: Sequence[Frequency]
    top_machines_share: float
    top_alarms_share: float
    chattering: Sequence[str]
    chattering_count: int
    stale: Sequence[str]
    stale_count: int


def alarm_figures(alarms: Iterable[PeriodAlarm], start_us: int, end_us: int, positions: int) -> AlarmFigures:
    """Computes the figures of a period.

    Args:
        alarms: The alarms of the period.
        start_us: Start in µs since 1970, inclusive.
        end_us: End in µs since 1970, exclusive.
        positions: Number of operator positions between which the alarms are divided, at least 1.
    """
    alarms = list(alarms)
    raises = {each.alarm.alarm_id: _announced(each, start_us, end_us) for each in alarms}
    times = sorted(at for own in raises.values() for at in own)
    counts = _per_interval(times, start_us, end_us)
    rates = [count / positions for count in counts]
    floods = _flooded(rates)

    def frequencies(name_of: Callable[[PeriodAlarm], str], counted: Sequence[PeriodAlarm]) -> list[Frequency]:
        counter: Counter[str] = Counter()
        for each in counted:
            counter[name_of(each)] += len(raises[each.alarm.alarm_id])
        top = sorted(((count, name) for name, count in counter.items() if count), key=lambda each: (-each[0], each[1]))
        return [Frequency(name, count, count / len(times)) for count, name in top[:TOP]]

    rules = frequencies(lambda each: each.alarm.rule, alarms)
    of_machines = [each for each in alarms if not each.alarm.is_parent]  # a parent stands for many machines
    machines = frequencies(lambda each: each.alarm.machine_id, of_machines)
    ids = frequencies(lambda each: each.alarm.alarm_id, alarms)
    chattering = [alarm_id for alarm_id, own in raises.items() if _chatters(own)]
    stale = [each.alarm.alarm_id for each in alarms if _is_stale(each, start_us, end_us)]
    by_priority: Counter[Priority] = Counter()
    for each in alarms:
        by_priority[each.priority] += len(raises[each.alarm.alarm_id])
    return AlarmFigures(
        intervals=len(counts),
        raised=len(times),
        average_rate=math.fsum(rates) / len(rates) if rates else None,
        peak_rate=max(rates, default=None),
        busy_share=sum(rate > BEGINS for rate in rates) / len(rates) if rates else None,
        flood_share=sum(floods) / len(floods) if floods else None,
        by_priority={priority: by_priority[priority] / len(times) if times else 0.0 for priority in PRIORITIES},
        top_rules=rules,
        top_rules_share=_share(rules),
        top_machines=machines,
        top_machines_share=_share(machines),
        top_alarms_share=_share(ids),
        chattering=chattering[:MOST_LISTED],
        chattering_count=len(chattering),
        stale=stale[:MOST_LISTED],
        stale_count=len(stale),
    )


def _announced(alarm: PeriodAlarm, start_us: int, end_us: int) -> list[int]:
    """Returns the times of the raises in a period that operators were told of."""
    return [
        entry.at_us for entry, announced in alarm.effective(start_us, end_us) if entry.kind == "raised" and announced
    ]


def _per_interval(times: Sequence[int], start_us: int, end_us: int) -> list[int]:
    """Returns the number of raises in each complete interval."""
    counts = [0] * max(0, (end_us - start_us) // INTERVAL_US)
    for at in times:
        index = (at - start_us) // INTERVAL_US
        if index < len(counts):
            counts[index] += 1
    return counts


def _flooded(rates: Sequence[float]) -> list[bool]:
    """Returns which intervals belong to a flood."""
    flooded, in_flood = [], False
    for rate in rates:
        in_flood = rate > BEGINS or (in_flood and rate >= ENDS)
        flooded.append(in_flood)
    return flooded


def _chatters(times: Sequence[int]) -> bool:
    first_of_run = zip(times, times[CHATTER_RAISES - 1 :], strict=False)
    return any(last - first <= CHATTER_US for first, last in first_of_run)


def _is_stale(alarm: PeriodAlarm, start_us: int, end_us: int) -> bool:
    """Returns whether an alarm has been active for long at the end. One of an unknown raise was active at the start."""
    since_us = alarm.active_since(end_us - 1) or start_us
    return alarm.is_active(end_us - 1) and end_us - since_us > STALE_US


def _share(top: Iterable[Frequency]) -> float:
    return math.fsum(each.share for each in top)
