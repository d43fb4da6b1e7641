"""Files of alarm rules: defaults of optional fields, and the limits of each field."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from aurum.alarms.rules import USUAL_THRESHOLD, AlarmRule, AlarmRules, AlarmRulesError, load_rules


def test_optional_alarm_rule_fields_have_defaults(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("rules: [{name: a, text: t, rate: {sensor: x, above: 1}}]")
    (found,) = load_rules(path).rules
    assert (found.priority, found.machine_types, found.suppress_in_fault) == ("medium", ("*",), True)
    assert (found.on_delay_seconds, found.off_delay_seconds) == (0, 0)
    assert found.rate is not None
    assert (found.rate.over_seconds, found.rate.deadband, found.rate.below) == (60, 0, None)


def test_limit_of_an_anomaly_is_that_of_the_model() -> None:
    """An alarm tells the threshold that raised it, not zero."""
    rule = AlarmRule.model_validate({"name": "a", "text": "t", "anomaly": {"beyond_threshold": True}})
    assert rule.limit_at(0.97) == 0.97
    assert rule.limit_at(0.0) == USUAL_THRESHOLD
    assert rule.is_upper
    low = AlarmRule.model_validate({"name": "a", "text": "t", "sensor": {"sensor": "x", "below": 2}})
    assert (low.limit, low.is_upper) == (2, False)


@pytest.mark.parametrize(
    ("field", "accepted", "refused"),
    [
        ("name", "a" * 40, "a" * 41),
        ("name", "a_1", "1a"),
        ("text", "t" * 200, "t" * 201),
        ("text", "t", ""),
        ("on_delay_seconds", 0, -0.1),
        ("off_delay_seconds", 0, -0.1),
        ("stale.after_seconds", 0.1, 0),
        ("rate.over_seconds", 0.1, 0),
        ("sensor.deadband", 0, -0.1),
        ("rate.sensor", "x", None),
        ("priority", "urgent", "Urgent"),
        ("sensor.between", None, 1),
    ],
)
def test_alarm_rule_field_outside_limits_is_rejected(
    tmp_path: Path, field: str, accepted: object, refused: object
) -> None:
    parts = {"rate": {"sensor": "x", "above": 1}, "sensor": {"sensor": "x", "above": 1}, "stale": {"after_seconds": 1}}
    part, _, inner = field.rpartition(".")
    path = tmp_path / "rules.yaml"

    def load(value: object) -> AlarmRule:
        given = {} if value is None else {inner: value}
        about = {name: each for name, each in (parts | {"risk": {"above": 1}}).items() if name == (part or "risk")}
        if part:
            about[part] = {key: each for key, each in about[part].items() if key != inner} | given
        path.write_text(json.dumps({"rules": [{"name": "a", "text": "t"} | about | ({} if part else given)]}))
        return load_rules(path).rules[0]

    assert load(accepted).name
    with pytest.raises(AlarmRulesError, match=rf"{path}, rules\.0\.{field}: "):
        load(refused)


def test_alarm_rules_are_limited_to_200() -> None:
    rules = [{"name": f"r{number}", "text": "t", "risk": {"above": 1}} for number in range(201)]
    accepted = AlarmRules.model_validate({"rules": rules[:200]})
    assert [each.name for each in accepted.rules] == [each["name"] for each in rules[:200]]
    with pytest.raises(ValidationError, match=r"rules\n.*at most 200 items"):
        AlarmRules.model_validate({"rules": rules})


def test_missing_alarm_rules_file_is_reported_by_path(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    with pytest.raises(AlarmRulesError, match=f"{path} cannot be read: No such file"):
        load_rules(path)
