"""Unpacking of blocks, see aurum.storage.block: of one frame for a query, of whole blocks for merging them."""

import json
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard

from aurum.readings.batch import Timestamps, Values
from aurum.storage.block import (
    BLOCK_SERIES,
    CHECKED,
    FRAME_BITS,
    HEAD,
    PACKED_RANKS,
    PLAIN,
    UNIFORM,
    VERSION,
    ZSTD,
)
from aurum.storage.frames import decompress
from aurum.storage.packed_readings import PackedReadings, concatenate_ranks
from aurum.storage.ranks import Rank, Ranks

_WIDTHS = {4: "<u4", 8: "<i8"}
_MAX_RANK_BYTES = 400  # per reading: its run, and the name of its source
_local = threading.local()


class CorruptBlockError(Exception):
    """The bytes are not a block, or are damaged."""


class BlockHead:
    """The head of a block. Its series have indexes in the order of their places.

    Attributes:
        start_us: The time of the first reading.
        count: The number of readings.
        places: The place of each series.
        lengths: The number of readings of each series.
        ends: For each series, the position after its last reading.
        uniform_rank: The rank that all readings have; None if they have several.
    """

    def __init__(self, head: bytes) -> None:
        """Parses a head. Raises CorruptBlockError."""
        if len(head) < HEAD.size:
            raise CorruptBlockError(f"a block's head is truncated: it has {len(head)} bytes")
        version, self._codec, self._width, flags, checksum, start, count, series, frames = HEAD.unpack_from(head)
        if version != VERSION:
            raise CorruptBlockError(f"block version {version} is not supported")
        if zlib.crc32(memoryview(head)[CHECKED:], zlib.crc32(head[:4])) != checksum:
            raise CorruptBlockError("the checksum of a block's head does not match its content")
        if self._codec not in {PLAIN, ZSTD} or self._width not in _WIDTHS or flags & ~(UNIFORM | PACKED_RANKS):
            raise CorruptBlockError(
                f"codec {self._codec}, width {self._width}, flags {flags} of a block are not supported"
            )
        if len(head) < HEAD.size + 5 * series + 9 * frames or not series or not frames:
            raise CorruptBlockError("a block's head is shorter than it states")
        self._flags = flags
        self.start_us: int = start
        self.count: int = count
        at = HEAD.size
        self.places = head[at : at + series]
        at += series
        self.lengths: npt.NDArray[np.uint32] = np.frombuffer(head, "<u4", series, at)
        at += 4 * series
        self._frame_places = head[at : at + frames]
        self._frames: list[int] = np.frombuffer(head, "<u4", 2 * frames, at + frames).tolist()
        self._ranks = head[at + 9 * frames :]
        self.ends: npt.NDArray[np.int64] = np.cumsum(self.lengths, dtype=np.int64)
        if self.ends[-1] != count or not self.lengths.all():
            raise CorruptBlockError("a block's head has another number of readings than it states")
        self.uniform_rank: Rank | None = self._parse_rank() if flags & UNIFORM else None
        self._series_of: dict[int, tuple[int, int]] = {}  # by frame, since queries ask for each series of a frame

    def _parse_rank(self) -> Rank:
        try:
            rank = json.loads(self._ranks.decode())
            if not isinstance(rank, list) or not all(isinstance(each, int | str) for each in rank):
                raise ValueError("it is not a list of numbers and texts")
            if not rank or not isinstance(rank[-1], int) or not 0 <= rank[-1] < 2**63:
                raise ValueError("its sequence is impossible")
            return tuple(rank)
        except (ValueError, TypeError, RecursionError) as error:
            raise CorruptBlockError(f"a block's rank cannot be read: {error}") from error

    @cached_property
    def ranks(self) -> Ranks:
        """The ranks of all readings. Raises CorruptBlockError."""
        if self.uniform_rank is not None:
            return Ranks.uniform(self.uniform_rank, self.count)
        try:
            encoded = self._ranks
            if self._flags & PACKED_RANKS:
                size = zstandard.frame_content_size(encoded)
                if not 0 <= size <= _MAX_RANK_BYTES * self.count:
                    raise ValueError(f"their stated size of {size} bytes is impossible")
                encoded = decompress(_decompressor(), encoded)
            return Ranks.decode(encoded, self.count)
        except (zstandard.ZstdError, MemoryError, ValueError, TypeError, IndexError, RecursionError) as error:
            raise CorruptBlockError(f"a block's ranks cannot be read: {error}") from error

    @property
    def frames(self) -> int:
        """How many frames the block has."""
        return len(self._frame_places)

    @property
    def frame_lengths(self) -> list[int]:
        """The bytes of each frame."""
        return self._frames[: self.frames]

    def index_of(self, place: int) -> int:
        """Returns the index of the series at a place; -1 if it is not in the block."""
        return self.places.find(place)

    def ranks_of(self, index: int) -> Ranks:
        """Returns the ranks of the readings of a series."""
        end = int(self.ends[index])
        return self.ranks.between(end - int(self.lengths[index]), end)

    def ranks_of_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[Ranks]:
        """Returns the ranks of the readings of ranges of series."""
        starts = [self._before(first) for first, _ in ranges]
        return list(self.ranks.parts(starts, [int(self.ends[end - 1]) for _, end in ranges]))

    def frame_of(self, index: int) -> int:
        """Returns the number of the frame of a series within the block."""
        return 0 if self._codec == PLAIN else self._frame_places.find(self.places[index] >> FRAME_BITS)

    def series_of(self, frame: int) -> tuple[int, int]:
        """Returns the index of the first series of a frame, and that after its last one."""
        if self._codec == PLAIN:
            return 0, len(self.places)
        found = self._series_of.get(frame)
        if found is not None:
            return found
        frame_of = np.frombuffer(self.places, np.uint8) >> FRAME_BITS
        low, high = np.searchsorted(frame_of, [self._frame_places[frame], self._frame_places[frame] + 1]).tolist()
        self._series_of[frame] = low, high
        return low, high

    def bytes_of(self, frame: int) -> tuple[int, int]:
        """Returns the offset of a frame in the data, and its length."""
        return sum(self._frames[:frame]), self._frames[frame]

    def columns_of(self, frame: int, data: bytes | memoryview) -> tuple[npt.NDArray[Any], Values]:
        """Returns the time steps and values of a frame, given its bytes. Raises CorruptBlockError."""
        if zlib.crc32(data) != self._frames[self.frames + frame]:
            raise CorruptBlockError(f"the checksum of frame {frame} of a block does not match its content")
        first, end = self.series_of(frame)
        count = int(self.ends[end - 1]) - self._before(first) if end > first else 0
        size = (self._width + 8) * count
        try:
            columns = decompress(_decompressor(), data, size) if self._codec == ZSTD else bytes(data)
        except (zstandard.ZstdError, MemoryError) as error:
            raise CorruptBlockError(f"frame {frame} of a block cannot be unpacked: {error}") from error
        if not count or len(columns) != size:
            raise CorruptBlockError(f"frame {frame} of a block does not match its head")
        kind, values_at = _WIDTHS[self._width], self._width * count
        if self._codec == PLAIN:
            return np.frombuffer(columns, kind, count), np.frombuffer(columns, "<f8", count, values_at)
        return _gathered(columns, 0, count, kind), _gathered(columns, values_at, count, "<f8")

    def readings_of(self, index: int, columns: tuple[npt.NDArray[Any], Values]) -> tuple[Timestamps, Values]:
        """Returns the readings of a series, given the columns of its frame."""
        before = self._before(self.series_of(self.frame_of(index))[0])
        start, end = self._before(index) - before, int(self.ends[index]) - before
        timestamps: Timestamps = columns[0][start:end].cumsum(dtype=np.int64)
        timestamps += self.start_us
        return timestamps, columns[1][start:end]

    def range_of(self, first: int, after: int, frame: int) -> tuple[int, int]:
        """Returns where the readings of series `first` up to `after`, exclusive, are in the columns of their frame."""
        before = self._before(self.series_of(frame)[0])
        return self._before(first) - before, int(self.ends[after - 1]) - before

    def _before(self, index: int) -> int:
        """Returns the number of readings before those of a series."""
        return int(self.ends[index - 1]) if index else 0


