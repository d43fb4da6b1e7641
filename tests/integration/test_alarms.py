"""Alarms through the services: raised by readings, seen by every replica, acknowledged, shelved, kept over a
restart."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.http import http
from tests.support.platform import Platform, watching
from tests.support.waiting import wait_for

RULES = """
rules:
  - {name: hot, text: Too hot, priority: high, sensor: {sensor: heat, above: 80, deadband: 5}}
  - {name: silent, text: No readings, stale: {after_seconds: 6}, suppress_in_fault: false}
"""


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with watching(tmp_path_factory.mktemp("alarms"), RULES) as running:
        yield running


@pytest.fixture(scope="module")
def other(plant: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A second replica of the API over the same ingestion."""
    ports = {name: port for name, port in plant.ports.items() if not name.startswith("api")}
    replica = Platform(tmp_path_factory.mktemp("other"), ports=ports, extra=plant.extra)
    replica.start("api")
    yield replica
    replica.stop()


def read(platform: Platform, machine: str, heat: float, fault: float = 0.0) -> None:
    at = time.time()
    readings = [
        {"machine_id": machine, "sensor": sensor, "timestamp": at, "value": value}
        for sensor, value in (("heat", heat), ("fault", fault))
    ]
    assert http("POST", f"{platform.api}/api/readings", {"readings": readings}).status == 200


def alarms(platform: Platform, query: str = "") -> dict[str, Any]:
    answer = http("GET", f"{platform.api}/api/alarms?limit=1000{query}")
    return {alarm["id"]: alarm for alarm in answer.json["items"]} if answer.status == 200 else {}


def state(platform: Platform, alarm: str) -> str:
    return str(alarms(platform, "&state=normal&state=unacknowledged&state=acknowledged&state=returned&state=shelved"
                      "&state=suppressed").get(alarm, {}).get("state", "none"))  # fmt: skip


def post(platform: Platform, alarm: str, what: str, body: dict[str, Any] | None = None) -> Any:
    return http("POST", f"{platform.api}/api/alarms/{alarm}/{what}", body)


def transitions(platform: Platform, alarm: str) -> list[str]:
    """Those of one alarm in the journal, the oldest first."""
    journal = http("GET", f"{platform.api}/api/alarms/journal").json["items"]
    return [each["transition"] for each in reversed(journal) if each["id"] == alarm]


def test_limits_of_the_alarms_of_a_machine_are_told(plant: Platform) -> None:
    read(plant, "kiln", 20)
    wait_for(lambda: http("GET", f"{plant.api}/api/machines/kiln").status == 200, 15, "the machine")
    answer = http("GET", f"{plant.api}/api/machines/kiln/alarm-limits")
    assert answer.status == 200
    hot, silent = answer.json["items"]
    assert hot == {
        "rule": "hot",
        "text": "Too hot",
        "priority": "high",
        "quantity": "sensor",
        "sensor": "heat",
        "limit": 80,
        "above": True,
    }
    assert (silent["quantity"], silent["sensor"], silent["limit"]) == ("silence", None, 6)
    assert http("GET", f"{plant.api}/api/machines/nowhere/alarm-limits").status == 404


