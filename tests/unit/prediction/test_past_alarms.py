"""Alarms on predictions in a simulated past: what the rules would have raised, as history only."""

from aurum.alarms import journal
from aurum.alarms.journaled import JournaledAlarms
from aurum.alarms.lifecycle import Transition
from aurum.alarms.rules import AlarmRules
from aurum.prediction.learning.past_alarms import past_alarms
from aurum.prediction.serving.scoring import Prediction

HOUR = 3_600_000_000
START = 1_790_000_000_000_000
RULES = AlarmRules.model_validate(
    {
        "rules": [
            {"name": "near", "text": "Near", "risk": {"above": 0.7, "deadband": 0.1}, "off_delay_seconds": 30},
            {"name": "odd", "text": "Odd", "anomaly": {"beyond_threshold": True}, "on_delay_seconds": 600},
            {"name": "short", "text": "Short", "rul": {"below": 20}, "machine_types": ["fan"]},
            {"name": "hot", "text": "Hot", "sensor": {"sensor": "heat", "above": 5}},
        ]
    }
)


def predictions(risks: list[float], anomalies: list[float] | None = None, reason: str = "") -> list[Prediction]:
    return [
        Prediction(
            "p",
            "pump",
            risk,
            anomaly,
            "v1",
            (10.0, 5.0, 15.0),
            degraded_reason=reason,
            as_of_us=START + hour * HOUR,
            anomaly_threshold=0.95,
        )
        for hour, (risk, anomaly) in enumerate(zip(risks, anomalies or [0.0] * len(risks), strict=True))
    ]


def told(found: list[Transition]) -> list[tuple[str, str, float]]:
    return [(each.rule, each.kind, (each.at_us - START) / HOUR) for each in found]


def test_past_alarm_on_risk_is_raised_and_cleared() -> None:
    """It lasts within the deadband, is acknowledged by the simulated operator, and tells its limit."""
    found = past_alarms(RULES, predictions([0.1, 0.8, 0.65, 0.2, 0.2]), START + 100 * HOUR)
    assert told(found) == [("near", "raised", 1.0), ("near", "acknowledged", 1.25), ("near", "cleared", 3.0)]
    assert (found[0].value, found[0].limit, found[0].quantity, found[0].text) == (0.8, 0.7, "risk", "Near")
    assert found[1].by == "simulated operator"
    assert [each.past for each in found] == [True] * 3


def test_past_alarm_on_anomaly_uses_threshold_of_the_model() -> None:
    found = past_alarms(RULES, predictions([0.0] * 4, [0.5, 0.96, 0.97, 0.5]), START + 100 * HOUR)
    assert [(each.rule, each.kind, each.limit) for each in found if each.kind != "acknowledged"] == [
        ("odd", "raised", 0.95),
        ("odd", "cleared", None),
    ]


def test_alarm_that_lasts_beyond_the_past_is_left_to_the_present() -> None:
    assert past_alarms(RULES, predictions([0.1, 0.9, 0.9]), START + 2 * HOUR) == []
    assert past_alarms(RULES, [], START) == []


def test_unknown_risk_of_the_past_raises_nothing() -> None:
    assert past_alarms(RULES, predictions([0.9, 0.1, 0.1], reason="no model"), START + 100 * HOUR) == []


def test_past_alarms_change_no_present_state() -> None:
    """They are written while the scorer may already have raised the alarm of the present."""
    now = START + 200 * HOUR
    alarms = JournaledAlarms(10)
    alarms.apply_entry(1, Transition("raised", "p", "near", now, text="Near"), now)
    before = alarms.find("p~near")
    for number, transition in enumerate(past_alarms(RULES, predictions([0.8, 0.1, 0.1]), now), 2):
        entry = journal.from_event(journal.to_event(transition))
        assert entry == transition
        alarms.apply_entry(number, entry, now)
        alarms.apply_entry(number + 10, Transition("cleared", "p", "odd", now, past=True), now)
    assert alarms.find("p~near") == before
    assert alarms.find("p~odd") is None
    assert alarms.last_number > 10
