"""Segments: the readings of one series, packed and checksummed.

Layout, little-endian: version u8, codec u8, width of a time step u8, flags u8, count u32, CRC-32 of the rest u32, first
timestamp i64, then the time steps (unsigned, 0, 4 or 8 bytes each; 0 if all are the same, then one i64) and the values
(float64, all first bytes first, then all second bytes, …, which compresses better), both compressed by codec 1 (zstd).

Flag 1 marks a segment of readings of several ranks: after the columns, which are then compressed, follow the ranks
(see aurum.storage.ranks), compressed by zstd, and their length u32. A reader that does not know the flag finds the same
readings, since it looks at one zstd frame only.
"""

import struct
import threading
import zlib
from typing import NamedTuple

import numpy as np
import zstandard

from aurum.readings.batch import Timestamps, Values
from aurum.storage.frames import decompress
from aurum.storage.ranks import Ranks

_HEADER = struct.Struct("<BBBBII")
_VERSION = 1
_PLAIN, _ZSTD = 0, 1
_RANKED = 1  # flag
_LENGTH = struct.Struct("<I")
_MOST_RANK_BYTES = 400  # of a reading: its run, and the name of a source of its own
_WIDTHS = {0: "<i8", 4: "<u4", 8: "<i8"}
_COMPRESS_FROM = 256  # readings; fewer are not worth a frame, and are merged before long
_local = threading.local()


class CorruptSegmentError(Exception):
    """Bytes that are no segment, or no longer the one that was written."""


class Segment(NamedTuple):
    """What a segment holds. ranks: None if all its readings have the same, which is kept beside it."""

    timestamps: Timestamps
    values: Values
    ranks: Ranks | None


def pack(timestamps: Timestamps, values: Values, ranks: Ranks | None = None) -> bytes:
    """One segment. `timestamps` must be sorted; both have the same length, at least 1.

    ranks: of as many readings. One rank for all of them is not written.
    """
    count = len(timestamps)
    steps = timestamps[1:] - timestamps[:-1]
    if count == 1:
        width, packed_steps = 4, b""
    elif (steps == steps[0]).all():
        width, packed_steps = 0, steps[:1].astype("<i8").tobytes()
    elif int(steps.max()) < 2**32:
        width, packed_steps = 4, steps.astype("<u4").tobytes()
    else:
        width, packed_steps = 8, steps.astype("<i8").tobytes()
    raw = np.ascontiguousarray(values, "<f8")
    columns = packed_steps + raw.view(np.uint8).reshape(-1, 8).T.tobytes()
    several = ranks is not None and len(ranks.lengths) > 1
    codec = _PLAIN
    if count >= _COMPRESS_FROM or several:
        codec, columns = _ZSTD, _compressor().compress(columns)
    body = int(timestamps[0]).to_bytes(8, "little", signed=True) + columns
    if ranks is not None and several:
        runs = _compressor().compress(ranks.encode())
        body += runs + _LENGTH.pack(len(runs))
    return _HEADER.pack(_VERSION, codec, width, _RANKED if several else 0, count, zlib.crc32(body)) + body


def unpack(segment: bytes) -> tuple[Timestamps, Values]:
    """The readings of a segment, without their ranks. Raises CorruptSegmentError."""
    timestamps, values, _ = unpack_ranked(segment)
    return timestamps, values


def ranks_of(segment: bytes) -> Ranks | None:
    """The ranks of a segment, without its readings. Raises CorruptSegmentError."""
    *_, count, flags, body = _checked(segment)
    return _split(body, count, flags)[1]


def unpack_ranked(segment: bytes) -> Segment:
    """The readings of a segment with their ranks. Raises CorruptSegmentError."""
    codec, width, count, flags, body = _checked(segment)
    body, ranks = _split(body, count, flags)
    # The checksum leaves out the header, and nothing may be made as large as a damaged one says
    step_bytes = (count - 1) * width if width and count > 1 else 0 if count == 1 and width else 8
    size = step_bytes + 8 * count
    try:
        columns = decompress(_decompressor(), body[8:], size) if codec == _ZSTD else bytes(body[8:])
    except (zstandard.ZstdError, MemoryError) as error:
        raise CorruptSegmentError(f"a segment cannot be unpacked: {error}") from error
    if width not in _WIDTHS or count < 1 or len(columns) != size:
        raise CorruptSegmentError("a segment's header does not match its content")
    timestamps = np.empty(count, np.int64)
    timestamps[0] = int.from_bytes(body[:8], "little", signed=True)
    if count > 1:
        timestamps[1:] = np.frombuffer(columns, _WIDTHS[width], count=(count - 1) if width else 1)
        np.cumsum(timestamps, out=timestamps)
    raw = np.frombuffer(columns, np.uint8, offset=step_bytes).reshape(8, count)
    gathered = np.empty((count, 8), np.uint8)
    for place in range(8):  # faster than to transpose all at once
        gathered[:, place] = raw[place]
    values = gathered.view("<f8").reshape(count)
    return Segment(timestamps, values, ranks)


def _checked(segment: bytes) -> tuple[int, int, int, int, memoryview]:
    """Codec, width, count, flags and what follows the header."""
    if len(segment) < _HEADER.size + 8:
        raise CorruptSegmentError(f"a segment of {len(segment)} bytes is cut off")
    version, codec, width, flags, count, checksum = _HEADER.unpack_from(segment)
    body = memoryview(segment)[_HEADER.size :]
    if version != _VERSION:
        raise CorruptSegmentError(f"a segment of version {version} is not known here")
    if flags & ~_RANKED:
        raise CorruptSegmentError(f"a segment with flags {flags} is not known here")
    if zlib.crc32(body) != checksum:
        raise CorruptSegmentError("a segment's checksum does not match its content")
    return codec, width, count, flags, body


def _split(body: memoryview, count: int, flags: int) -> tuple[memoryview, Ranks | None]:
    """The columns with their first timestamp, and the ranks behind them."""
    if not flags:
        return body, None
    end = len(body) - _LENGTH.size
    start = end - _LENGTH.unpack_from(body, max(0, end))[0]
    if start < 8:
        raise CorruptSegmentError("a segment's ranks are cut off")
    try:
        size = zstandard.frame_content_size(body[start:end])
        if not 0 <= size <= _MOST_RANK_BYTES * count:
            raise ValueError(f"they would have {size} bytes")
        return body[:start], Ranks.decode(decompress(_decompressor(), body[start:end]), count)
    except (zstandard.ZstdError, MemoryError, ValueError, TypeError, RecursionError) as error:
        raise CorruptSegmentError(f"a segment's ranks cannot be read: {error}") from error


def _compressor() -> zstandard.ZstdCompressor:
    # zstandard's objects are not for use from several threads at once
    if not hasattr(_local, "compressor"):
        _local.compressor = zstandard.ZstdCompressor(level=3, write_content_size=True)
    compressor: zstandard.ZstdCompressor = _local.compressor
    return compressor


def _decompressor() -> zstandard.ZstdDecompressor:
    if not hasattr(_local, "decompressor"):
        _local.decompressor = zstandard.ZstdDecompressor()
    decompressor: zstandard.ZstdDecompressor = _local.decompressor
    return decompressor
