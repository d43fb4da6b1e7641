"""A gateway as the host of a real broker's Sparkplug nodes."""

import asyncio
import signal
import time

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from aurum.v1.sparkplug_pb2 import SparkplugMetric, SparkplugPayload
from aurum_sim.peers.peer import Sample
from aurum_sim.peers.sparkplug import SparkplugPeer
from tests.support.edge import input_counts, is_connected, start_gateway, stored_values
from tests.support.mosquitto import Mosquitto
from tests.support.platform import Platform
from tests.support.proxy import Proxy
from tests.support.waiting import wait_for

SENSORS = [f"s{number}" for number in range(100)]
MACHINES = [f"press-{number}" for number in range(100)]


class Node:
    """A node whose devices are presses, each telling all of its sensors at once."""

    def __init__(self, port: int, machines: list[str]) -> None:
        self._machines = machines
        self._peer = SparkplugPeer("127.0.0.1", port)
        self.told = 0
        asyncio.run(self._peer.open(dict.fromkeys(machines, SENSORS)))

    def tell(self) -> None:
        """The next number, by all sensors."""
        at_us = time.time_ns() // 1000
        samples = [Sample(machine, at_us, dict.fromkeys(SENSORS, float(self.told))) for machine in self._machines]
        asyncio.run(self._peer.send(samples))
        self.told += 1

    def close(self) -> None:
        asyncio.run(self._peer.close())


def plant(port: int) -> dict[str, object]:
    return {"name": "line", "protocol": "sparkplug", "broker": {"host": "127.0.0.1", "port": port, "keepalive": 5}}


def test_sparkplug_metrics_of_the_field_are_stored_right(platform: Platform, broker: Mosquitto) -> None:
    start_gateway(platform, plant(broker.port))
    wait_for(lambda: is_connected(platform, "line"), 15, "the gateway is connected")
    node = mqtt.Client(CallbackAPIVersion.VERSION2, "node")
    node.connect("127.0.0.1", broker.port)
    node.loop_start()

    def tell(number: int, kind: str, *metrics: SparkplugMetric) -> None:
        payload = SparkplugPayload(timestamp=int(time.time() * 1000), seq=number, metrics=metrics)
        topic = f"spBv1.0/plant/{kind}/edge" + ("/press-1" if kind[0] == "D" else "")
        node.publish(topic, payload.SerializeToString()).wait_for_publish(10)

    pump = SparkplugMetric(name="Pump1", alias=20, datatype=19)
    pump.template_value.metrics.add(name="amps", alias=21, datatype=10, double_value=3.5)
    tell(0, "NBIRTH")
    tell(
        1,
        "DBIRTH",
        SparkplugMetric(name="on", alias=0, datatype=11, boolean_value=True),
        SparkplugMetric(name="cold", alias=10, datatype=3, int_value=5),
        pump,
    )
    time.sleep(0.01)  # the times of two readings must differ
    tell(2, "DDATA", SparkplugMetric(name="", alias=10, int_value=-12 % 2**32), SparkplugMetric(int_value=77))
    pump.template_value.metrics[0].CopyFrom(SparkplugMetric(name="amps", double_value=4.5))
    tell(3, "DDATA", pump)
    wait_for(lambda: stored_values(platform, "press-1", "Pump1/amps") == [3.5, 4.5], 15, "the template is stored")
    assert stored_values(platform, "press-1", "cold") == [5, -12]
    assert stored_values(platform, "press-1", "on") == [1]
    assert platform.metric("edge", 'edge_input_refused_total{input="line",reason="no_name"}') == 1
    node.disconnect()
    node.loop_stop()


@pytest.mark.proof("devices")
def test_ten_thousand_sparkplug_metrics_are_stored(platform: Platform, fast_broker: Mosquitto) -> None:
    """A birth and changes of 10,000 Sparkplug metrics are stored."""
    start_gateway(platform, plant(fast_broker.port))
    wait_for(lambda: is_connected(platform, "line"), 15, "the gateway is connected")
    node = Node(fast_broker.port, MACHINES)
    wait_for(
        lambda: (node.tell(), time.sleep(0.5), input_counts(platform, "line")["accepted"] >= 10_000)[-1], 30, "a birth"
    )
    for _ in range(3):
        node.tell()
    wait_for(lambda: input_counts(platform, "line")["accepted"] >= 40_000, 60, "a birth and three changes of all")
    for machine in ("press-0", "press-99"):
        wait_for(lambda: stored_values(platform, machine, "s99")[-1:] == [node.told - 1], 30, "the last is stored")  # noqa: B023
    found = stored_values(platform, "press-99", "s99")
    assert found == sorted(set(found))
    node.close()


@pytest.mark.proof("devices")
def test_sparkplug_faults_leave_gaps_but_no_wrong_value(platform: Platform, fast_broker: Mosquitto) -> None:
    """After a kill and network faults stored values are correct and unique, and data resumes."""
    proxy = Proxy(fast_broker.port)
    start_gateway(platform, plant(proxy.port))
    wait_for(lambda: is_connected(platform, "line"), 15, "the gateway is connected")
    node = Node(fast_broker.port, MACHINES[:2])

    def tell(count: int) -> None:
        for _ in range(count):
            node.tell()
            time.sleep(0.02)

    def sends_again() -> bool:
        node.tell()
        time.sleep(0.1)
        return stored_values(platform, "press-1", "s0")[-1:] == [node.told - 1]

    tell(50)
    wait_for(sends_again, 30, "values of the node arrive")
    for fault in ("kill", "reset", "drop"):
        if fault == "kill":
            platform.processes["edge"].kill(signal.SIGKILL)
            tell(50)
            platform.restart("edge")
        elif fault == "reset":
            proxy.set("reset")
            tell(50)
        else:
            proxy.set("drop")
            tell(50)
            wait_for(lambda: not is_connected(platform, "line"), 30, "the gateway notices")
            proxy.set("reset")
        proxy.set("pass")
        wait_for(sends_again, 40, f"values of the node arrive again after {fault}")
    assert platform.metric("edge", 'edge_input_rebirths_total{input="line"}') >= 1
    for machine in MACHINES[:2]:
        found = stored_values(platform, machine, "s0")
        assert found == sorted(set(found))
        assert set(found) <= set(map(float, range(node.told)))
    node.close()
    proxy.close()
