"""Who is bound to a site sees that site, and cannot tell that there are others."""

import datetime
import json
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from aurum.security.api_keys import KeyFile, make_key, write_keys
from tests.support.http import http
from tests.support.platform import Platform
from tests.support.waiting import wait_for

RULES = "rules: [{name: hot, text: Too hot, sensor: {sensor: heat, above: 80}}]"
SITES = ("north", "south")


@pytest.fixture(scope="module")
def plants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Platform, dict[str, dict[str, str]]]]:
    """One machine at each of two sites, too hot both; keys for each site, and one for everything."""
    folder = tmp_path_factory.mktemp("sites")
    made = {site: make_key(site, ("engineer", "ingest"), (site,)) for site in SITES} | {
        "all": make_key("all", ("admin",))
    }
    write_keys(folder / "keys.yaml", KeyFile(keys=tuple(record for _, record in made.values())))
    (folder / "rules.yaml").write_text(RULES)
    running = Platform(
        folder,
        extra={
            "AURUM_AUTH_KEYS_FILE": str(folder / "keys.yaml"),
            "AURUM_ALARM_RULES": str(folder / "rules.yaml"),
            "AURUM_FEATURE_PREDICTIVE": "false",
        },
    )
    for service in ("ingestion", "prediction", "api"):
        running.start(service)
    headers = {name: {"X-API-Key": key} for name, (key, _) in made.items()}
    for site in SITES:
        machine = {"machine_id": f"oven-{site}", "machine_type": "oven", "site": site}
        assert http("POST", f"{running.api}/api/machines", machine, headers["all"]).status == 201
        reading = {"machine_id": f"oven-{site}", "sensor": "heat", "timestamp": time.time(), "value": 99}
        assert http("POST", f"{running.api}/api/readings", {"readings": [reading]}, headers["all"]).status == 200

    def both() -> bool:
        return len(http("GET", f"{running.api}/api/alarms", headers=headers["all"]).json.get("items", [])) == 2

    wait_for(both, 20, "two alarms")
    yield running, headers
    running.stop()


