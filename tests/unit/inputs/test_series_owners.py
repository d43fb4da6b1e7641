"""Two tags, also of two inputs, that would be stored as one sensor of one machine."""

import logging

import numpy as np
import pytest
from asyncua import ua

from aurum.edge.inputs.common.batch_builder import BatchBuilder
from aurum.edge.inputs.common.configuration import InputsFile, SparkplugInput, TagRule
from aurum.edge.inputs.common.loss_check import find_losses
from aurum.edge.inputs.common.overview import describe_input
from aurum.edge.inputs.common.refusals import Reason
from aurum.edge.inputs.common.series_owners import SILENT_US, SeriesOwners
from aurum.edge.inputs.mqtt.connection import Message
from aurum.edge.inputs.opcua.browsing import Variable
from aurum.edge.inputs.opcua.changes import Changes
from aurum.edge.inputs.opcua.monitored import MonitoredVariables
from aurum.edge.inputs.sparkplug.input import SparkplugNodes
from aurum.readings.batch import Series, now_us
from aurum.v1.sparkplug_pb2 import SparkplugPayload
from tests.support.batch_builder import MemorySpool, make_builder

RENAMED = TagRule(sensor="force*", becomes="force")


class Gateway:
    """Two inputs with one spool, and a clock that the test sets."""

    def __init__(self, *rules: TagRule) -> None:
        self.late_us = 0
        self.spool = MemorySpool()
        self.owners = SeriesOwners(lambda: now_us() + self.late_us)
        self.first, self.second = (
            make_builder(self.spool, *rules, name=name, owners=self.owners) for name in ("first", "second")
        )

    async def stored(self) -> list[float]:
        self.spool.batches.clear()
        await self.first.commit()
        await self.second.commit()
        return [value for readings in self.spool.readings().values() for _, value in readings]


async def test_series_of_two_inputs_is_stored_from_the_first(caplog: pytest.LogCaptureFixture) -> None:
    gateway = Gateway()
    with caplog.at_level(logging.WARNING):
        for value in range(3):
            gateway.first.add_value("a", "press-1", "force", None, float(value))
            gateway.second.add_value("b", "press-1", "force", None, 100.0 + value)
    assert await gateway.stored() == [0.0, 1.0, 2.0]
    tally = gateway.second.refusals.refused[Reason.INVALID_NAME]
    assert tally.count == 3
    assert "as press-1 force of input first is" in tally.example
    assert sum("of input first" in record.message for record in caplog.records) == 2, "once as a name, once as a value"
    shown = describe_input("second", gateway.second, None, (), 10)
    assert shown["contested"] == 1
    assert "declare shared_series" in shown["unusable"][0]["problem"]
    assert describe_input("first", gateway.first, None, (), 10)["contested"] == 0


@pytest.mark.parametrize("many", [False, True])
async def test_silent_source_hands_its_series_over(many: bool, caplog: pytest.LogCaptureFixture) -> None:
    gateway = Gateway(RENAMED)
    builder = gateway.first

    def send(sensor: str, value: float) -> None:
        if not many:
            builder.add_value("a", "press-1", sensor, None, value)
            return
        indices = np.array([builder.tags.tag_for("press-1", sensor).index], np.int32)
        builder.add_values("a", indices, np.zeros(1, np.int64), np.array([value]), np.ones(1, bool))

    send("force", 1.0)
    send("force_new", 2.0)
    assert await gateway.stored() == [1.0]
    assert builder.devices.state_for("a").quality < 1.0
    gateway.late_us = SILENT_US + 1_000_000
    with caplog.at_level(logging.WARNING):
        send("force_new", 3.0)
    assert await gateway.stored() == [3.0]
    assert "press-1 force_new is its source from now on" in caplog.text
    gateway.late_us = 0
    send("force", 4.0)
    assert await gateway.stored() == [], "the other one is the contested tag now"
    assert builder.tags.contested() == 1


async def test_unchanged_values_keep_a_series() -> None:
    gateway = Gateway(TagRule(sensor="force*", becomes="force", deadband=5, deadband_seconds=86_400))
    gateway.first.add_value("a", "press-1", "force", None, 1.0)
    await gateway.stored()
    gateway.first.tags.tag_for("press-1", "force").used_us = 1
    gateway.first.add_value("a", "press-1", "force", None, 2.0)
    gateway.second.add_value("b", "press-1", "force", None, 9.0)
    assert await gateway.stored() == []
    assert gateway.second.tags.contested() == 1


