"""Alarms of a period by their journal: what they were at each moment, the handover report, and the figures."""

from collections import Counter
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.alarms.figures import INTERVAL_US, STALE_US, alarm_figures
from aurum.alarms.handover import handover_report
from aurum.alarms.lifecycle import Alarm, Priority, Transition, TransitionKind, apply_transition, has_effect
from aurum.alarms.period import PeriodAlarm, alarms_of_period
from aurum.runtime.time_units import HOUR_US, MINUTE_US

KINDS: tuple[TransitionKind, ...] = ("raised", "cleared", "acknowledged", "shelved", "unshelved", "suppressed",
                                     "unsuppressed", "commented")  # fmt: skip
BY_PARENT: tuple[TransitionKind, ...] = ("suppressed", "unsuppressed")
steps = st.one_of(
    st.tuples(st.sampled_from(KINDS), st.just("")), st.tuples(st.sampled_from(BY_PARENT), st.just("@gateway~silent"))
)
NOW = 100
Life = list[tuple[tuple[TransitionKind, str], str, int]]
lives = st.lists(st.tuples(steps, st.sampled_from("ab"), st.integers(1, 40)), max_size=40)


def entry(  # noqa: PLR0917
    kind: TransitionKind, machine: str, at_us: int, rule: str = "r", priority: Priority = "low", parent: str = ""
) -> Transition:
    until = at_us + 15 if kind == "shelved" else 0
    stated: Priority | Literal[""] = priority if kind == "raised" else ""
    return Transition(kind, machine, rule, at_us, until_us=until, priority=stated, parent=parent)


def played(life: Life) -> list[Transition]:
    """Entries with an effect at times of their own, from 1 to NOW."""
    times = sorted(2 * number + step % 2 for number, (_, _, step) in enumerate(life, start=1))
    alarms: dict[str, Alarm] = {}
    entries = []
    for ((kind, parent), machine, _), at in zip(life, times, strict=True):
        each = entry(kind, machine, at, parent=parent)
        alarm = alarms.get(machine, Alarm(machine, "r"))
        ends = {"unshelved": alarm.shelved_until_us > at, "cleared": alarm.active}
        if has_effect(alarm, each) and ends.get(kind, True):
            alarms[machine] = apply_transition(alarm, each)
            entries.append(each)
    return entries


def folded(entries: list[Transition], until_us: int = NOW) -> dict[str, Alarm]:
    alarms: dict[str, Alarm] = {}
    for each in entries:
        if each.at_us <= until_us:
            alarms[each.alarm_id] = apply_transition(alarms.get(each.alarm_id, Alarm(each.machine_id, "r")), each)
    return alarms


@settings(max_examples=300)
@given(lives, st.integers(0, NOW), st.integers(0, NOW))
def test_past_of_an_alarm_follows_from_later_entries(life: Life, start: int, moment: int) -> None:
    """Entries since the start of a period and the present state tell what an alarm was at each moment of the period."""
    entries = played(life)
    moment = max(start, moment)
    then = folded(entries, moment)
    since = [each for each in entries if each.at_us >= start]
    for alarm in alarms_of_period(reversed(since), folded(entries).values(), {}):
        was = then.get(alarm.alarm.alarm_id, Alarm(alarm.alarm.machine_id, "r"))
        assert alarm.is_active(moment) == was.active
        later = [each.kind for each in alarm.entries if each.at_us > moment]
        own = [each.kind for each in alarm.entries if each.at_us <= moment]
        hidden_before = folded(entries, start - 1).get(alarm.alarm.alarm_id, Alarm("", "")).parent
        first_end = next((each.kind for each in alarm.entries if each.parent or each.kind == "cleared"), "none")
        known_parent = not hidden_before or first_end != "cleared"
        if known_parent or was.suppressed:  # else the entry that tells is from before the period
            assert alarm.is_suppressed(moment) == (was.suppressed or bool(was.parent))
        released = any(each.kind == "unsuppressed" and each.parent for each in alarm.entries if each.at_us > moment)
        known = {"raised", "acknowledged"} & set(own) or ("raised" not in later and not released)
        if known and known_parent:
            assert alarm.is_acknowledged(moment) == was.acknowledged
        if {"shelved", "unshelved"} & set(own) or "shelved" not in later:
            assert (alarm.shelving(moment) is not None) == (was.shelved_until_us > moment)


@settings(max_examples=300)
@given(lives, st.integers(0, NOW))
def test_handover_report_is_that_of_the_fold(life: Life, start: int) -> None:
    """A report up to now has the open and shelved alarms of the fold, and counts the changes that had an effect."""
    entries = played(life)
    alarms = folded(entries)
    period = alarms_of_period([each for each in entries if each.at_us >= start], alarms.values(), {})
    report = handover_report(period, start, NOW + 1)
    states = {alarm_id: alarm.state(NOW) for alarm_id, alarm in alarms.items()}
    expected = {key: state for key, state in states.items() if state in ("unacknowledged", "acknowledged", "returned")}
    shown = {
        each.alarm.alarm.alarm_id: "returned" if not each.active else
        "acknowledged" if each.acknowledged else "unacknowledged" for each in report.open
    }  # fmt: skip
    assert shown == expected
    shelved = {key for key, alarm in alarms.items() if alarm.shelved_until_us > NOW}
    assert {each.alarm.alarm_id for each, _ in report.shelved} == shelved
    effects: Counter[str] = Counter()
    for each in entries:
        before, after = folded(entries, each.at_us - 1), folded(entries, each.at_us)
        if each.at_us >= start and each.kind in ("raised", "cleared"):
            effects[each.kind] += before.get(each.alarm_id, Alarm("", "")).active != after[each.alarm_id].active
    assert (report.raised, report.cleared) == (effects["raised"], effects["cleared"])
    assert report.raised == sum(count for _, count in report.raised_alarms) == sum(each.raised for each in report.worst)
    assert report.comment_count == sum(each.kind == "commented" and each.at_us >= start for each in entries)


