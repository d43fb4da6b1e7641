"""The value changes of an OPC UA notification, as columns.

Servers send thousands of similar changes at once, and the client library creates several objects for each. Runs of
changes with the same layout are therefore read as arrays (OPC 10000-6, 5.2.2.17: DataValue; 10000-4, 7.25.2:
DataChangeNotification). Changes without a scalar number are read by the library.
"""

import math
import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import extensionobject_from_binary, from_binary, nodeid_from_binary

from aurum.readings.batch import EXACT_UP_TO, Timestamps, Values

_VALUE, _STATUS, _SOURCE_TIME, _SERVER_TIME, _SOURCE_FRACTION, _SERVER_FRACTION = (1 << bit for bit in range(6))
_NUMBERS = {1: "u1", 2: "i1", 3: "u1", 4: "<i2", 5: "<u2", 6: "<i4", 7: "<u4", 8: "<i8", 9: "<u8", 10: "<f4", 11: "<f8"}
_BAD = 0xC000_0000  # bits of a status that is bad or uncertain; both count as not good
_EPOCH_US = 11_644_473_600_000_000  # µs from 1601, the epoch of OPC UA, to 1970
_CODES = {
    "u1": "B", "i1": "b", "<i2": "h", "<u2": "H", "<i4": "i", "<u4": "I", "<i8": "q", "<u8": "Q", "<f4": "f",
    "<f8": "d",
}  # fmt: skip
_LONG_BYTES = 8  # of the integers that may need rounding
_MIN_RUN = 4  # changes of one layout that are read as an array; fewer are read one by one
_DATA_CHANGE = ua.NodeId(ua.Int32(ua.ObjectIds.DataChangeNotification_Encoding_DefaultBinary))


class Content(IntEnum):
    """What a value is."""

    NUMBER = 0
    TEXT = 1
    NOTHING = 2
    OTHER = 3  # such as an array, a time or a structure
    ROUNDED = 4  # a number: an integer that has been rounded


_Single = tuple[int, int, float, bool, int, int]  # the columns of one change


@dataclass(frozen=True, slots=True)
class Changes:
    """Value changes. The arrays have the same length.

    Attributes:
        handles: The client handles of the monitored items.
        at_us: Times in µs since the epoch; 0 if there is none.
        values: The values.
        good: Whether the status is good and the value is a number.
        statuses: The status codes; 0 is good.
        contents: What each value is, as numbers of Content.
    """

    handles: npt.NDArray[np.int64]
    at_us: Timestamps
    values: Values
    good: npt.NDArray[np.bool_]
    statuses: npt.NDArray[np.uint32]
    contents: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Layout:
    size: int
    array: np.dtype[Any]
    one: struct.Struct
    names: tuple[str, ...]


def read_publish_response(data: Buffer) -> ua.PublishResponse:
    """Reads a PublishResponse. Its NotificationData has Changes in place of the library's data change notifications.

    Raises:
        UaError, struct.error, ValueError: If the bytes are wrong.
    """
    response = ua.PublishResponse(TypeId=nodeid_from_binary(data), ResponseHeader=from_binary(ua.ResponseHeader, data))
    result = response.Parameters
    result.SubscriptionId = _read_scalar(data, "<I")
    result.AvailableSequenceNumbers = [_read_scalar(data, "<I") for _ in range(_read_scalar(data, "<i"))]
    result.MoreNotifications = bool(_read_scalar(data, "<B"))
    message = result.NotificationMessage
    message.SequenceNumber = _read_scalar(data, "<I")
    message.PublishTime = from_binary(ua.DateTime, data)
    notifications: list[Any] = []
    for _ in range(_read_scalar(data, "<i")):
        start = data.copy()
        if nodeid_from_binary(data) == _DATA_CHANGE and _read_scalar(data, "<B") == 1:
            notifications.append(read_changes(data.read(_read_scalar(data, "<i"))))
        else:
            data = start
            notifications.append(extensionobject_from_binary(data))
    message.NotificationData = notifications
    return response


