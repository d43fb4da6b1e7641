"""Sparkplug B (Eclipse Sparkplug 3.0).

Nodes and devices announce their metrics in birth messages. Missing births and gaps in the sequence are detected, and
a rebirth is requested; metrics are never guessed.
"""

import collections
import json
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from aurum.edge import metrics
from aurum.edge.inputs.common.batch_builder import BatchBuilder
from aurum.edge.inputs.common.configuration import SparkplugInput
from aurum.edge.inputs.common.reconnect import Reconnector
from aurum.edge.inputs.common.throttled_log import ThrottledLog
from aurum.edge.inputs.mqtt.connection import Message, MqttConnection, Will
from aurum.edge.inputs.mqtt.consumer import consume
from aurum.v1.sparkplug_pb2 import SparkplugMetric, SparkplugPayload

NAMESPACE = "spBv1.0"
_MOST_NODES = 10_000
_MOST_DEVICES = 1000  # of a node
_MOST_METRICS = 100_000  # of a device
_REBIRTH_EVERY = 5.0  # seconds between two rebirth requests to one node
_GOOD = 192  # value of the property Quality
_CONTROL = ("Node Control/", "Device Control/", "bdSeq")
_SIGNED = {1: "b", 2: "h", 3: "i", 4: "q"}  # data types Int8 to Int64
_BOOLEAN = 11
_NUMBERS = frozenset(range(1, 12))

Publish = Callable[[str, bytes], None]


@dataclass(slots=True)
class _Born:
    """The metrics of a birth message: alias → name and data type, and name → data type."""

    aliases: dict[int, tuple[str, int]] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)
    alive: bool = False


@dataclass(slots=True)
class _Node:
    sequence: int = -1
    birth: int | None = None  # bdSeq
    whole: bool = False  # whether no message was missed since its birth
    itself: _Born = field(default_factory=_Born)
    devices: dict[str, _Born] = field(default_factory=dict)
    asked_at: float = float("-inf")


