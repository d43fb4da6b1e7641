"""Columnar batches of readings, and the rules that a batch must obey to be stored."""

import itertools
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from aurum.runtime.errors import AurumError, InvalidArgumentError
from aurum.runtime.grpc.wire import has_more_fields
from aurum.v1 import columns_pb2, ingestion_pb2

Timestamps = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
Column = tuple[Timestamps, Values]  # one sensor's readings, in time order

MAX_AHEAD_US = 5 * 60 * 1_000_000  # tolerance for fast clocks; later readings are refused
AHEAD_OF_CLOCK = "AHEAD_OF_CLOCK"  # reason for refusing such a batch; it may be accepted later
SEQUENCE_CLOSED = "SEQUENCE_CLOSED"  # reason for refusing a sequence in a closed gap
MAX_READINGS = 200_000  # per batch
MAX_SERIES = 20_000  # per batch
MAX_SEQUENCE = 2**62  # per source
SINGLE_BATCH_PREFIX = "key/"  # of source ids that send one batch, such as those of requests with an Idempotency-Key
_MAX_REQUEST_BYTES = 8_000_000  # more than a batch of MAX_READINGS and MAX_SERIES with the longest names has
_MAX_UNCOUNTED = 1_000_000  # bytes of a message up to which it is parsed before its fields are counted
# Bytes of numbers that do not follow each other in a block, each of which takes 9, and of fields that are unknown here
_MAX_SINGLE_BYTES = 2 * 9 * MAX_READINGS + 100_000
_MAX_OTHER_FIELDS = 100  # fields of a batch besides its series, which has 3
_MAX_TRACEPARENT = 100
_MAX_REPORTED = 200  # characters of an invalid source id that are reported
MAX_OWNER = 500  # characters of the name of a source's owner

_MACHINE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:\-]{0,127}")
_SENSOR = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/%\- ]{0,63}")
_SOURCE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/\-]{0,199}")


class Series(NamedTuple):
    """Readings of one sensor of one machine.

    Attributes:
        machine_id: The machine.
        sensor: The sensor.
        timestamps: Times in µs since the epoch; at least one.
        values: As many values.
        increasing: Whether the times are known to increase, so that they need not be checked again.
    """

    machine_id: str
    sensor: str
    timestamps: Timestamps
    values: Values
    increasing: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """The readings that a source sends together. `(source_id, sequence)` identifies a batch.

    Attributes:
        source_id: The source.
        sequence: The number of the batch within its source, from 1.
        series: The readings by series.
        readings: The total number of readings.
        data: The serialized message aurum.v1.Batch.
        owner: The identity that uses the source; empty if unknown.
    """

    source_id: str
    sequence: int
    series: tuple[Series, ...]
    readings: int
    data: bytes
    owner: str = ""

    @classmethod
    def from_series(cls, source_id: str, sequence: int, series: Sequence[Series]) -> "Batch":
        """Creates a batch without an owner from series."""
        data = _columns_message(source_id, sequence, series).SerializeToString()
        return cls(source_id, sequence, tuple(series), sum(len(each.values) for each in series), data)

    def with_owner(self, owner: str) -> "Batch":
        """Returns the same batch with another owner."""
        if owner == self.owner:
            return self
        # Protobuf fields may come in any order, so a first owner is appended without decoding the columns. A second
        # owner would force the slow path of _parse_columns. A message that already has an owner is therefore written
        # again from its series, because its own columns may be in several pieces
        data = self.data
        if self.owner:
            data = _columns_message(self.source_id, self.sequence, self.series).SerializeToString()
        data += columns_pb2.BatchColumns(owner=owner).SerializeToString()
        return replace(self, data=data, owner=owner)

    @property
    def nbytes(self) -> int:
        """The approximate size in memory, including the message."""
        return 16 * self.readings + 300 * len(self.series) + len(self.data)


def now_us() -> int:
    """Returns the time in µs since the epoch."""
    return time.time_ns() // 1000


@lru_cache(maxsize=65_536)
def machine_id_problem(machine_id: str) -> str | None:
    """Returns what is wrong with a machine id, or None."""
    if _MACHINE_ID.fullmatch(machine_id):
        return None
    allowed = "1 to 128 letters, digits and . _ : -, with a letter or digit first"
    return f"{machine_id[:140]!r} is not a machine id; use {allowed}"


@lru_cache(maxsize=65_536)
def sensor_problem(sensor: str) -> str | None:
    """Returns what is wrong with a sensor name, or None."""
    if _SENSOR.fullmatch(sensor):
        return None
    return f"{sensor[:80]!r} is not a sensor name; use 1 to 64 letters, digits, spaces and . _ : / % -"


def source_id_problem(source_id: str) -> str | None:
    """Returns what is wrong with a source id, or None."""
    if _SOURCE_ID.fullmatch(source_id):
        return None
    allowed = "1 to 200 letters, digits and . _ : / -, with a letter or digit first"
    return f"{source_id[:220]!r} is not a source id; use {allowed}"


