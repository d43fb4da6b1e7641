"""Queries of the tables, and of the recent readings that are not in them yet."""

import itertools
import operator
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from aurum.ingestion.memtable import SeriesPart
from aurum.ingestion.series_reader import Piece
from aurum.ingestion.sqlite.blocks import BlockReader, BlockSeries, DamagedPart, read_blocks
from aurum.ingestion.sqlite.series_ends import AllEnds, SeriesEnds
from aurum.ingestion.store import MOST_RANKED, Event, MachineRecord
from aurum.runtime.time_units import DAY_US
from aurum.storage.block import BLOCK_SERIES
from aurum.storage.block_joining import merge_joined
from aurum.storage.block_unpacking import BlockHead, CorruptBlockError
from aurum.storage.segment import CorruptSegmentError, Segment, unpack_ranked, unpack_ranks

UNKNOWN_SOURCE = 0  # source numbers begin at 1
_MOST_BLOCKS = 1000  # blocks of a machine that are searched for its sources
_JOINED_AT_ONCE = 16  # blocks, at most about a million readings
_NOTHING = Segment(np.empty(0, np.int64), np.empty(0, np.float64), None)


@dataclass(frozen=True)
class SqliteSeries:
    """A SegmentSource, for one transaction of a reader.

    Attributes:
        connection: The connection, within a transaction.
        number: The number of the series; None if it has none.
        recent: The readings that may not be in the tables yet.
        blocks: Reads the blocks.
        damaged: The unreadable segments and blocks that were left out, with what is wrong with each.
    """

    connection: sqlite3.Connection
    number: int | None
    recent: list[SeriesPart]
    blocks: BlockReader
    damaged: dict[DamagedPart, str]

    def pieces(self, start_us: int, end_us: int) -> list[Piece]:
        """Returns the segments, parts of blocks and recent readings that overlap [start_us, end_us)."""
        pieces: list[Piece] = []
        if self.number is not None:
            # A segment never spans two days, so it is found by its start.
            rows = self.connection.execute(
                "SELECT id, start_us, source, sequence, end_us, count FROM segments "
                "WHERE series = ? AND start_us >= ? AND start_us < ? AND end_us >= ?",
                (self.number, start_us // DAY_US * DAY_US, end_us, start_us),
            )
            pieces += [Piece((row[2], row[3]), row[1], row[4], row[5], row[0]) for row in rows]
            for id_, start, end, head in self.blocks.overlapping(self.number, start_us, end_us):
                pieces.append(_block_piece(id_, start, end, head, self.number))
        pieces += [piece for piece in self._recent_pieces if piece.start_us < end_us and piece.end_us >= start_us]
        return pieces

    @cached_property
    def _recent_pieces(self) -> list[Piece]:
        return [piece for part in self.recent for piece in _by_day(part)]

    def newest_before(self, before_us: int) -> int | None:
        """Returns a time before `before_us`, on the day of the newest reading before it, or None."""
        newest: int | None = None
        if self.number is not None:
            newest = self.connection.execute(
                "SELECT max(start_us) FROM segments WHERE series = ? AND start_us < ?", (self.number, before_us)
            ).fetchone()[0]
            in_block = self.blocks.newest_before(self.number, before_us, -1 if newest is None else newest)
            newest = newest if in_block is None else in_block
        for piece in self._recent_pieces:
            if piece.end_us < before_us:
                newest = max(newest or 0, piece.end_us)
            elif piece.start_us < before_us:
                earlier = piece.place.timestamps[piece.place.timestamps < before_us]
                newest = max(newest or 0, int(earlier.max()))
        return newest

    def load(self, pieces: Sequence[Piece]) -> list[Segment]:
        """Returns the readings of each piece. Damaged ones are empty and added to `damaged`."""
        return [self._load(piece.place) for piece in pieces]

    def _load(self, place: int | SeriesPart | BlockSeries) -> Segment:
        if isinstance(place, SeriesPart):
            return Segment(place.timestamps, place.values, None)
        if isinstance(place, BlockSeries):
            found = self.blocks.readings_of(place.id, place.index)
            return _NOTHING if found is None else Segment(*found, place.ranks)
        try:
            return unpack_ranked(
                self.connection.execute("SELECT data FROM segments WHERE id = ?", (place,)).fetchone()[0]
            )
        except CorruptSegmentError as error:
            self.damaged[DamagedPart("segment", place)] = str(error)
            return _NOTHING


def _block_piece(id_: int, start_us: int, end_us: int, head: BlockHead, number: int) -> Piece:
    """Returns the readings of a series in a block. They lie between the first and the last reading of the block."""
    index = head.index_of(number % BLOCK_SERIES)
    rank, ranks = head.uniform_rank, None
    if rank is None:
        ranks = head.ranks_of(index)
        rank = ranks.highest
    return Piece(rank, start_us, end_us, int(head.lengths[index]), BlockSeries(id_, index, ranks))


def _by_day(part: SeriesPart) -> list[Piece]:
    """Splits a part into pieces that lie within one day each, as segments do."""
    if len(part.values) == 1:
        at = part.timestamps.item()
        return [Piece(part.rank, at, at, 1, part)]
    days = part.timestamps // DAY_US
    if int(days.min()) == int(days.max()):
        return [_piece(part)]
    order = np.argsort(days, kind="stable")
    cuts = np.flatnonzero(np.diff(days[order])) + 1
    return [
        _piece(SeriesPart(part.rank, part.timestamps[places], part.values[places])) for places in np.split(order, cuts)
    ]


def _piece(part: SeriesPart) -> Piece:
    return Piece(part.rank, int(part.timestamps.min()), int(part.timestamps.max()), len(part.values), part)


def read_machines(connection: sqlite3.Connection) -> list[MachineRecord]:
    """Returns all machines in the tables, ordered by id."""
    return [MachineRecord(*row) for row in connection.execute("SELECT * FROM machines ORDER BY machine_id")]


def read_gateways(connection: sqlite3.Connection) -> dict[str, str]:
    """Returns the gateway from which the readings of each machine come, for those whose gateway is known."""
    return dict(connection.execute("SELECT machine_id, gateway FROM machine_gateways"))


def read_series(connection: sqlite3.Connection) -> Iterator[tuple[int, str, str]]:
    """Yields the number, machine and sensor of each series, in the order of the numbers."""
    yield from connection.execute("SELECT id, machine_id, sensor FROM series ORDER BY id")


def read_source_numbers(connection: sqlite3.Connection, machine_id: str) -> set[int]:
    """Returns the numbers of the sources whose readings of a machine are kept, including damaged segments.

    The set contains UNKNOWN_SOURCE if not all sources can be determined.
    """
    rows = connection.execute(
        "WITH of_machine AS (SELECT id, last_source, last_us FROM series WHERE machine_id = ?) "
        "SELECT last_source FROM of_machine WHERE last_us >= 0 "
        "UNION SELECT source FROM segments WHERE series IN (SELECT id FROM of_machine) "
        "UNION SELECT source FROM damaged_segments WHERE series IN (SELECT id FROM of_machine)",
        (machine_id,),
    )
    numbers = {row[0] for row in rows}
    ranked = connection.execute(
        "WITH of_machine AS (SELECT id FROM series WHERE machine_id = ?1) "
        "SELECT data FROM segments WHERE series IN (SELECT id FROM of_machine) AND substr(data, 4, 1) != x'00' "
        "UNION ALL SELECT NULL FROM damaged_segments WHERE series IN (SELECT id FROM of_machine) LIMIT ?2",
        (machine_id, MOST_RANKED + 1),
    )
    for number, (data,) in enumerate(ranked):
        try:
            ranks = unpack_ranks(data) if data is not None and number < MOST_RANKED else None
        except CorruptSegmentError:
            ranks = None
        numbers |= {source for (source,) in ranks.sources} if ranks is not None else {UNKNOWN_SOURCE}
    return numbers | _block_sources(connection, machine_id)


def _block_sources(connection: sqlite3.Connection, machine_id: str) -> set[int]:
    """Returns the numbers of the sources of a machine's readings in blocks, as `read_source_numbers` does."""
    series = [row[0] for row in connection.execute("SELECT id FROM series WHERE machine_id = ?", (machine_id,))]
    numbers: set[int] = set()
    for bucket in sorted({number // BLOCK_SERIES for number in series}):
        places = [number % BLOCK_SERIES for number in series if number // BLOCK_SERIES == bucket]
        damaged = connection.execute("SELECT 1 FROM damaged_blocks WHERE bucket = ? LIMIT 1", (bucket,)).fetchone()
        heads = connection.execute(
            "SELECT head FROM blocks WHERE bucket = ? LIMIT ?", (bucket, _MOST_BLOCKS + 1)
        ).fetchall()
        if damaged is not None or len(heads) > _MOST_BLOCKS:
            numbers.add(UNKNOWN_SOURCE)
        for (data,) in heads[:_MOST_BLOCKS]:
            try:
                numbers |= _sources_in(BlockHead(data), places)
            except CorruptBlockError:
                numbers.add(UNKNOWN_SOURCE)
    return numbers


def _sources_in(head: BlockHead, places: Sequence[int]) -> set[int]:
    indexes = [index for place in places if (index := head.index_of(place)) >= 0]
    if not indexes:
        return set()
    if head.uniform_rank is not None:
        return {head.uniform_rank[0]}
    return {source for index in indexes for (source,) in head.ranks_of(index).sources}


def read_ends(connection: sqlite3.Connection, ends: AllEnds) -> None:
    """Includes the first and the last reading of each series in the tables."""
    ends.include_rows(
        connection.execute(
            "SELECT id, first_us, last_us, last_value, last_source, last_sequence FROM series WHERE last_us >= 0"
        ).fetchall()
    )
    # The rows of series include the readings of merged blocks
    blocks = connection.execute("SELECT bucket, id FROM blocks WHERE level = 0 ORDER BY bucket").fetchall()
    for bucket, rows in itertools.groupby(blocks, key=operator.itemgetter(0)):
        ids = [row[1] for row in rows]
        for first in range(0, len(ids), _JOINED_AT_ONCE):
            joined, _ = read_blocks(connection, ids[first : first + _JOINED_AT_ONCE])
            if joined is not None:
                ends.include(SeriesEnds.of(merge_joined(bucket, joined, lambda ranks: ranks)))


def read_events(  # noqa: PLR0917
    connection: sqlite3.Connection,
    kind: str,
    machine_id: str,
    start_us: int,
    end_us: int,
    limit: int,
    before: tuple[int, str] | None = None,
) -> list[Event]:
    """Returns the newest events in the range, newest first; see Store.events."""
    rows = connection.execute(
        "SELECT kind, machine_id, at_us, id, data, number FROM events WHERE kind = ? AND machine_id = ? "
        "AND at_us >= ? AND (at_us, id) < (?, ?) ORDER BY at_us DESC, id DESC LIMIT ?",
        (kind, machine_id, start_us, *_below(end_us, before), limit),
    )
    return [Event(*row) for row in rows]


def read_events_about(  # noqa: PLR0917
    connection: sqlite3.Connection,
    kind: str,
    about: str,
    start_us: int,
    end_us: int,
    limit: int,
    before: tuple[int, str] | None = None,
) -> list[Event]:
    """Returns events of the plant as a whole that concern a machine; see Store.events_about."""
    rows = connection.execute(
        # The first two conditions and the expression are those of the index. SQLite would choose the primary key, and
        # read the events of all machines
        "SELECT kind, machine_id, at_us, id, data, number FROM events INDEXED BY events_about "
        "WHERE machine_id = '' AND instr(id, '~') > 0 "
        "AND kind = ? AND substr(id, 1, instr(id, '~') - 1) = ? AND at_us >= ? AND (at_us, id) < (?, ?) "
        "ORDER BY at_us DESC, id DESC LIMIT ?",
        (kind, about, start_us, *_below(end_us, before), limit),
    )
    return [Event(*row) for row in rows]


def read_journal(connection: sqlite3.Connection, kind: str, after: int, before: int, limit: int) -> list[Event]:
    """Returns events of the plant as a whole; see Store.journal."""
    rows = connection.execute(
        "SELECT kind, machine_id, at_us, id, data, number FROM events WHERE kind = ? AND machine_id = '' "
        "AND number > ? AND number < ? ORDER BY number DESC LIMIT ?",
        (kind, after, before, limit),
    )
    return [Event(*row) for row in rows]


def last_number(connection: sqlite3.Connection) -> int:
    """Returns the highest number of an event of the plant as a whole."""
    return int(connection.execute("SELECT coalesce(max(number), 0) FROM events WHERE machine_id = ''").fetchone()[0])


def _below(end_us: int, before: tuple[int, str] | None) -> tuple[int, str]:
    """Returns the time and id that all events of the range and of the page are below."""
    return min((end_us, ""), before) if before else (end_us, "")