def test_alarm_lifecycle_is_shared_by_replicas(plant: Platform, other: Platform) -> None:
    read(plant, "oven", 60)
    read(plant, "oven", 90)
    for replica in (plant, other):
        wait_for(lambda api=replica: state(api, "oven~hot") == "unacknowledged", 15, "the alarm")
    found = alarms(plant)["oven~hot"]
    assert (found["text"], found["priority"], found["value"], found["count"]) == ("Too hot", "high", 90, 1)
    assert (found["quantity"], found["sensor"], found["limit"]) == ("sensor", "heat", 80)
    wait_for(lambda: alarms(plant)["oven~hot"]["present_value"] == 90, 15, "the present value")
    acknowledged = post(other, "oven~hot", "ack", {"by": "Ada"})
    assert acknowledged.status == 200
    assert acknowledged.json["acknowledged_by"] == "Ada"
    wait_for(lambda: state(plant, "oven~hot") == "acknowledged", 15, "the other replica's acknowledgement")
    assert post(plant, "oven~hot", "ack").status == 409
    read(plant, "oven", 78)  # within the deadband
    time.sleep(2.5)
    assert state(plant, "oven~hot") == "acknowledged"
    read(plant, "oven", 70)
    wait_for(lambda: state(plant, "oven~hot") == "normal", 15, "the end of the alarm")
    assert "oven~hot" not in alarms(plant)
    read(plant, "oven", 95)
    wait_for(lambda: state(other, "oven~hot") == "unacknowledged", 15, "the alarm again")
    assert alarms(other)["oven~hot"]["count"] == 2
    read(plant, "oven", 60)
    wait_for(lambda: state(plant, "oven~hot") == "returned", 15, "it is over before anybody saw it")
    wait_for(lambda: transitions(plant, "oven~hot")[4:], 15, "what is known at once is written down a moment later")
    assert transitions(plant, "oven~hot") == ["raised", "acknowledged", "cleared", "raised", "cleared"]


def test_shelved_alarm_returns_by_itself_or_when_unshelved(plant: Platform) -> None:
    read(plant, "kiln", 99)
    wait_for(lambda: state(plant, "kiln~hot") == "unacknowledged", 15, "the alarm")
    shelved = post(plant, "kiln~hot", "shelve", {"minutes": 0.05, "by": "Ada", "reason": "a probe is being changed"})
    assert shelved.json["state"] == "shelved"
    assert shelved.json["reason"] == "a probe is being changed"
    wait_for(lambda: state(plant, "kiln~hot") == "unacknowledged", 15, "it comes back by itself")
    assert post(plant, "kiln~hot", "unshelve").status == 409
    assert post(plant, "kiln~hot", "shelve", {"minutes": 60}).status == 200
    assert post(plant, "kiln~hot", "unshelve", {"by": "Ada"}).json["state"] == "unacknowledged"
    for body, field in (({}, "minutes"), ({"minutes": 1e9}, "minutes"), ({"minutes": 5, "for": "x"}, "for")):
        refused = post(plant, "kiln~hot", "shelve", body)
        assert refused.status == 422
        assert field in json.dumps(refused.json)
    assert post(plant, "nowhere~hot", "ack").status == 404


def test_alarm_is_suppressed_while_machine_is_in_fault(plant: Platform) -> None:
    read(plant, "press", 99)
    wait_for(lambda: state(plant, "press~hot") == "unacknowledged", 15, "the alarm")
    read(plant, "press", 99, fault=1)
    wait_for(lambda: state(plant, "press~hot") == "suppressed", 15, "the machine stands still")
    read(plant, "press", 99, fault=0)
    wait_for(lambda: state(plant, "press~hot") == "unacknowledged", 15, "it runs again")


def test_silence_raises_alarm_and_reading_clears_it(plant: Platform) -> None:
    read(plant, "mill", 20)
    wait_for(lambda: state(plant, "mill~silent") == "unacknowledged", 25, "silence")
    read(plant, "mill", 20)
    wait_for(lambda: state(plant, "mill~silent") in ("returned", "unacknowledged"), 5, "a reading")
    wait_for(lambda: {"raised", "cleared"} <= set(transitions(plant, "mill~silent")), 15, "both in the journal")


def test_more_than_ten_alarms_are_reported_as_flood(plant: Platform) -> None:
    for number in range(12):
        read(plant, f"line-{number}", 99)
    wait_for(lambda: len([a for a in alarms(plant) if a.startswith("line-")]) >= 12, 20, "twelve alarms")
    answer = http("GET", f"{plant.api}/api/alarms?priority=high").json
    assert answer["flood"]["active"]
    assert answer["flood"]["last_ten_minutes"] > 10
    assert all(alarm["priority"] == "high" for alarm in answer["items"])
    assert answer["items"][0]["state"] == "unacknowledged"
    metrics = plant.admin("api", "/metrics").body.decode()
    assert "alarm_flood 1.0" in metrics


