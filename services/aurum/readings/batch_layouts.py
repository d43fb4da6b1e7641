"""Layouts of serialized batches that repeat, so that most batches are decoded without parsing each series.

A plant's sender names the same series in the same order in batch after batch, with one reading for each. Such batches
differ only in their sequence, times and values, which are at the same places. A layout is the rest of the bytes. A
batch with the bytes of a layout has its series, which were checked when the layout was made.
"""

import collections
import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aurum.readings.batch import SeriesKeys, Timestamps, Values

_LEAST_SERIES = 16  # with fewer, parsing is as fast
_MAX_BYTES = 32_000_000  # of all layouts
_MAX_SEEN = 4096  # fingerprints of batches that were seen once
_SERIES_TAG = b"\x1a"  # field 3, length-delimited
_KEY_BYTES = 200  # of the first series, by which layouts are looked up
_MAX_ALIKE = 4  # layouts with the same first series
_SOURCE_TAG, _OWNER_TAG, _SEQUENCE_TAG = 0x0A, 0x22, b"\x10"  # fields 1, 4 and 2
_MAX_ONE_BYTE = 0x7F  # of a number that takes one byte
_BYTES_PER_SERIES = 250  # of the names and numbers that a layout holds, approximately


@dataclass(frozen=True, slots=True)
class _Layout:
    """The bytes of the field `series` of a batch with zeros for times and values.

    Attributes:
        template: The bytes.
        times: The offset of each time.
        values: The offset of each value.
        keys: The series.
    """

    template: bytes
    times: npt.NDArray[np.intp]
    values: npt.NDArray[np.intp]
    keys: SeriesKeys

    @property
    def nbytes(self) -> int:
        return len(self.template) + _BYTES_PER_SERIES * len(self.keys)


@dataclass(frozen=True, slots=True)
class MatchedBatch:
    """A batch that has a known layout: one reading for each of its series, and its owner."""

    keys: SeriesKeys
    timestamps: Timestamps
    values: Values
    owner: str


class BatchLayouts:
    """The layouts of recent batches, by the names of their first series. May be used by several threads."""

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._layouts: collections.OrderedDict[bytes, tuple[_Layout, ...]] = collections.OrderedDict()
        self._seen: collections.OrderedDict[tuple[bytes, int], None] = collections.OrderedDict()
        self.nbytes = 0

    def match(self, data: bytes, start: int) -> MatchedBatch | None:
        """Returns the content of a serialized batch whose series begin at `start`; None if its layout is unknown."""
        names = _first_names(data, start)
        with self._lock:
            layouts = self._layouts.get(names)
            if layouts is None:
                return None
            self._layouts.move_to_end(names)
        for layout in layouts:
            end = start + len(layout.template)
            owner = _owner_at(data, end)
            if owner is None:
                continue
            content = bytearray(data[start:end])
            numbers: npt.NDArray[np.int64] = np.ndarray((len(content) - 7,), "<i8", content, strides=(1,))
            timestamps, values = numbers[layout.times], numbers[layout.values].view("<f8")
            numbers[layout.times] = 0
            numbers[layout.values] = 0
            if content == layout.template:
                return MatchedBatch(layout.keys, timestamps, values, owner)
        return None

    def learn(self, data: bytes, start: int, keys: SeriesKeys) -> None:
        """Remembers the layout of a valid batch with one reading for each series when it is seen for the second time.

        A batch that is not in the form in which protobuf writes it never matches its layout.

        Args:
            data: The serialized batch.
            start: The offset of its first series.
            keys: Its series.
        """
        if len(keys) < _LEAST_SERIES:
            return
        names = _first_names(data, start)
        with self._lock:
            if (names, len(data)) not in self._seen:
                self._seen[names, len(data)] = None
                if len(self._seen) > _MAX_SEEN:
                    self._seen.popitem(last=False)
                return
        layout = _layout_of(keys)
        with self._lock:
            others = [each for each in self._layouts.pop(names, ()) if len(each.template) != len(layout.template)]
            self._layouts[names] = (layout, *others[: _MAX_ALIKE - 1])
            self.nbytes = sum(each.nbytes for layouts in self._layouts.values() for each in layouts)
            while self.nbytes > self._max_bytes:
                self.nbytes -= sum(each.nbytes for each in self._layouts.popitem(last=False)[1])


