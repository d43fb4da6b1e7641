"""What simulated devices publish, as another client of a real broker receives it."""

import asyncio
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
import yaml
from paho.mqtt.enums import CallbackAPIVersion

from aurum.edge.inputs.common.configuration import load_inputs
from aurum.v1.sparkplug_pb2 import SparkplugPayload
from aurum_sim.peers import PeerKind, make_peer
from aurum_sim.peers.mqtt import MqttPeer
from aurum_sim.peers.mqtt_client import IN_FLIGHT
from aurum_sim.peers.peer import Peer, Sample
from aurum_sim.peers.sparkplug import SparkplugPeer
from tests.support.mosquitto import Mosquitto
from tests.support.waiting import until, wait_for

NODE = "spBv1.0/plant-a/{}/iot-sim"
SENSORS = {"pump-1": ["flow", "pressure"], "pump-2": ["flow"]}


class Subscriber:
    """A client that keeps all messages below a topic, and publishes."""

    def __init__(self, port: int, topics: str) -> None:
        self.messages: list[tuple[str, bytes]] = []
        subscribed: list[int] = []
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, "subscriber")
        self._client.on_message = lambda client, _, message: self.messages.append((message.topic, message.payload))
        self._client.on_subscribe = lambda client, _, number, *rest: subscribed.append(number)
        self._client.on_connect = lambda client, *_: client.subscribe(topics, qos=1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        wait_for(lambda: subscribed, 10, "it has subscribed")

    def publish(self, topic: str, payload: bytes) -> None:
        self._client.publish(topic, payload, qos=1)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Host(Subscriber):
    """A Sparkplug host."""

    def heard(self, kind: str, device: str = "") -> list[SparkplugPayload]:
        topic = NODE.format(kind) + (f"/{device}" if device else "")
        return [SparkplugPayload.FromString(payload) for each, payload in self.messages if each == topic]

    def ask_for_rebirth(self) -> None:
        command = SparkplugPayload()
        command.metrics.add(name="Node Control/Rebirth", datatype=11, boolean_value=True)
        self.publish(NODE.format("NCMD"), command.SerializeToString())


@pytest.fixture
def host(fast_broker: Mosquitto) -> Iterator[Host]:
    listening = Host(fast_broker.port, "spBv1.0/#")
    yield listening
    listening.close()


def sample(number: int, machine: str = "pump-1") -> Sample:
    values = {name: number + place / 2 for place, name in enumerate(SENSORS[machine])}
    return Sample(machine, 1_700_000_000_000_000 + number * 1_000_000, values)


async def told(peer: Peer, condition: Callable[[], object], what: str) -> None:
    """Samples with rising numbers, until the condition is true."""
    number = 0

    async def tell_and_look() -> object:
        nonlocal number
        number += 1
        await peer.send([sample(number)])
        return condition()

    await until(tell_and_look, what)


def values_of(payload: SparkplugPayload) -> dict[int, float]:
    return {each.alias: each.double_value for each in payload.metrics}


async def test_mqtt_devices_publish_each_sample_as_json(fast_broker: Mosquitto, tmp_path: Path) -> None:
    subscriber = Subscriber(fast_broker.port, "plant/#")
    peer = make_peer(PeerKind.MQTT, f"127.0.0.1:{fast_broker.port}")
    assert isinstance(peer, MqttPeer)
    await peer.open(SENSORS)
    await peer.send([sample(1), sample(2, "pump-2")])
    await until(lambda: len(subscriber.messages) == 2, "both arrive")
    await peer.close()
    subscriber.close()
    assert {topic: json.loads(payload) for topic, payload in subscriber.messages} == {
        "plant/pump-1/state": {"ts": 1_700_000_001.0, "flow": 1.0, "pressure": 1.5},
        "plant/pump-2/state": {"ts": 1_700_000_002.0, "flow": 2.0},
    }
    file = tmp_path / "inputs.yaml"
    file.write_text(yaml.safe_dump({"inputs": [peer.inputs()]}))
    (understood,) = load_inputs(file).inputs
    assert (understood.protocol, understood.summary) == ("mqtt", f"at 127.0.0.1:{fast_broker.port}, 1 topics")


async def test_mqtt_devices_wait_while_the_broker_is_away(fast_broker: Mosquitto) -> None:
    fast_broker.stop(signal.SIGKILL)
    peer = MqttPeer("127.0.0.1", fast_broker.port)
    await peer.open(SENSORS)
    await peer.send([sample(number) for number in range(IN_FLIGHT)])
    blocked = asyncio.create_task(peer.send([sample(IN_FLIGHT)]))
    done, _ = await asyncio.wait([blocked], timeout=0.2)
    assert not done, "more messages than may be in flight"
    fast_broker.start()
    await asyncio.wait_for(blocked, 20)
    await peer.close()


async def test_sparkplug_births_come_before_data(fast_broker: Mosquitto, host: Host, tmp_path: Path) -> None:
    peer = make_peer(PeerKind.SPARKPLUG, f"127.0.0.1:{fast_broker.port}")
    assert isinstance(peer, SparkplugPeer)
    await peer.open(SENSORS)
    await told(peer, lambda: len(host.heard("DDATA", "pump-1")) > 2, "data")
    await peer.close()
    kinds = [topic.removeprefix("spBv1.0/plant-a/") for topic, _ in host.messages]
    assert kinds[:4] == ["NBIRTH/iot-sim", "DBIRTH/iot-sim/pump-1", "DBIRTH/iot-sim/pump-2", "DDATA/iot-sim/pump-1"]
    sequences = [SparkplugPayload.FromString(payload).seq for _, payload in host.messages[:6]]
    assert sequences == list(range(6))
    (born,), (silent,) = host.heard("DBIRTH", "pump-1"), host.heard("DBIRTH", "pump-2")
    aliases = {each.name: each.alias for each in born.metrics}
    first = born.metrics[0].double_value
    assert [each.is_null for each in silent.metrics] == [True], "it has had no sample"
    assert silent.metrics[0].alias not in aliases.values()
    assert values_of(host.heard("DDATA", "pump-1")[0]) == {aliases["flow"]: first + 1, aliases["pressure"]: first + 1.5}
    file = tmp_path / "inputs.yaml"
    file.write_text(yaml.safe_dump({"inputs": [peer.inputs()]}))
    (understood,) = load_inputs(file).inputs
    assert understood.protocol == "sparkplug"


async def test_sparkplug_node_is_born_again_on_request(fast_broker: Mosquitto, host: Host) -> None:
    peer = SparkplugPeer("127.0.0.1", fast_broker.port)
    await peer.open(SENSORS)
    await told(peer, lambda: host.heard("DDATA", "pump-1"), "data")
    host.publish(NODE.format("NCMD"), SparkplugPayload().SerializeToString())  # asks for nothing
    host.ask_for_rebirth()
    await told(peer, lambda: len(host.heard("NBIRTH")) == 2, "a second birth")
    await told(peer, lambda: len(host.heard("DBIRTH", "pump-1")) == 2, "and its devices'")
    assert [birth.seq for birth in host.heard("NBIRTH")] == [0, 0]
    await peer.close()


async def test_sparkplug_node_is_born_again_after_broker_restart(fast_broker: Mosquitto) -> None:
    peer = SparkplugPeer("127.0.0.1", fast_broker.port)
    first = Host(fast_broker.port, "spBv1.0/#")
    await peer.open(SENSORS)
    await told(peer, lambda: first.heard("DDATA", "pump-1"), "data")
    first.close()
    fast_broker.stop(signal.SIGKILL)
    await peer.send([sample(7)])
    fast_broker.start()
    second = Host(fast_broker.port, "spBv1.0/#")
    await told(peer, lambda: second.heard("DBIRTH", "pump-1"), "a birth")
    assert len(second.heard("NBIRTH")) == 1
    await peer.close()
    second.close()


async def test_sparkplug_node_that_ends_announces_its_death(fast_broker: Mosquitto, host: Host) -> None:
    peer = SparkplugPeer("127.0.0.1", fast_broker.port)
    await peer.open(SENSORS)
    await told(peer, lambda: host.heard("DDATA", "pump-1"), "data")
    await peer.close()
    await until(lambda: host.heard("NDEATH"), "the death")
    (death,), (birth,) = host.heard("NDEATH"), host.heard("NBIRTH")
    numbers = [next(each.long_value for each in payload.metrics if each.name == "bdSeq") for payload in (death, birth)]
    assert numbers[0] == numbers[1]
