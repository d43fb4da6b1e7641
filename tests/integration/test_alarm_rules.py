"""Alarm rules that engineers edit through the API: they come into force everywhere, and stay over a restart."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aurum.security.api_keys import KeyFile, make_key, write_keys
from tests.support.http import Answer, http
from tests.support.platform import Platform, watching
from tests.support.waiting import wait_for

FILE = "rules: [{name: hot, text: Too hot, priority: high, sensor: {sensor: heat, above: 80, deadband: 5}}]"
HOUR = 3600


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Platform]:
    """A plant with keys for a viewer, an engineer, and an engineer of one site."""
    made = {
        "viewer": make_key("viewer", ("viewer", "operator")),
        "engineer": make_key("engineer", ("engineer", "ingest")),
        "local": make_key("local", ("engineer",), ("north",)),
    }
    write_keys(tmp_path / "keys.yaml", KeyFile(keys=tuple(record for _, record in made.values())))
    extra = {"AURUM_AUTH_KEYS_FILE": str(tmp_path / "keys.yaml"), "AURUM_AUDIT_FILE": str(tmp_path / "audit.log")}
    with watching(tmp_path, FILE, extra) as running:
        running.keys = {name: key for name, (key, _) in made.items()}  # type: ignore[attr-defined]
        yield running


def call(plant: Platform, method: str, path: str, body: Any = None, who: str = "engineer") -> Answer:
    return http(method, f"{plant.api}{path}", body, {"X-API-Key": plant.keys[who]})  # type: ignore[attr-defined]


def read(plant: Platform, sensor: str, *values: tuple[float, float]) -> None:
    readings = [
        {"machine_id": "oven", "sensor": sensor, "timestamp": time.time() - ago, "value": value}
        for ago, value in values
    ]
    assert call(plant, "POST", "/api/readings", {"readings": readings}).status == 200


def rules(plant: Platform) -> dict[str, Any]:
    answer = call(plant, "GET", "/api/alarms/rules")
    return answer.json if answer.status == 200 else {}


def state(plant: Platform, alarm: str) -> str:
    items = call(plant, "GET", "/api/alarms?limit=1000").json.get("items", [])
    return str({each["id"]: each["state"] for each in items}.get(alarm, "none"))


def edited(plant: Platform, **changes: Any) -> Answer:
    body = {"revision": 0, "reason": "tuning", "rules": [sensor_rule("fast", "speed", 50)], **changes}
    return call(plant, "PUT", "/api/alarms/rules", body)


def sensor_rule(name: str, sensor: str, above: float, **more: Any) -> dict[str, Any]:
    return {"name": name, "text": f"Too {name}", "sensor": {"sensor": sensor, "above": above}, **more}


def test_edited_rule_raises_an_alarm_without_restart(plant: Platform) -> None:
    """An edited set of rules is followed by scorers and the API, survives a restart, and can be taken back."""
    wait_for(lambda: rules(plant), 15, "the rules")
    read(plant, "speed", (0, 90))
    read(plant, "heat", (0, 90))
    wait_for(lambda: state(plant, "oven~hot") == "unacknowledged", 20, "the alarm by the file")
    answer = edited(plant)
    assert answer.status == 200, answer.json
    assert (answer.json["revision"], answer.json["source"], answer.json["by"]) == (1, "stored", "key:engineer")
    wait_for(lambda: state(plant, "oven~hot") == "returned", 20, "the end of the alarm of the removed rule")
    read(plant, "speed", (0, 91))  # a rule on a sensor that no rule named before applies from its next reading on
    wait_for(lambda: state(plant, "oven~fast") == "unacknowledged", 20, "the alarm by the edited rules")
    assert edited(plant).json == answer.json, "a repeated request changes nothing"
    refused = edited(plant, reason="another")
    assert (refused.status, refused.json["type"]) == (409, "urn:aurumai:problem:alarm-rules-changed")
    assert refused.json["parameters"] == {"revision": "1", "by": "key:engineer"}

    (plant.folder / "rules.yaml").write_text(FILE.replace("80", "85"))
    wait_for(lambda: rules(plant)["file_changed"], 20, "the change of the file is told")
    for service in ("prediction", "api"):
        plant.processes[service].kill()
        plant.restart(service)
    wait_for(lambda: rules(plant).get("source") == "stored", 20, "the stored rules after a restart")
    read(plant, "speed", (0, 10))
    wait_for(lambda: state(plant, "oven~fast") == "returned", 30, "the end by the stored rule")
    assert state(plant, "oven~hot") == "returned", "the rule of the file was not evaluated meanwhile"

    restored = call(plant, "POST", "/api/alarms/rules/restore", {"restores": 0, "revision": 1, "reason": "back"})
    assert (restored.status, restored.json["revision"], restored.json["source"]) == (200, 2, "file")
    assert [each["name"] for each in restored.json["rules"]] == ["hot"]

    def hot_again() -> bool:
        read(plant, "heat", (0, 90))
        return state(plant, "oven~hot") == "unacknowledged"

    wait_for(hot_again, 20, "the alarm by the file again")
    again = call(plant, "POST", "/api/alarms/rules/restore", {"restores": 1, "revision": 2, "reason": "again"})
    assert [each["name"] for each in again.json["rules"]] == ["fast"]
    missing = call(plant, "POST", "/api/alarms/rules/restore", {"restores": 99, "revision": 3, "reason": "x"})
    assert missing.status == 404

    first = call(plant, "GET", "/api/alarms/rules/history?limit=2", who="viewer").json
    rest = call(plant, "GET", f"/api/alarms/rules/history?limit=2&cursor={first['next_cursor']}").json
    items = first["items"] + rest["items"]
    assert [(each["revision"], each["reason"], each["restores"], each["source"]) for each in items] == [
        (3, "again", 1, "stored"),
        (2, "back", 0, "file"),
        (1, "tuning", None, "stored"),
    ]
    assert items[-1]["changes"] == ["fast added", "hot removed"]
    assert [(each["rule"], each["kind"]) for each in items[-1]["rule_changes"]] == [
        ("fast", "added"),
        ("hot", "removed"),
    ]
    assert rest["next_cursor"] is None
    acts = [json.loads(line) for line in (plant.folder / "audit.log").read_text().splitlines()]
    done = [(act["action"], act["user_id"], act["outcome"]) for act in acts if "alarm_rules" in act["action"]]
    assert done == [
        ("alarm_rules.replace", "key:engineer", "done"),
        ("alarm_rules.replace", "key:engineer", "done"),
        ("alarm_rules.replace", "key:engineer", "failed: ALARM_RULES_CHANGED"),
        ("alarm_rules.restore", "key:engineer", "done"),
        ("alarm_rules.restore", "key:engineer", "done"),
        ("alarm_rules.restore", "key:engineer", "failed: ALARM_RULES_REVISION_NOT_FOUND"),
    ]


def test_invalid_rules_are_refused_by_rule_and_field(plant: Platform) -> None:
    """A refusal names each rule and field; only engineers of the whole plant may change rules."""
    wait_for(lambda: rules(plant), 15, "the rules")
    bad = sensor_rule("fast", "speed", 50)
    refused = edited(plant, rules=[sensor_rule("hot", "heat", 80), {**bad, "priority": "grave"}])
    assert refused.status == 422
    [error] = refused.json["errors"]
    assert error["field"] == "body.rules.1.priority"
    assert error["detail"].startswith("rule fast: ")
    assert (error["code"], "urgent" in error["parameters"]["expected"]) == ("literal_error", True)
    for wrong, field in (
        ([{**bad, "sensor": {"sensor": "speed", "above": 1, "below": 2}}], "body.rules.0.sensor"),
        ([{**bad, "sensor": {"sensor": "speed", "above": "much"}}], "body.rules.0.sensor.above"),
        ([{**bad, "name": "Not a name"}], "body.rules.0.name"),
        ([{**bad, "sensor": {"sensor": "", "above": 1}}], "body.rules.0.sensor.sensor"),
        ([{**bad, "sensor": {"sensor": "ü", "above": 1}}], "body.rules.0.sensor.sensor"),
        ([{**bad, "stale": {"after_seconds": 5}}], "body.rules.0"),
        ([{**bad, "machine_types": ["x" * 9000]}], "body.rules.0"),
        ([{**bad, "on_delay_seconds": -1}], "body.rules.0.on_delay_seconds"),
    ):
        answer = edited(plant, rules=wrong)
        assert (answer.status, [each["field"] for each in answer.json["errors"]]) == (422, [field]), answer.json
        assert answer.json["errors"][0]["code"], answer.json
    twice = edited(plant, rules=[bad, bad])
    assert twice.status == 422
    assert twice.json["errors"] == [
        {"field": "body.rules.1.name", "detail": "rule fast: another rule has this name", "code": "name_taken"}
    ]
    assert edited(plant, reason="").status == 422
    assert call(plant, "POST", "/api/alarms/rules/preview", {"rule": {**bad, "text": ""}}).status == 422
    assert rules(plant)["revision"] == 0
    changes = (
        ("PUT", "/api/alarms/rules", {"revision": 0, "reason": "x", "rules": [bad]}),
        ("POST", "/api/alarms/rules/restore", {"revision": 0, "restores": 0, "reason": "x"}),
        ("POST", "/api/alarms/rules/preview", {"rule": bad}),
    )
    for who in ("viewer", "local"):
        assert call(plant, "GET", "/api/alarms/rules", who=who).status == 200
        for method, path, body in changes:
            assert call(plant, method, path, body, who).status == 403
    assert call(plant, "GET", "/api/alarms/rules/history", who="local").status == 403
    assert call(plant, "GET", "/api/alarms/rules/history?cursor=x").status == 422


def test_preview_counts_alarms_of_the_last_week(plant: Platform) -> None:
    """A preview counts what a rule would have raised in stored readings, and says what it covers."""
    day = 24 * HOUR
    peaks = [(6 * day - each * HOUR, 90 if each % 4 == 2 else 60) for each in range(100)]  # 25 of one hour
    read(plant, "heat", *peaks, (8 * day, 99), (60, 60))
    wait_for(lambda: call(plant, "GET", "/api/machines/oven").status == 200, 15, "the machine")

    def previewed(rule: dict[str, Any]) -> dict[str, Any]:
        answer = call(plant, "POST", "/api/alarms/rules/preview", {"rule": rule})
        assert answer.status == 200, answer.json
        found: dict[str, Any] = answer.json
        return found

    wait_for(lambda: previewed(sensor_rule("hot", "heat", 80))["machines"] == 1, 15, "the machine in the API's view")
    found = previewed(sensor_rule("hot", "heat", 80))
    assert (found["raised"], found["machines"], found["machines_in_all"], found["readings"]) == (25, 1, 1, 101)
    assert (found["stopped_by"], [each["machine_id"] for each in found["most"]]) == (None, ["oven"])
    assert found["most"][0]["raised"] == 25
    assert previewed(sensor_rule("hot", "heat", 80, on_delay_seconds=HOUR + 60))["raised"] == 0
    assert previewed(sensor_rule("hot", "heat", 95))["raised"] == 0
    assert previewed(sensor_rule("hot", "heat", 80, machine_types=["pump"]))["machines_in_all"] == 0
    silent = {"name": "silent", "text": "Silent", "stale": {"after_seconds": 2 * HOUR}}
    assert previewed(silent)["raised"] == 1
    risky = {"name": "risky", "text": "Risky", "risk": {"above": 0.5}}
    assert (previewed(risky)["raised"], previewed(risky)["machines_with_data"]) == (0, 0)
