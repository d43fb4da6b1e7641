"""Merging of blocks, in small steps beside the ingestion of readings.

Each flush adds a block for each bucket of series. _FAN_IN blocks of a bucket, day and level are merged into one of the
next level; series that then have many readings on the day move from blocks to segments of their own. When a day is
over, its blocks are merged into one for each bucket. Each reading keeps its rank, or gets a higher one that orders it
in the same way.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from aurum.ingestion.sqlite.blocks import DamagedPart, read_blocks
from aurum.ingestion.sqlite.packing import Added, BlockLevel, SeriesDay, insert, pack_days
from aurum.ingestion.sqlite.quarantine import set_apart
from aurum.ingestion.sqlite.received import one_state, received_in
from aurum.ingestion.sqlite.series_ends import SeriesEnds
from aurum.ingestion.store import SETTLED_US
from aurum.runtime.time_units import DAY_US
from aurum.storage.block import BLOCK_SERIES
from aurum.storage.block_joining import merge_joined
from aurum.storage.block_unpacking import BlockHead, CorruptBlockError
from aurum.storage.database import transaction
from aurum.storage.packed_readings import PackedReadings
from aurum.storage.ranks import Rank, Ranks, collapse, sequence_spans
from aurum.storage.segment import CorruptSegmentError, unpack_ranks
from aurum.storage.sequence_ranges import Range

_FAN_IN = 16
_MOST_AT_ONCE = 400_000  # readings that are merged in a step, approximately; merging takes about 60 bytes for each
_REMEMBERED = 100_000  # levels of days of buckets; with more, they are cleared, and the next find_due finds them
BucketDay = tuple[int, int]  # bucket, day


@dataclass(frozen=True, slots=True)
class _Row:
    """A block without its content."""

    id: int
    level: int
    start_us: int
    end_us: int
    count: int


@dataclass(slots=True)
class BlockMerger:
    """Finds blocks to merge, and merges them in steps. For one thread, as Compactor."""

    _added: Counter[BlockLevel] = field(default_factory=Counter)
    _due: dict[BucketDay, None] = field(default_factory=dict)
    merged_blocks: int = 0

    @property
    def due(self) -> int:
        """The number of days of buckets that wait to be merged."""
        return len(self._due)

    def record_added(self, blocks: Counter[BlockLevel]) -> None:
        """Records the blocks that were written."""
        self._added.update(blocks)
        for place in blocks:
            if self._added[place] >= _FAN_IN:
                self._due[place[:2]] = None
        if len(self._added) > _REMEMBERED:
            self._added.clear()

    def find_due(self, connection: sqlite3.Connection, now_us: int) -> None:
        """Finds everything that can be merged. Runs at the start, and regularly for days that are over."""
        days: dict[BucketDay, list[tuple[int, int, int, int]]] = {}
        for bucket, day, *of_level in connection.execute(
            "SELECT bucket, start_us / ?1 AS day, level, count(*), sum(count), max(count) FROM blocks "
            "GROUP BY bucket, day, level",
            (DAY_US,),
        ):
            self._added[bucket, day, of_level[0]] = of_level[1]
            days.setdefault((bucket, day), []).append(tuple(of_level))
        for place, levels in days.items():
            if any(blocks >= _FAN_IN for _, blocks, _, _ in levels) or (
                is_over(place[1], now_us)
                and _is_worth_merging(
                    sum(blocks for _, blocks, _, _ in levels),
                    sum(readings for _, _, readings, _ in levels),
                    max(largest for _, _, _, largest in levels),
                )
            ):
                self._due[place] = None

    def merge_next(self, connection: sqlite3.Connection, now_us: int) -> Counter[SeriesDay]:
        """Merges some blocks of one day. Returns the added segments. Raises sqlite3.Error; nothing has changed then."""
        if not self._due:
            return Counter()
        place = next(iter(self._due))
        del self._due[place]  # removed first, so that a failing day does not block the others
        with one_state(connection):
            present = _blocks_of(connection, place)
            chosen = _chosen(present, over=is_over(place[1], now_us))
            if not chosen:
                self._correct_counts(place, present)
                return Counter()
            joined, problems = read_blocks(connection, [row.id for row in chosen])
            merged = None
            if joined is not None and not problems:
                merged = merge_joined(place[0], joined, _collapsing(connection, place, chosen, present))
        if merged is None:
            damaged = {DamagedPart("block", id_): problem for id_, problem in problems.items()}
            set_apart(connection, damaged)  # which keeps what is readable
            self._due[place] = None
            return Counter()
        added = _replace(connection, chosen, merged)
        if added is None:
            self._due[place] = None
            return Counter()
        self.merged_blocks += len(chosen)
        present = _blocks_of(connection, place)
        self._correct_counts(place, present)
        if _chosen(present, over=is_over(place[1], now_us)):
            self._due[place] = None  # the rest follows in another step
        return added.segments

    def _correct_counts(self, place: BucketDay, present: Sequence[_Row]) -> None:
        """Counts the present blocks of a day of a bucket."""
        counts = Counter(row.level for row in present)
        for level in range(max(counts, default=0) + 1):
            self._added[*place, level] = counts[level]


def is_over(day: int, now_us: int) -> bool:
    """Returns whether a day, as days since the epoch, has ended a while ago."""
    return now_us > (day + 1) * DAY_US + SETTLED_US


def _is_worth_merging(blocks: int, readings: int, largest: int) -> bool:
    """Returns whether the blocks of a day that is over are merged."""
    return blocks > 1 and ((readings - largest) * 4 >= largest or blocks >= _FAN_IN)


def _blocks_of(connection: sqlite3.Connection, place: BucketDay) -> list[_Row]:
    """Returns the blocks of a day of a bucket, by level and time."""
    bucket, day = place
    rows = connection.execute(
        "SELECT id, level, start_us, end_us, count FROM blocks WHERE bucket = ? AND start_us >= ? AND start_us < ? "
        "ORDER BY level, start_us",
        (bucket, day * DAY_US, (day + 1) * DAY_US),
    )
    return [_Row(*row) for row in rows]


def _chosen(present: list[_Row], *, over: bool) -> list[_Row]:
    """Returns the blocks of a day that are merged together, if any."""
    if over:
        together = sorted(present, key=lambda row: row.start_us)
        counts = [row.count for row in together]
        if not counts or not _is_worth_merging(len(counts), sum(counts), max(counts)):
            return []
    else:
        counts_by_level = Counter(row.level for row in present)
        full = min((level for level, count in counts_by_level.items() if count >= _FAN_IN), default=None)
        together = [row for row in present if row.level == full]
    readings = 0
    for place, row in enumerate(together):
        readings += row.count
        if readings > _MOST_AT_ONCE and place >= 2:
            return together[:place]
    return together


def _collapsing(
    connection: sqlite3.Connection, place: BucketDay, merged: Sequence[_Row], present: Sequence[_Row]
) -> Callable[[Ranks], Ranks]:
    """Returns a function that reduces the different ranks of the merged blocks, see aurum.storage.ranks.collapse."""

    def reduced(ranks: Ranks) -> Ranks:
        received = received_in(connection, sequence_spans(ranks).items())
        if not received:
            return ranks
        start, end = min(row.start_us for row in merged), max(row.end_us for row in merged)
        ids = {row.id for row in merged}
        overlapping = [row.id for row in present if row.id not in ids and row.start_us <= end and row.end_us >= start]
        others = [*_ranks_of_blocks(connection, overlapping), *_ranks_of_segments(connection, place, start, end)]
        return _whole_sources(ranks, received, others) or collapse(ranks, received, others)

    return reduced


def _ranks_of_blocks(connection: sqlite3.Connection, ids: Sequence[int]) -> list[Ranks]:
    found: list[Ranks] = []
    for id_ in ids:
        try:
            head = connection.execute("SELECT head FROM blocks WHERE id = ?", (id_,)).fetchone()[0]
            found.append(BlockHead(head).ranks)
        except CorruptBlockError:
            continue  # its readings are in no answer
    return found


def _ranks_of_segments(connection: sqlite3.Connection, place: BucketDay, start_us: int, end_us: int) -> list[Ranks]:
    """Returns the ranks of the segments of a bucket's series that overlap a range of time on one day."""
    bucket, day = place
    series = list(range(bucket * BLOCK_SERIES, (bucket + 1) * BLOCK_SERIES))
    rows = connection.execute(
        "SELECT source, sequence, CASE WHEN substr(data, 4, 1) != x'00' THEN data END FROM segments "
        "WHERE series IN (SELECT value FROM json_each(?)) AND start_us >= ? AND start_us <= ? AND end_us >= ?",
        (json.dumps(series), day * DAY_US, end_us, start_us),
    )
    uniform: set[Rank] = set()
    found: list[Ranks] = []
    for source, sequence, data in rows:
        ranks = None
        if data is not None:
            try:
                ranks = unpack_ranks(data)
            except CorruptSegmentError:
                continue  # its readings are in no answer
        if ranks is None:
            uniform.add((source, sequence))
        else:
            found.append(ranks)
    return found + [Ranks.uniform(rank, 1) for rank in uniform]