def read_changes(body: bytes) -> Changes:
    """Reads the body of a DataChangeNotification.

    Raises:
        UaError, struct.error, ValueError: If the bytes are wrong.
    """
    (count,) = struct.unpack_from("<i", body)
    parts: list[Changes] = []
    singles: list[_Single] = []
    offset, left = 4, max(0, count)
    while left:
        layout = _layout_at(body, offset)
        if layout is None:
            single, offset = _read_by_library(body, offset)
            singles.append(single)
            left -= 1
        elif left >= _MIN_RUN and all(
            _layout_at(body, offset + index * layout.size) is layout for index in range(1, _MIN_RUN)
        ):
            parts += _take_singles(singles)
            rows = np.frombuffer(body, layout.array, min(left, (len(body) - offset) // layout.size), offset)
            same = (rows["mask"] == rows["mask"][0]) & (rows["type"] == rows["type"][0])
            run = len(rows) if same.all() else int(np.argmin(same))
            parts.append(_changes_from_rows(rows[:run]))
            offset += run * layout.size
            left -= run
        else:
            row = dict(zip(layout.names, layout.one.unpack_from(body, offset), strict=True))
            singles.append(_single_from_row(row))
            offset += layout.size
            left -= 1
    parts += _take_singles(singles)
    if len(parts) == 1:
        return parts[0]
    return Changes(*(np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS) if parts else _EMPTY)


def changes_from_notification(notification: ua.DataChangeNotification) -> Changes:
    """Converts a notification that the library has read."""
    return _changes_from_singles([_single_from_item(item) for item in notification.MonitoredItems or []])


_COLUMNS = ("handles", "at_us", "values", "good", "statuses", "contents")
_EMPTY = (
    *(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)),
    *(np.empty(0, bool), np.empty(0, np.uint32), np.empty(0, np.uint8)),
)


def _read_scalar(data: Buffer, code: str) -> Any:
    return struct.unpack(code, data.read(struct.calcsize(code)))[0]


def _layout_at(body: bytes, offset: int) -> _Layout | None:
    """Returns the layout of the change at `offset`. None if its value is not a number, or the body ends."""
    if offset + 6 > len(body):
        return None
    return _layout(body[offset + 4], body[offset + 5])


@lru_cache(maxsize=1024)
def _layout(mask: int, variant: int) -> _Layout | None:
    if not mask & _VALUE or variant not in _NUMBERS or mask >= 1 << 6:
        return None
    fields = [("handle", "<u4"), ("mask", "u1"), ("type", "u1"), ("value", _NUMBERS[variant])]
    for bit, name, kind in (
        (_STATUS, "status", "<u4"),
        (_SOURCE_TIME, "source_time", "<i8"),
        (_SOURCE_FRACTION, "source_fraction", "<u2"),
        (_SERVER_TIME, "server_time", "<i8"),
        (_SERVER_FRACTION, "server_fraction", "<u2"),
    ):
        if mask & bit:
            fields.append((name, kind))
    array = np.dtype(fields)
    one = struct.Struct("<" + "".join(_CODES[kind] for _, kind in fields))
    return _Layout(array.itemsize, array, one, tuple(name for name, _ in fields))


def _changes_from_rows(rows: npt.NDArray[Any]) -> Changes:
    names = rows.dtype.names or ()
    nothing = np.zeros(len(rows), np.int64)
    source, server = (rows[name] if name in names else nothing for name in ("source_time", "server_time"))
    ticks = np.where(source != 0, source, server)
    return Changes(
        rows["handle"].astype(np.int64),
        np.where(ticks != 0, ticks // 10 - _EPOCH_US, 0),
        rows["value"].astype(np.float64),
        (rows["status"] & _BAD) == 0 if "status" in names else np.ones(len(rows), bool),
        rows["status"] if "status" in names else np.zeros(len(rows), np.uint32),
        _contents_of_rows(rows["value"]),
    )


def _contents_of_rows(numbers: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    contents = np.zeros(len(numbers), np.uint8)
    if numbers.dtype.kind in "iu" and numbers.dtype.itemsize == _LONG_BYTES:
        large = np.flatnonzero((numbers > EXACT_UP_TO) | (numbers < -EXACT_UP_TO))
        contents[large] = [_content_of_number(number) for number in numbers[large].tolist()]
    return contents


def _content_of_number(number: float) -> Content:
    return Content.ROUNDED if isinstance(number, int) and int(float(number)) != number else Content.NUMBER


def _single_from_row(row: dict[str, Any]) -> _Single:
    ticks = row.get("source_time") or row.get("server_time", 0)
    at_us = ticks // 10 - _EPOCH_US if ticks else 0
    status = row.get("status", 0)
    value = row["value"]
    return row["handle"], at_us, float(value), not status & _BAD, status, _content_of_number(value)


def _read_by_library(body: bytes, offset: int) -> tuple[_Single, int]:
    data = Buffer(body, offset)
    item = from_binary(ua.MonitoredItemNotification, data)
    return _single_from_item(item), len(body) - len(data)


def _single_from_item(item: ua.MonitoredItemNotification) -> _Single:
    data = item.Value
    value = data.Value.Value if data.Value is not None else None
    status = 0 if data.StatusCode is None else int(data.StatusCode.value)
    good = not status & _BAD
    content = _content_of(value)
    at_us = _microseconds(data.SourceTimestamp or data.ServerTimestamp)
    if content is not Content.NUMBER or value is None:
        return item.ClientHandle, at_us, math.nan, False, status, content
    return item.ClientHandle, at_us, float(value), good, status, _content_of_number(value)


def _content_of(value: Any) -> Content:
    if isinstance(value, (int, float)):
        return Content.NUMBER
    if value is None:
        return Content.NOTHING
    is_text = isinstance(value, (str, ua.LocalizedText, ua.QualifiedName, ua.XmlElement, uuid.UUID))
    return Content.TEXT if is_text else Content.OTHER


def _microseconds(moment: datetime | None) -> int:
    if moment is None:
        return 0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _take_singles(singles: list[_Single]) -> list[Changes]:
    """Converts single changes to columns, and clears the list."""
    changes = [_changes_from_singles(singles)] if singles else []
    singles.clear()
    return changes


def _changes_from_singles(singles: Sequence[_Single]) -> Changes:
    if not singles:
        return Changes(*_EMPTY)
    handles, times, values, good, statuses, contents = zip(*singles, strict=True)
    return Changes(
        np.array(handles, np.int64),
        np.array(times, np.int64),
        np.array(values, float),
        np.array(good, bool),
        np.array(statuses, np.uint32),
        np.array(contents, np.uint8),
    )