@pytest.mark.parametrize("site", SITES)
def test_lists_contain_only_own_site(plants: tuple[Platform, dict[str, dict[str, str]]], site: str) -> None:
    """Machines, alarms, journal and energy list only what belongs to the caller's site."""
    platform, headers = plants
    mine = headers[site]
    own = f"oven-{site}"
    assert [each["machine_id"] for each in http("GET", f"{platform.api}/api/machines", headers=mine).json["items"]] == [
        own
    ]
    assert [each["machine_id"] for each in http("GET", f"{platform.api}/api/alarms", headers=mine).json["items"]] == [
        own
    ]
    journal = http("GET", f"{platform.api}/api/alarms/journal", headers=mine).json["items"]
    assert {each["machine_id"] for each in journal} == {own}
    energy = http("GET", f"{platform.api}/api/energy?group_by=site", headers=mine)
    assert {each["name"] for each in energy.json["groups"]} == {site}
    midnight = datetime.datetime.now(datetime.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    today = http("GET", f"{platform.api}/api/today?midnight={midnight.timestamp()}", headers=mine)
    assert today.status == 200


def test_journal_of_a_site_is_not_cut_short_by_others(plants: tuple[Platform, dict[str, dict[str, str]]]) -> None:
    """A caller that is bound to a site gets as many entries as it asks for, however many others lie between."""
    platform, headers = plants
    noisy = {"machine_id": "oven-south", "sensor": "heat"}
    for number in range(6):  # of another site, and newer
        at = time.time()
        rows = [{**noisy, "timestamp": at, "value": 20 if number % 2 else 99}]
        assert http("POST", f"{platform.api}/api/readings", {"readings": rows}, headers["all"]).status == 200
        time.sleep(1.2)
    (entry,) = http("GET", f"{platform.api}/api/alarms/journal?limit=1", headers=headers["north"]).json["items"]
    assert entry["machine_id"] == "oven-north"


def test_bulk_action_finds_no_alarm_of_another_site(plants: tuple[Platform, dict[str, dict[str, str]]]) -> None:
    """An alarm of another site is reported as missing by an action on many alarms, and stays unchanged."""
    platform, headers = plants
    body = {"ids": ["oven-north~hot", "oven-nowhere~hot"], "minutes": 5}
    answer = http("POST", f"{platform.api}/api/alarms/shelve", body, headers["south"])
    assert answer.status == 200
    for item in answer.json["items"]:
        assert (item["done"], item["problem"], item["state"]) == (False, "alarm-not-found", None)
    alarms = http("GET", f"{platform.api}/api/alarms?state=shelved", headers=headers["north"]).json["items"]
    assert alarms == []


def test_event_stream_is_silent_about_another_site(plants: tuple[Platform, dict[str, dict[str, str]]]) -> None:
    """Readings and alarms of another site send no event, and change no number in those that are sent."""
    platform, headers = plants
    request = urllib.request.Request(f"{platform.api}/api/events", headers=headers["north"])  # noqa: S310
    with urllib.request.urlopen(request, timeout=15) as stream:  # noqa: S310
        names: list[str] = []
        lines = (line.decode().strip() for line in iter(stream.readline, b""))
        events = (line[7:] for line in lines if line.startswith("event: "))
        while not {"machines", "alarms", "pulse"} <= set(names):
            names.append(next(events))
        for value in (20, 99):
            rows = [{"machine_id": "oven-south", "sensor": "heat", "timestamp": time.time(), "value": value}]
            assert http("POST", f"{platform.api}/api/readings", {"readings": rows}, headers["all"]).status == 200
            time.sleep(1.2)  # in which the alarm clears, or is raised
        names.clear()
        while "pulse" not in names:
            names.append(next(events))
    assert set(names) == {"pulse"}


def test_flood_of_another_site_is_not_told(plants: tuple[Platform, dict[str, dict[str, str]]]) -> None:
    """A caller that is bound to a site is told how many of its own alarms were raised lately, and of no other's."""
    platform, headers = plants
    journal = http("GET", f"{platform.api}/api/alarms/journal?limit=1000", headers=headers["all"]).json["items"]
    raised = [each["machine_id"] for each in journal if each["transition"] == "raised"]
    for site in SITES:
        flood = http("GET", f"{platform.api}/api/alarms", headers=headers[site]).json["flood"]
        assert flood["last_ten_minutes"] == raised.count(f"oven-{site}") > 0
    assert http("GET", f"{platform.api}/api/alarms", headers=headers["all"]).json["flood"]["last_ten_minutes"] == len(
        raised
    )


@pytest.mark.parametrize(
    "path",
    [
        "GET /api/machines/{}",
        "GET /api/machines/{}/metrics",
        "GET /api/machines/{}/maintenance",
        "POST /api/machines/{}/maintenance",
        "DELETE /api/machines/{}/maintenance/1-a",
        "GET /api/machines/{}/maintenance/1-a/changes",
        "GET /api/machines/{}/planned-stops",
        "GET /api/machines/{}/life-suggestions",
        "POST /api/machines/{}/planned-stops",
        "DELETE /api/machines/{}/planned-stops/1-a",
        "GET /api/machines?site=north",
        "GET /api/energy?machine_id={}",
        "GET /api/energy?site=north",
        "POST /api/alarms/{}~hot/ack",
        "POST /api/alarms/{}~hot/shelve",
        "POST /api/alarms/{}~hot/comments",
        "GET /api/alarms/journal?machine_id={}",
        "GET /api/alarms/journal?site=north",
    ],
)
def test_resources_of_other_sites_are_404(plants: tuple[Platform, dict[str, dict[str, str]]], path: str) -> None:
    """A resource of another site is answered with 404, like one that does not exist."""
    platform, headers = plants
    method, _, where = path.partition(" ")
    body = {"text": "x", "minutes": 5} if method == "POST" else None
    if body:
        body = (
            {"text": "x"}
            if "maintenance" in where or "comments" in where
            else {"at": "2090-01-01"}
            if "planned" in where
            else {"minutes": 5}
            if "shelve" in where
            else {}
        )
    answer = http(method, f"{platform.api}{where.format('oven-north')}", body, headers["south"])
    assert answer.status == 404, answer.body
    unknown = http(method, f"{platform.api}{where.format('oven-nowhere')}", body, headers["south"])
    assert unknown.status == 404


def test_registration_is_limited_to_own_site(plants: tuple[Platform, dict[str, dict[str, str]]]) -> None:
    """A caller bound to a site can register machines at that site only."""
    platform, headers = plants
    machine = {"machine_id": "spy", "machine_type": "oven", "site": "north"}
    assert http("POST", f"{platform.api}/api/machines", machine, headers["south"]).status == 404
    for own in ({**machine, "site": "south"}, {"machine_id": "another", "machine_type": "oven"}):
        made = http("POST", f"{platform.api}/api/machines", own, headers["south"])
        assert made.status == 201
        assert made.json["site"] == "south"


@pytest.mark.parametrize("machine", ["oven-north", "oven-nowhere"])
def test_readings_for_other_sites_are_rejected_as_a_whole(
    plants: tuple[Platform, dict[str, dict[str, str]]], machine: str
) -> None:
    """A request with readings for a machine of another site is rejected as a whole."""
    platform, headers = plants
    at = time.time()
    own = {"machine_id": "oven-south", "sensor": "load", "timestamp": at, "value": 1}
    rows = [own, {**own, "machine_id": machine}]
    answer = http("POST", f"{platform.api}/api/readings", {"readings": rows}, headers["south"])
    assert answer.status == 404
    assert machine in answer.json["detail"]
    table = f"machine_id,timestamp,sensor,value\n{machine},{at},load,1\n".encode()
    csv = {**headers["south"], "Content-Type": "text/csv"}
    assert http("POST", f"{platform.api}/api/readings", table, csv).status == 404
    assert "load" not in _sensors(platform, headers["all"], "oven-south"), "all or none"
    assert (
        http("POST", f"{platform.api}/api/readings", {"readings": [{**own, "sensor": "own"}]}, headers["south"]).status
        == 200
    )
    assert "own" in _sensors(platform, headers["all"], "oven-south")


def _sensors(platform: Platform, headers: dict[str, str], machine: str) -> set[str]:
    return set(http("GET", f"{platform.api}/api/machines/{machine}", headers=headers).json["sensors"])


def test_event_stream_contains_only_own_site(plants: tuple[Platform, dict[str, dict[str, str]]]) -> None:
    """The event stream contains machines and alarm counts of the caller's site only."""
    platform, headers = plants
    told: dict[str, Any] = {}
    request = urllib.request.Request(f"{platform.api}/api/events", headers=headers["south"])  # noqa: S310
    with urllib.request.urlopen(request, timeout=15) as stream:  # noqa: S310
        name = ""
        while not {"machines", "alarms"} <= told.keys():
            line = stream.readline().decode()
            if line.startswith("event: "):
                name = line[7:].strip()
            elif line.startswith("data: "):
                told[name] = json.loads(line[6:])
    assert {each["site"] for each in told["machines"]["machines"]} == {"south"}
    assert told["machines"]["total"] == len(told["machines"]["machines"])
    assert sum(told["alarms"]["counts"].values()) == 1
