"""Merging of small segments in Cassandra. Several replicas may do it at once.

A merged segment is durable in a quorum before its parts are deleted. Its key says which parts it has: replicas that
merge the same parts at the same time write the same row, and those that have seen different parts write different
ones, so that none replaces a segment with more. At every moment, even after a kill, all readings exist at least once,
and of readings at the same time the one that counts.

Each reading keeps its rank, so that late readings are still ordered correctly. Batches of a source without a gap
share one rank.
"""

import itertools

import numpy as np

from aurum.ingestion.cassandra.block_cache import BlockCache
from aurum.ingestion.cassandra.schema import BLOCK, merged_source
from aurum.ingestion.cassandra.series import CassandraSeries, SegmentsChangedError, StoredSeries
from aurum.ingestion.cassandra.session import CassandraSession
from aurum.ingestion.cassandra.sources import received_in_tables
from aurum.ingestion.series_reader import Piece, with_ranks
from aurum.ingestion.store import SMALL
from aurum.runtime.time_units import DAY_US
from aurum.storage import sequence_ranges
from aurum.storage.ranks import Integers, Ranks, collapse, merge_ranked, sequence_spans
from aurum.storage.segment import Segment, pack

FAN_IN = 64  # segments that a replica writes to a day before it merges them
_MOST_PARTS = 2000  # merged at a time
_MOST_BLOCKS = 64  # blocks of sequences that are read for a source; sequences further apart keep their ranks

Place = tuple[str, str, int]  # machine, sensor, day


class Compactor:
    """The days of series that this replica has written to. For the event loop; `merge_day` runs on a thread."""

    def __init__(self, most: int = 200_000) -> None:
        self._most = most
        self._written: dict[Place, int] = {}
        self._due: dict[Place, None] = {}

    def record_segment(self, place: Place) -> None:
        """Records a segment that was written."""
        count = self._written.get(place, 0) + 1
        if count >= FAN_IN:
            self._written.pop(place, None)
            self._due[place] = None
        elif len(self._written) < self._most or place in self._written:
            self._written[place] = count

    def mark_completed_days(self, today: int) -> None:
        """Marks the days before today that have several new segments as due."""
        for place in [place for place, count in self._written.items() if place[2] < today and count > 1]:
            del self._written[place]
            self._due[place] = None

    def pop_due(self) -> Place | None:
        """Removes and returns a day of a series that is due, or None."""
        return self._due.popitem()[0] if self._due else None


def merge_day(session: CassandraSession, place: Place, ttl: int, *, over: bool) -> int:
    """Merges the segments of one day of a series.

    Args:
        session: The session.
        place: The series and the day.
        ttl: The seconds that readings are kept; 0 for ever.
        over: Whether the day is over.

    Returns:
        The number of merged segments.

    Raises:
        UnavailableError: If Cassandra does not answer.
    """
    machine_id, sensor, day = place
    series = CassandraSeries(session, machine_id, sensor)
    pieces = [piece for piece in _pieces(series, day) if over or piece.count < SMALL][:_MOST_PARTS]
    if len(pieces) < 2:
        return 0
    try:
        readable = [
            each for each in zip(pieces, series.load(pieces), strict=True) if each[0].place not in series.damaged
        ]
        if len(readable) < 2:
            return 0
        pieces = [piece for piece, _ in readable]
        timestamps, values, ranks = merge_ranked([with_ranks(*each) for each in readable])
        ranks = _collapsed(series, day, pieces, ranks, (int(timestamps[0]), int(timestamps[-1])))
    except SegmentsChangedError:
        return 0  # another replica is merging them
    order, source, sequence = ranks.highest
    key = (*place, int(timestamps[0]), order, merged_source(source, [piece.place for piece in pieces]), sequence)
    row = (*key, int(timestamps[-1]), len(values), pack(timestamps, values, ranks), ttl)
    list(session.rows("add_segment", row))
    session.rows_for_each("drop_segment", [piece.place for piece in pieces])
    return len(pieces)


def _pieces(series: CassandraSeries, day: int) -> list[Piece]:
    return sorted(series.pieces(day * DAY_US, (day + 1) * DAY_US), key=lambda piece: piece.rank)


def _collapsed(series: CassandraSeries, day: int, pieces: list[Piece], ranks: Ranks, between: tuple[int, int]) -> Ranks:
    """Returns the ranks of the merged pieces, fewer where no batch can come in between. Raises SegmentsChangedError."""
    received = {
        source: _received(series.session, source[1], ranks.sequences_of(source)) for source in sequence_spans(ranks)
    }
    # Read after the received sequences, whose readings were durable before
    stored = StoredSeries(series, BlockCache(series.session)) if received else series
    present = stored.pieces(day * DAY_US, (day + 1) * DAY_US)
    merged = {piece.place for piece in pieces}
    others = [piece for piece in present if isinstance(piece.place, Segment) or piece.place not in merged]
    if len(others) + len(merged) > len(present):
        raise SegmentsChangedError
    start, end = between
    others = [piece for piece in others if piece.start_us <= end and piece.end_us >= start]
    loaded = zip(others, stored.load(others), strict=True) if received else ()
    return collapse(ranks, received, [with_ranks(*each)[2] for each in loaded if len(each[1].values)])


def _received(session: CassandraSession, source: str, sequences: Integers) -> list[sequence_ranges.Range]:
    """Returns the sequences that are known to be stored, in the blocks of `sequences` and between near ones."""
    present = np.unique(sequences // BLOCK)[-_MOST_BLOCKS:].tolist()
    blocks = set(present)
    for before, after in itertools.pairwise(present):
        if len(blocks) + after - before <= _MOST_BLOCKS:
            blocks.update(range(before, after))
    received: list[sequence_ranges.Range] = []
    for block in blocks:
        for first, last in received_in_tables(session, source, block):
            sequence_ranges.record(received, first, last)
    return received