def _whole_sources(ranks: Ranks, received: Mapping[Rank, list[Range]], others: Sequence[Ranks]) -> Ranks | None:
    """Returns what `collapse` does if each source gets one rank, as usual; else None. This takes far less time."""
    separated = {source for other in others for source in other.sources}
    lengths = np.bincount(ranks.places)
    lasts = np.cumsum(lengths) - 1  # the ranks are in order
    firsts = lasts - lengths + 1
    for place, source in enumerate(ranks.sources):
        if lengths[place] > 1:
            low, high = ranks.sequences[firsts[place]], ranks.sequences[lasts[place]]
            ranges = received[source]
            if source in separated or len(ranges) != 1 or not ranges[0][0] <= low <= high <= ranges[0][1]:
                return None
    return Ranks(ranks.sources, np.arange(len(lasts)), ranks.sequences[lasts], lengths)


def _replace(connection: sqlite3.Connection, merged: Sequence[_Row], readings: PackedReadings) -> Added | None:
    """Replaces blocks by their merged readings. Returns what was added; None if a block no longer exists."""
    days = pack_days(readings)
    ends = SeriesEnds.of(readings)
    level = max(row.level for row in merged) + 1
    with transaction(connection):
        present = connection.execute(
            "SELECT count(*) FROM blocks WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps([row.id for row in merged]),),
        ).fetchone()[0]
        if present != len(merged):
            return None
        connection.executemany("DELETE FROM blocks WHERE id = ?", [(row.id,) for row in merged])
        added = insert(connection, days, level)
        ends.update_rows(connection)
    return added
