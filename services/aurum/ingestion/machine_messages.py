"""The states of machines as messages aurum.v1.Machine."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain

import numpy as np
import numpy.typing as npt

from aurum.ingestion.machine_table import MachineTable
from aurum.readings.batch import Timestamps, Values
from aurum.v1 import ingestion_pb2

_SERIES_AT_ONCE = 4096
# Tags of the fields of the wire format, see https://protobuf.dev/programming-guides/encoding
_SENSORS = b"\x3a"  # Machine.sensors
_SENSOR, _TIMESTAMP, _VALUE = b"\x0a", 0x10, 0x19  # of SensorState
_SHORT_TIMES = 2**56  # µs, until the year 4253: such times fit into varints of 8 bytes


def message_of(table: MachineTable, machine: int, *, sensors: bool) -> ingestion_pb2.Machine:
    """Returns the state of a machine. `sensors` says whether to include its last readings."""
    message = _without_sensors(table, machine)
    if sensors:
        add = message.sensors.add
        time_of, value_of = table.latest.times.item, table.latest.values.item
        for sensor, series in zip(table.sensors[machine], table.series[machine], strict=True):
            add(sensor=sensor, timestamp_us=time_of(series), value=value_of(series))
    return message


def encode(table: MachineTable, machines: Sequence[int]) -> Iterator[bytes]:
    """Yields the serialized state of each machine, with its last readings.

    The readings of many machines are encoded together. Each state is that of a moment between its request and those
    of the states before it.
    """
    waiting: list[int] = []
    series = 0
    for machine in machines:
        waiting.append(machine)
        series += len(table.series[machine])
        if series >= _SERIES_AT_ONCE:
            yield from _encode_together(table, waiting)
            waiting, series = [], 0
    yield from _encode_together(table, waiting)


def _encode_together(table: MachineTable, machines: Sequence[int]) -> list[bytes]:
    sensors = [*chain.from_iterable([table.sensors[machine] for machine in machines])]
    series = np.frombuffer(b"".join([table.series[machine] for machine in machines]), np.int32)
    readings = _encode_readings(sensors, table.latest.times[series], table.latest.values[series]) if sensors else []
    encoded: list[bytes] = []
    start = 0
    for machine in machines:
        end = start + 2 * len(table.series[machine])
        encoded.append(_without_sensors(table, machine).SerializeToString() + b"".join(readings[start:end]))
        start = end
    return encoded


def _without_sensors(table: MachineTable, machine: int) -> ingestion_pb2.Machine:
    record = table.records[machine]
    return ingestion_pb2.Machine(
        machine_id=record.machine_id,
        machine_type=record.machine_type,
        site=record.site,
        registered_us=record.registered_us,
        first_seen_us=table.first_seen(machine),
        last_seen_us=table.last_seen.item(machine),
        sensor_count=len(table.series[machine]),
    )


def _encode_readings(sensors: Sequence[str], times: Timestamps, values: Values) -> list[bytes]:
    """Returns two parts for each reading, which together are an item of the field `sensors`."""
    rows = _reading_rows(times, values)
    size = rows.shape[1]
    heads: dict[str, bytes] = {}
    for sensor in set(sensors):
        name = sensor.encode()
        field = _SENSOR + _varint(len(name)) + name
        heads[sensor] = _SENSORS + _varint(len(field) + size) + field
    parts = [b""] * (2 * len(sensors))
    parts[::2] = [heads[sensor] for sensor in sensors]
    parts[1::2] = rows.view(f"V{size}").reshape(-1).tolist()
    return parts


def _reading_rows(times: Timestamps, values: Values) -> npt.NDArray[np.uint8]:
    """Returns the encoded fields `timestamp_us` and `value` of each reading, in a row of bytes.

    All varints have the same length, which may be longer than needed; the wire format allows for that.
    """
    width = 8 if int(times.max()) < _SHORT_TIMES else 9
    rows = np.empty((len(times), width + 10), np.uint8)
    rows[:, 0] = _TIMESTAMP
    for place in range(width):
        rows[:, 1 + place] = (times >> 7 * place & 0x7F) | (0x80 if place < width - 1 else 0)
    rows[:, width + 1] = _VALUE
    rows[:, width + 2 :] = values.astype("<f8", copy=False).view(np.uint8).reshape(-1, 8)
    return rows


@lru_cache(maxsize=1024)
def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
