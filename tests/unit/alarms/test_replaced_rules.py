"""What happens to the alarms of rules that are changed or removed while they are active."""

from typing import Any

import numpy as np
import pytest

from aurum.alarms.lifecycle import RULE_CHANGED, RULE_REMOVED, TYPE_NOT_COVERED, Alarm
from aurum.alarms.rules import AlarmRules
from aurum.prediction.fleet.alarm_states import AlarmStates, FleetView, watched_sensors
from aurum.prediction.fleet.array_conditions import Observations

NOW = 1_790_000_000_000_000
HOT: dict[str, Any] = {
    "name": "hot",
    "text": "Too hot",
    "priority": "urgent",
    "sensor": {"sensor": "heat", "above": 80},
    "off_delay_seconds": 600,
}
OTHER: dict[str, Any] = {"name": "other", "text": "Other", "sensor": {"sensor": "x", "above": 1e9}}


def rules(*each: dict[str, Any]) -> AlarmRules:
    return AlarmRules.model_validate({"rules": each})


class Oven:
    """One machine whose rules are evaluated once a second."""

    def __init__(self, *given: dict[str, Any]) -> None:
        self.rules = rules(*given)
        self.states = AlarmStates(self.rules)
        self.at_us = NOW
        self.machine_type = "oven"
        self.fault = 0.0

    def replace(self, *given: dict[str, Any]) -> None:
        self.rules = rules(*given)
        self.states.replace_rules(self.rules)

    def evaluate(self, heat: float) -> Alarm:
        self.at_us += 1_000_000
        known = {"heat": heat, "fault": self.fault}
        sensors = {
            sensor: (np.array([self.at_us]), np.array([known.get(sensor, np.nan)]))
            for sensor in watched_sensors(self.rules)
        }
        nothing, times = np.array([np.nan]), np.array([self.at_us])
        observations = Observations(self.at_us, times, sensors, nothing, nothing, nothing, times, nothing)
        self.states.evaluate(FleetView(["m"], [self.machine_type], np.array([0]), np.array([True]), observations))
        alarm = self.states.alarms.find("m~hot")
        assert alarm is not None
        return alarm

    @property
    def reasons(self) -> list[str]:
        return [each.reason for each in self.states.pending if each.kind == "cleared"]


@pytest.fixture
def oven() -> Oven:
    heated = Oven(HOT)
    raised = heated.evaluate(90)
    assert (raised.active, raised.text, raised.priority) == (True, "Too hot", "urgent")
    return heated


def test_alarm_of_a_removed_rule_is_closed_with_a_reason(oven: Oven) -> None:
    oven.replace(OTHER)
    alarm = oven.evaluate(90)
    assert not alarm.active
    assert oven.reasons == [RULE_REMOVED]
    assert (alarm.text, alarm.priority) == ("Too hot", "urgent")
    oven.evaluate(90)
    assert oven.reasons == [RULE_REMOVED]


def test_alarm_without_a_rule_is_closed_after_a_restart(oven: Oven) -> None:
    restarted = Oven(OTHER)
    restarted.states.read(enumerate(oven.states.pending, start=1), NOW)
    assert not restarted.evaluate(90).active
    assert restarted.reasons == [RULE_REMOVED]


def test_alarm_that_a_changed_rule_does_not_justify_is_closed(oven: Oven) -> None:
    oven.replace(HOT | {"sensor": {"sensor": "heat", "above": 95}})
    assert not oven.evaluate(90).active
    assert oven.reasons == [RULE_CHANGED]
    assert oven.evaluate(96).active


def test_alarm_that_a_changed_rule_justifies_stays_as_raised(oven: Oven) -> None:
    oven.replace(HOT | {"text": "Heat", "priority": "low", "sensor": {"sensor": "heat", "above": 85}})
    alarm = oven.evaluate(90)
    assert (alarm.active, alarm.text, alarm.priority, alarm.count) == (True, "Too hot", "urgent", 1)
    assert oven.evaluate(70).active, "the delay of 600 s runs"


def test_alarm_of_a_type_that_is_not_covered_is_closed(oven: Oven) -> None:
    oven.replace(HOT | {"machine_types": ["pump"]})
    assert not oven.evaluate(90).active
    assert oven.reasons == [TYPE_NOT_COVERED]


def test_suppressed_alarm_of_a_removed_rule_is_closed(oven: Oven) -> None:
    oven.fault = 1.0
    assert oven.evaluate(90).suppressed
    oven.replace(OTHER)
    alarm = oven.evaluate(90)
    assert (alarm.active, alarm.suppressed) == (False, False)


def test_rule_that_returns_is_evaluated_again(oven: Oven) -> None:
    oven.replace(OTHER)
    oven.evaluate(90)
    oven.replace(OTHER, HOT)
    alarm = oven.evaluate(90)
    assert (alarm.active, alarm.count) == (True, 2)


def test_chattering_alarm_stays_until_its_condition_is_over() -> None:
    oven = Oven(HOT | {"off_delay_seconds": 0})
    for heat in (90, 70, 90, 70, 90):
        alarm = oven.evaluate(heat)
    assert (alarm.active, alarm.count, alarm.chatters) == (True, 3, True)
    for heat in (70, 90, 70, 90, 70):
        alarm = oven.evaluate(heat)
    assert (alarm.active, alarm.count) == (True, 3)
    oven.at_us += 600_000_000
    assert not oven.evaluate(70).active
    assert oven.evaluate(90).count == 4


def test_chattering_alarm_is_damped_by_the_next_scorer() -> None:
    oven, following = Oven(HOT | {"off_delay_seconds": 0}), Oven(HOT | {"off_delay_seconds": 0})
    for heat in (90, 70, 90, 70, 90):
        oven.evaluate(heat)
    following.states.read(enumerate(oven.states.pending, start=1), NOW)
    following.at_us = oven.at_us
    assert following.evaluate(70).active


@pytest.mark.parametrize(
    ("condition", "quantity", "limit", "sensor"),
    [
        ({"risk": {"above": 0.7}}, "risk", 0.7, ""),
        ({"rul": {"below": 20}}, "rul", 20, ""),
        ({"anomaly": {"above": 0.9}}, "anomaly", 0.9, ""),
        ({"sensor": {"sensor": "heat", "below": 0}}, "sensor", 0, "heat"),
        ({"rate": {"sensor": "heat", "above": 5}}, "rate", 5, "heat"),
        ({"stale": {"after_seconds": 60}}, "silence", 60, ""),
    ],
)
def test_rule_tells_what_it_limits(condition: dict[str, Any], quantity: str, limit: float, sensor: str) -> None:
    rule = rules({"name": "r", "text": "R", **condition}).rules[0]
    assert (rule.quantity, rule.limit, rule.sensor_name) == (quantity, limit, sensor)


def test_alarm_of_unusual_readings_tells_the_threshold() -> None:
    """The limit of the alarm is the threshold of the machine's model, which was exceeded."""
    states = AlarmStates(rules({"name": "unusual", "text": "Unusual", "anomaly": {"beyond_threshold": True}}))
    nothing, at, fault = np.array([np.nan]), np.array([NOW]), {"fault": (np.array([NOW]), np.array([0.0]))}
    observations = Observations(NOW, at, fault, nothing, nothing, np.array([0.98]), at, np.array([0.97]))
    states.evaluate(FleetView(["m"], ["oven"], np.array([0]), np.array([True]), observations))
    alarm = states.alarms.find("m~unusual")
    assert alarm is not None
    assert (alarm.active, alarm.value, alarm.limit) == (True, 0.98, 0.97)
