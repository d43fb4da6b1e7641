"""Alarms: states and transitions, conditions with delays and deadbands, floods, and validation of rules."""

import bisect
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.alarms.conditions import Observation, RuleCondition
from aurum.alarms.flood import BEGINS, ENDS, WINDOW_US, FloodDetector
from aurum.alarms.lifecycle import Alarm, Transition, TransitionKind, apply_transition, has_effect
from aurum.alarms.rules import AlarmRule, AlarmRulesError, ValueLimit, load_rules

SECOND = 1_000_000
MINUTE = 60 * SECOND
KINDS: tuple[TransitionKind, ...] = (  # as they follow each other at one time
    "cleared",
    "raised",
    "unsuppressed",
    "suppressed",
    "unshelved",
    "shelved",
    "acknowledged",
)


def after(*kinds: TransitionKind) -> Alarm:
    alarm = Alarm("m", "r")
    for at, kind in enumerate(kinds, start=1):
        alarm = apply_transition(alarm, Transition(kind, "m", "r", at, until_us=100))
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
        (("raised", "shelved", "suppressed"), "suppressed"),
        (("raised", "suppressed", "shelved", "unsuppressed"), "shelved"),
    ],
)
def test_alarm_states_follow_isa_18_2(kinds: tuple[TransitionKind, ...], state: str) -> None:
    assert after(*kinds).state(now_us=50) == state


def test_shelved_alarm_expires() -> None:
    alarm = after("raised", "shelved")
    assert alarm.state(now_us=99) == "shelved"
    assert alarm.state(now_us=100) == "unacknowledged"
    assert alarm.state(now_us=101) == "unacknowledged"


def test_new_alarm_is_normal_and_unraised() -> None:
    alarm = Alarm("m", "r")
    assert alarm.alarm_id == "m~r"
    assert (alarm.active, alarm.acknowledged, alarm.suppressed) == (False, True, False)
    assert (alarm.count, alarm.value) == (0, None)
    assert (alarm.raised_us, alarm.cleared_us, alarm.acknowledged_us, alarm.shelved_until_us) == (0, 0, 0, 0)
    assert (alarm.acknowledged_by, alarm.shelved_by, alarm.reason) == ("", "", "")


def test_transition_updates_only_its_own_fields() -> None:
    alarm = Alarm("m", "r")
    for transition, changed in (
        (
            ("raised", 1, "", 0, 7.5),
            {"active": True, "acknowledged": False, "raised_us": 1, "value": 7.5, "count": 1, "recent_raises": (1,)},
        ),
        (("acknowledged", 2, "Ada"), {"acknowledged": True, "acknowledged_us": 2, "acknowledged_by": "Ada"}),
        (("shelved", 3, "Bob", 90, None, "spare"), {"shelved_until_us": 90, "shelved_by": "Bob", "reason": "spare"}),
        (("suppressed", 4), {"suppressed": True}),
        (("cleared", 5, "", 0, 2.0), {"active": False, "cleared_us": 5}),
        (("unsuppressed", 6), {"suppressed": False}),
        (("unshelved", 7, "Cy"), {"shelved_until_us": 0, "shelved_by": "", "reason": ""}),
        (
            ("raised", 8, "", 0, 9.5),
            {"active": True, "acknowledged": False, "raised_us": 8, "value": 9.5, "count": 2, "recent_raises": (1, 8)},
        ),
    ):
        kind, at, *more = transition
        expected = {**asdict(alarm), **changed}
        alarm = apply_transition(alarm, Transition(kind, "m", "r", at, *more))  # type: ignore[arg-type]
        assert asdict(alarm) == expected


