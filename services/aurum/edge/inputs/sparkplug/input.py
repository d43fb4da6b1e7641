"""Sparkplug B (Eclipse Sparkplug 3.0).

Nodes and devices announce their metrics in birth messages. Missing births and gaps in the sequence are detected, and
a rebirth is requested; metrics are never guessed.
"""

import collections
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from aurum.edge import metrics
from aurum.edge.inputs.common.batch_builder import BatchBuilder
from aurum.edge.inputs.common.configuration import SparkplugInput
from aurum.edge.inputs.common.reconnect import Reconnector
from aurum.edge.inputs.common.refusals import Reason
from aurum.edge.inputs.common.throttled_log import ThrottledLog
from aurum.edge.inputs.mqtt.connection import Message, MqttConnection, Will
from aurum.edge.inputs.mqtt.consumer import consume
from aurum.edge.inputs.mqtt.excerpts import HIDDEN, names_secret
from aurum.edge.inputs.sparkplug.births import BirthMetrics
from aurum.edge.inputs.sparkplug.tag_owners import DeviceKey, TagOwners
from aurum.edge.inputs.sparkplug.templates import FlatMetric, explicit_name, flatten
from aurum.edge.inputs.sparkplug.values import BOOLEAN, ValueRefusedError, number_of
from aurum.v1.sparkplug_pb2 import SparkplugMetric, SparkplugPayload

NAMESPACE = "spBv1.0"
_MAX_NODES = 10_000
_MAX_DEVICES = 1000  # of a node
_REBIRTH_INTERVAL = 5.0  # seconds between two rebirth requests to one node
_MAX_REBIRTH_INTERVAL = 60.0  # likewise, if rebirths do not help
_CONTROL = ("Node Control/", "Device Control/")
_BIRTH_NUMBER = "bdSeq"

Publish = Callable[[str, bytes], None]


