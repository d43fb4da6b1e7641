"""What the gateway listens to: its file, names and units, payloads, registers, Sparkplug's births and gaps."""

import asyncio
import itertools
import json
import math
import socket
import struct
from collections.abc import Awaitable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import struct_from_binary, struct_to_binary
from hypothesis import given
from hypothesis import strategies as st

from aurum.edge.inputs.acknowledging import Acknowledgements
from aurum.edge.inputs.broker import Message
from aurum.edge.inputs.buffered_socket import BufferedSocket
from aurum.edge.inputs.collecting import Collector
from aurum.edge.inputs.configuration import WORDS, InputsError, Register, Rule, SparkplugInput, Topic, load_inputs
from aurum.edge.inputs.modbus import questions, value_of
from aurum.edge.inputs.opcua_changes import changes_of, read_changes, read_publish_response
from aurum.edge.inputs.payloads import PayloadError, Shape, read
from aurum.edge.inputs.sources import SourceState
from aurum.edge.inputs.sparkplug import Plant
from aurum.edge.inputs.tags import Tags
from aurum.edge.inputs.units import UnitError, conversion
from aurum.readings.batch import Batch, now_us
from aurum.readings.ingest_stream import Written
from aurum.runtime.errors import ResourceExhaustedError
from aurum.runtime.settings import Settings
from aurum.security.sources import SourceLimits
from aurum.v1.sparkplug_pb2 import SparkplugPayload

SPARKPLUG = Path(__file__).parents[1] / "data" / "sparkplug"


class MemorySpool:
    """Takes batches; each is durable when it is told to be, or at once."""

    max_bytes = 1_000_000_000

    def __init__(self, *, at_once: bool = True) -> None:
        self.batches: list[Batch] = []
        self.waiting: list[asyncio.Future[Written]] = []
        self._at_once = at_once

    async def put(self, batch: Batch, traceparent: str, *, wait: bool) -> Awaitable[Written]:
        self.batches.append(batch)
        durable: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        self.waiting.append(durable)
        if self._at_once:
            durable.set_result(Written(batch.readings, 0))
        return durable

    def readings(self) -> dict[tuple[str, str], list[tuple[int, float]]]:
        found: dict[tuple[str, str], list[tuple[int, float]]] = {}
        for batch in self.batches:
            for each in batch.series:
                pairs = zip(each.timestamps.tolist(), each.values.tolist(), strict=True)
                found.setdefault((each.machine_id, each.sensor), []).extend(pairs)
        return found


def collector(spool: MemorySpool, *rules: Rule, clock: Any = "device") -> Collector:
    return Collector("test", "test-1", spool, Tags(rules), clock, SourceLimits(Settings()))  # type: ignore[arg-type]


# The file

MQTT: dict[str, Any] = {
    "name": "hall-1",
    "protocol": "mqtt",
    "broker": {"host": "127.0.0.1"},
    "topics": [{"pattern": "plant/{machine}/state"}],
}


def written(tmp_path: Path, *inputs: dict[str, Any]) -> Path:
    path = tmp_path / "inputs.yaml"
    path.write_text(yaml.safe_dump({"inputs": list(inputs)}))
    return path


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "Hall 1"}, "name"),
        ({"broker": {"host": "x", "port": 70_000}}, "broker.port"),
        ({"broker": {"host": "x", "version": "4"}}, "broker.version"),
        ({"topics": []}, "topics"),
        ({"topics": [{"pattern": "a/#/b"}]}, "# stands at the end only"),
        ({"topics": [{"pattern": "a/x{machine}"}]}, "must be a whole level"),
        ({"topics": [{"pattern": "a/b", "machine": "m", "format": "number"}]}, "sensor: must be given"),
        ({"topics": [{"pattern": "a/{line}", "format": "csv"}]}, "machine: is no level"),
        ({"rules": [{"unit": "degF"}]}, "unit and to must both be given"),
        ({"rules": [{"unit": "degF", "to": "bar"}]}, "cannot be turned into"),
        ({"rules": [{"becomes": "has\nline"}]}, "is no sensor name"),
        ({"deadband": 1}, "deadband"),
        ({"protocol": "profinet"}, "inputs.0"),
    ],
)
def test_a_file_that_is_wrong_names_the_field(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    with pytest.raises(InputsError) as raised:
        load_inputs(written(tmp_path, {**MQTT, **change}))
    assert "inputs.yaml, inputs.0" in str(raised.value)
    assert field in str(raised.value)


def test_two_inputs_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputsError, match="two inputs are called 'hall-1'"):
        load_inputs(written(tmp_path, MQTT, MQTT))


