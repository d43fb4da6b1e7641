"""Segments: the readings of one series, packed, compressed and checksummed.

Layout, little-endian: version u8, codec u8, width of a time step u8, flags u8, count u32, CRC-32 of the rest u32,
first timestamp i64, time steps, values. The time steps are unsigned and have 0, 4 or 8 bytes each; with width 0 all
steps are equal, and one i64 follows. The values are float64 in byte planes (all first bytes, then all second bytes,
…), which compress better. With codec 1, zstd compresses the steps and values together.

Flag 1 marks a segment whose readings have several ranks. Its columns are always compressed. After them follow the
ranks (see aurum.storage.ranks), compressed by zstd, and the compressed length as u32. A reader that does not know the
flag finds the same readings, because it decompresses only the first zstd frame.
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
_MAX_RANK_BYTES = 400  # per reading: its run, and the name of its source
_WIDTHS = {0: "<i8", 4: "<u4", 8: "<i8"}
_COMPRESS_MIN_READINGS = 256  # readings; smaller segments do not gain from compression and are merged soon
_local = threading.local()


class CorruptSegmentError(Exception):
    """The bytes are not a segment, or are damaged."""


class Segment(NamedTuple):
    """The content of a segment. `ranks` is None if all readings have the same rank, which is then stored outside."""

    timestamps: Timestamps
    values: Values
    ranks: Ranks | None


def pack(timestamps: Timestamps, values: Values, ranks: Ranks | None = None) -> bytes:
    """Packs readings into a segment.

    Args:
        timestamps: Sorted times in µs; at least one.
        values: As many values.
        ranks: The ranks of as many readings. They are not written if all readings have the same rank.
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
    if count >= _COMPRESS_MIN_READINGS or several:
        codec, columns = _ZSTD, _compressor().compress(columns)
    body = int(timestamps[0]).to_bytes(8, "little", signed=True) + columns
    if ranks is not None and several:
        runs = _compressor().compress(ranks.encode())
        body += runs + _LENGTH.pack(len(runs))
    return _HEADER.pack(_VERSION, codec, width, _RANKED if several else 0, count, zlib.crc32(body)) + body


def unpack(segment: bytes) -> tuple[Timestamps, Values]:
    """Returns the readings of a segment without their ranks. Raises CorruptSegmentError."""
    timestamps, values, _ = unpack_ranked(segment)
    return timestamps, values


def unpack_ranks(segment: bytes) -> Ranks | None:
    """Returns the ranks of a segment without its readings; None if all have the same. Raises CorruptSegmentError."""
    *_, count, flags, body = _verify(segment)
    return _split_ranks(body, count, flags)[1]


def unpack_ranked(segment: bytes) -> Segment:
    """Returns the readings of a segment with their ranks. Raises CorruptSegmentError."""
    codec, width, count, flags, body = _verify(segment)
    body, ranks = _split_ranks(body, count, flags)
    # The checksum does not cover the header, so a damaged count must not decide how much memory is allocated
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
    for place in range(8):  # faster than a transposition
        gathered[:, place] = raw[place]
    values = gathered.view("<f8").reshape(count)
    return Segment(timestamps, values, ranks)


def _verify(segment: bytes) -> tuple[int, int, int, int, memoryview]:
    """Verifies a segment. Returns its codec, width, count, flags and the bytes after the header."""
    if len(segment) < _HEADER.size + 8:
        raise CorruptSegmentError(f"a segment is truncated: it has {len(segment)} bytes")
    version, codec, width, flags, count, checksum = _HEADER.unpack_from(segment)
    body = memoryview(segment)[_HEADER.size :]
    if version != _VERSION:
        raise CorruptSegmentError(f"segment version {version} is not supported")
    if flags & ~_RANKED:
        raise CorruptSegmentError(f"segment flags {flags} are not supported")
    if zlib.crc32(body) != checksum:
        raise CorruptSegmentError("a segment's checksum does not match its content")
    return codec, width, count, flags, body


def _split_ranks(body: memoryview, count: int, flags: int) -> tuple[memoryview, Ranks | None]:
    """Splits a body into the first timestamp with the columns, and the ranks."""
    if not flags:
        return body, None
    end = len(body) - _LENGTH.size
    start = end - _LENGTH.unpack_from(body, max(0, end))[0]
    if start < 8:
        raise CorruptSegmentError("a segment's ranks are truncated")
    try:
        size = zstandard.frame_content_size(body[start:end])
        if not 0 <= size <= _MAX_RANK_BYTES * count:
            raise ValueError(f"their stated size of {size} bytes is impossible")
        return body[:start], Ranks.decode(decompress(_decompressor(), body[start:end]), count)
    except (zstandard.ZstdError, MemoryError, ValueError, TypeError, RecursionError) as error:
        raise CorruptSegmentError(f"a segment's ranks cannot be read: {error}") from error


def _compressor() -> zstandard.ZstdCompressor:
    # zstandard's objects are not thread-safe
    if not hasattr(_local, "compressor"):
        _local.compressor = zstandard.ZstdCompressor(level=3, write_content_size=True)
    compressor: zstandard.ZstdCompressor = _local.compressor
    return compressor


def _decompressor() -> zstandard.ZstdDecompressor:
    if not hasattr(_local, "decompressor"):
        _local.decompressor = zstandard.ZstdDecompressor()
    decompressor: zstandard.ZstdDecompressor = _local.decompressor
    return decompressor