def parse_request(data: bytes) -> columns_pb2.BatchRequest:
    """Parses an IngestRequest or WriteRequest, and leaves its batch serialized. Raises InvalidArgumentError."""
    if len(data) > _MAX_REQUEST_BYTES:
        raise InvalidArgumentError.for_field(
            "batch", f"has {len(data)} bytes; at most {_MAX_REQUEST_BYTES} are allowed"
        )
    try:
        request = columns_pb2.BatchRequest.FromString(data)
        if request.ByteSize() != len(data):  # protobuf merges repeated occurrences of a field; BatchRequest does not
            if len(data) > _MAX_UNCOUNTED:
                raise InvalidArgumentError.for_field(
                    "batch", f"is given twice, which is allowed up to {_MAX_UNCOUNTED} bytes"
                )
            whole = ingestion_pb2.IngestRequest.FromString(data)
            request = columns_pb2.BatchRequest(
                batch=whole.batch.SerializeToString(), traceparent=whole.traceparent[:_MAX_TRACEPARENT]
            )
    except DecodeError as error:
        raise InvalidArgumentError.for_field("request", "is not a message of this method") from error
    return request


def decode(data: bytes, now: int | None = None, field: str = "batch") -> Batch:
    """Decodes and checks a message aurum.v1.Batch.

    Args:
        data: The serialized message.
        now: The time in µs since the epoch; by default the clock's.
        field: The name of the message within the request, for errors.

    Raises:
        InvalidArgumentError: Names the first field that breaks a rule, and the batch.
    """
    message = _parse_columns(data, field)
    try:
        return _validate(message, data, now_us() if now is None else now, field)
    except AurumError as error:
        error.metadata |= {"source_id": message.source_id[:_MAX_REPORTED], "sequence": str(message.sequence)}
        raise


def _validate(message: columns_pb2.BatchColumns, data: bytes, now: int, field: str) -> Batch:
    _check_header(message, field)
    keys, timestamps, values, ends = _join_columns(message.series, field)
    increasing = _check_columns(keys, timestamps, values, ends, now, field)
    series: list[Series] = []
    start = 0
    for (machine_id, sensor), end, rises in zip(keys, ends, increasing.tolist(), strict=True):
        series.append(Series(machine_id, sensor, timestamps[start:end], values[start:end], rises))
        start = end
    return Batch(message.source_id, message.sequence, tuple(series), start, data, message.owner)


def _check_header(message: columns_pb2.BatchColumns, field: str) -> None:
    """Checks the fields of a batch other than its readings. Raises InvalidArgumentError."""
    if problem := source_id_problem(message.source_id):
        raise InvalidArgumentError.for_field(f"{field}.source_id", problem)
    if not 1 <= message.sequence <= MAX_SEQUENCE:
        raise InvalidArgumentError.for_field(f"{field}.sequence", f"must be at least 1 and at most {MAX_SEQUENCE}")
    if len(message.owner) > MAX_OWNER:
        raise InvalidArgumentError.for_field(f"{field}.owner", f"must have at most {MAX_OWNER} characters")
    count = len(message.series)
    if not 1 <= count <= MAX_SERIES:
        raise InvalidArgumentError.for_field(f"{field}.series", f"has {count} series; 1 to {MAX_SERIES} are allowed")


