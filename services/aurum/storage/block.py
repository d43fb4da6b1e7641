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
from functools import cached_property

import numpy as np
import numpy.typing as npt
import zstandard

from aurum.readings.batch import Timestamps, Values
from aurum.storage.frames import decompress
from aurum.storage.packed_readings import PackedReadings
from aurum.storage.ranks import Rank, Ranks

BLOCK_SERIES = 256  # series of a block, at most
_FRAME_BITS = 4  # of the place of a series within a frame of a compressed block
_HEAD = struct.Struct("<BBBBIqIHH")
_CHECKED = 8  # offset from which the checksum covers the head, besides the first four bytes
_VERSION = 1
_PLAIN, _ZSTD = 0, 1
_UNIFORM, _PACKED_RANKS = 1, 2  # flags
_WIDTHS = {4: "<u4", 8: "<i8"}
_COMPRESS_MIN_READINGS = 4096  # readings; smaller blocks are merged soon
_PACK_RANKS_MIN_BYTES = 256
_MAX_RANK_BYTES = 400  # per reading: its run, and the name of its source
_local = threading.local()


class CorruptBlockError(Exception):
    """The bytes are not a block, or are damaged."""


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
            codec, data = _PLAIN, columns[0].tobytes() + columns[1].tobytes()
            frames = b"\0" + len(data).to_bytes(4, "little") + zlib.crc32(data).to_bytes(4, "little")
        else:
            codec = _ZSTD
            frames, data = _pack_frames(places[first:last], lengths[first:last], *columns)
        flags, encoded_ranks = _encode_ranks(ranks)
        count = end - start
        head = bytearray(
            _HEAD.pack(_VERSION, codec, 4 if short else 8, flags, 0, start_us, count, last - first, len(frames) // 9)
        )
        head += places[first:last].tobytes() + counts[first:last].tobytes() + frames + encoded_ranks
        head[4:8] = zlib.crc32(memoryview(head)[_CHECKED:], zlib.crc32(head[:4])).to_bytes(4, "little")
        blocks.append(PackedBlock(bucket, start_us, end_us, count, bytes(head), data))
    return blocks


def _pack_frames(
    places: npt.NDArray[np.uint8], lengths: npt.NDArray[np.int64], steps: npt.NDArray[np.generic], values: Values
) -> tuple[bytes, bytes]:
    """Compresses the columns of a block. Returns the list of its frames, and the frames."""
    frame_of = places >> _FRAME_BITS
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
        return _UNIFORM, json.dumps([*ranks.sources[0], int(ranks.sequences[0])], separators=(",", ":")).encode()
    encoded = ranks.encode()
    if len(encoded) < _PACK_RANKS_MIN_BYTES:
        return 0, encoded
    return _PACKED_RANKS, _compressor().compress(encoded)


@dataclass(frozen=True, slots=True)
class Frame:
    """The content of a frame.

    Attributes:
        first: The index of its first series within the block.
        starts: For each of its series, the position of its first reading; then the number of readings.
        timestamps: The times of its readings.
        values: As many values.
    """

    first: int
    starts: list[int]
    timestamps: Timestamps
    values: Values

    def of(self, index: int) -> tuple[Timestamps, Values]:
        """Returns the readings of the series with an index within the block."""
        start, end = self.starts[index - self.first], self.starts[index - self.first + 1]
        return self.timestamps[start:end], self.values[start:end]

    @property
    def nbytes(self) -> int:
        """The size of the readings in memory."""
        return 16 * len(self.values)


class BlockHead:
    """The head of a block. Its series have indexes in the order of their places."""

    def __init__(self, head: bytes) -> None:
        """Parses a head. Raises CorruptBlockError."""
        if len(head) < _HEAD.size:
            raise CorruptBlockError(f"a block's head is truncated: it has {len(head)} bytes")
        version, self._codec, self._width, flags, checksum, start, count, series, frames = _HEAD.unpack_from(head)
        if version != _VERSION:
            raise CorruptBlockError(f"block version {version} is not supported")
        if zlib.crc32(memoryview(head)[_CHECKED:], zlib.crc32(head[:4])) != checksum:
            raise CorruptBlockError("the checksum of a block's head does not match its content")
        if self._codec not in {_PLAIN, _ZSTD} or self._width not in _WIDTHS or flags & ~(_UNIFORM | _PACKED_RANKS):
            raise CorruptBlockError(
                f"codec {self._codec}, width {self._width}, flags {flags} of a block are not supported"
            )
        if len(head) < _HEAD.size + 5 * series + 9 * frames or not series or not frames:
            raise CorruptBlockError("a block's head is shorter than it states")
        self._flags = flags
        self.start_us: int = start
        self.count: int = count
        at = _HEAD.size
        self.places = head[at : at + series]
        at += series
        self.lengths: npt.NDArray[np.int64] = np.frombuffer(head, "<u4", series, at).astype(np.int64)
        at += 4 * series
        self._frame_places = head[at : at + frames]
        self._frames = np.frombuffer(head, "<u4", 2 * frames, at + frames).tolist()
        self._ranks = head[at + 9 * frames :]
        if int(self.lengths.min()) < 1 or int(self.lengths.sum()) != count:
            raise CorruptBlockError("a block's head has another number of readings than it states")

    @cached_property
    def uniform_rank(self) -> Rank | None:
        """The rank that all readings have; None if they have several. Raises CorruptBlockError."""
        if not self._flags & _UNIFORM:
            return None
        try:
            *source, sequence = json.loads(self._ranks)
            return (*source, int(sequence))
        except (ValueError, TypeError, RecursionError) as error:
            raise CorruptBlockError(f"a block's rank cannot be read: {error}") from error

    @cached_property
    def ranks(self) -> Ranks:
        """The ranks of all readings. Raises CorruptBlockError."""
        if self.uniform_rank is not None:
            return Ranks.uniform(self.uniform_rank, self.count)
        try:
            encoded = self._ranks
            if self._flags & _PACKED_RANKS:
                size = zstandard.frame_content_size(encoded)
                if not 0 <= size <= _MAX_RANK_BYTES * self.count:
                    raise ValueError(f"their stated size of {size} bytes is impossible")
                encoded = decompress(_decompressor(), encoded)
            return Ranks.decode(encoded, self.count)
        except (zstandard.ZstdError, MemoryError, ValueError, TypeError, IndexError, RecursionError) as error:
            raise CorruptBlockError(f"a block's ranks cannot be read: {error}") from error

    @cached_property
    def ends(self) -> npt.NDArray[np.int64]:
        """For each series, the position after its last reading."""
        return np.cumsum(self.lengths)

    @property
    def frames(self) -> int:
        """How many frames the block has."""
        return len(self._frame_places)

    def index_of(self, place: int) -> int:
        """Returns the index of the series at a place; -1 if it is not in the block."""
        return self.places.find(place)

    def ranks_of(self, index: int) -> Ranks:
        """Returns the ranks of the readings of a series."""
        end = int(self.ends[index])
        return self.ranks.between(end - int(self.lengths[index]), end)

    def frame_of(self, index: int) -> int:
        """Returns the number of the frame of a series within the block."""
        return 0 if self._codec == _PLAIN else self._frame_places.find(self.places[index] >> _FRAME_BITS)

    def series_of(self, frame: int) -> tuple[int, int]:
        """Returns the index of the first series of a frame, and that after its last one."""
        if self._codec == _PLAIN:
            return 0, len(self.places)
        frame_of = np.frombuffer(self.places, np.uint8) >> _FRAME_BITS
        low, high = np.searchsorted(frame_of, [self._frame_places[frame], self._frame_places[frame] + 1]).tolist()
        return low, high

    def bytes_of(self, frame: int) -> tuple[int, int]:
        """Returns the offset of a frame in the data, and its length."""
        return sum(self._frames[:frame]), self._frames[frame]

    def unpack_frame(self, frame: int, data: bytes | memoryview) -> Frame:
        """Returns the readings of a frame, given its bytes. Raises CorruptBlockError."""
        if zlib.crc32(data) != self._frames[self.frames + frame]:
            raise CorruptBlockError(f"the checksum of frame {frame} of a block does not match its content")
        first, end = self.series_of(frame)
        lengths = self.lengths[first:end]
        ends = np.cumsum(lengths)
        count = int(ends[-1]) if len(ends) else 0
        size = (self._width + 8) * count
        try:
            columns = decompress(_decompressor(), data, size) if self._codec == _ZSTD else bytes(data)
        except (zstandard.ZstdError, MemoryError) as error:
            raise CorruptBlockError(f"frame {frame} of a block cannot be unpacked: {error}") from error
        if not count or len(columns) != size:
            raise CorruptBlockError(f"frame {frame} of a block does not match its head")
        steps = _column(columns, 0, count, self._width, self._codec)
        values = _column(columns, self._width * count, count, 8, self._codec).view("<f8")
        timestamps = np.cumsum(steps.view(_WIDTHS[self._width]), dtype=np.int64)
        starts = ends - lengths
        before = timestamps[starts] - steps.view(_WIDTHS[self._width])[starts]  # the sum of the steps of earlier series
        timestamps += self.start_us - np.repeat(before, lengths)
        return Frame(first, [0, *ends.tolist()], timestamps, values)


def _column(columns: bytes, start: int, count: int, width: int, codec: int) -> npt.NDArray[np.uint8]:
    """Returns the bytes of a column of a frame in the order of its readings."""
    raw = np.frombuffer(columns, np.uint8, count * width, start)
    if codec == _PLAIN:
        return raw
    planes = raw.reshape(width, count)
    gathered = np.empty((count, width), np.uint8)
    for place in range(width):  # faster than a transposition
        gathered[:, place] = planes[place]
    return gathered.reshape(-1)


def unpack_block(bucket: int, head: BlockHead, data: bytes) -> tuple[PackedReadings | None, dict[int, str]]:
    """Returns the readings of a block, and what is wrong with each damaged frame, by its number.

    Args:
        bucket: The bucket of the block.
        head: Its head.
        data: Its data.

    Raises:
        CorruptBlockError: If the ranks are damaged.
    """
    view = memoryview(data)
    frames: list[Frame] = []
    problems: dict[int, str] = {}
    kept = np.ones(len(head.places), np.bool_)
    offset = 0
    for number in range(head.frames):
        length = head.bytes_of(number)[1]
        try:
            frames.append(head.unpack_frame(number, view[offset : offset + length]))
        except CorruptBlockError as error:
            problems[number] = str(error)
            kept[slice(*head.series_of(number))] = False
        offset += length
    numbers = np.frombuffer(head.places, np.uint8).astype(np.int32) + bucket * BLOCK_SERIES
    ranks = head.ranks
    if problems:
        if not frames:
            return None, problems
        ranks = ranks.selected(np.repeat(kept, head.lengths))
    one = len(frames) == 1
    readings = PackedReadings(
        numbers[kept],
        head.lengths[kept],
        frames[0].timestamps if one else np.concatenate([frame.timestamps for frame in frames]),
        frames[0].values if one else np.concatenate([frame.values for frame in frames]),
        ranks,
    )
    return readings, problems


def _compressor() -> zstandard.ZstdCompressor:
    # zstandard's objects are not thread-safe
    if not hasattr(_local, "compressor"):
        _local.compressor = zstandard.ZstdCompressor(level=1, write_content_size=True)
    compressor: zstandard.ZstdCompressor = _local.compressor
    return compressor


def _decompressor() -> zstandard.ZstdDecompressor:
    if not hasattr(_local, "decompressor"):
        _local.decompressor = zstandard.ZstdDecompressor()
    decompressor: zstandard.ZstdDecompressor = _local.decompressor
    return decompressor