@dataclass(frozen=True, slots=True)
class JoinedBlocks:
    """The readings of several blocks of one bucket, one block after the other.

    Attributes:
        places: For each series of each block, its place.
        lengths: The number of its readings.
        timestamps: The times.
        values: As many values.
        ranks: The ranks of the readings, in one part or several for each block.
    """

    places: npt.NDArray[np.uint8]
    lengths: npt.NDArray[np.int64]
    timestamps: Timestamps
    values: Values
    ranks: list[Ranks]

    def packed(self, bucket: int) -> PackedReadings:
        """Returns the readings if they are those of one block, whose bucket is given."""
        numbers = self.places.astype(np.int32) + np.int32(bucket * BLOCK_SERIES)
        return PackedReadings(numbers, self.lengths, self.timestamps, self.values, concatenate_ranks(self.ranks))


def unpack_blocks(blocks: Sequence[tuple[BlockHead, bytes]]) -> tuple[JoinedBlocks | None, dict[int, str]]:
    """Unpacks blocks by array operations over all of them, since they may be small.

    Args:
        blocks: The head and the data of each.

    Returns:
        The readable readings, if any, and what is wrong with each block that is damaged, by its index.
    """
    problems: dict[int, str] = {}
    heads: list[tuple[BlockHead, int, int]] = []  # and the range of series, of each frame
    columns: list[tuple[npt.NDArray[Any], Values]] = []
    ranks: list[Ranks] = []
    for index, (head, data) in enumerate(blocks):
        view, offset = memoryview(data), 0
        try:
            of_block = head.ranks
        except CorruptBlockError as error:
            problems[index] = str(error)
            continue
        kept: list[tuple[int, int]] = []  # ranges of series
        for number, length in enumerate(head.frame_lengths):
            series = head.series_of(number)
            try:
                columns.append(head.columns_of(number, view[offset : offset + length]))
                heads.append((head, *series))
                kept.append(series)
            except CorruptBlockError as error:
                problems[index] = "; ".join(filter(None, (problems.get(index), str(error))))
            offset += length
        if index not in problems:
            ranks.append(of_block)
        elif kept:
            ranks += head.ranks_of_ranges(kept)
    if not columns:
        return None, problems
    lengths = np.concatenate([head.lengths[first:end] for head, first, end in heads]).astype(np.int64)
    starts = np.repeat([head.start_us for head, _, _ in heads], [end - first for _, first, end in heads])
    steps = np.concatenate([steps for steps, _ in columns])
    return JoinedBlocks(
        np.frombuffer(b"".join([head.places[first:end] for head, first, end in heads]), np.uint8),
        lengths,
        times_of_steps(steps, np.cumsum(lengths), lengths, starts),
        np.concatenate([values for _, values in columns]),
        ranks,
    ), problems


