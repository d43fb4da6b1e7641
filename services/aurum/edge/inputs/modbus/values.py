"""What the registers of a Modbus device mean: types, orders of bytes and words, and marks for absent values."""

import math
import struct
from collections.abc import Sequence

from aurum.edge.inputs.common.configuration import Register

_FORMATS = {
    "int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "int64": ">q", "uint64": ">Q",
    "float32": ">f", "float64": ">d",
}  # fmt: skip
# By convention (SunSpec, and most meters), the lowest signed and the greatest unsigned number: no such value
_NOT_IMPLEMENTED = {
    "int16": b"\x80\x00", "int32": b"\x80" + bytes(3), "int64": b"\x80" + bytes(7),
    "uint16": b"\xff" * 2, "uint32": b"\xff" * 4, "uint64": b"\xff" * 8,
    "bcd16": b"\xff" * 2, "bcd32": b"\xff" * 4, "bcd64": b"\xff" * 8,
}  # fmt: skip


class AbsentError(ValueError):
    """The device says that it has no such value."""


class UndecodableError(ValueError):
    """The registers are not a value of the declared type."""


def decode_value(register: Register, words: Sequence[int], *, keep_marks: bool = False) -> float | int:
    """Decodes the value in a group of registers, given as received.

    Args:
        register: The declaration of the value.
        words: Its registers, each 0 to 65,535.
        keep_marks: Whether the type's mark for "not implemented", such as 0x8000, is a number, if the register does not
            say so itself. NaN never is.

    Returns:
        The value; an int if the register has an integer, which may have more digits than a float.

    Raises:
        AbsentError: If the device says that it has no such value.
        UndecodableError: If a digit of a BCD value is above 9.
    """
    data = _arrange(register, words)
    if register.not_implemented is not None:
        keep_marks = register.not_implemented == "keep"
    if not keep_marks and data == _NOT_IMPLEMENTED.get(register.type):
        raise AbsentError(f"0x{data.hex().upper()} means that the device has no such value")
    value: float | int
    if register.type.startswith("bcd"):
        value = _decode_bcd(data)
    else:
        (value,) = struct.unpack(_FORMATS[register.type], data)
    if math.isnan(value):
        raise AbsentError("NaN means that the device has no such value")
    if value in register.absent:
        raise AbsentError(f"{value:g} is declared as absent")
    return value


def _arrange(register: Register, words: Sequence[int]) -> bytes:
    """Returns the bytes of a value with the most significant first."""
    ordered = words if register.word_order == "big" else list(reversed(words))
    return struct.pack(f"{'>' if register.byte_order == 'big' else '<'}{len(ordered)}H", *ordered)


def _decode_bcd(data: bytes) -> int:
    digits = data.hex()
    if not digits.isdecimal():
        raise UndecodableError(f"0x{digits.upper()} is not BCD, because a digit is above 9")
    return int(digits)
