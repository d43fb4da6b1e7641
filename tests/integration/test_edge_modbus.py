"""A gateway that asks a real Modbus server."""

import asyncio
import contextlib
import json
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from tests.support.edge import input_counts, input_problem, is_connected, start_gateway, stored_values
from tests.support.http import http
from tests.support.modbus_device import ModbusDevice, Unit
from tests.support.platform import Platform
from tests.support.ports import free_port
from tests.support.waiting import wait_for

READ_HOLDING = 3
COILS = 16  # of which number 5 is on


class Device:
    """A server on a thread of its own, whose holding registers may be set."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self._holding = [0] * 60_000
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait(10)

    def set(self, address: int, *words: int) -> None:
        self._holding[address : address + len(words)] = words

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._server.shutdown(), self._loop).result(10)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)

        async def answer(code: int, start: int, address: int, count: int, registers: list[int], _: Any) -> None:
            if code == READ_HOLDING:
                registers[address - start : address - start + count] = self._holding[address : address + count]

        async def serve() -> None:
            coils = SimData(0, values=[number == 5 for number in range(COILS)], datatype=DataType.BITS)
            words = SimData(0, count=len(self._holding), values=0, datatype=DataType.REGISTERS)
            parts = ([coils], [replace(coils)], [words], [replace(words)])
            self._server = ModbusTcpServer(SimDevice(1, simdata=parts, action=answer), address=("127.0.0.1", self.port))
            self._loop.call_later(0.2, self._ready.set)
            with contextlib.suppress(asyncio.CancelledError):
                await self._server.serve_forever()

        self._loop.run_until_complete(serve())


@pytest.fixture
def device() -> Iterator[Device]:
    running = Device()
    yield running
    running.close()


def modbus(port: int, registers: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "name": "meters",
        "protocol": "modbus",
        "host": "127.0.0.1",
        "port": port,
        "period": 0.1,
        "registers": registers,
        **more,
    }


def test_edge_status_tells_what_a_meter_sends(platform: Platform, device: Device) -> None:
    device.set(10, 42, 999, 150)
    registers = [
        {"address": 10 + number, "machine": "tank-1", "sensor": sensor}
        for number, sensor in enumerate(("level", "spare", "flow"))
    ]
    rules = [{"sensor": "spare", "absent": [999]}, {"sensor": "flow", "maximum": 100}]
    start_gateway(platform, modbus(device.port, registers, rules=rules))
    wait_for(lambda: stored_values(platform, "tank-1", "level"), 20, "the level is stored")
    gateway = f"127.0.0.1:{platform.port('edge admin')}"
    command = [sys.executable, "-m", "aurum.cli", "edge", "status", "--json", "--address", gateway]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    (meter,) = json.loads(done.stdout)
    assert {each["reason"] for each in meter["refused"]} == {"absent", "out_of_range"}
    (shown,) = meter["worst"]
    assert (shown["last"]["sensor"], shown["last"]["value"]) == ("level", 42)
    examples = {each["example"] for each in shown["refused"]}
    assert examples == {"tank-1 spare: 999", "tank-1 flow: 150 is greater than 100"}
    assert stored_values(platform, "tank-1", "flow") == stored_values(platform, "tank-1", "spare") == []
    instances = http("GET", f"{platform.api}/api/platform").json["instances"]
    (polled,) = [each["inputs"] for each in instances if each.get("inputs")]
    assert polled[0]["name"] == "meters"


def test_modbus_registers_become_readings(platform: Platform, device: Device) -> None:
    device.set(0, 0xFFF6)
    device.set(10, *struct.unpack(">2H", struct.pack(">f", 21.5)))
    device.set(12, *reversed(struct.unpack(">2H", struct.pack(">I", 4_000_000_000))))
    start_gateway(
        platform,
        modbus(
            device.port,
            [
                {"address": 0, "type": "int16", "machine": "m-1", "sensor": "level"},
                {"address": 10, "type": "float32", "machine": "m-1", "sensor": "temperature"},
                {"address": 12, "type": "uint32", "word_order": "little", "machine": "m-1", "sensor": "energy"},
                {"address": 5, "kind": "coil", "type": "bit", "machine": "m-1", "sensor": "running"},
            ],
            rules=[{"sensor": "energy", "unit": "Wh", "to": "kWh"}],
        ),
    )
    wait_for(lambda: len(stored_values(platform, "m-1", "level")) >= 3, 20, "three rounds are stored")
    assert set(stored_values(platform, "m-1", "level")) == {-10.0}
    assert set(stored_values(platform, "m-1", "temperature")) == {21.5}
    assert set(stored_values(platform, "m-1", "energy")) == {4_000_000.0}
    assert set(stored_values(platform, "m-1", "running")) == {1.0}


@pytest.mark.proof("devices")
def test_ten_thousand_registers_are_polled_and_stored(platform: Platform, device: Device) -> None:
    """10,000 Modbus registers are polled and stored."""
    for address in range(10_000):
        device.set(address, address)
    registers = [{"address": n, "machine": f"m-{n // 100}", "sensor": f"r{n % 100}"} for n in range(10_000)]
    start_gateway(platform, modbus(device.port, registers, period=1.0))
    wait_for(lambda: input_counts(platform, "meters").get("accepted", 0) >= 20_000, 60, "two rounds are safe")
    wait_for(lambda: stored_values(platform, "m-99", "r99"), 20, "the last value is stored")
    for number in (0, 4711, 9999):
        assert set(stored_values(platform, f"m-{number // 100}", f"r{number % 100}")) == {float(number)}


def test_modbus_input_reconnects_to_returning_device(platform: Platform) -> None:
    device = Device()
    device.set(0, 1)
    start_gateway(platform, modbus(device.port, [{"address": 0, "machine": "m-1", "sensor": "x"}], timeout=0.5))
    wait_for(lambda: stored_values(platform, "m-1", "x"), 20, "a reading")
    device.close()
    wait_for(lambda: not is_connected(platform, "meters"), 20, "its absence is noticed")
    again = Device(device.port)
    again.set(0, 2)
    wait_for(lambda: 2.0 in stored_values(platform, "m-1", "x"), 40, "readings come again")
    again.close()


def test_holes_and_absent_registers_are_told_and_left_out(platform: Platform) -> None:
    unit = Unit({10: 1, 12: 0xFFFF, 13: 3, 20: 0x8000, 21: 0xFFFF})
    gateway = ModbusDevice({1: unit})
    declared = [{"address": address, "machine": "m-1", "sensor": f"r{address}"} for address in (10, 12, 13, 15)]
    declared.append({"address": 20, "type": "int16", "machine": "m-1", "sensor": "r20"})
    declared.append({"address": 21, "not_implemented": "keep", "machine": "m-1", "sensor": "r21"})
    start_gateway(platform, modbus(gateway.port, declared))
    wait_for(lambda: len(stored_values(platform, "m-1", "r10")) > 3, 30, "readings")
    assert set(stored_values(platform, "m-1", "r13")) == {3.0}
    assert set(stored_values(platform, "m-1", "r21")) == {65535.0}
    for sensor in ("r12", "r15", "r20"):
        assert stored_values(platform, "m-1", sensor) == []
    assert is_connected(platform, "meters")
    assert "does not give holding 15 to 15 (m-1 r15)" in input_problem(platform, "meters")
    assert platform.metric("edge", 'edge_input_missing{input="meters"}') == 1
    assert platform.metric("edge", 'edge_input_refused_total{input="meters",reason="unreadable"}') == 1
    assert platform.metric("edge", 'edge_input_refused_total{input="meters",reason="absent"}') > 3
    asked = len([each for each in gateway.asked if each[1] <= 15 < each[1] + each[2]])
    assert asked < 5, "the hole is asked for again and again"
    gateway.close()


def test_inputs_of_one_gateway_share_its_connection(platform: Platform) -> None:
    gateway = ModbusDevice({1: Unit({0: 11}), 2: Unit({0: 22})}, single=True)
    inputs = [
        modbus(gateway.port, [{"address": 0, "machine": f"m-{unit}", "sensor": "x"}], name=f"unit-{unit}", unit=unit,
               timeout=0.3)
        for unit in (1, 2, 3)
    ]  # fmt: skip
    start_gateway(platform, *inputs)
    for unit in (1, 2):
        wait_for(lambda: len(stored_values(platform, f"m-{unit}", "x")) > 3, 30, f"readings of unit {unit}")  # noqa: B023
        assert set(stored_values(platform, f"m-{unit}", "x")) == {11.0 * unit}
    wait_for(lambda: "/3 does not respond" in input_problem(platform, "unit-3"), 30, "the unit that is away is told of")
    assert [is_connected(platform, f"unit-{unit}") for unit in (1, 2, 3)] == [True, True, False]
    assert gateway.refused == 0
    gateway.close()


def test_device_that_answers_nothing_is_not_connected(platform: Platform) -> None:
    unit = Unit({0: 5}, mute=True)
    device = ModbusDevice({1: unit})
    start_gateway(platform, modbus(device.port, [{"address": 0, "machine": "m-1", "sensor": "x"}], timeout=0.2))

    def breaker() -> str:
        targets = {each["name"]: each for each in platform.admin("edge", "/policy").json["targets"]}
        return str(targets.get("edge/inputs:meters", {}).get("breaker"))

    wait_for(lambda: breaker() == "open", 30, "its breaker opens")
    assert device.connections > 0
    assert not is_connected(platform, "meters")
    assert "does not respond within 0.2 s" in input_problem(platform, "meters")
    unit.mute = False
    wait_for(lambda: is_connected(platform, "meters"), 60, "it is noticed that it answers")
    wait_for(lambda: stored_values(platform, "m-1", "x"), 20, "readings")
    device.close()


@pytest.mark.proof("devices")
def test_killed_gateway_loses_no_modbus_reading(platform: Platform, device: Device) -> None:
    """A reading polled before a SIGKILL of the gateway is stored, and polling resumes afterwards."""
    stop = threading.Event()

    def count_up() -> None:
        number = 0
        while not stop.wait(0.01):
            number += 1
            device.set(0, number)

    counting = threading.Thread(target=count_up)
    counting.start()
    start_gateway(platform, modbus(device.port, [{"address": 0, "machine": "m-1", "sensor": "x"}], period=0.02))
    for _ in range(3):
        before = len(stored_values(platform, "m-1", "x"))
        wait_for(lambda: len(stored_values(platform, "m-1", "x")) > before + 30, 40, "readings come")  # noqa: B023
        accepted = input_counts(platform, "meters")["accepted"]
        platform.processes["edge"].kill(signal.SIGKILL)
        platform.restart("edge")
        least = before + accepted - 30
        wait_for(lambda: len(stored_values(platform, "m-1", "x")) >= least, 30, "polled readings are stored")  # noqa: B023
    stop.set()
    counting.join(5)
    found = stored_values(platform, "m-1", "x")
    assert found == sorted(found)
    assert len(found) > 90


def test_missing_register_is_bad_and_others_are_read(platform: Platform, device: Device) -> None:
    registers: list[dict[str, Any]] = [
        {"address": 5, "kind": "coil", "type": "bit", "machine": "m-1", "sensor": "there"},
        {"address": 60_000, "kind": "coil", "type": "bit", "machine": "m-1", "sensor": "nowhere"},
    ]
    start_gateway(platform, modbus(device.port, registers))
    wait_for(lambda: stored_values(platform, "m-1", "there"), 20, "the one that is there")
    assert input_counts(platform, "meters")["bad"] > 0
    assert "refuses coil 60000 to 60000" in platform.processes["edge"].log.read_text()
