"""Simulated devices behind a Sparkplug B edge node."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from paho.mqtt.client import MQTTMessage

from aurum.v1.sparkplug_pb2 import SparkplugPayload
from aurum_sim import metrics
from aurum_sim.peers.mqtt_client import create_client, stop_client
from aurum_sim.peers.peer import Sample

_DOUBLE, _BOOLEAN, _UINT64 = 10, 11, 8


class SparkplugPeer:
    """One edge node with the machines as its devices. It publishes births again when a host requests a rebirth."""

    def __init__(self, host: str, port: int, group: str = "plant-a", node: str = "iot-sim") -> None:
        self._host, self._port = host, port
        self._namespace, self._node = f"spBv1.0/{group}", node
        self._group = group
        self._birth_sequence = time.time_ns() // 1_000_000
        self._sequence = 0
        self._aliases: dict[str, dict[str, int]] = {}
        self._latest: dict[str, Sample] = {}
        self._births_due = True
        self._client = create_client("aurum-iot-sim-sparkplug")
        death = SparkplugPayload(timestamp=self._birth_sequence)
        death.metrics.add(name="bdSeq", datatype=_UINT64, long_value=self._birth_sequence)
        self._death = death.SerializeToString()
        self._client.will_set(self._topic("NDEATH"), self._death, qos=1)
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message

    async def open(self, sensors: Mapping[str, Sequence[str]]) -> None:
        """Starts to connect to the broker, with an alias for each sensor."""
        number = 0
        for machine, names in sensors.items():
            self._aliases[machine] = {name: number + place for place, name in enumerate(names)}
            number += len(names)
        self._client.connect_async(self._host, self._port)
        self._client.loop_start()

    async def send(self, samples: Sequence[Sample]) -> None:
        """Publishes samples, or births if they are due."""
        for sample in samples:
            self._latest[sample.machine_id] = sample
        if not self._client.is_connected():
            return  # Sparkplug does not buffer; the births after reconnection contain the latest values
        if self._births_due:
            self._births_due = False
            self._publish_births()
            return
        for sample in samples:
            aliases = self._aliases[sample.machine_id]
            payload = SparkplugPayload(timestamp=sample.at_us // 1000)
            for name, value in sample.values.items():
                payload.metrics.add(alias=aliases[name], timestamp=sample.at_us // 1000, double_value=value)
            self._publish("DDATA", payload, sample.machine_id)
            metrics.simulator_readings_total.labels("made").inc(len(sample.values))

    async def close(self) -> None:
        """Publishes the death of the node, and disconnects from the broker."""
        if self._client.is_connected():  # brokers publish no will of a client that disconnects
            self._client.publish(self._topic("NDEATH"), self._death, qos=1)
        await stop_client(self._client)

    def inputs(self) -> dict[str, Any]:
        """Returns the matching input of a gateway's inputs file."""
        return {
            "name": "simulated",
            "protocol": "sparkplug",
            "broker": {"host": self._host, "port": self._port},
            "groups": [self._group],
        }

    def _publish_births(self) -> None:
        self._sequence = 0
        birth = SparkplugPayload(timestamp=int(time.time() * 1000))
        birth.metrics.add(name="bdSeq", datatype=_UINT64, long_value=self._birth_sequence)
        birth.metrics.add(name="Node Control/Rebirth", datatype=_BOOLEAN, boolean_value=False)
        self._publish("NBIRTH", birth)
        for machine, aliases in self._aliases.items():
            payload = SparkplugPayload(timestamp=int(time.time() * 1000))
            last = self._latest.get(machine)
            for name, alias in aliases.items():
                metric = payload.metrics.add(name=name, alias=alias, datatype=_DOUBLE)
                if last is not None and name in last.values:
                    metric.timestamp, metric.double_value = last.at_us // 1000, last.values[name]
                else:
                    metric.is_null = True
            self._publish("DBIRTH", payload, machine)

    def _publish(self, kind: str, payload: SparkplugPayload, device: str | None = None) -> None:
        payload.seq = self._sequence
        self._sequence = (self._sequence + 1) % 256
        self._client.publish(self._topic(kind, device), payload.SerializeToString(), qos=0)

    def _topic(self, kind: str, device: str | None = None) -> str:
        return "/".join([self._namespace, kind, self._node, *([device] if device else [])])

    def _on_connect(self, client: Any, *_: Any) -> None:
        client.subscribe(self._topic("NCMD"), qos=1)
        self._births_due = True

    def _on_message(self, client: Any, userdata: Any, message: MQTTMessage) -> None:
        command = SparkplugPayload.FromString(bytes(message.payload))
        if any(metric.name == "Node Control/Rebirth" and metric.boolean_value for metric in command.metrics):
            self._births_due = True  # births are published with the next samples, by the task that sends