def test_alarms_survive_api_restart_and_ingestion_outage(plant: Platform) -> None:
    read(plant, "boiler", 99)
    wait_for(lambda: state(plant, "boiler~hot") == "unacknowledged", 15, "the alarm")
    assert post(plant, "boiler~hot", "ack", {"by": "Ada"}).status == 200
    plant.processes["api"].kill()
    plant.restart("api")
    wait_for(lambda: state(plant, "boiler~hot") == "acknowledged", 20, "the journal is read")
    plant.processes["ingestion"].kill()
    refused = post(plant, "boiler~hot", "shelve", {"minutes": 5})
    assert refused.status == 503
    assert "was not recorded" in refused.json["detail"]
    plant.restart("ingestion")
    wait_for(lambda: post(plant, "boiler~hot", "shelve", {"minutes": 5}).status == 200, 30, "it can be shelved")


def test_rules_are_followed_while_the_services_run(tmp_path: Path) -> None:
    """A removed rule closes its alarms with a reason, and a new one on another sensor raises its own."""
    with watching(tmp_path, RULES) as running:
        read(running, "kiln", 90)
        wait_for(lambda: state(running, "kiln~hot") == "unacknowledged", 30, "the alarm")
        new = tmp_path / "rules.new"
        new.write_text("rules: [{name: wet, text: Too wet, priority: low, sensor: {sensor: damp, above: 3}}]")
        new.replace(tmp_path / "rules.yaml")
        wait_for(lambda: state(running, "kiln~hot") == "returned", 30, "the alarm is closed")
        found = alarms(running, "&state=returned")["kiln~hot"]
        assert (found["text"], found["priority"]) == ("Too hot", "high")
        journal = http("GET", f"{running.api}/api/alarms/journal").json["items"]
        closed = next(each for each in journal if each["transition"] == "cleared")
        assert (closed["reason"], closed["text"]) == ("the rule was removed", "Too hot")
        reading = {"machine_id": "kiln", "sensor": "damp", "timestamp": time.time(), "value": 9.0}
        assert http("POST", f"{running.api}/api/readings", {"readings": [reading]}).status == 200
        wait_for(lambda: state(running, "kiln~wet") == "unacknowledged", 30, "the alarm of the new rule")
        assert any("hot removed" in line for line in running.processes["prediction"].lines())


def test_imported_history_raises_no_alarm_of_silence(plant: Platform) -> None:
    wait_for(
        lambda: sends(plant, "earlier", 90) and state(plant, "earlier~hot") != "none", 60, "the scorer has the reading"
    )
    wait_for(lambda: state(plant, "earlier~silent") == "unacknowledged", 30, "the scorer is not just starting")
    hour_ago = time.time() - 3600
    rows = [{"machine_id": "old", "sensor": "heat", "timestamp": hour_ago + second, "value": 20.0} for second in (0, 9)]
    assert http("POST", f"{plant.api}/api/readings", {"readings": rows}).status == 200
    read(plant, "live", 20)
    wait_for(lambda: state(plant, "live~silent") == "unacknowledged", 30, "the alarm of the live machine")
    assert state(plant, "old~silent") == "none"


def test_outage_of_ingestion_raises_no_alarm_of_silence(tmp_path: Path) -> None:
    """A machine whose readings could not arrive is silent only when it sends nothing afterwards."""
    with watching(tmp_path, RULES) as running:
        for machine in ("press", "gone"):
            read(running, machine, 90)
            wait_for(lambda each=machine: state(running, f"{each}~hot") != "none", 30, "the scorer has the reading")
        running.processes["ingestion"].kill()
        time.sleep(8)  # longer than the limit of silence
        running.restart("ingestion")
        wait_for(lambda: sends(running, "press"), 30, "the API reaches ingestion again")
        wait_for(lambda: sends(running, "press") and state(running, "gone~silent") == "unacknowledged", 90, "the alarm")
        assert state(running, "press~silent") == "none"


def sends(platform: Platform, machine: str, heat: float = 20.0) -> bool:
    reading = {"machine_id": machine, "sensor": "heat", "timestamp": time.time(), "value": heat}
    return http("POST", f"{platform.api}/api/readings", {"readings": [reading]}).status == 200