@pytest.mark.parametrize(
    ("kinds", "repeated"),
    [
        ((), "cleared"),
        ((), "acknowledged"),
        (("raised",), "raised"),
        (("raised", "acknowledged"), "raised"),
        (("raised", "acknowledged"), "acknowledged"),
        (("raised", "cleared"), "cleared"),
        ((), "unshelved"),
        ((), "unsuppressed"),
        (("suppressed",), "suppressed"),
        (("shelved",), "shelved"),
    ],
)
def test_redundant_transition_leaves_alarm_unchanged(
    kinds: tuple[TransitionKind, ...], repeated: TransitionKind
) -> None:
    alarm = after(*kinds)
    transition = Transition(repeated, "m", "r", 50, by="" if repeated == "shelved" else "Ada", until_us=100)
    assert apply_transition(alarm, transition) == alarm
    assert not has_effect(alarm, transition)


def test_repeated_raise_transition_is_ignored() -> None:
    alarm = after("raised")
    assert not has_effect(alarm, Transition("raised", "m", "r", 9))
    assert has_effect(alarm, Transition("cleared", "m", "r", 9))
    assert after("raised", "raised").count == 1


def rule(**given: object) -> AlarmRule:
    return AlarmRule.model_validate({"name": "r", "text": "t", **given})


def seen(at: float, value: float | None = None, **more: object) -> Observation:
    now = int(at * SECOND)
    return Observation(now, now, {} if value is None else {"x": (now, value)}, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [{"sensor": {"sensor": "x", "above": 10}}, {"rate": {"sensor": "x", "above": 1}}])
def test_reading_that_is_no_number_clears_nothing(limit: dict[str, object]) -> None:
    """A sensor that breaks while its alarm is active does not end the alarm."""
    condition = RuleCondition(rule(**limit), alarming=True)
    for at in range(0, 3600, 60):
        assert condition.evaluate(seen(at, float("nan"))) is None
    assert condition.alarming


def test_deadband_prevents_chattering_alarm() -> None:
    condition = RuleCondition(rule(sensor={"sensor": "x", "above": 10, "deadband": 2}))
    told = [condition.evaluate(seen(at, value)) for at, value in enumerate((9, 11, 9.5, 10.5, 8.5, 7.9, 9.9))]
    assert [each and each[0] for each in told] == [None, True, None, None, None, False, None]
    below = RuleCondition(rule(sensor={"sensor": "x", "below": 5, "deadband": 1}))
    assert [bool(below.evaluate(seen(at, value))) for at, value in enumerate((6, 4, 5.5, 6.5))] == [
        False,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("limit", "alarming", "values"),
    [  # each value, and whether it is beyond
        ({"above": 10}, False, {9.9: False, 10: False, 10.1: True}),
        ({"above": 10}, True, {9.9: False, 10: False, 10.1: True}),
        ({"above": 10, "deadband": 2}, False, {8.1: False, 10: False, 10.1: True}),
        ({"above": 10, "deadband": 2}, True, {7.9: False, 8: False, 8.1: True}),
        ({"above": 0}, False, {-0.1: False, 0: False, 0.1: True}),
        ({"below": 5}, False, {4.9: True, 5: False, 5.1: False}),
        ({"below": 5}, True, {4.9: True, 5: False, 5.1: False}),
        ({"below": 5, "deadband": 1}, False, {4.9: True, 5: False, 5.9: False}),
        ({"below": 5, "deadband": 1}, True, {5.9: True, 6: False, 6.1: False}),
        ({"below": 0}, False, {-0.1: True, 0: False, 0.1: False}),
        ({"below": 0, "deadband": 0.5}, True, {0.4: True, 0.5: False}),
    ],
)
def test_limit_and_deadband_bounds_are_exclusive(
    limit: dict[str, float], alarming: bool, values: dict[float, bool]
) -> None:
    parsed = ValueLimit.model_validate(limit)
    assert {value: parsed.is_exceeded(value, alarming=alarming) for value in values} == values


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-20, 20), max_size=20), st.floats(0, 5))
def test_alarm_raise_and_clear_events_alternate(values: list[float], deadband: float) -> None:
    condition = RuleCondition(rule(sensor={"sensor": "x", "above": 3, "deadband": deadband}))
    told = [each for at, value in enumerate(values, 1) if (each := condition.evaluate(seen(at, value)))]
    assert [each[0] for each in told] == [number % 2 == 0 for number in range(len(told))]
    assert all(each[1] > 3 if each[0] else each[1] <= 3 - deadband for each in told if each[1] is not None)
    assert condition.alarming == bool(len(told) % 2)
    assert bool(told) == any(value > 3 for value in values)


