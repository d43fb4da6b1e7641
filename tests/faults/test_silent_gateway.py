"""A killed gateway is one alarm with its machines, not one for each of them."""

from pathlib import Path
from typing import Any

from tests.support.gateway_machines import SILENCE_RULES, machines_behind
from tests.support.http import http
from tests.support.platform import Platform, watching
from tests.support.waiting import wait_for

MACHINES = [f"press-{number}" for number in range(5)]


def open_alarms(platform: Platform) -> list[dict[str, Any]]:
    states = "&".join(f"state={each}" for each in ("unacknowledged", "acknowledged"))
    answer = http("GET", f"{platform.api}/api/alarms?limit=1000&{states}")
    return list(answer.json["items"]) if answer.status == 200 else []


def groups(platform: Platform) -> list[dict[str, Any]]:
    return [each["group"] for each in open_alarms(platform) if each["group"]]


def machines_known(platform: Platform) -> int:
    answer = http("GET", f"{platform.api}/api/machines?limit=100")
    return len(answer.json["items"]) if answer.status == 200 else 0


def test_killed_gateway_is_one_alarm_until_it_returns(tmp_path: Path) -> None:
    """The alarm of a killed gateway names its machines; those that stay silent raise their own when it is back."""
    with watching(tmp_path, SILENCE_RULES) as running:
        running.extra["AURUM_EDGE_NAME"] = "hall-3"
        running.start("edge")
        with machines_behind(running.port("edge"), "presses", MACHINES) as devices:
            wait_for(lambda: machines_known(running) == len(MACHINES), 30, "all machines are known")
            wait_for(lambda: running.metric("ingestion", "ingestion_gateways ") == 1, 10, "it is connected")
            wait_for(lambda: open_alarms(running) == [], 30, "the scorer starts")
            running.processes["edge"].kill()
            wait_for(lambda: [each["count"] for each in groups(running)] == [5], 60, "the alarm of the gateway")
            (alarm,) = open_alarms(running)
            assert alarm["machine_id"] == ""
            assert alarm["priority"] == "high"
            assert alarm["text"] == "Gateway hall-3: 5 machines send no readings"
            assert (alarm["group"]["gateway"], alarm["group"]["cause"]) == ("hall-3", "gateway_away")
            assert [each["machine_id"] for each in alarm["group"]["machines"]] == MACHINES
            suppressed = http("GET", f"{running.api}/api/alarms?state=suppressed").json
            assert {each["id"] for each in suppressed["items"]} == {f"{each}~silent" for each in MACHINES}
            assert {each["parent"] for each in suppressed["items"]} == {alarm["id"]}
            assert suppressed["counts"] == {"unacknowledged": 1, "suppressed": 5}
            assert suppressed["flood"]["last_ten_minutes"] == 1
            assert (
                http("POST", f"{running.api}/api/alarms/{alarm['id']}/ack", {"by": "Ada"}).json["group"]["count"] == 5
            )
            devices.sending.remove("press-4")
            running.restart("edge")
            wait_for(lambda: [each["machine_id"] for each in open_alarms(running)] == ["press-4"], 60, "the last one")
            journal = http("GET", f"{running.api}/api/alarms/journal?limit=1000").json["items"]
            of: dict[str, list[str]] = {}
            for entry in reversed(journal):
                of.setdefault(entry["id"], []).append(entry["transition"])
            assert of["press-0~silent"] == ["raised", "suppressed", "cleared"]
            assert of["press-4~silent"] == ["raised", "suppressed", "unsuppressed"]
            assert of[alarm["id"]] == ["raised", "acknowledged", "cleared"]


def test_gateway_that_is_away_at_a_restart_is_named(tmp_path: Path) -> None:
    """Ingestion and the scorer restart while a gateway is away; its alarm still names it and its machines."""
    with watching(tmp_path, SILENCE_RULES) as running:
        running.extra["AURUM_EDGE_NAME"] = "hall-3"
        running.start("edge")
        with machines_behind(running.port("edge"), "presses", MACHINES):
            wait_for(lambda: machines_known(running) == len(MACHINES), 30, "all machines are known")
            wait_for(lambda: running.metric("ingestion", "ingestion_gateways_unwritten ") == 0, 10, "they are stored")
            running.processes["edge"].kill()
            for service in ("prediction", "ingestion"):
                running.processes[service].kill()
            for service in ("ingestion", "prediction"):
                running.restart(service)
            wait_for(lambda: [each["count"] for each in groups(running)] == [5], 60, "the alarm of the gateway")
            (group,) = groups(running)
            assert (group["gateway"], group["cause"]) == ("hall-3", "gateway_away")
            assert [each["machine_id"] for each in group["machines"]] == MACHINES
