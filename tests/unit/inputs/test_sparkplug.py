"""Sparkplug B: births, aliases, sequences and deaths, on payloads that another implementation encoded."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from aurum.edge.inputs.common.configuration import SparkplugInput
from aurum.edge.inputs.common.refusals import Reason
from aurum.edge.inputs.mqtt.connection import Message
from aurum.edge.inputs.sparkplug.input import SparkplugNodes
from aurum.v1.sparkplug_pb2 import SparkplugPayload
from tests.support.batch_builder import MemorySpool, make_builder

SPARKPLUG = Path(__file__).parents[2] / "data" / "sparkplug"


class NodesUnderTest:
    """The state of the nodes behind an input, fed with messages, and the commands that it publishes."""

    def __init__(self) -> None:
        self.spool = MemorySpool()
        self.builder = make_builder(self.spool)
        self.published: list[tuple[str, SparkplugPayload]] = []
        self.now = 0.0
        options = SparkplugInput.model_validate({"name": "sp", "protocol": "sparkplug", "broker": {"host": "x"}})
        self.nodes = SparkplugNodes(options, self.builder, self._publish, clock=lambda: self.now)

    def _publish(self, topic: str, payload: bytes) -> None:
        self.published.append((topic, SparkplugPayload.FromString(payload)))

    def receive(self, kind: str, file: str | bytes, device: str | None = None, *, node: str = "line-1") -> None:
        payload = file if isinstance(file, bytes) else (SPARKPLUG / f"{file}.bin").read_bytes()
        topic = f"spBv1.0/plant-a/{kind}/{node}" + (f"/{device}" if device else "")
        self.nodes.handle(Message(topic, payload, 0))

    async def stored(self) -> dict[tuple[str, str], list[float]]:
        self.spool.batches.clear()
        await self.builder.commit()
        return {key: [value for _, value in pairs] for key, pairs in self.spool.readings().items()}


async def test_birth_resolves_aliases_in_data() -> None:
    nodes = NodesUnderTest()
    nodes.receive("NBIRTH", "nbirth")
    assert await nodes.stored() == {("line-1", "Cabinet/Temperature"): [31.5]}
    nodes.receive("DBIRTH", "dbirth", "press-1")
    expected = json.loads((SPARKPLUG / "birth.json").read_text())
    assert await nodes.stored() == {("press-1", name): [float(value)] for name, value in expected.items()}
    nodes.receive("DDATA", "ddata", "press-1")
    assert await nodes.stored() == {
        ("press-1", "Bearing/Temperature"): [62.0],
        ("press-1", "Level"): [-6.0],
        ("press-1", "Running"): [0.0],
    }
    nodes.receive("DDATA", "ddata_null", "press-1")
    assert await nodes.stored() == {("press-1", "Bearing/Temperature"): [60.0]}, "what is null is left out"
    nodes.receive("NDATA", "ndata")
    assert await nodes.stored() == {("line-1", "Cabinet/Temperature"): [32.0]}
    assert nodes.published == []


async def test_devices_of_one_name_on_two_nodes_never_mix() -> None:
    nodes = NodesUnderTest()
    for node, level in (("line-1", 1.0), ("line-2", 2.0)):
        nodes.receive("NBIRTH", _payload(0, bdSeq=7), node=node)
        nodes.receive("DBIRTH", _payload(1, level=level), "pump", node=node)
    assert await nodes.stored() == {("pump", "level"): [1.0]}
    refused = nodes.builder.refusals.refused[Reason.INVALID_NAME]
    assert refused.count == 1
    assert refused.example == (
        "pump level: plant-a/line-1/pump sends this sensor too; put the node in `machine`: {node}-{device}"
    )
    nodes.receive("NDEATH", _payload(0, bdSeq=7), node="line-1")
    nodes.receive("DDATA", _payload(2, level=4.0), "pump", node="line-2")
    assert await nodes.stored() == {("pump", "level"): [4.0]}, "a device takes the place of one that died"


def _payload(sequence: int, **metrics: float) -> bytes:
    payload = SparkplugPayload(timestamp=1_790_000_000_000, seq=sequence)
    for name, value in metrics.items():
        if isinstance(value, int):
            payload.metrics.add(name=name, datatype=8, long_value=value)
        else:
            payload.metrics.add(name=name, datatype=10, double_value=value)
    return payload.SerializeToString()


async def test_data_before_birth_requests_rate_limited_rebirth() -> None:
    nodes = NodesUnderTest()
    for _ in range(5):
        nodes.receive("DDATA", "ddata", "press-1")
    assert await nodes.stored() == {}
    ((topic, command),) = nodes.published
    assert topic == "spBv1.0/plant-a/NCMD/line-1"
    assert (command.metrics[0].name, command.metrics[0].boolean_value) == ("Node Control/Rebirth", True)
    nodes.now += 6
    nodes.receive("DDATA", "ddata", "press-1")
    assert len(nodes.published) == 2


async def test_sequence_gap_requests_rebirth_and_drops_data() -> None:
    nodes = NodesUnderTest()
    nodes.receive("NBIRTH", "nbirth")
    nodes.receive("DBIRTH", "dbirth", "press-1")
    await nodes.stored()
    nodes.receive("DDATA", "ddata_null", "press-1")  # its number is 3, and 2 was not received
    assert len(nodes.published) == 1
    assert await nodes.stored() == {}
    nodes.receive("NBIRTH", "nbirth")
    nodes.receive("DBIRTH", "dbirth", "press-1")
    nodes.receive("DDATA", "ddata", "press-1")
    assert ("press-1", "Level") in await nodes.stored()
    assert len(nodes.published) == 1


async def test_death_ends_data_and_stale_death_is_ignored() -> None:
    nodes = NodesUnderTest()
    nodes.receive("NBIRTH", "nbirth")
    nodes.receive("DBIRTH", "dbirth", "press-1")
    old = SparkplugPayload(timestamp=1)
    old.metrics.add(name="bdSeq", datatype=4, long_value=2)
    nodes.receive("NDEATH", old.SerializeToString())
    nodes.receive("DDATA", "ddata", "press-1")
    assert ("press-1", "Level") in await nodes.stored()
    nodes.receive("NDEATH", "ndeath")
    nodes.receive("NDATA", "ndata")
    assert await nodes.stored() == {}
    assert len(nodes.published) == 1


async def test_sequence_number_wraps_around() -> None:
    nodes = NodesUnderTest()
    nodes.receive("NBIRTH", "nbirth")
    for number in range(1, 600):
        payload = SparkplugPayload(timestamp=1_764_000_000_000 + number, seq=number % 256)
        payload.metrics.add(alias=1, float_value=float(number))
        nodes.receive("NDATA", payload.SerializeToString())
    assert len((await nodes.stored())["line-1", "Cabinet/Temperature"]) == 600
    assert nodes.published == []


@given(st.binary(max_size=200), st.sampled_from(["NBIRTH", "DBIRTH", "DDATA", "NDATA", "NDEATH", "DDEATH", "STATE"]))
async def test_arbitrary_sparkplug_payload_raises_no_error(payload: bytes, kind: str) -> None:
    nodes = NodesUnderTest()
    nodes.receive("NBIRTH", "nbirth")
    nodes.receive(kind, payload, "press-1" if kind[0] == "D" else None)
    await nodes.stored()