# Names and units


@pytest.mark.parametrize(
    ("unit", "to", "value", "expected"),
    [("degF", "degC", 212, 100), ("bar", "kPa", 2, 200), ("W", "kW", 1500, 1.5), ("rpm", "rad/s", 60, 2 * math.pi)],
)
def test_units_are_turned_into_each_other(unit: str, to: str, value: float, expected: float) -> None:
    factor, offset = conversion(unit, to)
    assert factor * value + offset == pytest.approx(expected)


def test_units_that_are_none_are_refused() -> None:
    for unit, to in (("furlongs per", "m"), ("degC", "kg"), ("", "m"), ("import os", "m"), ("dB", "W"), ("rpm", "Hz")):
        with pytest.raises(UnitError):
            conversion(unit, to)


async def test_the_first_rule_that_matches_says_what_becomes_of_a_sensor() -> None:
    spool = MemorySpool()
    gathered = collector(
        spool,
        Rule(sensor="debug*", drop=True),
        Rule(sensor="t_*", machine="oven-*", becomes="temperature_c", unit="degF", to="degC"),
        Rule(sensor="t_*", becomes="temperature_raw", scale=0.1, offset=-4),
    )
    at = now_us()
    for machine, sensor, value in (("oven-1", "t_1", 212.0), ("pump-1", "t_1", 500.0), ("pump-1", "debug_x", 1.0)):
        gathered.add(machine, machine, sensor, at, value)
    gathered.add("pump-1", "no machine!", "x", at, 1.0)
    await gathered.commit()
    assert spool.readings() == {
        ("oven-1", "temperature_c"): [(at, pytest.approx(100.0))],
        ("pump-1", "temperature_raw"): [(at, pytest.approx(46.0))],
    }
    assert "is no machine id" in (gathered.tags.of("no machine!", "x").problem or "")


