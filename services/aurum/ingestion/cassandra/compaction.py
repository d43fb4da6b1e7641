"""Merging of small segments in Cassandra. Any replica may do it, also several at once.

A merged segment is written, and durable in a quorum, before its parts are deleted; who merges the same parts at the
same time writes the same readings. So at every moment, and after a kill at any, all readings are there at least once,
and of equal times the one that counts.
"""

from aurum.ingestion.cassandra.schema import BLOCK
from aurum.ingestion.cassandra.series import CassandraSeries, SegmentsChangedError
from aurum.ingestion.cassandra.session import CassandraSession
from aurum.ingestion.downsample import merge
from aurum.ingestion.series_reader import Piece, with_overlapped
from aurum.ingestion.store import DAY_US
from aurum.storage import ledger
from aurum.storage.segment import pack

SMALL = 10_000  # readings; a segment with as many is merged no further while its day goes on
FAN_IN = 64  # segments that a replica has written to a day before it merges them
_MOST_PARTS = 2000  # at a time

Place = tuple[str, str, int]  # machine, sensor, day


class Compactor:
    """Which days of series this replica has written to. `note` is for the event loop, `merge` for a thread."""

    def __init__(self, most: int = 200_000) -> None:
        self._most = most
        self._written: dict[Place, int] = {}
        self._due: dict[Place, None] = {}

    def note(self, place: Place) -> None:
        """Takes note of a segment that was written."""
        count = self._written.get(place, 0) + 1
        if count >= FAN_IN:
            self._written.pop(place, None)
            self._due[place] = None
        elif len(self._written) < self._most or place in self._written:
            self._written[place] = count

    def note_days_that_are_over(self, today: int) -> None:
        """What is left of days before today is due too."""
        for place in [place for place, count in self._written.items() if place[2] < today and count > 1]:
            del self._written[place]
            self._due[place] = None

    def next_due(self) -> Place | None:
        """A day of a series that is to be merged; it is then not due any more."""
        return self._due.popitem()[0] if self._due else None


def merge_day(session: CassandraSession, place: Place, ttl: int, *, over: bool) -> int:
    """Merges the segments of one day of a series; how many were merged. over: whether the day is.

    Raises UnavailableError.
    """
    machine_id, sensor, day = place
    series = CassandraSeries(session, machine_id, sensor)
    there = sorted(series.pieces(day * DAY_US, (day + 1) * DAY_US), key=lambda piece: piece.rank)
    picked = [piece for piece in there if over or piece.count < SMALL][:_MOST_PARTS]
    count = 0
    for run in [picked] if over else _runs(session, picked):
        pieces = with_overlapped(run, [piece for piece in there if piece not in run])
        if len(pieces) > 1:
            count += _merge(series, place, pieces, ttl)
    return count


def _runs(session: CassandraSession, pieces: list[Piece]) -> list[list[Piece]]:
    """The pieces by source, and by what came of it without a gap: into a gap something may come that stands, by its
    rank, between pieces that would be one by then."""
    runs: dict[tuple[str, int], list[Piece]] = {}
    by_source: dict[str, list[Piece]] = {}
    for piece in pieces:
        by_source.setdefault(piece.rank[1], []).append(piece)
    for source, found in by_source.items():
        sequences = [piece.rank[2] for piece in found]
        blocks = range(min(sequences) // BLOCK, max(sequences) // BLOCK + 1)
        received: list[ledger.Range] = []
        for rows in session.each("received", [(source, block) for block in blocks]):
            for row in rows:
                ledger.record(received, row.sequence)
        for piece in found:
            known = ledger.contains(received, piece.rank[2])
            first = ledger.run_of(received, piece.rank[2]) if known else piece.rank[2]
            runs.setdefault((source, first), []).append(piece)
    return list(runs.values())


def _merge(series: CassandraSeries, place: Place, pieces: list[Piece], ttl: int) -> int:
    session = series.session
    pieces.sort(key=lambda piece: piece.rank)
    try:
        timestamps, values = merge(series.load(pieces))
    except SegmentsChangedError:
        return 0  # another replica is at it
    pieces = [piece for piece in pieces if piece.place not in series.damaged]
    if len(pieces) < 2:
        return 0
    newest = pieces[-1].rank
    start = int(timestamps[0])
    key = (*place, start, *newest)
    row = (*key, int(timestamps[-1]), len(values), pack(timestamps, values), ttl)
    list(session.rows("add_segment", row))
    session.each("drop_segment", [piece.place for piece in _others(pieces, key)])
    return len(pieces)


def _others(pieces: list[Piece], key: tuple[object, ...]) -> list[Piece]:
    return [piece for piece in pieces if piece.place != key]
