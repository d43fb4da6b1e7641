"""Alarms: their states, the conditions that raise them, floods, and rules that say what is wrong with them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum.alarms.conditions import Condition, Observed
from aurum.alarms.flood import Flood
from aurum.alarms.lifecycle import Alarm, Kind, Transition, apply, changes, in_order
from aurum.alarms.rules import AlarmRulesError, Rule, load_rules

SECOND = 1_000_000
KINDS: tuple[Kind, ...] = (
    "raised",
    "cleared",
    "acknowledged",
    "shelved",
    "unshelved",
    "suppressed",
    "unsuppressed",
)


def after(*kinds: Kind) -> Alarm:
    alarm = Alarm("m", "r")
    for at, kind in enumerate(kinds, start=1):
        alarm = apply(alarm, Transition(kind, "m", "r", at, until_us=100))
    return alarm


@pytest.mark.parametrize(
    ("kinds", "state"),
    [
        ((), "normal"),
        (("raised",), "unacknowledged"),
        (("raised", "acknowledged"), "acknowledged"),
        (("raised", "cleared"), "returned"),
        (("raised", "cleared", "acknowledged"), "normal"),
        (("raised", "acknowledged", "cleared"), "normal"),
        (("raised", "acknowledged", "cleared", "raised"), "unacknowledged"),
        (("raised", "shelved"), "shelved"),
        (("raised", "shelved", "unshelved"), "unacknowledged"),
        (("raised", "suppressed"), "suppressed"),
        (("raised", "suppressed", "cleared", "unsuppressed"), "returned"),
        (("shelved", "raised"), "shelved"),
    ],
)
def test_alarm_states_follow_isa_18_2(kinds: tuple[Kind, ...], state: str) -> None:
    assert after(*kinds).state(now_us=50) == state


def test_shelved_alarm_expires() -> None:
    alarm = after("raised", "shelved")
    assert alarm.state(now_us=99) == "shelved"
    assert alarm.state(now_us=101) == "unacknowledged"


def fold(journal: list[Transition]) -> dict[str, Alarm]:
    alarms: dict[str, Alarm] = {}
    for each in in_order(journal):
        alarms[each.alarm_id] = apply(alarms.get(each.alarm_id, Alarm(each.machine_id, each.rule)), each)
    return alarms


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 1000)), max_size=30), st.randoms())
def test_journal_replay_is_independent_of_order_and_repeats(entries: list[tuple[Kind, int]], random: object) -> None:
    journal = [Transition(kind, "m", "r", at, until_us=at + 5) for kind, at in entries]
    shuffled = [*journal, *journal]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    once, twice = fold(journal), fold(shuffled)
    if not journal:
        assert twice == {}
        return
    (a,), (b,) = once.values(), twice.values()
    assert (a.active, a.suppressed, a.shelved_until_us) == (b.active, b.suppressed, b.shelved_until_us)


def test_repeated_transition_is_no_change() -> None:
    alarm = after("raised")
    assert not changes(alarm, Transition("raised", "m", "r", 9))
    assert changes(alarm, Transition("cleared", "m", "r", 9))
    assert after("raised", "raised").count == 1


def rule(**given: object) -> Rule:
    return Rule.model_validate({"name": "r", "text": "t", **given})


def seen(at: float, value: float | None = None, **more: object) -> Observed:
    now = int(at * SECOND)
    return Observed(now, now, {} if value is None else {"x": (now, value)}, **more)  # type: ignore[arg-type]


def test_deadband_prevents_chattering_alarm() -> None:
    condition = Condition(rule(sensor={"sensor": "x", "above": 10, "deadband": 2}))
    told = [condition.observe(seen(at, value)) for at, value in enumerate((9, 11, 9.5, 10.5, 8.5, 7.9, 9.9))]
    assert [each and each[0] for each in told] == [None, True, None, None, None, False, None]
    below = Condition(rule(sensor={"sensor": "x", "below": 5, "deadband": 1}))
    assert [bool(below.observe(seen(at, value))) for at, value in enumerate((6, 4, 5.5, 6.5))] == [
        False,
        True,
        False,
        True,
    ]


def test_on_and_off_delays_ignore_short_changes() -> None:
    condition = Condition(rule(risk={"above": 0.5}, on_delay_seconds=10, off_delay_seconds=20))

    def at(second: float, risk: float) -> bool | None:
        told = condition.observe(seen(second, risk=risk, predicted_us=int(second * SECOND)))
        return told and told[0]

    assert [at(0, 0.9), at(5, 0.9), at(6, 0.1), at(7, 0.9), at(16, 0.9), at(17, 0.9)] == [
        None,
        None,
        None,
        None,
        None,
        True,
    ]
    assert [at(20, 0.1), at(39, 0.1), at(41, 0.1)] == [None, None, False]
    assert at(50, 0.2) is None


def test_rate_and_stale_conditions_raise_and_clear() -> None:
    rate = Condition(rule(rate={"sensor": "x", "above": 5, "over_seconds": 60}))
    told = [rate.observe(seen(60 * minute, value)) for minute, value in enumerate((20, 22, 30, 31))]
    assert [each and each[:2] for each in told] == [None, None, (True, pytest.approx(8)), (False, pytest.approx(1))]
    stale = Condition(rule(stale={"after_seconds": 60}))
    assert stale.observe(Observed(0, 0, {})) is None  # never seen is no silence
    assert stale.observe(Observed(50 * SECOND, 1 * SECOND, {})) is None
    raised = stale.observe(Observed(70 * SECOND, 1 * SECOND, {}))
    assert raised == (True, pytest.approx(69), 61 * SECOND)
    assert stale.observe(Observed(80 * SECOND, 79 * SECOND, {})) == (False, None, 80 * SECOND)


def test_unknown_value_raises_no_alarm() -> None:
    for about in ({"risk": {"above": 0.5}}, {"rul": {"below": 5}}, {"sensor": {"sensor": "y", "above": 1}}):
        assert Condition(rule(**about)).observe(seen(0, 3.0)) is None


def test_flood_begins_above_ten_and_ends_below_five() -> None:
    flood = Flood()
    for number in range(11):
        flood.note(number * SECOND)
        flood.look(number * SECOND)
    assert flood.since_us == 10 * SECOND
    assert flood.look(600 * SECOND) == 10
    assert flood.since_us
    assert flood.look(607 * SECOND) == 3
    assert not flood.since_us


def test_built_in_alarm_rules_apply_by_machine_type() -> None:
    rules = {each.name: each for each in load_rules().rules}
    assert {"failure_near", "silent", "stopped"} <= set(rules)
    assert rules["vibration_high"].holds_for("pump")
    assert not rules["vibration_high"].holds_for("conveyor")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("rules: [{name: a, text: t}]", "exactly one of risk, rul"),
        ("rules: [{name: a, text: t, risk: {above: 1, below: 0}}]", "one of above and below"),
        ("rules: [{name: A, text: t, risk: {above: 1}}]", r"rules\.0\.name"),
        ("rules: [{name: a, text: t, risk: {above: 1}}, {name: a, text: t, risk: {above: 2}}]", "a is the name of two"),
        ("rules: [", "is not YAML"),
        ("rules: [{name: a, text: t, priority: loud, risk: {above: 1}}]", r"rules\.0\.priority"),
    ],
)
def test_invalid_alarm_rule_is_rejected_with_reason(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises(AlarmRulesError, match=problem):
        load_rules(path)
