"""Merging of small segments in Cassandra. Any replica may do it, also several at once.

A merged segment is written, and durable in a quorum, before its parts are deleted; who merges the same parts at the
same time writes the same readings. So at every moment, and after a kill at any, all readings are there at least once,
and of equal times the one that counts. Each reading keeps its rank, so that what comes later finds its place; what a
source has sent without a gap has one rank.
"""

import itertools

import numpy as np

from aurum.ingestion.cassandra.schema import BLOCK
from aurum.ingestion.cassandra.series import CassandraSeries, SegmentsChangedError
from aurum.ingestion.cassandra.session import CassandraSession
from aurum.ingestion.series_reader import Piece, ranked
from aurum.ingestion.store import DAY_US
from aurum.storage import ledger
from aurum.storage.ranks import Integers, Ranks, collapsed, merge_ranked, spans
from aurum.storage.segment import pack

SMALL = 10_000  # readings; a segment with as many is merged no further while its day goes on
FAN_IN = 64  # segments that a replica has written to a day before it merges them
_MOST_PARTS = 2000  # at a time
_MOST_BLOCKS = 64  # of the sequences of a source that are asked for; what is further apart keeps its ranks

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
    pieces = [piece for piece in _pieces(series, day) if over or piece.count < SMALL][:_MOST_PARTS]
    if len(pieces) < 2:
        return 0
    try:
        found = [each for each in zip(pieces, series.load(pieces), strict=True) if each[0].place not in series.damaged]
        if len(found) < 2:
            return 0
        pieces = [piece for piece, _ in found]
        timestamps, values, ranks = merge_ranked([ranked(*each) for each in found])
        ranks = _collapsed(series, day, pieces, ranks, (int(timestamps[0]), int(timestamps[-1])))
    except SegmentsChangedError:
        return 0  # another replica is at it
    key = (*place, int(timestamps[0]), *ranks.highest)
    row = (*key, int(timestamps[-1]), len(values), pack(timestamps, values, ranks), ttl)
    list(session.rows("add_segment", row))
    session.each("drop_segment", [piece.place for piece in pieces if piece.place != key])
    return len(pieces)


def _pieces(series: CassandraSeries, day: int) -> list[Piece]:
    return sorted(series.pieces(day * DAY_US, (day + 1) * DAY_US), key=lambda piece: piece.rank)


def _collapsed(series: CassandraSeries, day: int, pieces: list[Piece], ranks: Ranks, between: tuple[int, int]) -> Ranks:
    """The ranks of the merged pieces, fewer where nothing can come in between. Raises SegmentsChangedError."""
    received = {source: _received(series.session, source[1], ranks.sequences_of(source)) for source in spans(ranks)}
    # Only now, since the segments of what was received were durable before
    there = _pieces(series, day)
    merged = {piece.place for piece in pieces}
    if not merged <= {piece.place for piece in there}:
        raise SegmentsChangedError
    start, end = between
    others = [p for p in there if p.place not in merged and p.start_us <= end and p.end_us >= start]
    found = zip(others, series.load(others), strict=True) if received else ()
    return collapsed(ranks, received, [ranked(*each)[2] for each in found if len(each[1].values)])


def _received(session: CassandraSession, source: str, sequences: Integers) -> list[ledger.Range]:
    """Which sequences are known to be stored, of the blocks that some lie in, and of those between near ones."""
    present = np.unique(sequences // BLOCK)[-_MOST_BLOCKS:].tolist()
    blocks = set(present)
    for before, after in itertools.pairwise(present):
        if len(blocks) + after - before <= _MOST_BLOCKS:
            blocks.update(range(before, after))
    received: list[ledger.Range] = []
    for rows in session.each("received", [(source, block) for block in blocks]):
        for row in rows:
            ledger.record(received, row.sequence)
    return received