@pytest.mark.parametrize("about", ["risk", "rul", "anomaly"])
def test_prediction_alarm_has_value_and_prediction_time(about: str) -> None:
    condition = RuleCondition(rule(**{about: {"above": 0.5}}))
    others = {"risk": 0.1, "rul": 0.1, "anomaly": 0.1}
    assert condition.evaluate(Observation(9, 8, {}, predicted_us=7, **others)) is None  # type: ignore[arg-type]
    assert condition.evaluate(Observation(9, 8, {}, predicted_us=7, **others | {about: 0.6})) == (True, 0.6, 7)  # type: ignore[arg-type]
    assert condition.evaluate(Observation(12, 8, {}, predicted_us=11, **others)) == (False, 0.1, 11)  # type: ignore[arg-type]


def test_sensor_alarm_reports_reading_value_and_time() -> None:
    condition = RuleCondition(rule(sensor={"sensor": "x", "above": 10}))
    assert condition.evaluate(Observation(9, 8, {"x": (5, 10.0), "y": (6, 50.0)})) is None
    assert condition.evaluate(Observation(9, 8, {"x": (7, 12.5), "y": (6, 1.0)})) == (True, 12.5, 7)
    assert condition.evaluate(Observation(12, 11, {"x": (10, 9.5), "y": (6, 50.0)})) == (False, 9.5, 10)


def test_condition_restored_as_alarming_reports_only_clearing() -> None:
    condition = RuleCondition(rule(sensor={"sensor": "x", "above": 10, "deadband": 2}), alarming=True)
    assert condition.evaluate(seen(1, 9)) is None
    assert condition.evaluate(seen(2, 8)) == (False, 8, 2 * SECOND)


def test_delay_expires_exactly_at_its_limit() -> None:
    condition = RuleCondition(rule(sensor={"sensor": "x", "above": 10}, on_delay_seconds=10, off_delay_seconds=20))
    assert [condition.evaluate(seen(at, 11)) for at in (5, 14.999999, 15)] == [None, None, (True, 11, 15 * SECOND)]
    assert [condition.evaluate(seen(at, 1)) for at in (30, 49.999999, 50)] == [None, None, (False, 1, 50 * SECOND)]


def test_delay_starts_at_reading_time() -> None:
    condition = RuleCondition(rule(sensor={"sensor": "x", "above": 10}, on_delay_seconds=10))
    assert condition.evaluate(Observation(14 * SECOND, 5 * SECOND, {"x": (5 * SECOND, 11)})) is None
    assert condition.evaluate(Observation(15 * SECOND, 5 * SECOND, {"x": (5 * SECOND, 11)})) == (True, 11, 5 * SECOND)


def test_missing_value_does_not_reset_running_delay() -> None:
    condition = RuleCondition(rule(sensor={"sensor": "x", "above": 10}, on_delay_seconds=10))
    assert [condition.evaluate(seen(at, value)) for at, value in ((1, 11), (6, None))] == [None, None]
    assert condition.waits
    assert condition.evaluate(seen(11, 12)) == (True, 12, 11 * SECOND)


def test_condition_waits_during_delays_or_for_staleness() -> None:
    condition = RuleCondition(rule(sensor={"sensor": "x", "above": 10}, on_delay_seconds=10, off_delay_seconds=10))
    waits = [condition.waits]
    for at, value in ((1, 5), (2, 11), (3, 9), (4, 11), (14, 11), (20, 9), (25, 11), (30, 9), (40, 9)):
        condition.evaluate(seen(at, value))
        waits.append(condition.waits)
    assert waits == [False, False, True, False, True, False, True, False, True, False]
    assert RuleCondition(rule(stale={"after_seconds": 60})).waits


