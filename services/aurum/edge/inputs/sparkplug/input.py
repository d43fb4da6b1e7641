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
_MAX_NODES = 10_000
_MAX_DEVICES = 1000  # of a node
_MAX_METRICS = 100_000  # of a device
_REBIRTH_INTERVAL = 5.0  # seconds between two rebirth requests to one node
_GOOD = 192  # value of the property Quality
_CONTROL = ("Node Control/", "Device Control/", "bdSeq")
_SIGNED = {1: "b", 2: "h", 3: "i", 4: "q"}  # data types Int8 to Int64
_BOOLEAN = 11
_NUMBERS = frozenset(range(1, 12))

Publish = Callable[[str, bytes], None]


@dataclass(slots=True)
class _BirthMetrics:
    """The metrics of a birth message: alias → name and data type, and name → data type."""

    aliases: dict[int, tuple[str, int]] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)
    alive: bool = False


@dataclass(slots=True)
class _Node:
    sequence: int = -1
    birth: int | None = None  # bdSeq
    complete: bool = False  # whether no message was missed since the birth
    own_metrics: _BirthMetrics = field(default_factory=_BirthMetrics)
    devices: dict[str, _BirthMetrics] = field(default_factory=dict)
    rebirth_requested_at: float = float("-inf")


class SparkplugNodes:
    """The state of the nodes of a broker, as their messages tell it."""

    def __init__(
        self,
        options: SparkplugInput,
        builder: BatchBuilder,
        publish: Publish,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self._builder = builder
        self._publish = publish
        self._clock = clock
        self._nodes: collections.OrderedDict[tuple[str, str], _Node] = collections.OrderedDict()
        self._throttled_log = ThrottledLog(options.name)
        self._results = {
            result: metrics.edge_input_messages_total.labels(options.name, result)
            for result in ("read", "invalid", "unwanted", "gap", "unborn")
        }
        self._rebirths = metrics.edge_input_rebirths_total.labels(options.name)

    def handle(self, message: Message) -> None:
        """Handles a message of a node or device. Unreadable messages are counted and skipped."""
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
            self._throttled_log.warn(f"a message of {message.topic} is not a Sparkplug payload")
            return
        node = self._node_for(group, name)
        if kind == "NDEATH":
            self._record_death(node, payload)
        elif kind == "NBIRTH":
            self._record_birth(node, payload)
            self._add_values(group, name, None, node, payload)
        elif self._check_sequence(group, name, node, payload):
            self._handle_device_message(kind, group, name, device, node, payload)

    def _handle_device_message(  # noqa: PLR0917
        self, kind: str, group: str, name: str, device: str | None, node: _Node, payload: SparkplugPayload
    ) -> None:
        if kind == "DBIRTH" and device is not None:
            if len(node.devices) >= _MAX_DEVICES and device not in node.devices:
                self._results["invalid"].inc()
                self._throttled_log.warn(f"node {group}/{name} has more than {_MAX_DEVICES} devices")
                return
            node.devices[device] = self._read_birth(payload)
        elif kind == "DDEATH" and device is not None:
            if device in node.devices:
                node.devices[device].alive = False
            self._results["read"].inc()
            return
        self._add_values(group, name, device, node, payload)

    def _node_for(self, group: str, name: str) -> _Node:
        key = (group, name)
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = _Node()
            if len(self._nodes) > _MAX_NODES:
                self._nodes.popitem(last=False)
        else:
            self._nodes.move_to_end(key)
        return node

    def _record_birth(self, node: _Node, payload: SparkplugPayload) -> None:
        node.own_metrics = self._read_birth(payload)
        node.devices.clear()  # each device sends a new birth
        node.sequence = payload.seq if payload.HasField("seq") else 0
        node.complete = True
        node.birth = next((_integer_value(metric) for metric in payload.metrics if metric.name == "bdSeq"), None)

    def _record_death(self, node: _Node, payload: SparkplugPayload) -> None:
        died = next((_integer_value(metric) for metric in payload.metrics if metric.name == "bdSeq"), None)
        if died is not None and node.birth is not None and died != node.birth:
            self._results["unwanted"].inc()  # the will of an earlier connection
            return
        node.complete = node.own_metrics.alive = False
        for device in node.devices.values():
            device.alive = False
        self._results["read"].inc()

    def _read_birth(self, payload: SparkplugPayload) -> _BirthMetrics:
        born = _BirthMetrics(alive=True)
        for metric in payload.metrics[:_MAX_METRICS]:
            if metric.HasField("name"):
                born.types[metric.name] = metric.datatype
                if metric.HasField("alias"):
                    born.aliases[metric.alias] = (metric.name, metric.datatype)
        return born

    def _check_sequence(self, group: str, name: str, node: _Node, payload: SparkplugPayload) -> bool:
        """Returns whether the node is alive, and checks the sequence for missed messages."""
        if not node.own_metrics.alive:
            self._results["unborn"].inc()
            self._request_rebirth(group, name, node)
            return False
        expected = (node.sequence + 1) % 256
        if payload.HasField("seq"):
            if payload.seq != expected:
                self._results["gap"].inc()
                node.complete = False
                self._request_rebirth(group, name, node)
            node.sequence = payload.seq
        return True

    def _request_rebirth(self, group: str, name: str, node: _Node) -> None:
        """Requests a rebirth, which announces all metrics again."""
        if self._clock() - node.rebirth_requested_at < _REBIRTH_INTERVAL:
            return
        node.rebirth_requested_at = self._clock()
        self._rebirths.inc()
        self._throttled_log.warn(f"node {group}/{name} missed a message; requesting a rebirth")
        command = SparkplugPayload(timestamp=int(time.time() * 1000))
        command.metrics.add(name="Node Control/Rebirth", datatype=_BOOLEAN, boolean_value=True)
        self._publish(f"{NAMESPACE}/{group}/NCMD/{name}", command.SerializeToString())

    def _add_values(self, group: str, name: str, device: str | None, node: _Node, payload: SparkplugPayload) -> None:
        born = node.own_metrics if device is None else node.devices.get(device)
        if born is None or not born.alive:
            self._results["unborn"].inc()
            self._request_rebirth(group, name, node)
            return
        self._results["read"].inc()
        names = {"group": group, "node": name, "device": device or ""}
        machine = (self._options.node_machine if device is None else self._options.machine).format_map(names)
        device_name = f"{group}/{name}/{device}" if device is not None else f"{group}/{name}"
        for metric in payload.metrics:
            definition = self._resolve_metric(metric, born, complete=node.complete)
            if definition is None or definition[0].startswith(_CONTROL) or definition[1] not in _NUMBERS:
                continue
            sensor, datatype = definition
            milliseconds = metric.timestamp if metric.HasField("timestamp") else payload.timestamp
            good = not metric.is_null and metric.WhichOneof("value") is not None and _quality_of(metric) == _GOOD
            value = _number_value(metric, datatype) if good else 0.0
            self._builder.add_value(device_name, machine, sensor, milliseconds * 1000 or None, value, good=good)

    def _resolve_metric(
        self, metric: SparkplugMetric, born: _BirthMetrics, *, complete: bool
    ) -> tuple[str, int] | None:
        """Returns the name and data type of a metric.

        None if they are unknown: after a gap, an alias may mean another metric.
        """
        if metric.HasField("name"):
            return metric.name, metric.datatype or born.types.get(metric.name, 0)
        definition = born.aliases.get(metric.alias) if complete else None
        if definition is None:
            self._results["unborn"].inc()
        return definition


class Sparkplug:
    """An input that subscribes to the Sparkplug groups of a broker."""

    def __init__(self, options: SparkplugInput, builder: BatchBuilder, reconnector: Reconnector) -> None:
        self._builder = builder
        self._options = options
        self._reconnector = reconnector
        self._state_topic = f"{NAMESPACE}/STATE/{options.host_id}"

    async def run(self) -> None:
        """Consumes messages, and reconnects, until cancelled."""
        await self._reconnector.run(self._open, self._consume, self._close)

    async def _open(self, timeout: float) -> MqttConnection:
        at = int(time.time() * 1000)
        will = Will(self._state_topic, _state_payload(at, online=False))
        connection = MqttConnection(self._options.broker, f"aurum-{self._options.name}", clean=True, will=will)
        await connection.open([f"{NAMESPACE}/{group}/#" for group in self._options.groups], timeout)
        connection.publish(self._state_topic, _state_payload(at, online=True), qos=1, retain=True)
        return connection

    async def _consume(self, connection: MqttConnection) -> None:
        # Messages may have been missed, so each node is asked for a rebirth when it sends again
        nodes = SparkplugNodes(self._options, self._builder, connection.publish)
        await consume(connection, self._builder, nodes.handle, self._options.flush)

    async def _close(self, connection: MqttConnection) -> None:
        connection.publish(self._state_topic, _state_payload(int(time.time() * 1000), online=False), qos=1, retain=True)
        connection.close()


def _state_payload(at: int, *, online: bool) -> bytes:
    return json.dumps({"online": online, "timestamp": at}).encode()


def _integer_value(metric: SparkplugMetric) -> int:
    return int(metric.long_value or metric.int_value)


def _number_value(metric: SparkplugMetric, datatype: int) -> float:
    match metric.WhichOneof("value"):
        case "int_value" | "long_value":
            value = _integer_value(metric)
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


def _quality_of(metric: SparkplugMetric) -> int:
    properties = metric.properties
    for key, value in zip(properties.keys, properties.values, strict=False):
        if key == "Quality":
            return int(value.int_value or value.long_value)
    return _GOOD
