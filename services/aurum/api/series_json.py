"""Encodes series as JSON in parts, so that an answer with a million readings never needs one large object.

Starlette runs the plain iterator on a thread, so that encoding does not block the event loop.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from aurum.readings.batch import Timestamps, Values
from aurum.readings.queried import columns, floats
from aurum.v1 import columns_pb2

_PART = 10_000  # readings
_LEAST = 65_536  # bytes of a part, but for the last


def encode_metrics(machine_id: str, found: Sequence[columns_pb2.QueriedColumns]) -> Iterator[bytes]:
    """Yields the JSON that MetricsOut describes, in parts of some size, since each takes a step of the event loop."""
    gathered = bytearray()
    for part in _encode(machine_id, found):
        gathered += part
        if len(gathered) >= _LEAST:
            yield bytes(gathered)
            gathered.clear()
    yield bytes(gathered)


def _encode(machine_id: str, found: Sequence[columns_pb2.QueriedColumns]) -> Iterator[bytes]:
    yield f'{{"machine_id":{json.dumps(machine_id)},"series":['.encode()
    for number, (series, times, values) in enumerate(columns(found)):
        yield f'{"," if number else ""}{{"sensor":{json.dumps(series.sensor)},"timestamps":['.encode()
        yield from _parts(times, _times)
        yield b'],"values":['
        yield from _parts(values, _numbers)
        yield b"]"
        for name in ("minima", "maxima"):
            column = floats(getattr(series, name))
            yield f',"{name}":{_numbers(column, whole=True) if len(column) else "null"}'.encode()
        yield f',"counts":{json.dumps(list(series.counts)) if series.counts else "null"}}}'.encode()
    yield b"]}"


def _parts(column: Timestamps | Values, text: Callable[[Any], str]) -> Iterator[bytes]:
    for start in range(0, len(column), _PART):
        yield (("," if start else "") + text(column[start : start + _PART])).encode()


def _times(times: Timestamps) -> str:
    """Formats times as ISO 8601 in UTC. Microseconds that are zero are omitted."""
    texts = np.datetime_as_string(times.astype("datetime64[us]"), unit="us").tolist()
    return ",".join(f'"{text.removesuffix(".000000")}Z"' for text in texts)


def _numbers(values: Values, *, whole: bool = False) -> str:
    """Formats numbers as JSON, with null for NaN and infinity. whole: Whether to include the brackets."""
    text = json.dumps([value if math.isfinite(value) else None for value in values.tolist()], separators=(",", ":"))
    return text if whole else text[1:-1]