def test_on_and_off_delays_ignore_short_changes() -> None:
    condition = RuleCondition(rule(risk={"above": 0.5}, on_delay_seconds=10, off_delay_seconds=20))

    def at(second: float, risk: float) -> bool | None:
        told = condition.evaluate(seen(second, risk=risk, predicted_us=int(second * SECOND)))
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
    rate = RuleCondition(rule(rate={"sensor": "x", "above": 5, "over_seconds": 60}))
    told = [rate.evaluate(seen(60 * minute, value)) for minute, value in enumerate((20, 22, 30, 31))]
    assert [each and each[:2] for each in told] == [None, None, (True, pytest.approx(8)), (False, pytest.approx(1))]
    stale = RuleCondition(rule(stale={"after_seconds": 60}))
    assert stale.evaluate(Observation(0, 0, {})) is None  # never seen is no silence
    assert stale.evaluate(Observation(50 * SECOND, 1 * SECOND, {})) is None
    raised = stale.evaluate(Observation(70 * SECOND, 1 * SECOND, {}))
    assert raised == (True, pytest.approx(69), 61 * SECOND)
    assert stale.evaluate(Observation(80 * SECOND, 79 * SECOND, {})) == (False, None, 80 * SECOND)


def test_stale_alarm_is_raised_just_above_its_limit() -> None:
    stale = RuleCondition(rule(stale={"after_seconds": 2.5}))
    last = 10 * SECOND
    assert stale.evaluate(Observation(last + 2_500_000, last, {})) is None
    assert stale.evaluate(Observation(last + 2_500_001, last, {})) == (True, pytest.approx(2.500001), last + 2_500_000)
    assert stale.evaluate(Observation(last + 9 * SECOND, last, {})) is None
    assert stale.evaluate(Observation(21 * SECOND, 20 * SECOND, {})) == (False, None, 21 * SECOND)


def test_rate_is_per_minute_and_skips_early_readings() -> None:
    rate = RuleCondition(rule(rate={"sensor": "x", "above": 5, "over_seconds": 30}))
    assert rate.evaluate(seen(60, 20)) is None
    assert rate.evaluate(seen(89.9, 90)) is None  # too soon after the first, and not what the next is compared with
    raised = rate.evaluate(Observation(200 * SECOND, 90 * SECOND, {"x": (90 * SECOND, 23), "y": (91 * SECOND, 0)}))
    assert raised == (True, pytest.approx(6), 90 * SECOND)
    assert rate.evaluate(seen(210, 33)) == (False, pytest.approx(5), 210 * SECOND)


def test_falling_value_has_negative_rate() -> None:
    rate = RuleCondition(rule(rate={"sensor": "x", "below": -5}))
    told = [rate.evaluate(seen(60 * minute, value)) for minute, value in enumerate((50, 45, 39, 38))]
    assert [each and each[:2] for each in told] == [None, None, (True, pytest.approx(-6)), (False, pytest.approx(-1))]


def test_rate_of_large_values_is_computed() -> None:
    rate = RuleCondition(rule(rate={"sensor": "x", "above": 5}))
    assert rate.evaluate(seen(60, 1e12)) is None
    assert rate.evaluate(seen(120, 1e12 + 8)) == (True, pytest.approx(8), 2 * MINUTE)


def test_older_reading_restarts_rate() -> None:
    rate = RuleCondition(rule(rate={"sensor": "x", "above": 5}))
    told = [rate.evaluate(seen(at, value)) for at, value in ((300, 20), (100, 80), (160, 88))]
    assert told == [None, None, (True, pytest.approx(8), 160 * SECOND)]


