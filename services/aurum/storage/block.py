"""Blocks: the readings of up to 256 series of one day, packed and checksummed.

A segment per series is too small to write when each series has only a few readings. A block holds many series and is
written by array operations. It consists of a head, which says what is where, and of data.

The data are frames, each with the readings of neighbouring series: their time steps, then their values. The first
step of a series is the distance of its first reading from the start of the block. Steps are unsigned and have 4 or 8
bytes. A small block is one frame without compression. A larger one has a frame for every 16 series, compressed by
zstd in byte planes (all first bytes, then all second bytes, …), so that reading one series decompresses little.

Layout of the head, little-endian: version u8, codec u8, width of a step u8, flags u8, CRC-32 of everything else in the
head u32, start in µs i64, number of readings u32, of series u16, of frames u16; for each series its place in the block
u8, then for each its number of readings u32; for each frame the place of its first series divided by 16 u8, then for
each its bytes u32, then for each its CRC-32 u32; the ranks. With flag 1, these are a JSON list, the rank of all
readings; else they are encoded as aurum.storage.ranks describes, and with flag 2 compressed by zstd.
"""

import json
import struct
import threading
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import zstandard

from aurum.readings.batch import Values
from aurum.storage.packed_readings import PackedReadings
from aurum.storage.ranks import Ranks

BLOCK_SERIES = 256  # series of a block, at most
FRAME_BITS = 4  # of the place of a series within a frame of a compressed block
HEAD = struct.Struct("<BBBBIqIHH")
CHECKED = 8  # offset from which the checksum covers the head, besides the first four bytes
VERSION = 1
PLAIN, ZSTD = 0, 1
UNIFORM, PACKED_RANKS = 1, 2  # flags
_COMPRESS_MIN_READINGS = 4096  # readings; smaller blocks are merged soon
_PACK_RANKS_MIN_BYTES = 256
_local = threading.local()


@dataclass(frozen=True, slots=True)
class PackedBlock:
    """A block.

    Attributes:
        bucket: The numbers of its series divided by BLOCK_SERIES.
        start_us: The time of its first reading.
        end_us: The time of its last reading.
        count: The number of its readings.
        head: Its head.
        data: Its frames.
    """

    bucket: int
    start_us: int
    end_us: int
    count: int
    head: bytes
    data: bytes


def pack_blocks(readings: PackedReadings) -> list[PackedBlock]:
    """Packs the readings of one day into a block for each bucket of series."""
    numbers, lengths, timestamps = readings.numbers, readings.lengths, readings.timestamps
    ends = readings.ends
    firsts, lasts = timestamps[ends - lengths], timestamps[ends - 1]
    buckets = numbers // BLOCK_SERIES
    cuts = np.flatnonzero(np.append(True, buckets[1:] != buckets[:-1]))  # places of the first series of each block
    series_ends = np.append(cuts[1:], len(numbers))
    starts_us = np.minimum.reduceat(firsts, cuts)
    ends_us = np.maximum.reduceat(lasts, cuts)
    steps = np.empty_like(timestamps)
    np.subtract(timestamps[1:], timestamps[:-1], out=steps[1:])
    steps[ends - lengths] = firsts - np.repeat(starts_us, series_ends - cuts)
    reading_ends = ends[series_ends - 1]
    reading_starts = reading_ends - np.add.reduceat(lengths, cuts)
    narrow = (np.maximum.reduceat(steps, reading_starts) < 2**32).tolist()
    short_steps = steps.astype("<u4")
    places = (numbers % BLOCK_SERIES).astype(np.uint8)
    counts = lengths.astype("<u4")
    blocks: list[PackedBlock] = []
    for bucket, first, last, start, end, start_us, end_us, short, ranks in zip(
        buckets[cuts].tolist(),
        cuts.tolist(),
        series_ends.tolist(),
        reading_starts.tolist(),
        reading_ends.tolist(),
        starts_us.tolist(),
        ends_us.tolist(),
        narrow,
        readings.ranks.parts(reading_starts.tolist(), reading_ends.tolist()),
        strict=True,
    ):
        columns = (short_steps if short else steps)[start:end], readings.values[start:end]
        if end - start < _COMPRESS_MIN_READINGS:
            codec, data = PLAIN, columns[0].tobytes() + columns[1].tobytes()
            frames = b"\0" + len(data).to_bytes(4, "little") + zlib.crc32(data).to_bytes(4, "little")
        else:
            codec = ZSTD
            frames, data = _pack_frames(places[first:last], lengths[first:last], *columns)
        flags, encoded_ranks = _encode_ranks(ranks)
        count = end - start
        head = bytearray(
            HEAD.pack(VERSION, codec, 4 if short else 8, flags, 0, start_us, count, last - first, len(frames) // 9)
        )
        head += places[first:last].tobytes() + counts[first:last].tobytes() + frames + encoded_ranks
        head[4:8] = zlib.crc32(memoryview(head)[CHECKED:], zlib.crc32(head[:4])).to_bytes(4, "little")
        blocks.append(PackedBlock(bucket, start_us, end_us, count, bytes(head), data))
    return blocks


def _pack_frames(
    places: npt.NDArray[np.uint8], lengths: npt.NDArray[np.int64], steps: npt.NDArray[np.generic], values: Values
) -> tuple[bytes, bytes]:
    """Compresses the columns of a block. Returns the list of its frames, and the frames."""
    frame_of = places >> FRAME_BITS
    cuts = np.flatnonzero(np.append(True, frame_of[1:] != frame_of[:-1]))
    ends = np.cumsum(np.add.reduceat(lengths, cuts)).tolist()
    frames: list[bytes] = []
    start = 0
    for end in ends:
        frames.append(_compressor().compress(_planes(steps[start:end]) + _planes(values[start:end])))
        start = end
    listed = frame_of[cuts].tobytes()
    listed += np.array([len(frame) for frame in frames], "<u4").tobytes()
    listed += np.array([zlib.crc32(frame) for frame in frames], "<u4").tobytes()
    return listed, b"".join(frames)


def _planes(column: npt.NDArray[np.generic]) -> bytes:
    """Returns the bytes of a column in byte planes."""
    return np.ascontiguousarray(column).view(np.uint8).reshape(len(column), -1).T.tobytes()


def _encode_ranks(ranks: Ranks) -> tuple[int, bytes]:
    """Returns the flags and the encoding of ranks."""
    if len(ranks.lengths) == 1:
        return UNIFORM, json.dumps([*ranks.sources[0], int(ranks.sequences[0])], separators=(",", ":")).encode()
    encoded = ranks.encode()
    if len(encoded) < _PACK_RANKS_MIN_BYTES:
        return 0, encoded
    return PACKED_RANKS, _compressor().compress(encoded)


def _compressor() -> zstandard.ZstdCompressor:
    # zstandard's objects are not thread-safe
    if not hasattr(_local, "compressor"):
        _local.compressor = zstandard.ZstdCompressor(level=1, write_content_size=True)
    compressor: zstandard.ZstdCompressor = _local.compressor
    return compressor