def _join_columns(
    series: Sequence[columns_pb2.SeriesColumns], field: str
) -> tuple[list[tuple[str, str]], Timestamps, Values, list[int]]:
    """Checks the names and lengths of series, and joins their columns.

    Returns:
        The machine and sensor of each series, the times and the values of all series one after the other, and the end
        index of each series in them.

    Raises:
        InvalidArgumentError: Names the first invalid series.
    """
    keys: dict[tuple[str, str], None] = {}
    lengths: list[int] = []
    columns: tuple[list[bytes], list[bytes]] = ([], [])
    for index, column in enumerate(series):
        key = machine_id, sensor = column.machine_id, column.sensor
        if problem := machine_id_problem(machine_id):
            raise InvalidArgumentError.for_field(f"{field}.series[{index}].machine_id", problem)
        if problem := sensor_problem(sensor):
            raise InvalidArgumentError.for_field(f"{field}.series[{index}].sensor", problem)
        if key in keys:
            raise InvalidArgumentError.for_field(
                f"{field}.series[{index}]", f"machine {machine_id}, sensor {sensor} is in this batch twice"
            )
        keys[key] = None
        timestamps, values = column.timestamps_us, column.values
        length = len(values)
        if len(timestamps) != length or not length or length % 8:
            raise InvalidArgumentError.for_field(
                f"{field}.series[{index}].values",
                f"has {length // 8} values for {len(timestamps) // 8} timestamps; must be as many, at least 1",
            )
        lengths.append(length // 8)
        columns[0].append(timestamps)
        columns[1].append(values)
    all_timestamps = np.frombuffer(b"".join(columns[0]), "<i8")
    all_values = np.frombuffer(b"".join(columns[1]), "<f8")
    return list(keys), all_timestamps, all_values, list(itertools.accumulate(lengths))


def encode(source_id: str, sequence: int, series: Sequence[Series]) -> ingestion_pb2.Batch:
    """Encodes a batch as a message."""
    return ingestion_pb2.Batch.FromString(_columns_message(source_id, sequence, series).SerializeToString())


def encode_series(series: Sequence[Series]) -> bytes:
    """Returns the serialized field `series` of a message aurum.v1.Batch, to which its other fields can be appended."""
    return _columns_message("", 0, series).SerializeToString()


def _columns_message(source_id: str, sequence: int, series: Sequence[Series]) -> columns_pb2.BatchColumns:
    return columns_pb2.BatchColumns(
        source_id=source_id,
        sequence=sequence,
        series=[
            columns_pb2.SeriesColumns(
                machine_id=each.machine_id,
                sensor=each.sensor,
                timestamps_us=each.timestamps.astype("<i8", copy=False).tobytes(),
                values=each.values.astype("<f8", copy=False).tobytes(),
            )
            for each in series
        ],
    )


def _parse_columns(data: bytes, field: str) -> columns_pb2.BatchColumns:
    if len(data) > _MAX_UNCOUNTED and has_more_fields(data, MAX_SERIES + _MAX_OTHER_FIELDS):
        raise InvalidArgumentError.for_field(
            f"{field}.series", f"has more than the {MAX_SERIES} series that are allowed"
        )
    try:
        message = columns_pb2.BatchColumns.FromString(data)
        message.DiscardUnknownFields()
        if message.ByteSize() == len(data):
            return message
        # Protobuf allows a column in several pieces, or number by number. This is rare, so it may be slow
        left_over = len(data) - message.ByteSize()
        del message  # the traceback of an error would keep it
        if left_over > _MAX_SINGLE_BYTES:
            raise InvalidArgumentError.for_field(
                f"{field}.series",
                f"has {left_over} bytes of single numbers and unknown fields; at most {_MAX_SINGLE_BYTES} are allowed, "
                f"enough for the {MAX_READINGS} readings of a batch",
            )
        whole = ingestion_pb2.Batch.FromString(data)
    except DecodeError as error:
        raise InvalidArgumentError.for_field(field, "is not a message aurum.v1.Batch") from error
    readings = max(
        sum(len(each.timestamps_us) for each in whole.series), sum(len(each.values) for each in whole.series)
    )
    if readings > MAX_READINGS:
        raise _too_many_readings(field, readings)
    series = [
        Series(each.machine_id, each.sensor, np.array(each.timestamps_us, np.int64), np.array(each.values, np.float64))
        for each in whole.series
    ]
    message = _columns_message(whole.source_id, whole.sequence, series)
    message.owner = whole.owner
    return message


def _too_many_readings(field: str, readings: int) -> InvalidArgumentError:
    return InvalidArgumentError.for_field(
        f"{field}.series", f"has {readings} readings; at most {MAX_READINGS} are allowed"
    )


def _check_columns(  # noqa: PLR0917
    keys: Sequence[tuple[str, str]], timestamps: Timestamps, values: Values, ends: list[int], now: int, field: str
) -> npt.NDArray[np.bool_]:
    """Checks all columns at once, which is fast for many short ones.

    Args:
        keys: The machine and the sensor of each column.
        timestamps: The times of all columns, one after the other.
        values: The values of all columns, likewise.
        ends: The end index of each column in `timestamps` and `values`.
        now: The time in µs since the epoch.
        field: The name of the batch within the request.

    Returns:
        For each column, whether its times increase.

    Raises:
        InvalidArgumentError: Names the first wrong reading or column.
    """
    readings = len(values)
    if readings > MAX_READINGS:
        raise _too_many_readings(field, readings)
    starts = np.array([0, *ends[:-1]])

    def refuse(position: Any, column: str, describe: Any) -> InvalidArgumentError:
        index = int(np.searchsorted(starts, position, side="right")) - 1
        row = int(position) - int(starts[index])
        return InvalidArgumentError.for_field(f"{field}.series[{index}].{column}[{row}]", describe(int(position)))

    if timestamps.max() > now + MAX_AHEAD_US:
        error = refuse(
            timestamps.argmax(),
            "timestamps_us",
            lambda at: f"is {(int(timestamps[at]) - now) / 1e6:.0f} s in the future; at most 300 s are allowed",
        )
        error.reason = AHEAD_OF_CLOCK
        raise error
    if timestamps.min() < 0:
        raise refuse(timestamps.argmin(), "timestamps_us", lambda at: f"{timestamps[at]} is before 1970")
    if not np.isfinite(values).all():
        infinite = np.isinf(values)
        if infinite.any():
            raise refuse(infinite.argmax(), "values", lambda at: "is infinite")
        present = np.logical_or.reduceat(~np.isnan(values), starts)
        if not present.all():
            index = int((~present).argmax())
            raise InvalidArgumentError.for_field(
                f"{field}.series[{index}].values",
                f"machine {keys[index][0]}, sensor {keys[index][1]} has no value other than NaN",
            )
    rises = np.empty(readings, dtype=np.bool_)
    rises[0] = True
    np.greater(timestamps[1:], timestamps[:-1], out=rises[1:])
    rises[starts] = True
    return np.logical_and.reduceat(rises, starts)