@dataclass(slots=True)
class _Node:
    sequence: int = -1
    birth: int | None = None  # bdSeq
    complete: bool = False  # whether no message was missed since the birth
    own_metrics: BirthMetrics = field(default_factory=BirthMetrics)
    devices: dict[str, BirthMetrics] = field(default_factory=dict)
    former_devices: dict[str, BirthMetrics] = field(default_factory=dict)  # before the last birth of the node
    rebirth_requested_at: float = float("-inf")
    rebirth_interval: float = _REBIRTH_INTERVAL


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
        self._owners = TagOwners(self._is_alive)
        self._throttled_log = ThrottledLog(options.name)
        self._results = {
            result: metrics.edge_input_messages_total.labels(options.name, result)
            for result in ("read", "invalid", "unwanted", "gap", "unborn", "old")
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
        if message.retained:  # from a node that may have been born again since; its next message shows that
            self._results["old"].inc()
            self._builder.refusals.refuse(Reason.OLD, f"{message.topic}: a node must not retain messages")
            return
        try:
            payload = SparkplugPayload.FromString(message.payload)
        except DecodeError:
            self._results["invalid"].inc()
            self._builder.refusals.refuse(Reason.UNREADABLE, f"{message.topic}: is not a Sparkplug payload")
            return
        node = self._node_for(group, name)
        if kind == "NDEATH":
            self._record_death(node, payload)
        elif kind == "NBIRTH":
            self._record_birth(group, name, node, payload)
            self._add_values(group, name, None, node, payload)
        elif self._check_sequence(group, name, node, payload):
            self._handle_device_message(kind, group, name, device, node, payload)

    def _handle_device_message(  # noqa: PLR0917
        self, kind: str, group: str, name: str, device: str | None, node: _Node, payload: SparkplugPayload
    ) -> None:
        if kind == "DBIRTH" and device is not None:
            if len(node.devices) >= _MAX_DEVICES and device not in node.devices:
                self._results["invalid"].inc()
                problem = f"{group}/{name}/{device}: the node has more than {_MAX_DEVICES} devices"
                self._builder.refusals.refuse(Reason.UNSUPPORTED, problem, len(payload.metrics))
                return
            before = node.devices.get(device) or node.former_devices.pop(device, None)
            node.devices[device] = self._read_birth(group, name, node, payload)
            self._release_missing((group, name, device), before, node.devices[device])
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

    def _record_birth(self, group: str, name: str, node: _Node, payload: SparkplugPayload) -> None:
        before = node.own_metrics
        node.own_metrics = self._read_birth(group, name, node, payload)
        self._release_missing((group, name, None), before, node.own_metrics)
        node.former_devices, node.devices = node.devices or node.former_devices, {}  # each device sends a new birth
        node.sequence = payload.seq if payload.HasField("seq") else 0
        node.complete = True
        node.birth = next((_integer_value(metric) for metric in payload.metrics if metric.name == _BIRTH_NUMBER), None)

    def _record_death(self, node: _Node, payload: SparkplugPayload) -> None:
        died = next((_integer_value(metric) for metric in payload.metrics if metric.name == _BIRTH_NUMBER), None)
        if died is not None and node.birth is not None and died != node.birth:
            self._results["unwanted"].inc()  # the will of an earlier connection
            return
        node.complete = node.own_metrics.alive = False
        for device in node.devices.values():
            device.alive = False
        self._results["read"].inc()

    def _read_birth(self, group: str, name: str, node: _Node, payload: SparkplugPayload) -> BirthMetrics:
        born = BirthMetrics.from_payload(payload)
        if born.omitted:
            self._throttled_log.warn(f"node {group}/{name} has {born.omitted} metrics more than can be known by alias")
        for alias, names in born.ambiguous.items():
            problem = f"gives the alias {alias} to both {names[0]!r} and {names[1]!r}"
            self._request_rebirth(group, name, node, problem)
        return born

    def _release_missing(self, source: DeviceKey, before: BirthMetrics | None, born: BirthMetrics) -> None:
        """Lets other tags store the series of metrics that a new birth no longer has, for example renamed ones."""
        if before is None:
            return
        machine = self._machine_of(source)
        for sensor in before.types.keys() - born.types.keys():
            self._builder.tags.release(machine, sensor)

    def _machine_of(self, source: DeviceKey) -> str:
        group, name, device = source
        template = self._options.node_machine if device is None else self._options.machine
        return template.format_map({"group": group, "node": name, "device": device or ""})

    def _check_sequence(self, group: str, name: str, node: _Node, payload: SparkplugPayload) -> bool:
        """Returns whether the node is alive, and checks the sequence for missed messages."""
        if not node.own_metrics.alive:
            self._refuse_unborn(group, name, None, node, payload)
            return False
        expected = (node.sequence + 1) % 256
        if payload.HasField("seq"):
            if payload.seq != expected:
                self._results["gap"].inc()
                node.complete = False
                self._request_rebirth(group, name, node, "missed a message")
            node.sequence = payload.seq
        return True

    def _request_rebirth(self, group: str, name: str, node: _Node, problem: str) -> None:
        """Requests a rebirth, which announces all metrics again. Does so less and less often if that does not help."""
        elapsed = self._clock() - node.rebirth_requested_at
        if elapsed < node.rebirth_interval:
            return
        if elapsed < 2 * node.rebirth_interval:
            node.rebirth_interval = min(2 * node.rebirth_interval, _MAX_REBIRTH_INTERVAL)
        else:
            node.rebirth_interval = _REBIRTH_INTERVAL
        node.rebirth_requested_at = self._clock()
        self._rebirths.inc()
        self._throttled_log.warn(f"node {group}/{name} {problem}; requesting a rebirth")
        command = SparkplugPayload(timestamp=int(time.time() * 1000))
        command.metrics.add(name="Node Control/Rebirth", datatype=BOOLEAN, boolean_value=True)
        self._publish(f"{NAMESPACE}/{group}/NCMD/{name}", command.SerializeToString())

    def _refuse_unborn(self, group: str, name: str, device: str | None, node: _Node, payload: SparkplugPayload) -> None:
        self._results["unborn"].inc()
        if payload.metrics:
            source = _device_name(group, name, device)
            example = f"{source}: {len(payload.metrics)} metrics without a birth message"
            self._builder.refuse(source, Reason.NO_NAME, example, len(payload.metrics))
        self._request_rebirth(group, name, node, "sends data without a birth")

    def _add_values(self, group: str, name: str, device: str | None, node: _Node, payload: SparkplugPayload) -> None:
        born = node.own_metrics if device is None else node.devices.get(device)
        if born is None or not born.alive:
            self._refuse_unborn(group, name, device, node, payload)
            return
        self._results["read"].inc()
        source = (group, name, device)
        machine = self._machine_of(source)

        def resolve(metric: SparkplugMetric, around: str) -> str | None:
            explicit = explicit_name(metric, around)
            if explicit is not None or not metric.HasField("alias") or not node.complete:
                return explicit  # after a gap, an alias may mean another metric
            return born.name_of(metric.alias)

        for metric in payload.metrics:
            for flat in flatten(metric, resolve):
                if flat.name is None:
                    self._refuse_nameless(_device_name(*source), flat.metric, born, node)
                    if flat.metric.HasField("alias"):
                        self._request_rebirth(group, name, node, "sends an alias that its birth does not define")
                elif flat.name != _BIRTH_NUMBER and not flat.name.startswith(_CONTROL):
                    datatype = born.types.get(flat.name) or flat.metric.datatype
                    self._add_value(source, machine, flat, datatype, flat.at_ms or payload.timestamp)

    def _add_value(self, source: DeviceKey, machine: str, flat: FlatMetric, datatype: int, at_ms: int) -> None:
        sensor = flat.name or ""
        device = _device_name(*source)
        try:
            _check_storable(flat, at_ms)
            self._check_owner(source, machine, sensor)
            value = number_of(flat.metric, datatype)
        except ValueRefusedError as error:
            problem = HIDDEN if names_secret(sensor) else str(error)
            self._builder.refuse_value(device, machine, sensor, error.reason, problem)
            return
        if flat.historical:
            self._builder.add_past_value(device, machine, sensor, at_ms * 1000, value, good=flat.good)
        else:
            self._builder.add_value(device, machine, sensor, at_ms * 1000 or None, value, good=flat.good)

    def _check_owner(self, source: DeviceKey, machine: str, sensor: str) -> None:
        """Raises ValueRefusedError if another device gives the same machine and sensor: their values would mix."""
        other = self._owners.other_owner(machine, sensor, source)
        if other is not None:
            problem = f"{_device_name(*other)} sends this sensor too; put the node in `machine`: {{node}}-{{device}}"
            raise ValueRefusedError(Reason.INVALID_NAME, problem)

    def _is_alive(self, source: DeviceKey) -> bool:
        group, name, device = source
        node = self._nodes.get((group, name))
        if node is None or not node.own_metrics.alive:
            return False
        return device is None or (device in node.devices and node.devices[device].alive)

    def _refuse_nameless(self, device: str, metric: SparkplugMetric, born: BirthMetrics, node: _Node) -> None:
        self._results["unborn"].inc()
        if not metric.HasField("alias"):
            problem = "a metric has neither a name nor an alias"
        elif not node.complete:
            problem = f"alias {metric.alias} may mean another metric after a missed message"
        elif metric.alias in born.ambiguous:
            first, second = born.ambiguous[metric.alias]
            problem = f"alias {metric.alias} means both {first!r} and {second!r}"
        else:
            problem = f"alias {metric.alias} is not in the birth"
        members = max(1, len(metric.template_value.metrics))
        self._builder.refuse(device, Reason.NO_NAME, f"{device}: {problem}", members)


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


def _device_name(group: str, name: str, device: str | None) -> str:
    return f"{group}/{name}" if device is None else f"{group}/{name}/{device}"


def _check_storable(flat: FlatMetric, at_ms: int) -> None:
    """Raises ValueRefusedError if a metric must not be stored, whatever its value."""
    if flat.problem is not None:
        raise ValueRefusedError(*flat.problem)
    if flat.transient:
        raise ValueRefusedError(Reason.UNSUPPORTED, "is transient, so its node asks not to store it")
    if flat.historical and not at_ms:
        raise ValueRefusedError(Reason.WRONG_TIME, "is historical and has no time")