class Plant:
    """The nodes of a broker, as known from their messages."""

    def __init__(
        self,
        options: SparkplugInput,
        collector: BatchBuilder,
        publish: Publish,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self._collector = collector
        self._publish = publish
        self._clock = clock
        self._nodes: collections.OrderedDict[tuple[str, str], _Node] = collections.OrderedDict()
        self._troubles = ThrottledLog(options.name)
        self._results = {
            result: metrics.edge_input_messages_total.labels(options.name, result)
            for result in ("read", "invalid", "unwanted", "gap", "unborn")
        }
        self._rebirths = metrics.edge_input_rebirths_total.labels(options.name)

    def take(self, message: Message) -> None:
        levels = message.topic.split("/")
        if len(levels) not in (4, 5) or levels[0] != NAMESPACE:
            self._results["unwanted"].inc()
            return
        _, group, kind, name, *rest = levels
        device = rest[0] if rest else None
        if kind not in ("NBIRTH", "NDATA", "NDEATH", "DBIRTH", "DDATA", "DDEATH") or (kind[0] == "D") != bool(rest):
            self._results["unwanted"].inc()
            return
        try:
            payload = SparkplugPayload.FromString(message.payload)
        except DecodeError:
            self._results["invalid"].inc()
            self._troubles.tell(f"a message of {message.topic} is no Sparkplug payload")
            return
        node = self._node(group, name)
        if kind == "NDEATH":
            self._node_died(node, payload)
        elif kind == "NBIRTH":
            self._node_born(node, payload)
            self._values(group, name, None, node, payload)
        elif self._follows(group, name, node, payload):
            self._of_device_or_data(kind, group, name, device, node, payload)

    def _of_device_or_data(  # noqa: PLR0917
        self, kind: str, group: str, name: str, device: str | None, node: _Node, payload: SparkplugPayload
    ) -> None:
        if kind == "DBIRTH" and device is not None:
            if len(node.devices) >= _MOST_DEVICES and device not in node.devices:
                self._results["invalid"].inc()
                self._troubles.tell(f"node {group}/{name} has more than {_MOST_DEVICES} devices")
                return
            node.devices[device] = self._born(payload)
        elif kind == "DDEATH" and device is not None:
            if device in node.devices:
                node.devices[device].alive = False
            self._results["read"].inc()
            return
        self._values(group, name, device, node, payload)

    def _node(self, group: str, name: str) -> _Node:
        key = (group, name)
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = _Node()
            if len(self._nodes) > _MOST_NODES:
                self._nodes.popitem(last=False)
        else:
            self._nodes.move_to_end(key)
        return node

    def _node_born(self, node: _Node, payload: SparkplugPayload) -> None:
        node.itself = self._born(payload)
        node.devices.clear()  # each sends a new birth
        node.sequence = payload.seq if payload.HasField("seq") else 0
        node.whole = True
        node.birth = next((_integer(each) for each in payload.metrics if each.name == "bdSeq"), None)

    def _node_died(self, node: _Node, payload: SparkplugPayload) -> None:
        died = next((_integer(each) for each in payload.metrics if each.name == "bdSeq"), None)
        if died is not None and node.birth is not None and died != node.birth:
            self._results["unwanted"].inc()  # the will of an earlier connection
            return
        node.whole = node.itself.alive = False
        for device in node.devices.values():
            device.alive = False
        self._results["read"].inc()

    def _born(self, payload: SparkplugPayload) -> _Born:
        born = _Born(alive=True)
        for each in payload.metrics[:_MOST_METRICS]:
            if each.HasField("name"):
                born.types[each.name] = each.datatype
                if each.HasField("alias"):
                    born.aliases[each.alias] = (each.name, each.datatype)
        return born

    def _follows(self, group: str, name: str, node: _Node, payload: SparkplugPayload) -> bool:
        """Returns whether the node is alive, and checks the sequence for missed messages."""
        if not node.itself.alive:
            self._results["unborn"].inc()
            self._ask(group, name, node)
            return False
        expected = (node.sequence + 1) % 256
        if payload.HasField("seq"):
            if payload.seq != expected:
                self._results["gap"].inc()
                node.whole = False
                self._ask(group, name, node)
            node.sequence = payload.seq
        return True

    def _ask(self, group: str, name: str, node: _Node) -> None:
        """Requests a rebirth, which announces all metrics again."""
        if self._clock() - node.asked_at < _REBIRTH_EVERY:
            return
        node.asked_at = self._clock()
        self._rebirths.inc()
        self._troubles.tell(f"node {group}/{name} is asked for a rebirth: a message of it was missed")
        wanted = SparkplugPayload(timestamp=int(time.time() * 1000))
        wanted.metrics.add(name="Node Control/Rebirth", datatype=_BOOLEAN, boolean_value=True)
        self._publish(f"{NAMESPACE}/{group}/NCMD/{name}", wanted.SerializeToString())

    def _values(self, group: str, name: str, device: str | None, node: _Node, payload: SparkplugPayload) -> None:
        born = node.itself if device is None else node.devices.get(device)
        if born is None or not born.alive:
            self._results["unborn"].inc()
            self._ask(group, name, node)
            return
        self._results["read"].inc()
        named = {"group": group, "node": name, "device": device or ""}
        machine = (self._options.node_machine if device is None else self._options.machine).format_map(named)
        source = f"{group}/{name}/{device}" if device is not None else f"{group}/{name}"
        for each in payload.metrics:
            known = self._named(each, born, whole=node.whole)
            if known is None or known[0].startswith(_CONTROL) or known[1] not in _NUMBERS:
                continue
            sensor, datatype = known
            milliseconds = each.timestamp if each.HasField("timestamp") else payload.timestamp
            good = not each.is_null and each.WhichOneof("value") is not None and _quality(each) == _GOOD
            value = _number(each, datatype) if good else 0.0
            self._collector.add(source, machine, sensor, milliseconds * 1000 or None, value, good=good)

    def _named(self, each: SparkplugMetric, born: _Born, *, whole: bool) -> tuple[str, int] | None:
        """Returns the name and data type of a metric.

        None if they are unknown: after a gap, an alias may mean another metric.
        """
        if each.HasField("name"):
            return each.name, each.datatype or born.types.get(each.name, 0)
        found = born.aliases.get(each.alias) if whole else None
        if found is None:
            self._results["unborn"].inc()
        return found


class Sparkplug:
    def __init__(self, options: SparkplugInput, collector: BatchBuilder, connector: Reconnector) -> None:
        self._collector = collector
        self._options = options
        self._connector = connector
        self._state = f"{NAMESPACE}/STATE/{options.host_id}"

    async def run(self) -> None:
        await self._connector.keep(self._open, self._hear, self._close)

    async def _open(self, timeout: float) -> MqttConnection:
        at = int(time.time() * 1000)
        will = Will(self._state, _state(at, online=False))
        connection = MqttConnection(self._options.broker, f"aurum-{self._options.name}", clean=True, will=will)
        await connection.open([f"{NAMESPACE}/{group}/#" for group in self._options.groups], timeout)
        connection.publish(self._state, _state(at, online=True), qos=1, retain=True)
        return connection

    async def _hear(self, connection: MqttConnection) -> None:
        # Messages may have been missed meanwhile, so all nodes are asked for a birth when they are heard again
        plant = Plant(self._options, self._collector, connection.publish)
        await consume(connection, self._collector, plant.take, self._options.flush)

    async def _close(self, connection: MqttConnection) -> None:
        connection.publish(self._state, _state(int(time.time() * 1000), online=False), qos=1, retain=True)
        connection.close()


def _state(at: int, *, online: bool) -> bytes:
    return json.dumps({"online": online, "timestamp": at}).encode()


def _integer(metric: SparkplugMetric) -> int:
    return int(metric.long_value or metric.int_value)


def _number(metric: SparkplugMetric, datatype: int) -> float:
    match metric.WhichOneof("value"):
        case "int_value" | "long_value":
            value = _integer(metric)
            if (code := _SIGNED.get(datatype)) is not None:
                size = struct.calcsize(code)
                (value,) = struct.unpack(f"<{code}", (value & (1 << 8 * size) - 1).to_bytes(size, "little"))
            return float(value)
        case "float_value":
            return metric.float_value
        case "double_value":
            return metric.double_value
        case "boolean_value":
            return float(metric.boolean_value)
    return float("nan")


def _quality(metric: SparkplugMetric) -> int:
    properties = metric.properties
    for key, value in zip(properties.keys, properties.values, strict=False):
        if key == "Quality":
            return int(value.int_value or value.long_value)
    return _GOOD
