"""Looks at serialized protobuf messages before they are parsed.

A parsed message takes many times the bytes of a message that consists of very many small fields.
"""

_SIZES = {1: 8, 5: 4}  # bytes of a value by wire type; 0 is a varint, 2 a length with as many bytes
_LONGEST_VARINT = 10  # bytes


def only_field(data: bytes, number: int) -> memoryview | None:
    """Returns the content of a message that consists of one length-delimited field with this number, else None."""
    length, at = _varint(data, 1)
    if len(data) < 2 or data[0] != number << 3 | 2 or at + length != len(data):
        return None
    return memoryview(data)[at:]


def has_more_fields(data: bytes | memoryview, most: int) -> bool:
    """Whether a message has more than `most` fields at its top level. One that is malformed may have fewer."""
    at = fields = 0
    while at < len(data) and fields <= most:
        fields += 1
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            _, at = _varint(data, at)
        elif kind == 2:
            length, at = _varint(data, at)
            at += length
        else:
            at += _SIZES.get(kind, 0)
    return fields > most


def _varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """Returns the number at a position and the position after it."""
    value = shift = 0
    for byte in data[at : at + _LONGEST_VARINT]:
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return value, at
