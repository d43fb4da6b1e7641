"""Simulated devices behind a Sparkplug B edge node."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from paho.mqtt.client import MQTTMessage

from aurum.v1.sparkplug_pb2 import SparkplugPayload
from aurum_sim import metrics
from aurum_sim.peers.mqtt_client import client, stop
from aurum_sim.peers.peer import Sample

_DOUBLE, _BOOLEAN, _UINT64 = 10, 11, 8


class SparkplugPeer:
    """One edge node with the machines as its devices. It publishes births again when a host requests a rebirth."""

    def __init__(self, host: str, port: int, group: str = "plant-a", node: str = "iot-sim") -> None:
        self._host, self._port = host, port
        self._prefix, self._suffix = f"spBv1.0/{group}", node
        self._group = group
        self._birth = time.time_ns() // 1_000_000
        self._sequence = 0
        self._aliases: dict[str, dict[str, int]] = {}
        self._last: dict[str, Sample] = {}
        self._unborn = True
        self._client = client("aurum-iot-sim-sparkplug")
        death = SparkplugPayload(timestamp=self._birth)
        death.metrics.add(name="bdSeq", datatype=_UINT64, long_value=self._birth)
        self._death = death.SerializeToString()
        self._client.will_set(self._topic("NDEATH"), self._death, qos=1)
        self._client.on_connect = self._connected
        self._client.on_message = self._commanded

    async def open(self, sensors: Mapping[str, Sequence[str]]) -> None:
        number = 0
        for machine, names in sensors.items():
            self._aliases[machine] = {name: number + place for place, name in enumerate(names)}
            number += len(names)
        self._client.connect_async(self._host, self._port)
        self._client.loop_start()

    async def tell(self, samples: Sequence[Sample]) -> None:
        for each in samples:
            self._last[each.machine_id] = each
        if not self._client.is_connected():
            return  # Sparkplug does not buffer; the births after reconnection contain the latest values
        if self._unborn:
            self._unborn = False
            self._be_born()
            return
        for each in samples:
            aliases = self._aliases[each.machine_id]
            payload = SparkplugPayload(timestamp=each.at_us // 1000)
            for name, value in each.values.items():
                payload.metrics.add(alias=aliases[name], timestamp=each.at_us // 1000, double_value=value)
            self._publish("DDATA", payload, each.machine_id)
            metrics.simulator_readings_total.labels("made").inc(len(each.values))

    async def close(self) -> None:
        if self._client.is_connected():  # brokers publish no will of a client that disconnects
            self._client.publish(self._topic("NDEATH"), self._death, qos=1)
        await stop(self._client)

    def inputs(self) -> dict[str, Any]:
        return {
            "name": "simulated",
            "protocol": "sparkplug",
            "broker": {"host": self._host, "port": self._port},
            "groups": [self._group],
        }

    def _be_born(self) -> None:
        self._sequence = 0
        birth = SparkplugPayload(timestamp=int(time.time() * 1000))
        birth.metrics.add(name="bdSeq", datatype=_UINT64, long_value=self._birth)
        birth.metrics.add(name="Node Control/Rebirth", datatype=_BOOLEAN, boolean_value=False)
        self._publish("NBIRTH", birth)
        for machine, aliases in self._aliases.items():
            payload = SparkplugPayload(timestamp=int(time.time() * 1000))
            last = self._last.get(machine)
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
        return "/".join([self._prefix, kind, self._suffix, *([device] if device else [])])

    def _connected(self, client: Any, *_: Any) -> None:
        client.subscribe(self._topic("NCMD"), qos=1)
        self._unborn = True

    def _commanded(self, client: Any, userdata: Any, message: MQTTMessage) -> None:
        command = SparkplugPayload.FromString(bytes(message.payload))
        if any(each.name == "Node Control/Rebirth" and each.boolean_value for each in command.metrics):
            self._unborn = True  # births are published with the next samples, by the task that sends