async def test_a_deadband_leaves_out_what_says_nothing_new() -> None:
    spool = MemorySpool()
    gathered = collector(spool, Rule(deadband=0.5, deadband_seconds=10))
    start = now_us() - 60_000_000
    for second, value in enumerate([1.0, 1.2, 1.4, 1.6, 1.5, 3.0, *[3.1] * 12]):
        gathered.add("m", "m", "x", start + second * 1_000_000, value)
    await gathered.commit()
    kept = [((at - start) // 1_000_000, value) for at, value in spool.readings()["m", "x"]]
    assert kept == [(0, 1.0), (3, 1.6), (5, 3.0), (15, 3.1)]


# Clocks and quality


def test_a_clock_is_known_by_the_fastest_of_its_messages() -> None:
    state, at = SourceState(), 10**15
    for second in range(100):
        delay = 2_000_000 if second % 7 else 50_000
        state.note(at + second * 10**6 + delay, at + second * 10**6 + 30_000_000, good=True)
    assert state.skew_us == 30_000_000 - 50_000
    for second in range(100, 300):  # somebody has set it
        state.note(at + second * 10**6, at + second * 10**6 - 5_000_000, good=second % 2 == 0)
    assert state.skew_us == -5_000_000
    assert 0.3 < state.quality < 0.7


async def test_a_clock_that_is_ahead_costs_no_batch() -> None:
    for clock, expected in (("device", 0), ("corrected", 0), ("arrival", 0)):
        spool = MemorySpool()
        gathered = collector(spool, clock=clock)
        now = now_us()
        gathered.add("m", "m", "x", now + 3_600_000_000, 1.0)
        gathered.add("m", "m", "y", None, 2.0)
        await gathered.commit()
        (((at, _),), ((other, _),)) = spool.readings().values()
        assert abs(at - now) < 2_000_000 + expected
        assert abs(other - now) < 2_000_000


async def test_bad_values_are_counted_and_left_out() -> None:
    spool = MemorySpool()
    gathered = collector(spool)
    gathered.add("m", "m", "x", None, math.nan)
    gathered.add("m", "m", "x", None, math.inf)
    gathered.add("m", "m", "x", None, 1.0, good=False)
    assert await gathered.commit() is None
    assert gathered.sources.worst_quality < 0.99


# Acknowledgements


async def test_nothing_is_acknowledged_before_it_is_durable_nor_out_of_order() -> None:
    told: list[int] = []
    following = Acknowledgements(told.extend)
    durable: list[asyncio.Future[Written]] = [asyncio.get_running_loop().create_future() for _ in range(3)]
    for number, each in enumerate(durable):
        await following.follow(each, [number])
    durable[1].set_result(Written(1, 0))
    following.settle_done()
    assert told == []
    durable[0].set_result(Written(1, 0))
    following.settle_done()
    assert told == [0, 1]
    durable[2].set_exception(OSError("disk"))
    with pytest.raises(OSError, match="disk"):
        await following.settle()
    assert told == [0, 1]


# Payloads


def described(**options: Any) -> Topic:
    return Topic.model_validate({"pattern": "plant/{line}/{machine}", **options})


def values(topic: Topic, payload: bytes | str) -> list[tuple[str, str, int | None, float]]:
    levels = {"line": "a", "machine": "pump-1"}
    return [
        tuple(each) for each in read(Shape.of(topic, levels), payload.encode() if isinstance(payload, str) else payload)
    ]  # type: ignore[misc]


def test_a_topic_has_levels() -> None:
    topic = described(pattern="plant/{line}/+/{machine}/#")
    assert topic.filter == "plant/+/+/+/#"
    found = topic.expression.fullmatch("plant/a/x/pump-1/deep/down")
    assert found is not None
    assert found.groupdict() == {"line": "a", "machine": "pump-1"}
    assert topic.expression.fullmatch("plant/a/pump-1") is None


def test_json_in_its_shapes() -> None:
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


def test_csv_with_and_without_a_first_line() -> None:
    expected = [("pump-1", "a", 1_764_000_000_000_000, 1.0), ("pump-1", "b", 1_764_000_000_000_000, 2.0)]
    assert values(described(format="csv", timestamp="t"), "t,a,b\n1764000000,1,2\n") == expected
    assert values(described(format="csv", timestamp="t", columns=["t", "a", "b"]), "1764000000,1,2") == expected
    assert values(described(format="csv"), "a,b\n1,\n") == [("pump-1", "a", None, 1.0)]


@pytest.mark.parametrize(
    ("options", "payload", "problem"),
    [
        ({}, "{", "is not JSON"),
        ({}, "[" * 100_000, "is not JSON"),
        ({}, "3", "is no object"),
        ({"timestamp": "ts"}, '{"a": 1}', "ts: is missing"),
        ({"timestamp": "ts"}, '{"a": 1, "ts": "soon"}', "ts: 'soon' is no time"),
        ({"values": {"x": "a.b"}}, '[{"a": {"b": 1}}, {"a": {"b": "high"}}]', "row 2, a.b: 'high' is no number"),
        ({"sensor": "{s}", "value": "v"}, '{"v": 1}', "s: is missing"),
        ({"format": "csv"}, "a,b\n1,2\n3\n", "row 3: has 1 cells"),
        ({"format": "csv"}, "a,b\n1,x\n", "row 2, b: 'x' is no number"),
        ({"format": "csv"}, b"\xff\xfe", "is not UTF-8"),
        ({"format": "number", "sensor": "x"}, b"\xff", "value: "),
        ({}, b" " * 1_000_001, "1000000 are allowed"),
    ],
)
def test_a_payload_that_is_wrong_says_where(options: dict[str, Any], payload: bytes | str, problem: str) -> None:
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
def test_no_payload_does_harm(payload: bytes, options: dict[str, Any]) -> None:
    try:
        found = values(described(**options), payload)
    except PayloadError:
        return
    assert all(isinstance(value, float) for *_, value in found)


# Registers


def register(address: int, **options: Any) -> Register:
    return Register.model_validate({"address": address, "machine": "m", "sensor": f"r{address}", **options})


_KINDS = st.sampled_from(["holding", "input"])
_TYPES = st.sampled_from(sorted(set(WORDS) - {"bit"}))
_REGISTERS = st.builds(lambda address, kind, type_: register(address, kind=kind, type=type_),
                       st.integers(0, 3000), _KINDS, _TYPES)  # fmt: skip


@given(st.lists(_REGISTERS, min_size=1, max_size=100))
def test_questions_ask_for_every_register_and_no_more_than_allowed(registers: list[Register]) -> None:
    asked = questions(registers)
    assert sorted(id(each) for question in asked for each in question.registers) == sorted(map(id, registers))
    for question in asked:
        assert 1 <= question.count <= 120
        for each in question.registers:
            assert each.kind == question.kind
            assert question.address <= each.address
            assert each.address + WORDS[each.type] <= question.address + question.count


def test_ten_thousand_neighbours_are_few_questions() -> None:
    assert len(questions([register(address) for address in range(10_000)])) == 84


@given(st.floats(width=32, allow_nan=False), st.integers(-(2**31), 2**31 - 1), st.booleans())
def test_registers_become_the_values_that_they_were(real: float, whole: int, little: bool) -> None:
    order = "little" if little else "big"
    for type_, value, code in (("float32", real, ">f4"), ("int32", whole, ">i4"), ("float64", real, ">f8")):
        words = np.frombuffer(np.array([value], code).tobytes(), ">u2").tolist()
        if little:
            words.reverse()
        assert value_of(register(0, type=type_, word_order=order), words) == value


# Sparkplug: payloads that another implementation has made


class Heard:
    """A plant that hears messages, and what it asks for."""

    def __init__(self) -> None:
        self.spool = MemorySpool()
        self.collector = collector(self.spool)
        self.asked: list[tuple[str, SparkplugPayload]] = []
        self.now = 0.0
        options = SparkplugInput.model_validate({"name": "sp", "protocol": "sparkplug", "broker": {"host": "x"}})
        self.plant = Plant(options, self.collector, self._ask, clock=lambda: self.now)

    def _ask(self, topic: str, payload: bytes) -> None:
        self.asked.append((topic, SparkplugPayload.FromString(payload)))

    def hear(self, kind: str, file: str | bytes, device: str | None = None) -> None:
        payload = file if isinstance(file, bytes) else (SPARKPLUG / f"{file}.bin").read_bytes()
        topic = f"spBv1.0/plant-a/{kind}/line-1" + (f"/{device}" if device else "")
        self.plant.take(Message(topic, payload, 0))

    async def values(self) -> dict[tuple[str, str], list[float]]:
        self.spool.batches.clear()
        await self.collector.commit()
        return {key: [value for _, value in pairs] for key, pairs in self.spool.readings().items()}


async def test_births_name_what_data_says_by_alias() -> None:
    heard = Heard()
    heard.hear("NBIRTH", "nbirth")
    assert await heard.values() == {("line-1", "Cabinet/Temperature"): [31.5]}
    heard.hear("DBIRTH", "dbirth", "press-1")
    expected = json.loads((SPARKPLUG / "birth.json").read_text())
    assert await heard.values() == {("press-1", name): [float(value)] for name, value in expected.items()}
    heard.hear("DDATA", "ddata", "press-1")
    assert await heard.values() == {
        ("press-1", "Bearing/Temperature"): [62.0],
        ("press-1", "Level"): [-6.0],
        ("press-1", "Running"): [0.0],
    }
    heard.hear("DDATA", "ddata_null", "press-1")
    assert await heard.values() == {("press-1", "Bearing/Temperature"): [60.0]}, "what is null is left out"
    heard.hear("NDATA", "ndata")
    assert await heard.values() == {("line-1", "Cabinet/Temperature"): [32.0]}
    assert heard.asked == []


async def test_who_was_not_born_is_asked_for_a_birth_but_not_again_and_again() -> None:
    heard = Heard()
    for _ in range(5):
        heard.hear("DDATA", "ddata", "press-1")
    assert await heard.values() == {}
    ((topic, wanted),) = heard.asked
    assert topic == "spBv1.0/plant-a/NCMD/line-1"
    assert (wanted.metrics[0].name, wanted.metrics[0].boolean_value) == ("Node Control/Rebirth", True)
    heard.now += 6
    heard.hear("DDATA", "ddata", "press-1")
    assert len(heard.asked) == 2


async def test_a_gap_is_noticed_and_aliases_are_not_guessed_after_it() -> None:
    heard = Heard()
    heard.hear("NBIRTH", "nbirth")
    heard.hear("DBIRTH", "dbirth", "press-1")
    await heard.values()
    heard.hear("DDATA", "ddata_null", "press-1")  # its number is 3, and 2 was not heard
    assert len(heard.asked) == 1
    assert await heard.values() == {}
    heard.hear("NBIRTH", "nbirth")
    heard.hear("DBIRTH", "dbirth", "press-1")
    heard.hear("DDATA", "ddata", "press-1")
    assert ("press-1", "Level") in await heard.values()
    assert len(heard.asked) == 1


async def test_the_dead_tell_nothing_and_an_old_will_kills_nobody() -> None:
    heard = Heard()
    heard.hear("NBIRTH", "nbirth")
    heard.hear("DBIRTH", "dbirth", "press-1")
    old = SparkplugPayload(timestamp=1)
    old.metrics.add(name="bdSeq", datatype=4, long_value=2)
    heard.hear("NDEATH", old.SerializeToString())
    heard.hear("DDATA", "ddata", "press-1")
    assert ("press-1", "Level") in await heard.values()
    heard.hear("NDEATH", "ndeath")
    heard.hear("NDATA", "ndata")
    assert await heard.values() == {}
    assert len(heard.asked) == 1


async def test_a_sequence_goes_round() -> None:
    heard = Heard()
    heard.hear("NBIRTH", "nbirth")
    for number in range(1, 600):
        payload = SparkplugPayload(timestamp=1_764_000_000_000 + number, seq=number % 256)
        payload.metrics.add(alias=1, float_value=float(number))
        heard.hear("NDATA", payload.SerializeToString())
    assert len((await heard.values())["line-1", "Cabinet/Temperature"]) == 600
    assert heard.asked == []


@given(st.binary(max_size=200), st.sampled_from(["NBIRTH", "DBIRTH", "DDATA", "NDATA", "NDEATH", "DDEATH", "STATE"]))
async def test_no_bytes_harm_the_plant(payload: bytes, kind: str) -> None:
    heard = Heard()
    heard.hear("NBIRTH", "nbirth")
    heard.hear(kind, payload, "press-1" if kind[0] == "D" else None)
    await heard.values()


# Many values at once


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5),
            st.sampled_from([0, 5, -700_000_000]),
            st.sampled_from([1.0, 1.2, 1e308, math.nan]),
            st.booleans(),
        ),
        max_size=40,
    ),
    st.sampled_from(["device", "arrival"]),
)
async def test_many_at_once_become_what_each_alone_becomes(
    rows: list[tuple[int, int, float, bool]], clock: Any
) -> None:
    rules = (
        Rule(sensor="s0", scale=2.0, offset=1.0),
        Rule(sensor="s1", deadband=0.5, deadband_seconds=60),
        Rule(sensor="s2", drop=True),
        Rule(sensor="s3", becomes="s0"),
    )
    now = now_us()
    at = [0 if ahead == 0 else now - ahead * 1_000_000 for _, ahead, _, _ in rows]
    names = [("m" if number < 5 else "no machine!", f"s{number}") for number, _, _, _ in rows]
    one, all_ = MemorySpool(), MemorySpool()
    alone = collector(one, *rules, clock=clock)
    for (machine, sensor), moment, (_, _, value, good) in zip(names, at, rows, strict=True):
        alone.add("d", machine, sensor, moment or None, value, good=good)
    together = collector(all_, *rules, clock=clock)
    indices = np.array([together.tags.of(*name).index for name in names], np.int32)
    values, good = np.array([row[2] for row in rows], float), np.array([row[3] for row in rows], bool)
    together.add_all("d", indices, np.array(at, np.int64), values, good)
    await alone.commit()
    await together.commit()
    assert {key: [value for _, value in found] for key, found in one.readings().items()} == {
        key: [value for _, value in found] for key, found in all_.readings().items()
    }
    assert together.sources.worst_quality == pytest.approx(alone.sources.worst_quality)
    if clock == "device":
        told = {moment for moment in at if 0 < moment <= now}
        assert {at for found in all_.readings().values() for at, _ in found if at < now - 1} <= told


