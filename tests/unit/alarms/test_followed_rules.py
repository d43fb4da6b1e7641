"""The file of alarm rules is followed while a service runs."""

import logging
from pathlib import Path

import pytest

from aurum.alarms.followed_rules import FollowedRules
from aurum.alarms.rules import AlarmRulesError
from aurum.runtime import damage

HOT = "{name: hot, text: Too hot, priority: high, sensor: {sensor: heat, above: 80}}"
COLD = "{name: cold, text: Too cold, sensor: {sensor: heat, below: 5}}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yaml"
    write(path, HOT, COLD)
    return path


def write(path: Path, *rules: str) -> None:
    """Replaces the file as a whole, as a mounted ConfigMap is replaced."""
    new = path.with_suffix(".new")
    new.write_text(f"rules: [{', '.join(rules)}]")
    new.replace(path)


def names(rules: FollowedRules) -> list[str]:
    return [rule.name for rule in rules.current.rules]


def test_changed_rules_come_into_force_with_their_difference(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    rules = FollowedRules(file)
    write(file, HOT.replace("80", "90"), "{name: silent, text: Silent, stale: {after_seconds: 60}}")
    with caplog.at_level(logging.INFO):
        rules.refresh()
    assert names(rules) == ["hot", "silent"]
    assert "cold removed" in caplog.text
    assert "silent added" in caplog.text
    assert "hot changed (sensor.above: 80.0 → 90.0)" in caplog.text


def test_invalid_rules_leave_the_last_valid_ones_in_force(file: Path) -> None:
    rules = FollowedRules(file)
    before = rules.current
    write(file, HOT.replace("above", "abov"))
    rules.refresh()
    assert rules.current is before
    found = [each for each in damage.latest() if each["name"] == str(file)]
    assert "abov" in found[0]["problem"]
    write(file, HOT)
    rules.refresh()
    assert names(rules) == ["hot"]
    assert not [each for each in damage.latest() if each["name"] == str(file)]


def test_missing_file_leaves_the_rules_in_force(file: Path) -> None:
    rules = FollowedRules(file)
    file.unlink()
    rules.refresh()
    assert names(rules) == ["hot", "cold"]
    assert [each["kind"] for each in damage.latest() if each["name"] == str(file)] == ["rules"]
    write(file, COLD)
    rules.refresh()
    assert names(rules) == ["cold"]


def test_invalid_rules_prevent_the_start(file: Path) -> None:
    file.write_text("rules: [{name: hot}]")
    with pytest.raises(AlarmRulesError, match="text"):
        FollowedRules(file)
