"""How a question about one series is answered from its segments, wherever they are kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from aurum.ingestion.downsample import Reducer, merge, reduce_points
from aurum.ingestion.store import DAY_US, MAX_RAW, Points
from aurum.readings.batch import Timestamps, Values
from aurum.runtime.errors import InvalidArgumentError
from aurum.storage.ranks import Rank, Ranked, Ranks, merge_ranked
from aurum.storage.segment import Segment

_AT_ONCE = 200_000  # readings


@dataclass(frozen=True, slots=True)
class Piece:
    """A segment that was not read yet; it lies within one day (UTC). rank: of its readings, or the highest of these.
    place: where they are, known to the source that it is of.
    """

    rank: Rank
    start_us: int
    end_us: int
    count: int
    place: Any


class SegmentSource(Protocol):
    """The segments of one series."""

    def pieces(self, start_us: int, end_us: int) -> list[Piece]:
        """All that may have readings in [start_us, end_us)."""

    def newest_before(self, before_us: int) -> int | None:
        """A time before `before_us`, on the day of the newest reading before it; None if there is none."""

    def load(self, pieces: Sequence[Piece]) -> list[Segment]:
        """The readings of each, none of one that is damaged."""


def read(source: SegmentSource, start_us: int, end_us: int, *, points: int, last: int) -> Points:
    """As Store.read. Raises InvalidArgumentError for too many readings."""
    if last:
        timestamps, values = read_last(source, start_us, end_us, last)
        return reduce_points(timestamps, values, start_us, end_us, points)
    return read_range(source, start_us, end_us, points)


def read_range(source: SegmentSource, start_us: int, end_us: int, points: int) -> Points:
    """All readings of [start_us, end_us), or as many points."""
    pieces = source.pieces(start_us, end_us)
    total = sum(piece.count for piece in pieces)
    if not points and total > MAX_RAW:
        raise InvalidArgumentError.of(
            "points", f"the range has {total} readings; ask for at most {MAX_RAW}, or reduce them with points"
        )
    if not points or total <= points:
        return Points(*merged(source, pieces, start_us, end_us))
    reducer = Reducer(start_us, end_us, points)
    days: dict[int, list[Piece]] = {}
    for piece in pieces:
        days.setdefault(piece.start_us // DAY_US, []).append(piece)
    together: list[Piece] = []  # of whole days, as many as are worth a step, and no more than fit into memory
    count = 0
    for day in sorted(days):
        together += days[day]
        count += sum(piece.count for piece in days[day])
        if count >= _AT_ONCE:
            reducer.add(*merged(source, together, start_us, end_us))
            together, count = [], 0
    reducer.add(*merged(source, together, start_us, end_us))
    return reducer.result()


def read_last(source: SegmentSource, start_us: int, end_us: int, last: int) -> tuple[Timestamps, Values]:
    """The last so many readings in the range, read backwards day by day."""
    found: list[tuple[Timestamps, Values]] = []
    count = 0
    before = end_us
    while count < last and before > start_us:
        newest = source.newest_before(before)
        if newest is None or newest < start_us // DAY_US * DAY_US:
            break
        low = max(start_us, newest // DAY_US * DAY_US)
        part = _last_of_day(source, low, before, last - count)
        found.insert(0, part)
        count += len(part[0])
        before = low
    timestamps, values = merge(found)
    return timestamps[-last:], values[-last:]


def merged(source: SegmentSource, pieces: Sequence[Piece], start_us: int, end_us: int) -> tuple[Timestamps, Values]:
    """The readings of pieces in any order, cut to [start_us, end_us). Of readings at the same time the one of the
    highest rank counts."""
    ordered = sorted(pieces, key=lambda piece: (piece.rank, piece.start_us))
    loaded = source.load(ordered)
    if all(segment.ranks is None for segment in loaded):
        timestamps, values = merge([segment[:2] for segment in loaded])
    else:
        found = zip(ordered, loaded, strict=True)
        timestamps, values, _ = merge_ranked([ranked(*each) for each in found if len(each[1].values)])
    low, high = np.searchsorted(timestamps, [start_us, end_us])
    return timestamps[low:high], values[low:high]


def ranked(piece: Piece, segment: Segment) -> Ranked:
    """What was read of a piece, with a rank for each reading."""
    timestamps, values, ranks = segment
    return timestamps, values, ranks or Ranks.of(piece.rank, len(values))


def _last_of_day(source: SegmentSource, start_us: int, end_us: int, last: int) -> tuple[Timestamps, Values]:
    """At least the last so many readings of a range within one day, if there are as many."""
    waiting = sorted(source.pieces(start_us, end_us), key=lambda piece: piece.end_us)
    taken: list[Piece] = []
    gathered = 0
    while True:
        while waiting and gathered < last:
            piece = waiting.pop()
            taken.append(piece)
            gathered += piece.count
        timestamps, values = merged(source, taken, start_us, end_us)
        # What was left out has no reading after the end of the last of it.
        if not waiting or len(timestamps) - np.searchsorted(timestamps, waiting[-1].end_us, side="right") >= last:
            return timestamps, values
        gathered = last - 1  # one more at least
