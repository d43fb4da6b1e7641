"""Modbus: which registers are asked for together, and what their bytes mean."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from aurum.edge.inputs.common.configuration import REGISTERS_PER_VALUE, Register
from aurum.edge.inputs.modbus.poll_plan import group_registers
from aurum.edge.inputs.modbus.values import decode_value


def register(address: int, **options: Any) -> Register:
    return Register.model_validate({"address": address, "machine": "m", "sensor": f"r{address}", **options})


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


@given(st.floats(width=32, allow_nan=False), st.integers(-(2**31), 2**31 - 1), st.booleans())
def test_registers_decode_to_original_values(real: float, whole: int, little: bool) -> None:
    order = "little" if little else "big"
    for type_, value, code in (("float32", real, ">f4"), ("int32", whole, ">i4"), ("float64", real, ">f8")):
        words = np.frombuffer(np.array([value], code).tobytes(), ">u2").tolist()
        if little:
            words.reverse()
        assert decode_value(register(0, type=type_, word_order=order), words) == value
