"""`aurum edge status` and the platform page's data, from a gateway that asks a real Modbus server."""

import json
import subprocess
import sys
from typing import Any

from tests.integration.test_edge_modbus import Device
from tests.support.edge import start_gateway, stored_values
from tests.support.http import http
from tests.support.platform import Platform
from tests.support.waiting import wait_for


def status(platform: Platform) -> list[dict[str, Any]]:
    address = f"127.0.0.1:{platform.port('edge admin')}"
    command = [sys.executable, "-m", "aurum.cli", "edge", "status", "--json", "--address", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return list(json.loads(done.stdout))


def test_edge_status_tells_what_a_meter_sends(platform: Platform) -> None:
    device = Device()
    device.set(10, 42, 999, 150)
    registers = [
        {"address": 10 + number, "machine": "tank-1", "sensor": sensor}
        for number, sensor in enumerate(("level", "spare", "flow"))
    ]
    rules = [{"sensor": "spare", "absent": [999]}, {"sensor": "flow", "maximum": 100}]
    meters = {"name": "meters", "protocol": "modbus", "host": "127.0.0.1", "port": device.port, "period": 0.2}
    start_gateway(platform, {**meters, "registers": registers, "rules": rules})
    wait_for(lambda: stored_values(platform, "tank-1", "level"), 20, "the level is stored")
    (meter,) = status(platform)
    assert {each["reason"] for each in meter["refused"]} == {"absent", "out_of_range"}
    (shown,) = meter["worst"]
    assert (shown["last"]["sensor"], shown["last"]["value"]) == ("level", 42)
    assert {each["example"] for each in shown["refused"]} == {
        "tank-1 spare: 999",
        "tank-1 flow: 150 is greater than 100",
    }
    assert stored_values(platform, "tank-1", "flow") == stored_values(platform, "tank-1", "spare") == []
    instances = http("GET", f"{platform.api}/api/platform").json["instances"]
    (polled,) = [each["inputs"] for each in instances if each.get("inputs")]
    assert polled[0]["name"] == "meters"
    device.close()
