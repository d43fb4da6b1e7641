"""Segments: the readings of one series, packed and checksummed.

Layout, little-endian: version u8, codec u8, width of a time step u8, zero u8, count u32, CRC-32 of the rest u32, first
timestamp i64, then the time steps (unsigned, 0, 4 or 8 bytes each; 0 if all are the same, then one i64) and the values
(float64, all first bytes first, then all second bytes, …, which compresses better), both compressed by codec 1 (zstd).
"""

import struct
import threading
import zlib

import numpy as np
import zstandard

from aurum.readings.batch import Timestamps, Values

_HEADER = struct.Struct("<BBBBII")
_VERSION = 1
_PLAIN, _ZSTD = 0, 1
_WIDTHS = {0: "<i8", 4: "<u4", 8: "<i8"}
_COMPRESS_FROM = 256  # readings; fewer are not worth a frame, and are merged before long
_local = threading.local()


class CorruptSegmentError(Exception):
    """Bytes that are no segment, or no longer the one that was written."""


def pack(timestamps: Timestamps, values: Values) -> bytes:
    """One segment. `timestamps` must be sorted; both have the same length, at least 1."""
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
    codec = _PLAIN
    if count >= _COMPRESS_FROM:
        codec, columns = _ZSTD, _compressor().compress(columns)
    body = int(timestamps[0]).to_bytes(8, "little", signed=True) + columns
    return _HEADER.pack(_VERSION, codec, width, 0, count, zlib.crc32(body)) + body


def unpack(segment: bytes) -> tuple[Timestamps, Values]:
    """The readings of a segment. Raises CorruptSegmentError."""
    if len(segment) < _HEADER.size + 8:
        raise CorruptSegmentError(f"a segment of {len(segment)} bytes is cut off")
    version, codec, width, _, count, checksum = _HEADER.unpack_from(segment)
    body = memoryview(segment)[_HEADER.size :]
    if version != _VERSION:
        raise CorruptSegmentError(f"a segment of version {version} is not known here")
    if zlib.crc32(body) != checksum:
        raise CorruptSegmentError("a segment's checksum does not match its content")
    try:
        columns = _decompressor().decompress(body[8:]) if codec == _ZSTD else bytes(body[8:])
    except (zstandard.ZstdError, MemoryError) as error:
        raise CorruptSegmentError(f"a segment cannot be unpacked: {error}") from error
    # The checksum leaves out the header, and nothing may be made as large as a damaged one says
    step_bytes = (count - 1) * width if width and count > 1 else 0 if count == 1 and width else 8
    if width not in _WIDTHS or count < 1 or len(columns) != step_bytes + 8 * count:
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
    return timestamps, values


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