def raises(machine: str, *minutes: float, rule: str = "r", priority: Priority = "low") -> list[Transition]:
    """Raises at minutes of the period, each cleared half a minute later."""
    return [
        each
        for minute in minutes
        for each in (
            entry("raised", machine, int(minute * MINUTE_US), rule, priority),
            entry("cleared", machine, int((minute + 0.5) * MINUTE_US), rule),
        )
    ]


def period_of(*entries: Transition, present: tuple[Alarm, ...] = ()) -> list[PeriodAlarm]:
    return alarms_of_period(entries, present, {})


def test_rates_are_per_interval_and_operator_position() -> None:
    """Rates count raises in complete intervals of ten minutes, divided by the operator positions."""
    entries = [each for number in range(24) for each in raises(f"m{number}", 12 + number / 10)]
    alarms = period_of(*entries, *raises("late", 45))
    found = alarm_figures(alarms, 0, 45 * MINUTE_US + 1, 1)
    assert (found.intervals, found.raised) == (4, 25)  # the last five minutes are no interval
    assert (found.average_rate, found.peak_rate, found.busy_share) == (6.0, 24.0, 0.25)
    of_two = alarm_figures(alarms, 0, 45 * MINUTE_US + 1, 2)
    assert (of_two.average_rate, of_two.peak_rate, of_two.busy_share) == (3.0, 12.0, 0.25)
    none = alarm_figures(alarms, 0, MINUTE_US, 1)
    assert (none.intervals, none.average_rate, none.peak_rate, none.flood_share) == (0, None, None, None)


def test_flood_lasts_until_fewer_than_five_raises() -> None:
    """A flood begins with more than ten raises in an interval and ends before an interval of fewer than five."""
    counts = [10, 11, 5, 5, 4, 5]
    entries = [
        each
        for interval, count in enumerate(counts)
        for number in range(count)
        for each in raises(f"m{interval}-{number}", 10 * interval + number / 10)
    ]
    found = alarm_figures(period_of(*entries), 0, 6 * INTERVAL_US, 1)
    assert found.flood_share == pytest.approx(3 / 6)
    assert found.busy_share == pytest.approx(1 / 6)


def test_most_frequent_are_named_with_their_share() -> None:
    """The ten rules and machines with most raises are named with their share, and so are the priorities."""
    entries = [
        *raises("a", 1, 21, 41, rule="hot", priority="high"),
        *raises("a", 2, rule="cold"),
        *(each for number in range(12) for each in raises(f"m{number:02}", 60 + number, rule="cold")),
    ]
    found = alarm_figures(period_of(*entries), 0, 2 * HOUR_US, 1)
    assert [(each.name, each.count, each.share) for each in found.top_rules] == [
        ("cold", 13, 13 / 16),
        ("hot", 3, 3 / 16),
    ]
    assert found.top_rules_share == pytest.approx(1)
    assert [each.name for each in found.top_machines] == ["a", *(f"m{number:02}" for number in range(9))]
    assert found.top_machines_share == pytest.approx(13 / 16)
    assert found.top_alarms_share == pytest.approx(12 / 16)
    assert found.by_priority == {"low": 13 / 16, "medium": 0, "high": 3 / 16, "urgent": 0}


def test_chattering_and_stale_alarms_are_named() -> None:
    """Three raises within ten minutes chatter; an alarm that is active for more than 24 hours is stale."""
    old = Alarm("old", "r", active=True, acknowledged=False, raised_us=0)
    young = Alarm("young", "r", active=True, acknowledged=False, raised_us=STALE_US)
    entries = [*raises("fast", 1, 6, 11), *raises("slow", 1, 6, 11.1), entry("raised", "young", STALE_US)]
    end = STALE_US + HOUR_US
    found = alarm_figures(period_of(*entries, present=(old, young)), HOUR_US - HOUR_US, end, 1)
    assert (found.chattering, found.chattering_count) == (["fast~r"], 1)
    assert (found.stale, found.stale_count) == (["old~r"], 1)


def test_raises_that_nobody_was_told_of_do_not_count() -> None:
    """Raises while an alarm is shelved or suppressed, and those of an active alarm, are not announced."""
    shelved = Transition("shelved", "a", "r", 0, until_us=30 * MINUTE_US)
    entries = [shelved, *raises("a", 10, 20, 40), entry("suppressed", "b", 5), *raises("b", 10)]
    entries += [entry("raised", "c", 50), entry("raised", "c", 60)]
    found = alarm_figures(period_of(*entries), 0, HOUR_US, 1)
    assert found.raised == 2
    assert {each.name: each.count for each in found.top_machines} == {"a": 1, "c": 1}
