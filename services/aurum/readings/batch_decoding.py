"""Decodes serialized batches, and checks the rules that a batch must obey to be stored."""

import contextlib
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from aurum.readings.batch import (
    AHEAD_OF_CLOCK,
    MAX_AHEAD_US,
    MAX_OWNER,
    MAX_READINGS,
    MAX_SEQUENCE,
    MAX_SERIES,
    Batch,
    Numbers,
    Series,
    SeriesKey,
    SeriesKeys,
    Timestamps,
    Values,
    columns_message,
    machine_id_problem,
    now_us,
    sensor_problem,
    source_id_problem,
)
from aurum.readings.batch_layouts import BatchLayouts, read_head
from aurum.readings.series_numbers import SeriesNumbers
from aurum.runtime.errors import AurumError, InvalidArgumentError
from aurum.runtime.grpc.wire import has_more_fields
from aurum.v1 import columns_pb2, ingestion_pb2

_MAX_REQUEST_BYTES = 8_000_000  # more than a batch of MAX_READINGS and MAX_SERIES with the longest names has
_MAX_UNCOUNTED = 1_000_000  # bytes of a message up to which it is parsed before its fields are counted
# Bytes of numbers that do not follow each other in a block, each of which takes 9, and of fields that are unknown here
_MAX_SINGLE_BYTES = 2 * 9 * MAX_READINGS + 100_000
_MAX_OTHER_FIELDS = 100  # fields of a batch besides its series, which has 4
_MAX_TRACEPARENT = 100
_MAX_REPORTED = 200  # characters of an invalid source id that are reported
_LAYOUTS = BatchLayouts()


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


def decode(data: bytes, now: int | None = None, field: str = "batch", numbers: SeriesNumbers | None = None) -> Batch:
    """Decodes and checks a message aurum.v1.Batch.

    Args:
        data: The serialized message.
        now: The time in µs since the epoch; by default the clock's.
        field: The name of the message within the request, for errors.
        numbers: The numbers that earlier batches of the stream have defined. The batch's own are added.

    Raises:
        InvalidArgumentError: Names the first field that breaks a rule, and the batch.
    """
    now = now_us() if now is None else now
    numbers = SeriesNumbers() if numbers is None else numbers
    head = read_head(data)
    if head is not None and (matched := _LAYOUTS.match(data, head.start)) is not None:
        with _named(head.source_id, head.sequence):
            _check_header(head.source_id, head.sequence, matched.owner, field)
            ones = np.ones(len(matched.keys), np.int32)
            increasing = _check_columns(matched.keys.keys, matched.timestamps, matched.values, ones, now, field)
            return Batch(
                head.source_id,
                head.sequence,
                matched.keys,
                ones,
                matched.timestamps,
                matched.values,
                increasing,
                data,
                matched.owner,
            )
    message = _parse_columns(data, field)
    with _named(message.source_id, message.sequence):
        _check_header(message.source_id, message.sequence, message.owner, field)
        if message.HasField("columns"):
            return _from_numbered(message, data, now, field, numbers)
        batch = _from_series(message, data, now, field)
    if head is not None and batch.readings == len(batch.keys):
        _LAYOUTS.learn(data, head.start, batch.keys)
    return batch


@contextlib.contextmanager
def _named(source_id: str, sequence: int) -> Generator[None]:
    """Adds the identity of a batch to the errors of the block."""
    try:
        yield
    except AurumError as error:
        error.metadata |= {"source_id": source_id[:_MAX_REPORTED], "sequence": str(sequence)}
        raise


def _from_series(message: columns_pb2.BatchColumns, data: bytes, now: int, field: str) -> Batch:
    """Returns the batch of a message that has its readings by series."""
    count = len(message.series)
    if not 1 <= count <= MAX_SERIES:
        raise InvalidArgumentError.for_field(f"{field}.series", f"has {count} series; 1 to {MAX_SERIES} are allowed")
    keys, timestamps, values, lengths = _join_columns(message.series, field)
    increasing = _check_columns(keys, timestamps, values, lengths, now, field)
    return Batch(
        message.source_id,
        message.sequence,
        SeriesKeys(keys),
        lengths,
        timestamps,
        values,
        increasing,
        data,
        message.owner,
    )


def _from_numbered(
    message: columns_pb2.BatchColumns, data: bytes, now: int, field: str, numbers: SeriesNumbers
) -> Batch:
    """Returns the batch of a message that has its readings in columns, with numbers for series."""
    if message.series:
        raise InvalidArgumentError.for_field(f"{field}.columns", "must not be given together with series")
    block = message.columns
    field = f"{field}.columns"
    count = len(block.values) // 8
    if len(block.values) % 8 or not 1 <= count <= MAX_READINGS:
        raise InvalidArgumentError.for_field(f"{field}.values", f"has {count} values; 1 to {MAX_READINGS} are allowed")
    if len(block.numbers) != 4 * count:
        raise InvalidArgumentError.for_field(
            f"{field}.numbers", f"has {len(block.numbers) // 4} numbers for {count} values; must be as many"
        )
    if len(block.timestamps_us) not in {8, 8 * count}:
        raise InvalidArgumentError.for_field(
            f"{field}.timestamps_us",
            f"has {len(block.timestamps_us) // 8} times for {count} values; must be as many, or one for all",
        )
    timestamps = np.frombuffer(block.timestamps_us, "<i8")
    if len(timestamps) < count:
        timestamps = np.repeat(timestamps, count)
    values = np.frombuffer(block.values, "<f8")
    rows = numbers.resolve(message.source_id, block.defined, block.numbers, field)
    if rows.order is not None:
        timestamps, values = timestamps[rows.order], values[rows.order]
    order = range(count) if rows.order is None else rows.order
    increasing = _check_columns(rows.keys.keys, timestamps, values, rows.lengths, now, field, order)
    if not rows.complete:
        data = _with_definitions(message, rows.definitions)
    return Batch(
        message.source_id,
        message.sequence,
        rows.keys,
        rows.lengths,
        timestamps,
        values,
        increasing,
        data,
        message.owner,
    )


