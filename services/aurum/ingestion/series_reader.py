"""Answers queries about one series from its segments, whichever store holds them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aurum.ingestion.downsample import Reducer, merge_parts, reduce_points
from aurum.ingestion.store import MAX_RAW, TOO_MANY_READINGS, Points
from aurum.readings.batch import Timestamps, Values
from aurum.runtime.errors import InvalidArgumentError
from aurum.runtime.time_units import DAY_US
from aurum.storage.ranks import Rank, Ranked, Ranks, merge_ranked
from aurum.storage.segment import Segment

_AT_ONCE = 200_000  # readings
_MOST_DAYS = 32  # that are searched together for the last readings


@dataclass(frozen=True, slots=True)
class Piece:
    """A segment that has not been read yet. It lies within one UTC day.

    Attributes:
        rank: The rank of its readings, or the highest of their ranks.
        start_us: The time of its first reading.
        end_us: The time of its last reading.
        count: The number of its readings.
        place: Where it is stored; only its SegmentSource interprets this.
    """

    rank: Rank
    start_us: int
    end_us: int
    count: int
    place: Any


class SegmentSource(Protocol):
    """The segments of one series."""

    def pieces(self, start_us: int, end_us: int) -> list[Piece]:
        """Returns all pieces that may have readings in [start_us, end_us)."""

    def newest_before(self, before_us: int) -> int | None:
        """Returns a time before `before_us`, on the day of the newest reading before it. None if there is none."""

    def load(self, pieces: Sequence[Piece]) -> list[Segment]:
        """Returns the readings of each piece. A damaged one has no readings."""


def read(source: SegmentSource, start_us: int, end_us: int, *, points: int, last: int) -> Points:
    """Reads a series as Store.read does. Raises InvalidArgumentError if the answer has too many readings."""
    if last:
        timestamps, values = read_last(source, start_us, end_us, last)
        return reduce_points(timestamps, values, start_us, end_us, points)
    return read_range(source, start_us, end_us, points)


def read_range(source: SegmentSource, start_us: int, end_us: int, points: int) -> Points:
    """Returns all readings in [start_us, end_us), or reduces them to `points` intervals."""
    pieces = source.pieces(start_us, end_us)
    total = sum(piece.count for piece in pieces)
    if not points and total > MAX_RAW:
        error = InvalidArgumentError.for_field(
            "points", f"the range has {total} readings; ask for at most {MAX_RAW}, or reduce them with points"
        )
        error.reason = TOO_MANY_READINGS
        raise error
    if not points or total <= points:
        return Points(*read_merged(source, pieces, start_us, end_us))
    reducer = Reducer(start_us, end_us, points)
    days: dict[int, list[Piece]] = {}
    for piece in pieces:
        days.setdefault(piece.start_us // DAY_US, []).append(piece)
    together: list[Piece] = []  # pieces of whole days that are read in one step; the size bounds the memory
    count = 0
    for day in sorted(days):
        together += days[day]
        count += sum(piece.count for piece in days[day])
        if count >= _AT_ONCE:
            reducer.add_readings(*read_merged(source, together, start_us, end_us))
            together, count = [], 0
    reducer.add_readings(*read_merged(source, together, start_us, end_us))
    return reducer.result()


def read_last(source: SegmentSource, start_us: int, end_us: int, last: int) -> tuple[Timestamps, Values]:
    """Returns the last `last` readings in the range.

    Reads backwards: first the newest day, then as many days at a time as should suffice by the readings found so far.
    """
    parts: list[tuple[Timestamps, Values]] = []
    count = 0
    before = end_us
    days, found_in = 1, 0
    while count < last and before > start_us:
        newest = source.newest_before(before)
        if newest is None or newest < start_us // DAY_US * DAY_US:
            break
        low = max(start_us, (newest // DAY_US - days + 1) * DAY_US)
        part = _last_between(source, low, before, last - count)
        parts.insert(0, part)
        count += len(part[0])
        found_in += days
        days = min(_MOST_DAYS, -(-(last - count) * found_in // count)) if count else min(_MOST_DAYS, 2 * days)
        before = low
    timestamps, values = merge_parts(parts)
    return timestamps[-last:], values[-last:]


def read_merged(
    source: SegmentSource, pieces: Sequence[Piece], start_us: int, end_us: int
) -> tuple[Timestamps, Values]:
    """Returns the readings of pieces in any order, sorted and cut to [start_us, end_us).

    Of readings at the same time, the one with the highest rank counts.
    """
    ordered = sorted(pieces, key=lambda piece: (piece.rank, piece.start_us)) if len(pieces) > 1 else pieces
    loaded = source.load(ordered)
    if all(segment.ranks is None for segment in loaded):
        timestamps, values = merge_parts([segment[:2] for segment in loaded])
    else:
        readings = zip(ordered, loaded, strict=True)
        timestamps, values, _ = merge_ranked([with_ranks(*each) for each in readings if len(each[1].values)])
    low, high = timestamps.searchsorted((start_us, end_us)).tolist()
    return timestamps[low:high], values[low:high]


def with_ranks(piece: Piece, segment: Segment) -> Ranked:
    """Returns the readings of a piece with a rank for each."""
    timestamps, values, ranks = segment
    return timestamps, values, ranks or Ranks.uniform(piece.rank, len(values))


def _last_between(source: SegmentSource, start_us: int, end_us: int, last: int) -> tuple[Timestamps, Values]:
    """Returns at least the last `last` readings of a range, if there are so many."""
    waiting = sorted(source.pieces(start_us, end_us), key=lambda piece: piece.end_us)
    taken: list[Piece] = []
    gathered = 0
    while True:
        while waiting and gathered < last:
            piece = waiting.pop()
            taken.append(piece)
            gathered += piece.count
        timestamps, values = read_merged(source, taken, start_us, end_us)
        # No omitted piece has a reading after the end of the last of them.
        if not waiting or len(timestamps) - timestamps.searchsorted(waiting[-1].end_us, side="right") >= last:
            return timestamps, values
        gathered = last - 1  # reads at least one more piece