async def test_many_at_once_are_corrected_by_the_skew_of_their_clock() -> None:
    spool = MemorySpool()
    gathered = collector(spool, clock="corrected")
    now = now_us()
    at = now + 120_000_000 - np.arange(5, dtype=np.int64)[::-1] * 1_000_000
    indices = np.full(5, gathered.tags.of("m", "x").index, np.int32)
    gathered.add_all("d", indices, at, np.arange(5.0), np.ones(5, bool))
    await gathered.commit()
    found = [moment for moment, _ in spool.readings()["m", "x"]]
    assert found[-1] == pytest.approx(now, abs=1_000_000)
    assert [later - sooner for sooner, later in itertools.pairwise(found)] == [1_000_000] * 4
    assert gathered.sources.largest_skew == pytest.approx(120, abs=1)


async def test_many_that_tell_no_time_are_told_apart() -> None:
    spool = MemorySpool()
    gathered = collector(spool)
    indices = np.array([gathered.tags.of("m", name).index for name in "xyxxy"], np.int32)
    gathered.add_all("d", indices, np.zeros(5, np.int64), np.arange(5.0), np.ones(5, bool))
    await gathered.commit()
    for name, values_ in (("x", [0, 2, 3]), ("y", [1, 4])):
        found = spool.readings()["m", name]
        assert [value for _, value in found] == values_
        assert [at for at, _ in found] == sorted({at for at, _ in found})


