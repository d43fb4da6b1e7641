"""Reads the value of a Sparkplug metric as a number.

The payload has only unsigned fields for integers, so negative ones arrive as two's complement. How many bits that has
depends on the encoder of the node: those of the data type, 32 or 64. The data type says what a value means, and a
value that it cannot have is refused.
"""

from aurum.edge.inputs.common.refusals import Reason
from aurum.v1.sparkplug_pb2 import SparkplugMetric

BOOLEAN = 11
TEMPLATE = 19
_SIGNED_BITS = {1: 8, 2: 16, 3: 32, 4: 64}  # data types Int8 to Int64
_UNSIGNED_BITS = {5: 8, 6: 16, 7: 32, 8: 64}  # data types UInt8 to UInt64
_NUMBERS = frozenset(range(1, 12))
_TEXTS = frozenset({12, 14, 15})  # String, Text, UUID
_MAX_SHOWN = 40  # characters of a text in an example
_FIELD_BITS = {"int_value": 32, "long_value": 64}
_TYPE_NAMES = (
    *("value without a data type", "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float"),
    *("Double", "Boolean", "String", "DateTime", "Text", "UUID", "DataSet", "Bytes", "File", "Template"),
)


class ValueRefusedError(ValueError):
    """A metric has no value that can be stored.

    Attributes:
        reason: Why.
    """

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def number_of(metric: SparkplugMetric, datatype: int) -> float | int:
    """Returns the value of a metric as a number; an integer as an int, which may have more digits than a float.

    Args:
        metric: The metric.
        datatype: Its data type; 0 if neither the birth nor the message names one.

    Raises:
        ValueRefusedError: If it has none.
    """
    field = metric.WhichOneof("value")
    if metric.is_null or field is None:
        raise ValueRefusedError(Reason.ABSENT, "null")
    if datatype in _TEXTS or (datatype == 0 and field == "string_value"):
        raise ValueRefusedError(Reason.TEXT, repr(metric.string_value[:_MAX_SHOWN]))
    if datatype not in _NUMBERS and datatype != 0:
        raise ValueRefusedError(Reason.UNSUPPORTED, f"is a {type_name(datatype)}")
    match field:
        case "int_value" | "long_value":
            return integer_from_field(getattr(metric, field), _FIELD_BITS[field], datatype)
        case "float_value" | "double_value":
            return float(getattr(metric, field))
        case "boolean_value":
            return float(metric.boolean_value)
    if field == "string_value":
        text = f"{metric.string_value[:_MAX_SHOWN]!r} is a text, although it is a {type_name(datatype)}"
        raise ValueRefusedError(Reason.NOT_A_NUMBER, text)
    raise ValueRefusedError(Reason.UNSUPPORTED, f"has a {field} although it is a {type_name(datatype)}")


def integer_from_field(raw: int, field_bits: int, datatype: int) -> int:
    """Returns the integer that an unsigned field stands for.

    Args:
        raw: The content of the field.
        field_bits: The size of the field, 32 or 64.
        datatype: The data type of the metric.

    Raises:
        ValueRefusedError: If the data type does not have such a value, or does not say what it means.
    """
    unsigned = _UNSIGNED_BITS.get(datatype)
    if unsigned is not None:
        if raw >= 1 << unsigned:
            raise _out_of_range(raw, datatype)
        return raw
    bits = _SIGNED_BITS.get(datatype)
    if bits is None or bits > field_bits:
        if raw >= 1 << field_bits - 1:
            text = f"{raw} may be a negative number: it is a {type_name(datatype)} in a field of {field_bits} bits"
            raise ValueRefusedError(Reason.UNSUPPORTED, text)
        return raw
    if raw < 1 << bits:
        return raw - (1 << bits) if raw >= 1 << bits - 1 else raw
    for size in (32, 64):
        if (1 << size) - (1 << bits - 1) <= raw < 1 << size:
            return raw - (1 << size)
    raise _out_of_range(raw, datatype)


def type_name(datatype: int) -> str:
    """Returns the name of a data type."""
    return _TYPE_NAMES[datatype] if datatype < len(_TYPE_NAMES) else f"value of data type {datatype}"


def _out_of_range(raw: int, datatype: int) -> ValueRefusedError:
    return ValueRefusedError(Reason.OUT_OF_RANGE, f"{raw} is not a {type_name(datatype)}")
