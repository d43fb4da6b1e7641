"""The latest reading of a series as a cell in Cassandra, which versions before 4 of the tables wrote.

The write time of a cell is the time of its reading. Of two cells with the same write time, the larger one counts, so
a cell begins with the rank. Big-endian: order of the source u64, its id and a zero byte, sequence u64, time of the
reading i64, value float64.
"""

import struct
from collections.abc import Mapping

from aurum.ingestion.store import Latest

_ORDER = struct.Struct(">Q")
_REST = struct.Struct(">Qqd")


def decode(cell: bytes) -> Latest:
    """Returns the reading in a cell, with its rank."""
    (order,) = _ORDER.unpack_from(cell)
    sequence, at_us, value = _REST.unpack_from(cell, len(cell) - _REST.size)
    source_id = cell[_ORDER.size : -_REST.size - 1].decode()
    return Latest(at_us, value, (order, source_id, sequence))


def latest_of(sensors: Mapping[str, tuple[int, float]] | None, ranked: Mapping[str, bytes] | None) -> dict[str, Latest]:
    """Returns the latest reading by sensor.

    Args:
        sensors: Readings without ranks. An earlier version still writes them, so they may be newer.
        ranked: Encoded readings with ranks.
    """
    latest_by_sensor = {sensor: Latest(at, value) for sensor, (at, value) in (sensors or {}).items()}
    for sensor, cell in (ranked or {}).items():
        latest = decode(cell)
        if sensor not in latest_by_sensor or latest.at_us >= latest_by_sensor[sensor].at_us:
            latest_by_sensor[sensor] = latest
    return latest_by_sensor
