"""Encodes series as JSON in parts, so that an answer with a million readings never needs one large object.

Starlette runs the plain iterator on a thread, so that encoding does not block the event loop.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from aurum.readings.batch import Timestamps, Values
from aurum.readings.transport.query_columns import decode_columns, decode_floats
from aurum.v1 import columns_pb2

_PART_READINGS = 10_000


def encode_metrics(machine_id: str, series: Sequence[columns_pb2.QueriedColumns]) -> Iterator[bytes]:
    """Yields the parts of the JSON that the schema MetricsOut describes.

    Args:
        machine_id: The machine.
        series: The series of the machine.
    """
    yield f'{{"machine_id":{json.dumps(machine_id)},"series":['.encode()
    for number, (column, times, values) in enumerate(decode_columns(series)):
        yield f'{"," if number else ""}{{"sensor":{json.dumps(column.sensor)},"timestamps":['.encode()
        yield from _encode_parts(times, _format_times)
        yield b'],"values":['
        yield from _encode_parts(values, _format_numbers)
        yield b"]"
        for name in ("minima", "maxima"):
            extremes = decode_floats(getattr(column, name))
            yield f',"{name}":{_format_numbers(extremes, brackets=True) if len(extremes) else "null"}'.encode()
        yield f',"counts":{json.dumps(list(column.counts)) if column.counts else "null"}}}'.encode()
    yield b"]}"


def _encode_parts(column: Timestamps | Values, text: Callable[[Any], str]) -> Iterator[bytes]:
    for start in range(0, len(column), _PART_READINGS):
        yield (("," if start else "") + text(column[start : start + _PART_READINGS])).encode()


def _format_times(times: Timestamps) -> str:
    """Formats times as ISO 8601 in UTC. Microseconds that are zero are omitted."""
    texts = np.datetime_as_string(times.astype("datetime64[us]"), unit="us").tolist()
    return ",".join(f'"{text.removesuffix(".000000")}Z"' for text in texts)


def _format_numbers(values: Values, *, brackets: bool = False) -> str:
    """Formats numbers as JSON, with null for NaN and infinity. brackets: Whether to include them."""
    text = json.dumps([value if math.isfinite(value) else None for value in values.tolist()], separators=(",", ":"))
    return text if brackets else text[1:-1]