async def test_what_exceeds_a_batch_becomes_several() -> None:
    spool = MemorySpool()
    gathered = collector(spool)
    at = now_us() - 1_000_000_000
    indices = np.array([gathered.tags.of("m", f"s{number}").index for number in range(15_000)], np.int32)
    for turn in range(16):
        times = np.full(15_000, at + turn, np.int64)
        gathered.add_all("d", indices, times, np.full(15_000, float(turn)), np.ones(15_000, bool))
    durable = await gathered.commit()
    assert durable is not None
    await durable
    assert all(batch.readings <= 100_000 and len(batch.series) <= 10_000 for batch in spool.batches)
    assert [batch.sequence for batch in spool.batches] == list(range(1, len(spool.batches) + 1))
    found = spool.readings()
    assert len(found) == 15_000
    assert all(series == [(at + turn, float(turn)) for turn in range(16)] for series in found.values())


async def test_a_batch_is_a_part_of_a_small_spool() -> None:
    spool = MemorySpool()
    spool.max_bytes = 1_000_000
    gathered = collector(spool)
    for number in range(2500):
        gathered.add("m", "m", f"s{number}", None, 1.0)
    assert gathered.full
    await gathered.commit()
    assert [batch.readings for batch in spool.batches] == [1000, 1000, 500]