def test_rate_ignores_second_reading_with_same_timestamp() -> None:
    rate = RuleCondition(rule(rate={"sensor": "x", "above": 5}))
    told = [rate.evaluate(seen(at, value)) for at, value in ((60, 20), (60, 27), (120, 28))]
    assert told == [None, None, (True, pytest.approx(8), 120 * SECOND)]


def test_missing_value_raises_no_alarm() -> None:
    for about in (
        {"risk": {"above": 0.5}},
        {"rul": {"below": 5}},
        {"anomaly": {"above": 0.5}},
        {"sensor": {"sensor": "y", "above": 1}},
        {"rate": {"sensor": "y", "above": 1}},
    ):
        condition = RuleCondition(rule(**about))
        assert [condition.evaluate(seen(at, value)) for at, value in ((0, 3.0), (60, 9.0))] == [None, None]


def test_flood_begins_above_ten_and_ends_below_five() -> None:
    flood = FloodDetector()
    for number in range(11):
        flood.record_alarm(number * SECOND)
        flood.update(number * SECOND)
    assert flood.since_us == 10 * SECOND
    assert flood.update(600 * SECOND) == 10
    assert flood.since_us
    assert flood.update(607 * SECOND) == 3
    assert flood.since_us == 0


def test_flood_of_some_machines_ends_below_five() -> None:
    """The flood of a caller's machines lasts, as the plant's does, until there are fewer than five alarms of them."""
    flood = FloodDetector()
    for number in range(12):
        flood.record_alarm(number * SECOND, "mine")
        flood.record_alarm(number * SECOND, "other")
    of_mine = [
        flood.count_selected(now * SECOND, lambda machine_id: machine_id == "mine")
        for now in (9, 10, 11, 604, 607, 608)
    ]
    assert of_mine == [
        (10, 0),
        (11, 10 * SECOND),
        (12, 10 * SECOND),
        (7, 10 * SECOND),
        (4, 0),
        (3, 0),
    ]
    assert flood.count_selected(11 * SECOND, lambda machine_id: machine_id == "nobody") == (0, 0)


@given(st.lists(st.integers(1, 2000), max_size=60), st.integers(1, 2500))
def test_flood_of_all_machines_is_that_of_the_plant(at: list[int], now: int) -> None:
    """Told of each alarm in its order and looked at all the time, the plant's flood is what its alarms alone say."""
    flood = FloodDetector()
    at.sort()
    for second in range(now + 1):
        for _ in range(at.count(second)):
            flood.record_alarm(second * SECOND, "m")
            flood.update(second * SECOND)
        recent = flood.update(second * SECOND)
    for later in at[bisect.bisect_right(at, now) :]:
        flood.record_alarm(later * SECOND, "m")
    assert flood.count_selected(now * SECOND, lambda machine_id: True) == (recent, flood.since_us)


def test_flood_does_not_start_or_end_at_exact_limits() -> None:
    flood = FloodDetector()
    assert (flood.update(SECOND), flood.since_us) == (0, 0)
    for _ in range(BEGINS):
        flood.record_alarm(2 * SECOND)
    assert (flood.update(3 * SECOND), flood.since_us) == (BEGINS, 0)
    for number in range(ENDS):
        flood.record_alarm((4 + number) * SECOND)
    assert (flood.update(20 * SECOND), flood.since_us) == (BEGINS + ENDS, 20 * SECOND)
    assert (flood.update(21 * SECOND), flood.since_us) == (BEGINS + ENDS, 20 * SECOND)  # since it began
    assert (flood.update(WINDOW_US + 2 * SECOND), flood.since_us) == (ENDS, 20 * SECOND)
    assert (flood.update(WINDOW_US + 4 * SECOND), flood.since_us) == (ENDS - 1, 0)


