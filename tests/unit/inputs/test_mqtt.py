"""MQTT: payloads of topics, and the socket to the broker."""

import itertools
import json
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum.edge.inputs.common.configuration import Topic
from aurum.edge.inputs.mqtt.buffered_socket import BufferedSocket
from aurum.edge.inputs.mqtt.payloads import PayloadError, TopicFormat, read_values


def described(**options: Any) -> Topic:
    return Topic.model_validate({"pattern": "plant/{line}/{machine}", **options})


def values(topic: Topic, payload: bytes | str) -> list[tuple[str, str, int | None, float]]:
    levels = {"line": "a", "machine": "pump-1"}
    return [
        tuple(each)
        for each in read_values(
            TopicFormat.for_topic_name(topic, levels), payload.encode() if isinstance(payload, str) else payload
        )
    ]  # type: ignore[misc]


def test_topic_pattern_matches_and_names_levels() -> None:
    topic = described(pattern="plant/{line}/+/{machine}/#")
    assert topic.filter == "plant/+/+/+/#"
    found = topic.expression.fullmatch("plant/a/x/pump-1/deep/down")
    assert found is not None
    assert found.groupdict() == {"line": "a", "machine": "pump-1"}
    assert topic.expression.fullmatch("plant/a/pump-1") is None


def test_json_payload_shapes_are_read() -> None:
    flat = described(timestamp="ts")
    assert values(flat, '{"ts": 1764000000.5, "vibration": 2, "name": "x", "on": true}') == [
        ("pump-1", "vibration", 1_764_000_000_500_000, 2.0)
    ]
    deep = described(machine="{line}-{id}", values={"vibration": "v.rms", "hot": "t"}, timestamp="at")
    assert values(deep, '{"id": "7", "at": "2026-11-26T12:00:00Z", "v": {"rms": "2.5"}, "t": null}') == [
        ("a-7", "vibration", 1_795_694_400_000_000, 2.5)
    ]
    rows = described(sensor="{s}", value="v")
    assert values(rows, '[{"s": "a", "v": 1}, {"s": "b", "v": true}]') == [
        ("pump-1", "a", None, 1.0),
        ("pump-1", "b", None, 1.0),
    ]
    assert values(described(sensor="level"), "4.5") == [("pump-1", "level", None, 4.5)]
    assert values(described(sensor="level", format="number"), "4.5") == [("pump-1", "level", None, 4.5)]


def test_csv_payload_is_read_with_and_without_header() -> None:
    expected = [("pump-1", "a", 1_764_000_000_000_000, 1.0), ("pump-1", "b", 1_764_000_000_000_000, 2.0)]
    assert values(described(format="csv", timestamp="t"), "t,a,b\n1764000000,1,2\n") == expected
    assert values(described(format="csv", timestamp="t", columns=["t", "a", "b"]), "1764000000,1,2") == expected
    assert values(described(format="csv"), "a,b\n1,\n") == [("pump-1", "a", None, 1.0)]


@pytest.mark.parametrize(
    ("options", "payload", "problem"),
    [
        ({}, "{", "is not JSON"),
        ({}, "[" * 100_000, "is not JSON"),
        ({}, "3", "is not an object"),
        ({"timestamp": "ts"}, '{"a": 1}', "ts: is missing"),
        ({"timestamp": "ts"}, '{"a": 1, "ts": "soon"}', "ts: 'soon' is not a time"),
        ({"values": {"x": "a.b"}}, '[{"a": {"b": 1}}, {"a": {"b": "high"}}]', "row 2, a.b: 'high' is not a number"),
        ({"sensor": "{s}", "value": "v"}, '{"v": 1}', "s: is missing"),
        ({"format": "csv"}, "a,b\n1,2\n3\n", "row 3: has 1 cells"),
        ({"format": "csv"}, "a,b\n1,x\n", "row 2, b: 'x' is not a number"),
        ({"format": "csv"}, b"\xff\xfe", "is not UTF-8"),
        ({"format": "number", "sensor": "x"}, b"\xff", "value: "),
        ({}, b" " * 1_000_001, "1000000 are allowed"),
    ],
)
def test_invalid_payload_names_the_position(options: dict[str, Any], payload: bytes | str, problem: str) -> None:
    with pytest.raises(PayloadError) as raised:
        values(described(**options), payload)
    assert problem in str(raised.value)


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
_SHAPES = ({}, {"timestamp": "t"}, {"values": {"x": "a.b"}}, {"sensor": "s", "value": "v"}, {"format": "csv"})


@given(st.binary(max_size=100) | _JSON.map(lambda content: json.dumps(content).encode()), st.sampled_from(_SHAPES))
def test_arbitrary_payload_yields_values_or_payload_error(payload: bytes, options: dict[str, Any]) -> None:
    try:
        found = values(described(**options), payload)
    except PayloadError:
        return
    assert all(isinstance(value, float) for *_, value in found)


@given(st.binary(min_size=1, max_size=5000), st.lists(st.integers(1, 700), min_size=1, max_size=50))
def test_buffered_socket_reads_the_same_bytes(sent: bytes, sizes: list[int]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        buffered = BufferedSocket(ours)
        theirs.sendall(sent)
        found = b""
        for size in itertools.cycle(sizes):
            if len(found) == len(sent):
                break
            part = buffered.recv(size)
            assert 0 < len(part) <= size
            found += part
        assert found == sent
        assert buffered.pending() == 0
        with pytest.raises(BlockingIOError):
            buffered.recv(1)
        theirs.close()
        assert buffered.recv(1) == b""


def test_buffered_sends_arrive_in_order_when_socket_is_full() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        buffered = BufferedSocket(ours)
        pieces = [bytes([number % 251]) * 1000 for number in range(5000)]
        with buffered.batched_sends():
            for piece in pieces:
                assert buffered.send(piece) == len(piece)
        assert not buffered.flush()
        with pytest.raises(BlockingIOError):
            buffered.send(b"later")
        found = bytearray()
        while len(found) < 5_000_000:
            found += theirs.recv(100_000)
            buffered.flush()
        assert bytes(found) == b"".join(pieces)
        assert buffered.send(b"later") == 5
