"""An alarm of silent machines belongs to one site, and is unknown to callers of others."""

import time
from pathlib import Path
from typing import Any

from aurum.security.api_keys import KeyFile, make_key, write_keys
from tests.support.gateway_machines import SILENCE_RULES
from tests.support.http import http
from tests.support.platform import Platform
from tests.support.waiting import wait_for

SITES = ("north", "south")


def test_group_of_another_site_is_hidden(tmp_path: Path) -> None:
    """Alarms, history and actions of a group of machines are those of its site."""
    made = {site: make_key(site, ("engineer", "ingest"), (site,)) for site in SITES}
    made["all"] = make_key("all", ("admin",))
    write_keys(tmp_path / "keys.yaml", KeyFile(keys=tuple(record for _, record in made.values())))
    (tmp_path / "rules.yaml").write_text(SILENCE_RULES)
    running = Platform(
        tmp_path,
        extra={
            "AURUM_AUTH_KEYS_FILE": str(tmp_path / "keys.yaml"),
            "AURUM_ALARM_RULES": str(tmp_path / "rules.yaml"),
            "AURUM_FEATURE_PREDICTIVE": "false",
        },
    )
    headers = {name: {"X-API-Key": key} for name, (key, _) in made.items()}

    def items(name: str, path: str = "/api/alarms") -> list[dict[str, Any]]:
        return list(http("GET", f"{running.api}{path}", headers=headers[name]).json.get("items", []))

    try:
        for service in ("ingestion", "prediction", "api"):
            running.start(service)
        machines = [(f"{site}-{number}", site) for site in SITES for number in range(3)]
        for machine, site in machines:
            body = {"machine_id": machine, "machine_type": "oven", "site": site}
            assert http("POST", f"{running.api}/api/machines", body, headers["all"]).status == 201
        readings = [
            {"machine_id": each, "sensor": "heat", "timestamp": time.time(), "value": 9} for each, _ in machines
        ]
        assert http("POST", f"{running.api}/api/readings", {"readings": readings}, headers["all"]).status == 200
        wait_for(lambda: len([each for each in items("all") if each["group"]]) == 2, 40, "the alarms of both sites")
        wait_for(lambda: len(items("all")) == 8, 20, "all machines are in them")
        alarms = {each["group"]["site"]: each["id"] for each in items("all") if each["group"]}
        for site, other in (SITES, reversed(SITES)):
            (mine,) = (each for each in items(site) if each["group"])
            assert (mine["id"], mine["group"]["cause"]) == (alarms[site], "site")
            assert [each["machine_id"] for each in mine["group"]["machines"]] == [f"{site}-{each}" for each in range(3)]
            assert len(items(site)) == 4
            journal = items(site, "/api/alarms/journal?limit=1000")
            assert {each["id"] for each in journal} == {each["id"] for each in items(site)}
            refused = http("POST", f"{running.api}/api/alarms/{alarms[other]}/ack", {}, headers[site])
            assert refused.status == 404
            assert http("POST", f"{running.api}/api/alarms/{mine['id']}/ack", {}, headers[site]).status == 200
    finally:
        running.stop()
