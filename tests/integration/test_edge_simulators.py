"""The simulated plant by each protocol, from its devices to stored readings."""

import signal
import time

import pytest

from tests.support.edge import input_counts, stored_values
from tests.support.http import http
from tests.support.mosquitto import Mosquitto
from tests.support.platform import Platform
from tests.support.ports import free_port
from tests.support.waiting import wait_for


def simulate(platform: Platform, protocol: str, port: int) -> None:
    inputs = platform.folder / "inputs.yaml"
    arguments = ("--machines", "4", "--machine-type", "pump", "--speed-up", "1", "--rate", "5")
    more = ("--protocol", protocol, "--at", f"127.0.0.1:{port}", "--write-inputs", str(inputs))
    platform.extra |= {"AURUM_EDGE_INPUTS": str(inputs), "AURUM_FEATURE_PREDICTIVE": "false"}
    platform.start("iot-sim", *arguments, *more, ready=False)
    wait_for(inputs.exists, 30, "the simulator says how to listen to it")
    for service in ("ingestion", "edge", "api"):
        platform.start(service)


def check(platform: Platform) -> None:
    wait_for(
        lambda: len(stored_values(platform, "pump-004", "vibration_mm_s")) > 10, 40, "readings of the last machine"
    )
    assert all(0 < value < 50 for value in stored_values(platform, "pump-004", "vibration_mm_s"))
    machine = f"{platform.api}/api/machines/pump-001"
    wait_for(lambda: http("GET", machine).json["machine_type"] == "pump", 20, "its type")
    found = input_counts(platform, "simulated")
    assert found["accepted"] > 100
    assert found.get("invalid", 0) == 0


@pytest.mark.parametrize("protocol", ["opcua", "modbus"])
def test_simulated_opcua_and_modbus_plants_are_stored(platform: Platform, protocol: str) -> None:
    simulate(platform, protocol, free_port())
    check(platform)


@pytest.mark.proof("devices")
def test_simulated_mqtt_plant_resumes_after_broker_kill(platform: Platform, broker: Mosquitto) -> None:
    """Simulated MQTT devices resume after a SIGKILL of their broker."""
    simulate(platform, "mqtt", broker.port)
    check(platform)
    broker.stop(signal.SIGKILL)
    time.sleep(2)  # devices go on measuring
    broker.start()
    before = len(stored_values(platform, "pump-004", "vibration_mm_s"))
    wait_for(
        lambda: len(stored_values(platform, "pump-004", "vibration_mm_s")) > before + 10, 60, "readings come again"
    )
    assert platform.processes["iot-sim"].popen.poll() is None


@pytest.mark.proof("devices")
def test_sparkplug_plant_resumes_after_host_or_broker_restart(platform: Platform, broker: Mosquitto) -> None:
    """Sparkplug nodes are born again after a restart of the gateway or the broker."""
    simulate(platform, "sparkplug", broker.port)
    check(platform)
    platform.processes["edge"].kill()
    platform.restart("edge")
    before = len(stored_values(platform, "pump-004", "vibration_mm_s"))
    wait_for(
        lambda: len(stored_values(platform, "pump-004", "vibration_mm_s")) > before + 10, 40, "readings come again"
    )
    assert input_counts(platform, "simulated", "messages")["unborn"] >= 1
    broker.stop()
    broker.start()
    before = len(stored_values(platform, "pump-004", "vibration_mm_s"))
    wait_for(
        lambda: len(stored_values(platform, "pump-004", "vibration_mm_s")) > before + 10, 60, "also after the broker"
    )