@dataclass(frozen=True, slots=True)
class BatchHead:
    """The fields of a serialized batch before its series, and where its series begin."""

    source_id: str
    sequence: int
    start: int


def read_head(data: bytes) -> BatchHead | None:
    """Returns the head of a batch whose fields are in the order of their numbers; None for any other order."""
    if len(data) < 4 or data[0] != _SOURCE_TAG or data[1] > _MAX_ONE_BYTE:
        return None
    at = 2 + data[1]
    try:
        source_id = data[2:at].decode()
    except UnicodeDecodeError:
        return None
    if data[at : at + 1] != _SEQUENCE_TAG:
        return None
    sequence = _read_varint(data, at + 1)
    if sequence is None or data[sequence[1] : sequence[1] + 1] != _SERIES_TAG:
        return None
    return BatchHead(source_id, *sequence)


def first_series_bytes(data: bytes, head: BatchHead) -> int:
    """Returns the length of the first series of a batch, names included; 0 if it is truncated."""
    length = _read_varint(data, head.start + 1)
    return length[0] if length else 0


def _owner_at(data: bytes, at: int) -> str | None:
    """Returns the owner if it is the rest of a batch; empty if nothing is left; None for any other rest."""
    if at == len(data):
        return ""
    if at > len(data) or data[at] != _OWNER_TAG:
        return None
    length = _read_varint(data, at + 1)
    if length is None or length[1] + length[0] != len(data):
        return None
    try:
        return data[length[1] :].decode()
    except UnicodeDecodeError:
        return None


def _read_varint(data: bytes, at: int) -> tuple[int, int] | None:
    """Returns the number at an offset and the offset of its end; None if it is truncated or has more than 63 bits."""
    number = 0
    for shift in range(0, 63, 7):
        if at >= len(data):
            return None
        byte = data[at]
        at += 1
        number |= (byte & _MAX_ONE_BYTE) << shift
        if byte <= _MAX_ONE_BYTE:
            return number, at
    return None


def _first_names(data: bytes, start: int) -> bytes:
    """Returns the bytes of the first series that contain its names."""
    return data[start : start + min(_KEY_BYTES, _names_bytes(data, start))]


def _names_bytes(data: bytes, start: int) -> int:
    """Returns the bytes of the first series up to its times, or less if it is not in the usual form."""
    at = start + 1
    while at < len(data) and data[at] > _MAX_ONE_BYTE:  # the length of the series
        at += 1
    at += 1
    for tag in (0x0A, 0x12):
        if at + 1 >= len(data) or data[at] != tag or data[at + 1] > _MAX_ONE_BYTE:
            return 1
        at += 2 + data[at + 1]
    return at - start


def _layout_of(keys: SeriesKeys) -> _Layout:
    """Returns the layout that protobuf writes for series with one reading each."""
    parts: list[bytes] = []
    times: list[int] = []
    at = 0
    for machine_id, sensor in keys.keys:
        names = _string_field(b"\x0a", machine_id) + _string_field(b"\x12", sensor)
        content = names + b"\x1a\x08" + bytes(8) + b"\x22\x08" + bytes(8)
        head = _SERIES_TAG + _varint(len(content))
        times.append(at + len(head) + len(names) + 2)
        parts += (head, content)
        at += len(head) + len(content)
    offsets = np.array(times, np.intp)
    return _Layout(b"".join(parts), offsets, offsets + 10, keys)


def _string_field(tag: bytes, text: str) -> bytes:
    encoded = text.encode()
    return tag + _varint(len(encoded)) + encoded


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > _MAX_ONE_BYTE:
        parts.append(value & _MAX_ONE_BYTE | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