async def test_file_stores_a_renamed_column_after_a_while() -> None:
    gateway = Gateway(RENAMED)
    builder = gateway.first

    def column(name: str, value: float) -> Series | None:
        tag = builder.tags.tag_for("press-1", name)
        return builder.convert_series("drops", tag, Series("press-1", name, np.array([10**15]), np.array([value])))

    assert column("force", 1.0) is not None
    assert column("force_new", 2.0) is None
    gateway.late_us = SILENT_US + 1_000_000
    assert column("force_new", 2.0) is not None


def test_forgotten_tags_leave_no_owner_behind() -> None:
    gateway = Gateway()
    for number in range(10):
        gateway.first.tags.tag_for("press-1", f"s{number}")
    assert len(gateway.owners) == 10
    gateway.first.tags.forget()
    assert len(gateway.owners) == 0


def _changes(handle: int, value: float) -> Changes:
    one = np.ones(1)
    return Changes(
        np.array([handle]), np.array([now_us()]), value * one, one > 0, np.zeros(1, np.uint32), np.zeros(1, np.uint8)
    )


def _monitored(builder: BatchBuilder) -> MonitoredVariables:
    return MonitoredVariables(builder.tags.name, builder)


async def test_monitored_variable_keeps_its_series_though_quiet() -> None:
    gateway = Gateway()
    monitored = _monitored(gateway.first)
    monitored.add([0], [Variable(ua.NodeId("n", 2), "press-1", "force")])
    monitored.add_changes(_changes(0, 1.0))
    assert await gateway.stored() == [1.0]
    gateway.late_us = 100 * SILENT_US
    gateway.second.add_value("b", "press-1", "force", None, 2.0)
    assert await gateway.stored() == []
    monitored.clear()  # the connection is lost, and for so long that another input is the source
    gateway.late_us = 102 * SILENT_US
    gateway.second.add_value("b", "press-1", "force", None, 3.0)
    assert await gateway.stored() == [3.0]


async def test_renamed_variable_is_stored_after_a_new_browse() -> None:
    gateway = Gateway(RENAMED)
    monitored = _monitored(gateway.first)
    monitored.add([0], [Variable(ua.NodeId("n", 2), "press-1", "force")])
    monitored.add_changes(_changes(0, 1.0))
    monitored.clear()
    monitored.add([0], [Variable(ua.NodeId("n", 2), "press-1", "force_new")])
    monitored.add_changes(_changes(0, 2.0))
    assert await gateway.stored() == [1.0, 2.0]
    assert gateway.first.tags.unusable == {}


async def test_birth_without_a_metric_frees_its_series() -> None:
    gateway = Gateway(RENAMED)
    options = SparkplugInput.model_validate({"name": "sp", "protocol": "sparkplug", "broker": {"host": "x"}})
    nodes = SparkplugNodes(options, gateway.first, lambda topic, payload: None)

    def send(kind: str, sequence: int, device: str | None, **metrics: float) -> None:
        payload = SparkplugPayload(timestamp=now_us() // 1000, seq=sequence)
        for name, value in metrics.items():
            payload.metrics.add(name=name, datatype=10, double_value=value)
        nodes.handle(Message("/".join(filter(None, ("spBv1.0/a", kind, "n", device))), payload.SerializeToString(), 0))

    send("NBIRTH", 0, None, force=1.0)
    send("DBIRTH", 1, "press-1", force=2.0)
    assert await gateway.stored() == [1.0, 2.0]
    send("NBIRTH", 0, None, force_b=3.0)
    send("DBIRTH", 1, "press-1", force_b=4.0)
    assert await gateway.stored() == [3.0, 4.0]
    send("DBIRTH", 2, "press-1", force_c=5.0)
    assert await gateway.stored() == [5.0]


def test_check_allows_shared_series_if_declared() -> None:
    node = {"protocol": "opcua", "nodes": [{"node": "ns=2;i=1", "machine": "press-1", "sensor": "force"}]}
    inputs = [{"name": name, "endpoint": f"opc.tcp://{name}:4840", **node} for name in ("a", "b")]
    assert len(find_losses(InputsFile.model_validate({"inputs": inputs}))) == 1
    inputs[1]["shared_series"] = True
    assert find_losses(InputsFile.model_validate({"inputs": inputs})) == []