def test_flood_of_some_machines_counts_theirs_alone() -> None:
    flood = FloodDetector()
    for number in range(2 * BEGINS):
        flood.record_alarm(number * SECOND, "other")
    for number in range(BEGINS + 2):
        flood.record_alarm((100 + number) * SECOND, "own")
    assert flood.count_selected(99 * SECOND, "own".__eq__) == (0, 0)
    assert flood.count_selected(109 * SECOND, "own".__eq__) == (BEGINS, 0)
    assert flood.count_selected(111 * SECOND, "own".__eq__) == (BEGINS + 2, (100 + BEGINS) * SECOND)


def test_flood_window_includes_end_but_not_start() -> None:
    flood = FloodDetector()
    flood.record_alarm(MINUTE)
    looked = [flood.update(now) for now in (MINUTE - 1, MINUTE, MINUTE + WINDOW_US - 1, MINUTE + WINDOW_US)]
    assert looked == [0, 1, 1, 0]


def test_flood_keeps_only_latest_10000_alarms() -> None:
    flood = FloodDetector()
    for number in range(1, 10_002):
        flood.record_alarm(number)
    assert flood.update(20_000) == 10_000
    assert flood.update(WINDOW_US + 2) == 9_999  # the first two are over, of which it had forgotten one


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 3 * WINDOW_US), max_size=30), st.integers(1, 3 * WINDOW_US))
def test_flood_counts_alarms_of_the_last_ten_minutes(raised: list[int], now: int) -> None:
    flood = FloodDetector()
    for at in raised:
        flood.record_alarm(at)
    recent = [at for at in raised if 0 <= now - at < WINDOW_US]
    assert flood.update(now) == len(recent)
    assert flood.since_us == (now if len(recent) > BEGINS else 0)


def test_built_in_alarm_rules_apply_by_machine_type() -> None:
    rules = {each.name: each for each in load_rules().rules}
    assert {"failure_near", "silent", "stopped"} <= set(rules)
    assert rules["vibration_high"].applies_to("pump")
    assert not rules["vibration_high"].applies_to("conveyor")
    assert rules["silent"].applies_to("conveyor")


def test_rule_applies_to_its_machine_types_or_all() -> None:
    def holds(*types: str) -> tuple[bool, bool]:
        about = rule(risk={"above": 1}, machine_types=types)
        return about.applies_to("pump"), about.applies_to("motor")

    assert holds("*") == holds("pump", "*") == (True, True)
    assert holds("pump") == (True, False)
    assert holds() == (False, False)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("rules: [{name: a, text: t}]", "exactly one of risk, rul"),
        ("rules: [{name: a, text: t, risk: {above: 1, below: 0}}]", "one of above and below"),
        ("rules: [{name: A, text: t, risk: {above: 1}}]", r"rules\.0\.name"),
        (
            "rules: [{name: a, text: t, risk: {above: 1}}, {name: a, text: t, risk: {above: 2}}]",
            "the name a is used by more than one rule",
        ),
        ("rules: [", "is not YAML"),
        ("rules: [{name: a, text: t, risk: {above: 1}, rul: {below: 1}}]", "exactly one of risk, rul"),
        ("rules: [{name: a, text: t, risk: {deadband: 1}}]", "one of above and below"),
        ("rules: [{name: a, text: t, risk: {above: 1}, colour: red}]", r"rules\.0\.colour"),
        ("rules: []\nmore: 1", "more: "),
        ("", "top: "),
        ("rules: [{name: a, text: t, priority: loud, risk: {above: 1}}]", r"rules\.0\.priority"),
    ],
)
def test_invalid_alarm_rule_is_rejected_with_reason(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises(AlarmRulesError, match=problem):
        load_rules(path)


@pytest.mark.parametrize("seconds", [123, 245, 246, 247])
def test_rate_is_evaluated_at_exact_period(seconds: int) -> None:
    rate = RuleCondition(rule(rate={"sensor": "x", "above": 5, "over_seconds": seconds}))
    assert rate.evaluate(seen(0, 20)) is None
    assert rate.evaluate(seen(seconds, 1000)) is not None
