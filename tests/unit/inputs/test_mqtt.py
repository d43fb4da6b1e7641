"""MQTT: payloads of topics, and the socket to the broker."""

import itertools
import json
import math
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum.edge.inputs.common.configuration import Topic
from aurum.edge.inputs.mqtt.buffered_socket import BufferedSocket
from aurum.edge.inputs.mqtt.excerpts import excerpt
from aurum.edge.inputs.mqtt.payloads import Content, PayloadError, TopicFormat, read_values


def described(**options: Any) -> Topic:
    return Topic.model_validate({"pattern": "plant/{line}/{machine}", **options})


def content(topic: Topic, payload: bytes | str) -> Content:
    levels = {"line": "a", "machine": "pump-1"}
    return read_values(
        TopicFormat.for_topic_name(topic, levels), payload.encode() if isinstance(payload, str) else payload
    )


def values(topic: Topic, payload: bytes | str) -> list[tuple[str, str, int | None, float]]:
    return [tuple(each) for each in content(topic, payload).values]  # type: ignore[misc]


def refused(topic: Topic, payload: bytes | str) -> list[tuple[str, str]]:
    return [
        (each.reason.value, f"{each.sensor}{': ' if each.sensor else ''}{each.text}")
        for each in content(topic, payload).refused
    ]


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
        ("pump-1", "vibration", 1_764_000_000_500_000, 2.0),
        ("pump-1", "on", 1_764_000_000_500_000, 1.0),
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
        ({"sensor": "{s}", "value": "v"}, '{"v": 1}', "s: is missing"),
        ({"sensor": "x", "value": "v.w"}, '{"v": 1}', "v.w: is missing"),
        ({"format": "csv"}, "a,b\n1,2\n3\n", "row 3: has 1 cells"),
        ({"format": "csv"}, b"\xff\xfe", "is not UTF-8"),
        ({}, b" " * 1_000_001, "1000000 are allowed"),
        ({}, json.dumps({f"s{number}": number for number in range(10_001)}), "more than 10000 values"),
    ],
)
def test_invalid_payload_names_the_position(options: dict[str, Any], payload: bytes | str, problem: str) -> None:
    with pytest.raises(PayloadError) as raised:
        values(described(**options), payload)
    assert problem in str(raised.value)


def test_nested_json_values_are_named_by_their_paths() -> None:
    payload = {
        "Time": "2026-05-04T12:00:00",
        "ENERGY": {"Power": 55, "Phases": [{"U": 229.5}, {"U": 231}], "Total": 13.5},
        "a.b": 1.5,
    }
    at = 1_777_896_000_000_000
    assert values(described(timestamp="Time"), json.dumps(payload)) == [
        ("pump-1", "a.b", at, 1.5),
        ("pump-1", "ENERGY.Power", at, 55.0),
        ("pump-1", "ENERGY.Phases.0.U", at, 229.5),
        ("pump-1", "ENERGY.Phases.1.U", at, 231.0),
        ("pump-1", "ENERGY.Total", at, 13.5),
    ]
    paths = {"power_w": "ENERGY.Power", "voltage_2": "ENERGY.Phases.1.U", "b": "a.b", "none": "ENERGY.Phases.2.U"}
    chosen = values(described(values=paths), json.dumps(payload))
    assert [(sensor, value) for _, sensor, _, value in chosen] == [("power_w", 55.0), ("voltage_2", 231.0), ("b", 1.5)]
    nested_time = described(timestamp="head.at")
    assert values(nested_time, '{"head": {"at": 1764000000}, "t": 1.5}') == [
        ("pump-1", "t", 1_764_000_000_000_000, 1.5)
    ]


def test_json_text_is_a_number_or_refused_with_its_name() -> None:
    payload = (
        '{"state": "ON", "seen": "2026-05-04T12:00:00", "t": "21 °C", "temperature": "21.4", "running": true,'
        ' "flow": "N/A", "level": null, "p": NaN}'
    )
    assert values(described(), payload) == [
        ("pump-1", "temperature", None, 21.4),
        ("pump-1", "running", None, 1.0),
    ]
    assert refused(described(), payload) == [
        ("text", "state: 'ON' is not a number"),
        ("text", "seen: '2026-05-04T12:00:00' is not a number"),
        ("not_a_number", "t: '21 °C' is not a number"),
        ("absent", "flow: N/A"),
        ("absent", "level: None"),
        ("absent", "p: nan"),
    ]
    level = {"format": "number", "sensor": "level"}
    assert values(described(**level), " 73.2\n") == [("pump-1", "level", None, 73.2)]
    assert refused(described(**level), "73,2") == [
        ("not_a_number", "level: '73,2' is not a number; declare the decimal comma if the comma is one")
    ]
    assert refused(described(**level), b"\xff") == [
        ("not_a_number", "level: '\N{REPLACEMENT CHARACTER}' is not a number")
    ]
    assert values(described(decimal_comma=True, **level), "73,2") == [("pump-1", "level", None, 73.2)]
    named = described(machine="{id}", timestamp="t")
    assert refused(named, '{"id": "x-1", "t": "2026-05-04T12:00:00", "a": 1}') == [], "names and times are no values"