def _with_definitions(message: columns_pb2.BatchColumns, definitions: bytes) -> bytes:
    """Returns a numbered batch as a message that defines all of its numbers, so that it is understood by itself."""
    whole = columns_pb2.BatchColumns(source_id=message.source_id, sequence=message.sequence, owner=message.owner)
    whole.columns.defined = definitions
    whole.columns.numbers = message.columns.numbers
    whole.columns.timestamps_us = message.columns.timestamps_us
    whole.columns.values = message.columns.values
    return whole.SerializeToString()


def _check_header(source_id: str, sequence: int, owner: str, field: str) -> None:
    """Checks the fields of a batch other than its readings. Raises InvalidArgumentError."""
    if problem := source_id_problem(source_id):
        raise InvalidArgumentError.for_field(f"{field}.source_id", problem)
    if not 1 <= sequence <= MAX_SEQUENCE:
        raise InvalidArgumentError.for_field(f"{field}.sequence", f"must be at least 1 and at most {MAX_SEQUENCE}")
    if len(owner) > MAX_OWNER:
        raise InvalidArgumentError.for_field(f"{field}.owner", f"must have at most {MAX_OWNER} characters")


def _join_columns(
    series: Sequence[columns_pb2.SeriesColumns], field: str
) -> tuple[list[SeriesKey], Timestamps, Values, Numbers]:
    """Checks the names and lengths of series, and joins their columns.

    Returns:
        The machine and sensor of each series, the times and the values of all series one after the other, and the
        number of readings of each series.

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
    return list(keys), all_timestamps, all_values, np.array(lengths, np.int32)


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
        sum(len(each.timestamps_us) for each in whole.series),
        sum(len(each.values) for each in whole.series),
        len(whole.columns.values),
    )
    if readings > MAX_READINGS:
        raise _too_many_readings(field, readings)
    series = [
        Series(each.machine_id, each.sensor, np.array(each.timestamps_us, np.int64), np.array(each.values, np.float64))
        for each in whole.series
    ]
    message = columns_message(whole.source_id, whole.sequence, series)
    message.owner = whole.owner
    if whole.HasField("columns"):
        message.columns.MergeFromString(whole.columns.SerializeToString())
    return message


def _too_many_readings(field: str, readings: int) -> InvalidArgumentError:
    return InvalidArgumentError.for_field(
        f"{field}.series", f"has {readings} readings; at most {MAX_READINGS} are allowed"
    )


def _check_columns(  # noqa: PLR0917
    keys: Sequence[SeriesKey],
    timestamps: Timestamps,
    values: Values,
    lengths: Numbers,
    now: int,
    field: str,
    order: npt.NDArray[np.intp] | range | None = None,
) -> npt.NDArray[np.bool_]:
    """Checks all columns at once, which is fast for many short ones.

    Args:
        keys: The machine and the sensor of each column.
        timestamps: The times of all columns, one after the other.
        values: The values of all columns, likewise.
        lengths: The number of readings of each column.
        now: The time in µs since the epoch.
        field: The name of the batch, or of its columns, within the request.
        order: The place of each reading among the rows of the request; None if the request has series.

    Returns:
        For each column, whether its times increase.

    Raises:
        InvalidArgumentError: Names the first wrong reading or column.
    """
    readings = len(values)
    if readings > MAX_READINGS:
        raise _too_many_readings(field, readings)
    single = readings == len(keys)
    starts = np.arange(readings) if single else np.cumsum(lengths) - lengths

    def refuse(position: Any, column: str, describe: Any) -> InvalidArgumentError:
        return InvalidArgumentError.for_field(
            _path(field, column, int(position), starts, order), describe(int(position))
        )

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
                f"{field}.series[{index}].values" if order is None else f"{field}.values",
                f"machine {keys[index][0]}, sensor {keys[index][1]} has no value other than NaN",
            )
    if single:
        return np.ones(readings, np.bool_)
    rises = np.empty(readings, dtype=np.bool_)
    rises[0] = True
    np.greater(timestamps[1:], timestamps[:-1], out=rises[1:])
    rises[starts] = True
    return np.logical_and.reduceat(rises, starts)


def _path(
    field: str, column: str, position: int, starts: npt.NDArray[Any], order: npt.NDArray[np.intp] | range | None
) -> str:
    """Returns the path of a reading within the request."""
    if order is not None:
        return f"{field}.{column}[{int(order[position])}]"
    index = int(np.searchsorted(starts, position, side="right")) - 1
    return f"{field}.series[{index}].{column}[{position - int(starts[index])}]"
