"""Modbus: what the bytes of registers mean, and which registers are asked for together."""

import itertools
import math
import struct
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from aurum.edge.inputs.common.configuration import REGISTERS_PER_VALUE, Register
from aurum.edge.inputs.modbus.poll_plan import PollPlan, ReadRequest, group_registers
from aurum.edge.inputs.modbus.values import AbsentError, UndecodableError, decode_value

_ORDERS = list(itertools.product(("big", "little"), ("big", "little")))
_INTEGERS = {"int16": 16, "uint16": 16, "int32": 32, "uint32": 32, "int64": 64, "uint64": 64}
_BCD = {"bcd16": 4, "bcd32": 8, "bcd64": 16}


def register(address: int, **options: Any) -> Register:
    return Register.model_validate({"address": address, "machine": "m", "sensor": f"r{address}", **options})


def encoded(type_: str, value: float, word_order: str, byte_order: str) -> list[int]:
    """The registers of a value, as a device would have them."""
    if type_ in _BCD:
        data = bytes.fromhex(str(int(value)).zfill(_BCD[type_]))
    elif type_ in _INTEGERS:
        data = int(value).to_bytes(_INTEGERS[type_] // 8, "big", signed=type_.startswith("int"))
    else:
        data = struct.pack(">f" if type_ == "float32" else ">d", value)
    words = [data[start : start + 2] for start in range(0, len(data), 2)]
    if word_order == "little":
        words.reverse()
    return [int.from_bytes(word, "big" if byte_order == "big" else "little") for word in words]


@st.composite
def _values(draw: st.DrawFn) -> tuple[str, float]:
    type_ = draw(st.sampled_from([*_INTEGERS, *_BCD, "float32", "float64"]))
    if type_ in _BCD:
        return type_, draw(st.integers(0, 10 ** _BCD[type_] - 1))
    if type_ in _INTEGERS:
        bits = _INTEGERS[type_]
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if type_.startswith("int") else (0, (1 << bits) - 1)
        return type_, draw(st.integers(low, high))
    return type_, draw(st.floats(allow_nan=False, width=32 if type_ == "float32" else 64))


@given(_values(), st.sampled_from(_ORDERS))
def test_register_decoding_inverts_encoding(of_type: tuple[str, float], order: tuple[str, str]) -> None:
    type_, value = of_type
    word_order, byte_order = order
    declared = register(0, type=type_, word_order=word_order, byte_order=byte_order)
    assert decode_value(declared, encoded(type_, value, word_order, byte_order), keep_marks=True) == value


def test_four_orders_of_a_float32_are_as_meters_name_them() -> None:
    a, b, c, d = struct.pack(">f", 229.01)
    layouts = {("big", "big"): (a, b, c, d), ("little", "big"): (c, d, a, b),
               ("big", "little"): (b, a, d, c), ("little", "little"): (d, c, b, a)}  # fmt: skip
    for (word_order, byte_order), bytes_ in layouts.items():
        declared = register(0, type="float32", word_order=word_order, byte_order=byte_order)
        words = struct.unpack(">2H", bytes(bytes_))
        assert decode_value(declared, words) == pytest.approx(229.01)


_MARKS = {
    "int16": -(1 << 15), "int32": -(1 << 31), "int64": -(1 << 63), "uint16": 0xFFFF, "uint32": (1 << 32) - 1,
    "uint64": (1 << 64) - 1,
}  # fmt: skip


@pytest.mark.parametrize("order", _ORDERS)
@pytest.mark.parametrize("type_", _MARKS)
def test_mark_of_missing_value_is_absent_unless_kept(type_: str, order: tuple[str, str]) -> None:
    words = encoded(type_, _MARKS[type_], *order)
    options = {"type": type_, "word_order": order[0], "byte_order": order[1]}
    with pytest.raises(AbsentError):
        decode_value(register(0, **options), words)
    assert decode_value(register(0, **options), words, keep_marks=True) == _MARKS[type_]
    assert decode_value(register(0, **options, not_implemented="keep"), words) == _MARKS[type_]
    with pytest.raises(AbsentError):
        decode_value(register(0, **options, not_implemented="absent"), words, keep_marks=True)


@pytest.mark.parametrize("type_", ["float32", "float64"])
def test_nan_in_registers_is_always_absent(type_: str) -> None:
    with pytest.raises(AbsentError):
        decode_value(register(0, type=type_), encoded(type_, math.nan, "big", "big"), keep_marks=True)


def test_declared_absent_values_of_a_register_are_left_out() -> None:
    declared = register(0, type="int16", absent=[32767, -999])
    for value in (32767, -999):
        with pytest.raises(AbsentError):
            decode_value(declared, encoded("int16", value, "big", "big"))
    assert decode_value(declared, [32766]) == 32766.0


def test_bcd_with_a_digit_above_nine_is_refused() -> None:
    assert decode_value(register(0, type="bcd32"), [0x1234, 0x5678]) == 12345678.0
    with pytest.raises(UndecodableError, match="0x12A4 is not BCD"):
        decode_value(register(0, type="bcd16"), [0x12A4])
    with pytest.raises(AbsentError):
        decode_value(register(0, type="bcd16"), [0xFFFF])


def test_bits_are_declared_only_for_coils_and_discrete_inputs() -> None:
    register(0, kind="discrete", type="bit")
    with pytest.raises(ValidationError, match="coil and discrete require bit"):
        register(0, kind="coil", type="bcd16")


_KINDS = st.sampled_from(["holding", "input"])
_TYPES = st.sampled_from(sorted(set(REGISTERS_PER_VALUE) - {"bit"}))
_REGISTERS = st.builds(lambda address, kind, type_: register(address, kind=kind, type=type_),
                       st.integers(0, 3000), _KINDS, _TYPES)  # fmt: skip


@given(st.lists(_REGISTERS, min_size=1, max_size=100))
def test_requests_cover_every_register_within_size_limit(registers: list[Register]) -> None:
    asked = group_registers(registers)
    assert sorted(id(each) for question in asked for each in question.registers) == sorted(map(id, registers))
    for question in asked:
        assert 1 <= question.count <= 120
        for each in question.registers:
            assert each.kind == question.kind
            assert question.address <= each.address
            assert each.address + REGISTERS_PER_VALUE[each.type] <= question.address + question.count


def test_ten_thousand_adjacent_registers_take_84_requests() -> None:
    assert len(group_registers([register(address) for address in range(10_000)])) == 84


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def poll(plan: PollPlan, readable: set[int], max_count: int = 125) -> tuple[set[Register], list[ReadRequest]]:
    """Asks a device once for all that is due. Returns the values that were read and the requests that were refused."""
    read: set[Register] = set()
    refused = []
    queue = plan.due()
    while queue:
        request = queue.pop()
        if request.count <= max_count and readable.issuperset(range(request.address, request.address + request.count)):
            plan.record_read(request)
            read.update(request.registers)
        else:
            refused.append(request)
            queue += plan.record_refused(request)
    return read, refused


def _are_readable(registers: Sequence[Register], readable: set[int], max_count: int) -> set[Register]:
    return {
        each
        for each in registers
        if REGISTERS_PER_VALUE[each.type] <= max_count
        and readable.issuperset(range(each.address, each.address + REGISTERS_PER_VALUE[each.type]))
    }


_DECLARED = st.lists(
    st.builds(lambda address, type_: register(address, type=type_), st.integers(0, 300), _TYPES),
    min_size=1, max_size=60, unique_by=lambda each: (each.address, each.type),
)  # fmt: skip


@given(_DECLARED, st.sets(st.integers(0, 304)), st.sampled_from([1, 4, 16, 125]))
def test_every_readable_register_is_read_despite_holes(
    declared: list[Register], holes: set[int], max_count: int
) -> None:
    readable = set(range(310)) - holes
    clock = Clock()
    plan = PollPlan(declared, clock)
    expected = _are_readable(declared, readable, max_count)
    read, refused = poll(plan, readable, max_count)
    assert read == expected
    assert len(refused) < 2 * len(declared)
    for _ in range(5):
        clock.now += 1
        assert poll(plan, readable, max_count) == (expected, [])
    assert {each for request in plan.unreadable for each in request.registers} == set(declared) - expected


@given(_DECLARED, st.sets(st.integers(0, 304), min_size=1))
def test_missing_registers_are_asked_for_ever_less_often(declared: list[Register], holes: set[int]) -> None:
    readable = set(range(310)) - holes
    clock = Clock()
    plan = PollPlan(declared, clock)
    poll(plan, readable)
    missing = len(plan.unreadable)
    refused = 0
    for _ in range(24 * 60):
        clock.now += 60.0
        refused += len(poll(plan, readable)[1])
    assert refused <= 30 * missing
    clock.now += 3600.0
    assert poll(plan, set(range(310)))[0] == set(declared), "what has come into being is not read"
    assert not plan.unreadable


def test_range_without_answer_is_split_after_three_rounds() -> None:
    clock = Clock()
    plan = PollPlan([register(address) for address in range(4)], clock)
    (whole,) = plan.due()
    assert [plan.record_silent(whole) for _ in range(2)] == [[], []]
    halves = plan.record_silent(whole)
    assert [(each.address, each.count) for each in halves] == [(0, 2), (2, 2)]
    plan.record_read(halves[1])
    assert plan.due() == [halves[1], halves[0]], "what does not answer is asked for last"
    singles = plan.record_silent(halves[0])
    assert [plan.record_silent(each) for each in singles] == [[], []]
    assert (plan.due(), plan.unreadable) == ([halves[1]], singles)
    clock.now += 61.0
    assert len(plan.due()) == 3
