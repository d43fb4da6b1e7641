"""Sparkplug B: metrics as nodes of several makers send them, with templates, flags, and faulty names and aliases."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum.edge.inputs.common.configuration import SparkplugInput, TagRule
from aurum.edge.inputs.common.refusals import Reason
from aurum.edge.inputs.mqtt.connection import Message
from aurum.edge.inputs.sparkplug.input import SparkplugNodes
from aurum.edge.inputs.sparkplug.templates import MAX_DEPTH, MAX_MEMBERS
from aurum.edge.inputs.sparkplug.values import ValueRefusedError, integer_from_field
from aurum.readings.batch import now_us
from aurum.v1.sparkplug_pb2 import SparkplugMetric, SparkplugPayload
from tests.support.batch_builder import MemorySpool, make_builder

INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64, DOUBLE, STRING, DATASET, TEMPLATE = (
    *(1, 2, 3, 4, 5, 6, 7, 8),
    *(10, 12, 16, 19),
)
SIGNED = {INT8: 8, INT16: 16, INT32: 32, INT64: 64}
UNSIGNED = {UINT8: 8, UINT16: 16, UINT32: 32, UINT64: 64}


def metric(name: str | None = None, alias: int | None = None, datatype: int = DOUBLE, **value: Any) -> SparkplugMetric:
    return SparkplugMetric(name=name, alias=alias, datatype=datatype or None, **value)


def template(name: str | None, *members: SparkplugMetric, definition: bool = False, **more: Any) -> SparkplugMetric:
    made = SparkplugMetric(name=name, datatype=TEMPLATE, **more)
    made.template_value.metrics.extend(members)
    made.template_value.template_ref = "Pump"
    if definition:
        made.template_value.is_definition = True
    return made


class Device:
    """A device of a node, and a gateway that hears it."""

    def __init__(self, *birth: SparkplugMetric, rules: Sequence[TagRule] = (), clock: str = "device") -> None:
        self.spool = MemorySpool()
        self.builder = make_builder(self.spool, *rules, clock=clock)
        self.rebirths = 0
        self.now = 0.0
        self.at_ms = now_us() // 1000 - 60_000
        self._sequence = 0
        options = SparkplugInput.model_validate({"name": "sp", "protocol": "sparkplug", "broker": {"host": "x"}})
        self.nodes = SparkplugNodes(options, self.builder, self._count_rebirth, clock=lambda: self.now)
        self.born(*birth)

    def born(self, *metrics: SparkplugMetric) -> None:
        self._sequence = 0
        self.send("NBIRTH")
        self.send("DBIRTH", *metrics)

    def send(self, kind: str, *metrics: SparkplugMetric, retained: bool = False) -> None:
        self.at_ms += 1000
        payload = SparkplugPayload(timestamp=self.at_ms, seq=self._sequence % 256, metrics=metrics)
        self._sequence += 1
        topic = f"spBv1.0/plant/{kind}/edge" + ("/dev-1" if kind[0] == "D" else "")
        self.nodes.handle(Message(topic, payload.SerializeToString(), 0, retained=retained))

    def miss(self) -> None:
        self._sequence += 1

    def refused(self) -> dict[Reason, int]:
        return {reason: tally.count for reason, tally in self.builder.refusals.refused.items()}

    async def values(self) -> dict[str, list[float]]:
        """Returns the stored values by sensor, and forgets them."""
        await self.builder.commit()
        found = {sensor: [value for _, value in pairs] for (_, sensor), pairs in self.spool.readings().items()}
        self.spool.batches.clear()
        return found

    def _count_rebirth(self, topic: str, payload: bytes) -> None:
        self.rebirths += 1


BIRTH = (
    metric("temp", 10, double_value=1.0),
    metric("cold", 11, INT32, int_value=5),
    metric("on", 0, datatype=11, boolean_value=True),
)


async def test_blank_name_beside_alias_is_resolved_by_alias() -> None:
    device = Device(*BIRTH)
    for name in ("", "  ", None):
        device.send("DDATA", metric(name, 10, 0, double_value=20.0))
    assert (await device.values())["temp"] == [1.0, 20.0, 20.0, 20.0]
    assert device.refused() == {}


async def test_metric_with_neither_name_nor_alias_is_refused() -> None:
    device = Device(*BIRTH)
    device.send("DDATA", SparkplugMetric(int_value=77), metric("", datatype=0, int_value=77))
    assert await device.values() == {"temp": [1.0], "cold": [5.0], "on": [1.0]}, "alias 0 is another metric's"
    assert device.refused() == {Reason.NO_NAME: 2}
    assert "plant/edge/dev-1" in device.builder.refusals.refused[Reason.NO_NAME].example
    assert device.rebirths == 0


async def test_unknown_alias_requests_rebirths_less_and_less_often() -> None:
    device = Device(*BIRTH)
    times = []
    for second in range(300):
        device.now = float(second)
        before = device.rebirths
        device.send("DDATA", metric(None, 99, 0, double_value=1.0))
        if device.rebirths > before:
            times.append(second)
    assert times == [0, 5, 15, 35, 75, 135, 195, 255]
    assert device.refused() == {Reason.NO_NAME: 300}
    assert (await device.values()).keys() == {"temp", "cold", "on"}


async def test_duplicate_alias_is_refused_until_a_birth_is_right() -> None:
    twice = (metric("temp", 10, double_value=1.0), metric("press", 10, double_value=2.0), metric("x", 11))
    device = Device(*twice)
    assert device.rebirths == 1
    assert await device.values() == {"temp": [1.0], "press": [2.0]}, "a birth names its values"
    device.send("DDATA", metric(None, 10, 0, double_value=20.0), metric(None, 11, 0, double_value=3.0))
    assert await device.values() == {"x": [3.0]}
    assert device.refused() == {Reason.ABSENT: 1, Reason.NO_NAME: 1}
    assert "means both 'temp' and 'press'" in device.builder.refusals.refused[Reason.NO_NAME].example
    device.send("DDATA", metric("temp", 10, 0, double_value=21.0))
    assert await device.values() == {"temp": [21.0]}, "a name is not ambiguous"
    device.now += 100
    device.born(metric("temp", 10, double_value=1.0), metric("press", 12, double_value=2.0))
    device.send("DDATA", metric(None, 10, 0, double_value=22.0))
    assert (await device.values())["temp"] == [1.0, 22.0]
    assert device.rebirths == 1


async def test_values_before_a_birth_or_after_a_gap_are_counted() -> None:
    device = Device(*BIRTH)
    await device.values()
    device.miss()
    device.send("DDATA", metric(None, 10, 0, double_value=1.0), metric("temp", None, 0, double_value=2.0))
    assert await device.values() == {"temp": [2.0]}
    assert "missed message" in device.builder.refusals.refused[Reason.NO_NAME].example
    device.send("NDEATH")
    device.send("DDATA", *BIRTH)
    assert device.refused() == {Reason.NO_NAME: 4}


@given(
    st.dictionaries(st.integers(0, 2**64 - 1), st.sampled_from("abcdefgh"), max_size=8),
    st.lists(st.tuples(st.integers(0, 2**64 - 1), st.sampled_from(["", "a", "b", "z"]), st.booleans()), max_size=8),
    st.data(),
)
async def test_value_is_only_stored_under_the_name_of_its_alias(
    aliases: dict[int, str], sent: list[tuple[int, str, bool]], data: st.DataObject
) -> None:
    device = Device(*(metric(name, alias) for alias, name in aliases.items()))
    known = st.sampled_from(sorted(aliases)) if aliases else st.just(1)
    expected: dict[str, list[float]] = {}
    unnamed = 0
    for number, (other, name, is_known) in enumerate(sent, start=1):
        alias = data.draw(known) if is_known else other
        device.send("DDATA", metric(name, alias, 0, double_value=float(number)))
        if stored := name or aliases.get(alias):
            expected.setdefault(stored, []).append(float(number))
        else:
            unnamed += 1
    assert await device.values() == expected
    assert device.refused().get(Reason.NO_NAME, 0) == unnamed


# Values


@given(st.sampled_from(sorted(SIGNED)), st.data())
def test_signed_integer_is_read_from_any_width(datatype: int, data: st.DataObject) -> None:
    bits = SIGNED[datatype]
    value = data.draw(st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1))
    for sent_bits, field_bits in ((bits, 32), (32, 32), (bits, 64), (32, 64), (64, 64)):
        if bits <= sent_bits <= field_bits:
            assert integer_from_field(value % 2**sent_bits, field_bits, datatype) == value


@given(st.sampled_from(sorted(SIGNED | UNSIGNED)), st.sampled_from([32, 64]), st.integers(0, 2**64 - 1))
def test_integer_is_one_of_its_type_or_refused(datatype: int, field_bits: int, raw: int) -> None:
    raw %= 2**field_bits
    try:
        value = integer_from_field(raw, field_bits, datatype)
    except ValueRefusedError:
        return
    if datatype in UNSIGNED:
        assert value == raw < 2 ** UNSIGNED[datatype]
    else:
        bits = SIGNED[datatype]
        assert -(2 ** (bits - 1)) <= value < 2 ** (bits - 1)
        assert raw in {value % 2**size for size in (bits, 32, 64)}


async def test_data_type_of_birth_says_what_a_number_means() -> None:
    device = Device(metric("cold", 11, INT32, int_value=5), metric("tiny", 12, INT8), metric("big", 13, UINT32))
    device.send("DDATA", metric("cold", 11, 0, int_value=-12 % 2**32), metric(None, 12, 0, int_value=-12 % 2**8))
    device.send("DDATA", metric(None, 11, UINT32, int_value=-13 % 2**32), metric("tiny", None, 0, int_value=-1 % 2**32))
    device.send("DDATA", metric(None, 13, 0, int_value=4_000_000_000), metric(None, 12, 0, int_value=300))
    assert await device.values() == {"cold": [5.0, -12.0, -13.0], "tiny": [-12.0, -1.0], "big": [4e9]}
    assert device.refused() == {Reason.ABSENT: 2, Reason.OUT_OF_RANGE: 1}


@pytest.mark.parametrize(
    ("sent", "stored", "reason"),
    [
        (metric("new", None, 0, int_value=7), 7.0, None),
        (metric("new", None, 0, int_value=2**31), None, Reason.UNSUPPORTED),  # negative, or not
        (metric("new", None, INT64, int_value=2**32 - 12), None, Reason.UNSUPPORTED),  # likewise
        (metric("new", None, INT64, long_value=2**64 - 12), -12.0, None),
        (metric("new", None, DOUBLE, int_value=7), 7.0, None),
        (metric("new", None, 0, double_value=-1.5), -1.5, None),
        (metric("new", None, INT16, float_value=-1.5), -1.5, None),
        (metric("new", None, UINT8, int_value=256), None, Reason.OUT_OF_RANGE),
        (metric("new", None, STRING, string_value="A-7"), None, Reason.TEXT),
        (metric("new", None, 13, long_value=1_764_000_000_000), None, Reason.UNSUPPORTED),
        (metric("new", None, DOUBLE, string_value="1.5"), None, Reason.NOT_A_NUMBER),
        (metric("new", None, DATASET, dataset_value={"num_of_columns": 2}), None, Reason.UNSUPPORTED),
        (metric("new", None, 22, bytes_value=b"\1\2"), None, Reason.UNSUPPORTED),
        (metric("new", None, DOUBLE, is_null=True), None, Reason.ABSENT),
        (metric("new", None, DOUBLE), None, Reason.ABSENT),
        (metric("new", None, DOUBLE, double_value=1.5, is_transient=True), None, Reason.UNSUPPORTED),
    ],
)
async def test_metric_is_stored_right_or_refused_by_reason(
    sent: SparkplugMetric, stored: float | None, reason: Reason | None
) -> None:
    device = Device()
    device.send("DDATA", sent)
    assert await device.values() == ({} if stored is None else {"new": [stored]})
    assert device.refused() == ({} if reason is None else {reason: 1})
    if reason is not None:
        assert "dev-1 new: " in device.builder.refusals.refused[reason].example
        silent = Device(rules=[TagRule(sensor="new", drop=True)])
        silent.send("DDATA", sent)
        assert silent.refused() == {}, "a rule drops it anyway"


async def test_historical_value_keeps_its_time_and_not_the_skew() -> None:
    for clock in ("device", "arrival"):
        device = Device(*BIRTH, clock=clock)
        await device.values()
        old_ms = device.at_ms - 86_400_000
        device.send(
            "DDATA",
            metric(None, 10, 0, double_value=2.0, timestamp=old_ms, is_historical=True),
            metric(None, 11, 0, int_value=3, timestamp=24_000, is_historical=True),
        )
        await device.builder.commit()
        assert device.spool.readings() == {("dev-1", "temp"): [(old_ms * 1000, 2.0)]}
        assert device.refused() == {Reason.WRONG_TIME: 1}
        assert abs(device.builder.skew_us("plant/edge/dev-1")) < 70e6
    only_past = Device()
    only_past.send("DDATA", metric("new", double_value=1.0, timestamp=old_ms, is_historical=True))
    assert only_past.builder.skew_us("plant/edge/dev-1") == 0
    timeless = SparkplugPayload(seq=3, metrics=[metric("new", double_value=1.0, is_historical=True)])
    only_past.nodes.handle(Message("spBv1.0/plant/DDATA/edge/dev-1", timeless.SerializeToString(), 0))
    assert only_past.refused() == {Reason.WRONG_TIME: 1}


async def test_retained_sparkplug_message_is_refused() -> None:
    device = Device(*BIRTH)
    await device.values()
    device.send("DBIRTH", metric("other", 10, double_value=7.0), retained=True)
    assert await device.values() == {}
    assert device.refused() == {Reason.OLD: 1}


# Templates


async def test_template_members_are_named_by_their_path() -> None:
    inner = template("Motor", metric("amps", 21, double_value=3.5), metric("volts", 22, INT16, int_value=-5 % 2**16))
    definition = template("_types_/Pump", metric("temp"), definition=True)
    pump = template("Pump1", metric("temp", 20, double_value=55.5), inner, alias=30)
    device = Device(definition, pump)
    assert await device.values() == {"Pump1/temp": [55.5], "Pump1/Motor/amps": [3.5], "Pump1/Motor/volts": [-5.0]}
    device.send("DDATA", template(None, metric("temp", None, 0, double_value=56.0), alias=30))
    device.send("DDATA", template("Pump1", metric(None, 20, 0, double_value=57.0)))
    device.send("DDATA", metric("", 22, 0, int_value=-6 % 2**32))
    device.send("DDATA", template("Pump1", template("Motor", metric("volts", None, 0, int_value=-7 % 2**16))))
    assert await device.values() == {"Pump1/temp": [56.0, 57.0], "Pump1/Motor/volts": [-6.0, -7.0]}
    assert device.refused() == {}


async def test_template_members_inherit_time_and_flags() -> None:
    device = Device()
    old_ms = device.at_ms - 86_400_000
    own = metric("b", double_value=2.0, timestamp=old_ms + 5)
    device.send("DDATA", template("P", metric("a", double_value=1.0), own, timestamp=old_ms, is_historical=True))
    await device.builder.commit()
    assert device.spool.readings() == {
        ("dev-1", "P/a"): [(old_ms * 1000, 1.0)],
        ("dev-1", "P/b"): [((old_ms + 5) * 1000, 2.0)],
    }
    device.send("DDATA", template("P", metric("a", double_value=1.0), is_transient=True))
    device.send("DDATA", template("P", metric("a", double_value=1.0), is_null=True))
    device.send("DDATA", template("P", metric(double_value=1.0)))
    device.send("DDATA", template(None, metric("a", double_value=1.0), metric("b", double_value=1.0)))
    assert device.refused() == {Reason.UNSUPPORTED: 1, Reason.ABSENT: 1, Reason.NO_NAME: 3}


async def test_deep_and_large_templates_are_cut_and_counted() -> None:
    deep = metric("leaf", double_value=1.0)
    for level in range(MAX_DEPTH + 1):
        deep = template(f"t{level}", deep)
    device = Device()
    device.send("DDATA", deep)
    device.send("DDATA", template("P", *(metric(f"m{n}", double_value=1.0) for n in range(MAX_MEMBERS + 3))))
    assert len(await device.values()) == MAX_MEMBERS
    assert device.refused() == {Reason.UNSUPPORTED: 4}
    for _ in range(20):
        deep = template("t", deep)
    device.send("DBIRTH", deep)
    assert device.refused() == {Reason.UNSUPPORTED: 5}


async def test_long_counters_are_counted_if_rounded() -> None:
    device = Device(metric("count", 1, UINT64, long_value=2**53 + 1), metric("total", 2, INT64, long_value=2**60))
    await device.builder.commit()
    tally = device.builder.refusals.corrected[Reason.ROUNDED]
    assert tally.count == 1
    assert tally.example.endswith("count: 9007199254740993 is stored as 9007199254740992")