def times_of_steps(
    steps: npt.NDArray[Any],
    ends: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    start_us: npt.NDArray[np.int64] | int,
) -> Timestamps:
    """Returns the times of series.

    Args:
        steps: The steps of all series.
        ends: For each series, the position after its last reading.
        lengths: The number of its readings.
        start_us: The start of its block.
    """
    timestamps = np.cumsum(steps, dtype=np.int64)
    starts = ends - lengths
    before = timestamps[starts] - steps[starts].astype(np.int64)  # the sum of the steps of the series before
    timestamps += np.repeat(start_us - before, lengths)
    return timestamps


def _gathered(columns: bytes, start: int, count: int, kind: str) -> npt.NDArray[Any]:
    """Returns a column that is in byte planes."""
    width = int(kind[-1])
    planes = np.frombuffer(columns, np.uint8, count * width, start).reshape(width, count)
    gathered = np.empty((count, width), np.uint8)
    for place in range(width):  # faster than a transposition
        gathered[:, place] = planes[place]
    return gathered.view(kind).reshape(count)


def _decompressor() -> zstandard.ZstdDecompressor:
    if not hasattr(_local, "decompressor"):
        _local.decompressor = zstandard.ZstdDecompressor()
    decompressor: zstandard.ZstdDecompressor = _local.decompressor
    return decompressor