def test_one_unusable_json_value_does_not_lose_the_others() -> None:
    chosen = described(values={"x": "a.b", "y": "c"})
    payload = '[{"a": {"b": 1}}, {"a": {"b": "high"}, "c": 2}, {"a": [1], "c": {"d": 3}}, 7]'
    assert [value for *_, value in values(chosen, payload)] == [1.0, 2.0]
    assert refused(chosen, payload) == [
        ("not_a_number", "x: a.b: 'high' is not a number"),
        ("not_a_number", "y: c: is an object; select one value of it, such as c.d"),
        ("unreadable", "row 4, is not an object"),
    ]
    timed = described(timestamp="t")
    assert values(timed, '[{"t": "soon", "a": 1}, {"t": 1764000000, "a": 2}]')[0][3] == 2.0
    assert refused(described(format="csv"), "a,b\n1,x\n") == [("not_a_number", "b: row 2: 'x' is not a number")]


def test_large_and_deep_json_is_refused_with_its_name() -> None:
    payload = json.dumps({"spectrum": [0.5] * 101, "ok": 1.5, "few": [1.5] * 100})
    assert len(values(described(), payload)) == 101
    assert refused(described(), payload) == [("unsupported", "spectrum: is an array of 101; at most 100 are read")]
    assert content(described(), payload).refused[0].number == 101
    deep: Any = 1.5
    for _ in range(9):
        deep = {"d": deep}
    assert refused(described(), json.dumps(deep)) == [
        ("unsupported", "d.d.d.d.d.d.d.d: is nested in more than 8 levels")
    ]
    assert len(values(described(), json.dumps(deep["d"]))) == 1


def test_equal_json_paths_do_not_overwrite_each_other() -> None:
    payload = '{"a.b": 1.5, "a": {"b": 2.5}}'
    assert values(described(), payload) == [("pump-1", "a.b", None, 1.5)]
    assert refused(described(), payload) == [("invalid_name", "a.b: two values have this path; select one with values")]


@given(
    st.recursive(
        st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=4),
        max_leaves=20,
    ).filter(lambda made: isinstance(made, dict))
)
def test_each_flattened_name_is_a_path_to_its_value(payload: dict[str, Any]) -> None:
    found = content(described(), json.dumps(payload))
    names = [value.sensor for value in found.values]
    if names:
        chosen = values(described(values={name: name for name in names}), json.dumps(payload))
        assert chosen == [tuple(value) for value in found.values]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (b"{}", "{}"),
        (b'{"wifi": {"Password": "hunter2"}, "t": "x', '{"wifi": {"Password": ***}, "t": "x'),
        (b'{"api_key": ["hunter2", "hunter3"], "auth-token":"hunter2', '{"api_key": ***, "auth-token":***'),
        (b"user=a;password=hunter2;x=1", "user=a;password=***;x=1"),
        (b"\x00\x1b[31m\n", "\ufffd\ufffd[31m\ufffd"),
        (b"x" * 100, "x" * 80 + "\N{HORIZONTAL ELLIPSIS}"),
    ],
)
def test_payload_excerpt_hides_secrets_and_control_codes(payload: bytes, shown: str) -> None:
    assert excerpt(payload) == shown


def test_refused_secret_value_is_not_shown() -> None:
    assert refused(described(), '{"wifi": {"password": "hunter2"}}') == [("text", "wifi.password: ***")]


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
    assert all(math.isfinite(value) for *_, value in found)


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


@pytest.mark.parametrize(("colon", "encoding"), [(":", "utf-8"), (" : ", "utf-8"), (":", "utf-16")])
def test_repeated_name_in_an_object_is_refused(colon: str, encoding: str) -> None:
    payload = '{"a": 1, "b": {"c": 2, "c": 3, "c": 4}, "a": 5}'.replace(":", colon)
    found = content(described(), payload.encode(encoding))
    assert sorted((each.sensor, each.value) for each in found.values) == [("a", 1.0), ("b.c", 2.0)]
    assert [(each.reason.value, each.text, each.number) for each in found.refused] == [
        ("invalid_name", "c: an object has this name twice; its first value is read", 2),
        ("invalid_name", "a: an object has this name twice; its first value is read", 1),
    ]


@pytest.mark.parametrize("text", ["9007199254740993", "-18446744073709551615", str(10**308)])
def test_large_integers_keep_their_digits(text: str) -> None:
    """The input counts them as rounded, which it could not tell from a float."""
    number = described(format="number", sensor="count")
    for found in (values(described(), f'{{"n": {text}, "t": "{text}"}}'), values(number, text)):
        assert {each[3] for each in found} == {int(text)}
        assert all(isinstance(each[3], int) for each in found)
