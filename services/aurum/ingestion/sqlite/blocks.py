"""Reading of blocks. What is read once is kept for the rest of a query, since the sensors of a machine share blocks."""

import sqlite3
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy.typing as npt

from aurum.readings.batch import Timestamps, Values
from aurum.runtime.time_units import DAY_US
from aurum.storage.block import BLOCK_SERIES
from aurum.storage.block_unpacking import BlockHead, CorruptBlockError, JoinedBlocks, unpack_blocks
from aurum.storage.packed_readings import PackedReadings
from aurum.storage.ranks import Ranks

_Columns = tuple[npt.NDArray[Any], Values]  # time steps and values of a frame
_HEADS = 2048  # that are kept
_FRAME_BYTES = 8_000_000  # of the frames that are kept


class DamagedPart(NamedTuple):
    """A damaged segment or block of the tables."""

    kind: Literal["segment", "block"]
    id: int

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


@dataclass(frozen=True, slots=True)
class BlockSeries:
    """The readings of a series in a block.

    Attributes:
        id: The block.
        index: The index of the series in it.
        ranks: The ranks of the readings; None if they have the same.
    """

    id: int
    index: int
    ranks: Ranks | None


class BlockReader:
    """Reads blocks within one transaction.

    Attributes:
        connection: The connection.
        damaged: The unreadable blocks that were left out, entirely or in part, with what is wrong with each.
    """

    def __init__(self, connection: sqlite3.Connection, damaged: dict[DamagedPart, str]) -> None:
        self._connection = connection
        self._damaged = damaged
        self._heads: OrderedDict[int, BlockHead | None] = OrderedDict()
        self._frames: OrderedDict[tuple[int, int], _Columns] = OrderedDict()
        self._frame_bytes = 0
        self._found: tuple[tuple[int, int, int], list[tuple[int, int, int]]] = (-1, 0, 0), []

    def overlapping(self, series: int, start_us: int, end_us: int) -> Iterator[tuple[int, int, int, BlockHead]]:
        """Yields the blocks with readings of a series that overlap [start_us, end_us).

        Yields the id, the time of the first and of the last reading, and the head of each.
        """
        for id_, first, last in self.rows(series // BLOCK_SERIES, start_us, end_us):
            head = self.head_of(id_)
            if head is not None and head.index_of(series % BLOCK_SERIES) >= 0:
                yield id_, first, last, head

    def rows(self, bucket: int, start_us: int, end_us: int) -> list[tuple[int, int, int]]:
        """Returns the id, start and end of the blocks of a bucket that overlap [start_us, end_us)."""
        if self._found[0] != (bucket, start_us, end_us):
            # A block never spans two days, so it is found by its start.
            rows = self._connection.execute(
                "SELECT id, start_us, end_us FROM blocks WHERE bucket = ? AND start_us >= ? AND start_us < ? "
                "AND end_us >= ?",
                (bucket, start_us // DAY_US * DAY_US, end_us, start_us),
            ).fetchall()
            self._found = (bucket, start_us, end_us), rows
        return self._found[1]

    def newest_before(self, series: int, before_us: int, after_us: int) -> int | None:
        """Returns the start of the newest block of a series that begins after `after_us` and before `before_us`."""
        rows = self._connection.execute(
            "SELECT id, start_us FROM blocks WHERE bucket = ? AND start_us > ? AND start_us < ? ORDER BY start_us DESC",
            (series // BLOCK_SERIES, after_us, before_us),
        )
        for id_, start in rows:
            head = self.head_of(id_)
            if head is not None and head.index_of(series % BLOCK_SERIES) >= 0:
                return int(start)
        return None

    def days(self, series: int) -> set[int]:
        """Returns the days since the epoch on which a series has readings in blocks."""
        rows = self._connection.execute(
            "SELECT id, start_us FROM blocks WHERE bucket = ?", (series // BLOCK_SERIES,)
        ).fetchall()
        heads = ((start // DAY_US, self.head_of(id_)) for id_, start in rows)
        return {day for day, head in heads if head is not None and head.index_of(series % BLOCK_SERIES) >= 0}

    def readings_of(self, id_: int, index: int) -> tuple[Timestamps, Values] | None:
        """Returns the readings of a series in a block; None if they are damaged."""
        head = self.head_of(id_)
        if head is None:
            return None
        columns = self.columns_of(id_, head, head.frame_of(index))
        return None if columns is None else head.readings_of(index, columns)

    def columns_of(self, id_: int, head: BlockHead, number: int) -> _Columns | None:
        """Returns the time steps and values of a frame of a block; None if they are damaged."""
        columns = self._frames.get((id_, number))
        if columns is None:
            try:
                columns = self._read_frame(id_, head, number)
            except CorruptBlockError as error:
                self._damaged[DamagedPart("block", id_)] = str(error)
        return columns

    def _read_frame(self, id_: int, head: BlockHead, number: int) -> _Columns:
        offset, length = head.bytes_of(number)
        with self._connection.blobopen("blocks", "data", id_, readonly=True) as data:
            if offset + length > len(data):
                raise CorruptBlockError(f"a block's data are truncated: they have {len(data)} bytes")
            data.seek(offset)
            columns = head.columns_of(number, data.read(length))
        self._frames[id_, number] = columns
        self._frame_bytes += _nbytes(columns)
        while self._frame_bytes > _FRAME_BYTES and len(self._frames) > 1:
            self._frame_bytes -= _nbytes(self._frames.popitem(last=False)[1])
        return columns

    def head_of(self, id_: int) -> BlockHead | None:
        """Returns the head of a block; None if it is damaged."""
        if id_ in self._heads:
            return self._heads[id_]
        head: BlockHead | None = None
        try:
            head = BlockHead(self._connection.execute("SELECT head FROM blocks WHERE id = ?", (id_,)).fetchone()[0])
            _ = head.uniform_rank or head.ranks  # so that their later use raises no error
        except CorruptBlockError as error:
            head = None
            self._damaged[DamagedPart("block", id_)] = str(error)
        self._heads[id_] = head
        if len(self._heads) > _HEADS:
            self._heads.popitem(last=False)
        return head


def _nbytes(columns: _Columns) -> int:
    return columns[0].nbytes + columns[1].nbytes


def read_blocks(connection: sqlite3.Connection, ids: Sequence[int]) -> tuple[JoinedBlocks | None, dict[int, str]]:
    """Returns the readable readings of blocks of one bucket, and what is wrong with each damaged block, by its id.

    Raises:
        sqlite3.Error: If the tables cannot be read.
    """
    blocks: list[tuple[BlockHead, bytes]] = []
    problems: dict[int, str] = {}
    for id_ in ids:
        head, data = connection.execute("SELECT head, data FROM blocks WHERE id = ?", (id_,)).fetchone()
        try:
            blocks.append((BlockHead(head), data))
        except CorruptBlockError as error:
            problems[id_] = str(error)
    readable = [id_ for id_ in ids if id_ not in problems]
    joined, found = unpack_blocks(blocks)
    return joined, problems | {readable[index]: problem for index, problem in found.items()}


def read_block(connection: sqlite3.Connection, id_: int) -> tuple[PackedReadings | None, str]:
    """Returns the readable readings of a block, and what is wrong with it; empty if nothing is.

    Raises:
        sqlite3.Error: If the tables cannot be read.
    """
    bucket: int = connection.execute("SELECT bucket FROM blocks WHERE id = ?", (id_,)).fetchone()[0]
    joined, problems = read_blocks(connection, [id_])
    return None if joined is None else joined.packed(bucket), problems.get(id_, "")