async def test_a_full_disk_is_waited_for_and_nothing_acknowledged_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aurum.edge.inputs.collecting._DISK_AGAIN", 0.01)
    spool = MemorySpool(at_once=False)
    gathered = collector(spool)
    gathered.add("m", "m", "x", None, 1.0)
    acknowledged: list[int] = []
    acknowledgements = Acknowledgements(acknowledged.extend)
    await acknowledgements.follow(await gathered.commit(), [7])
    for _ in range(3):
        spool.waiting[-1].set_exception(ResourceExhaustedError("the store cannot be written: the disk is full"))
        tries = len(spool.waiting)
        for _ in range(500):
            if len(spool.waiting) > tries:
                break
            await asyncio.sleep(0.01)
        acknowledgements.settle_done()
        assert acknowledged == []
    spool.waiting[-1].set_result(Written(1, 0))
    await acknowledgements.settle()
    assert acknowledged == [7]
    assert len({(batch.source_id, batch.sequence) for batch in spool.batches}) == 1


async def test_names_without_end_are_forgotten_and_found_again() -> None:
    spool = MemorySpool()
    gathered = collector(spool, Rule(sensor="x*", scale=3.0))
    for number in range(200_001):
        gathered.tags.of("m", str(number))
    generation = gathered.tags.generation
    gathered.add("m", "m", "x1", None, 2.0)
    await gathered.commit()
    assert gathered.tags.generation == generation + 1
    gathered.add("m", "m", "x1", None, 4.0)
    await gathered.commit()
    assert [value for _, value in spool.readings()["m", "x1"]] == [6.0, 12.0]


# OPC UA's changes


_TYPED = st.one_of(
    st.tuples(st.just(ua.VariantType.Double), st.floats()),
    st.tuples(st.just(ua.VariantType.Float), st.floats(width=32)),
    st.tuples(st.just(ua.VariantType.Int16), st.integers(-(2**15), 2**15 - 1)),
    st.tuples(st.just(ua.VariantType.UInt64), st.integers(0, 2**64 - 1)),
    st.tuples(st.just(ua.VariantType.Boolean), st.booleans()),
    st.tuples(st.just(ua.VariantType.String), st.text(max_size=5)),
    st.tuples(st.just(ua.VariantType.Int32), st.lists(st.integers(0, 5), min_size=1, max_size=3)),
)
_MOMENTS = st.none() | st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1))


@st.composite
def _notifications(draw: st.DrawFn) -> ua.DataChangeNotification:
    """Runs of changes that are like each other, as servers send them."""
    items = []
    for _ in range(draw(st.integers(0, 5))):
        kind, value = draw(_TYPED)
        source, server = draw(_MOMENTS), draw(_MOMENTS)
        status = draw(st.sampled_from([None, 0, 0x4000_0000, 0x8000_0000, 0x0000_0400]))
        for handle in range(draw(st.integers(1, 12))):
            data = ua.DataValue(
                ua.Variant(value, kind),
                StatusCode=None if status is None else ua.StatusCode(ua.UInt32(status)),
                SourceTimestamp=source,
                ServerTimestamp=server,
            )
            items.append(ua.MonitoredItemNotification(ClientHandle=handle, Value=data))
    return ua.DataChangeNotification(MonitoredItems=items)


@given(_notifications())
def test_changes_are_read_as_the_library_reads_them(notification: ua.DataChangeNotification) -> None:
    body = struct_to_binary(notification)
    expected = changes_of(struct_from_binary(ua.DataChangeNotification, Buffer(body)))
    found = read_changes(body)
    for name in ("handles", "at_us", "good", "values"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


def test_a_publish_response_is_read_as_the_library_reads_it() -> None:
    changes = ua.DataChangeNotification(
        MonitoredItems=[
            ua.MonitoredItemNotification(ClientHandle=7, Value=ua.DataValue(ua.Variant(1.5, ua.VariantType.Double)))
        ]
    )
    status = ua.StatusChangeNotification(Status=ua.StatusCode(ua.UInt32(0x80AB_0000)))
    response = ua.PublishResponse()
    response.Parameters.SubscriptionId = 3
    response.Parameters.AvailableSequenceNumbers = [4, 5]
    response.Parameters.NotificationMessage.SequenceNumber = 5
    response.Parameters.NotificationMessage.NotificationData = [changes, status]
    found = read_publish_response(Buffer(struct_to_binary(response))).Parameters
    assert (found.SubscriptionId, found.AvailableSequenceNumbers) == (3, [4, 5])
    assert found.NotificationMessage.SequenceNumber == 5
    first, second = found.NotificationMessage.NotificationData
    assert (first.handles.tolist(), first.values.tolist(), first.good.tolist()) == ([7], [1.5], [True])
    assert second == status
    with pytest.raises((ua.UaError, struct.error, ValueError)):
        read_publish_response(Buffer(struct_to_binary(response)[:-60]))


# The broker's socket


@given(st.binary(min_size=1, max_size=5000), st.lists(st.integers(1, 700), min_size=1, max_size=50))
def test_a_buffered_socket_reads_the_same_bytes(sent: bytes, sizes: list[int]) -> None:
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


def test_what_is_sent_together_arrives_in_order_also_when_the_way_is_full() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        buffered = BufferedSocket(ours)
        pieces = [bytes([number % 251]) * 1000 for number in range(5000)]
        with buffered.together():
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
