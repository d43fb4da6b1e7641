"""Merging of blocks, in small steps beside the ingestion of readings.

Each flush adds a block for each bucket of series. _FAN_IN blocks of a bucket, day and level are merged into one of the
next level; series that then have many readings on the day move from blocks to segments of their own. When a day is
over, its blocks are merged into one for each bucket. Each reading keeps its rank, or gets a higher one that orders it
in the same way.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from aurum.ingestion.sqlite.blocks import DamagedPart, read_block
from aurum.ingestion.sqlite.packing import Added, BlockLevel, SeriesDay, insert, pack_days
from aurum.ingestion.sqlite.quarantine import set_apart
from aurum.ingestion.sqlite.received import one_state, received_in
from aurum.ingestion.sqlite.series_ends import SeriesEnds
from aurum.ingestion.store import SETTLED_US
from aurum.runtime.time_units import DAY_US
from aurum.storage.block import BLOCK_SERIES, BlockHead, CorruptBlockError
from aurum.storage.database import transaction
from aurum.storage.packed_readings import PackedReadings, Positions, count_by_series, sort_in_time
from aurum.storage.ranks import Rank, Ranks, collapse, sequence_spans
from aurum.storage.segment import CorruptSegmentError, unpack_ranks

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
            problems: dict[DamagedPart, str] = {}
            parts: list[PackedReadings] = []
            for row in chosen:
                readings, problem = read_block(connection, row.id)
                if problem:
                    problems[DamagedPart("block", row.id)] = problem
                elif readings is not None:
                    parts.append(readings)
            merged = None if problems else merge_packed(parts, _collapsing(connection, place, chosen, present))
        if merged is None:
            set_apart(connection, problems)  # which keeps what is readable
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
        return collapse(ranks, received, others)

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


def merge_packed(parts: Sequence[PackedReadings], reduced: Callable[[Ranks], Ranks]) -> PackedReadings:
    """Merges readings of the series of one bucket. Of readings at the same time, the highest rank is kept.

    Args:
        parts: The readings.
        reduced: Returns ranks with fewer runs for those that it gets: all different ranks of the parts in rising order.
    """
    places = np.concatenate([np.repeat((part.numbers % BLOCK_SERIES).astype(np.uint8), part.lengths) for part in parts])
    timestamps = np.concatenate([part.timestamps for part in parts])
    run_levels, distinct = _levels([part.ranks for part in parts])
    run_lengths = np.concatenate([part.ranks.lengths for part in parts])

    def levels_at(positions: Positions) -> npt.NDArray[np.intp]:
        return np.repeat(run_levels, run_lengths)[positions]

    order = np.argsort(places, kind="stable")
    order, timestamps = sort_in_time(order, places[order], timestamps[order], levels_at)
    found, lengths = count_by_series(places[order].astype(np.int32))
    ranks = reduced(distinct)
    if len(ranks.lengths) == 1:
        ranks = Ranks.uniform(ranks.highest, len(order))
    else:
        run_of_level = np.repeat(np.arange(len(ranks.lengths)), ranks.lengths)
        ranks = ranks.of_runs(run_of_level[levels_at(order)])
    first = int(parts[0].numbers[0]) // BLOCK_SERIES * BLOCK_SERIES
    values = np.concatenate([part.values for part in parts])[order]
    return PackedReadings(found + np.int32(first), lengths, timestamps, values, ranks)


def _levels(parts: Sequence[Ranks]) -> tuple[npt.NDArray[np.intp], Ranks]:
    """Returns for each run of several ranks the position of its rank among all different ranks, and these."""
    sources = tuple(sorted({source for ranks in parts for source in ranks.sources}))
    place_of = {source: place for place, source in enumerate(sources)}
    places = np.concatenate([np.array([place_of[each] for each in ranks.sources])[ranks.places] for ranks in parts])
    sequences = np.concatenate([ranks.sequences for ranks in parts])
    order = np.lexsort((sequences, places))
    places_sorted, sequences_sorted = places[order], sequences[order]
    begins = np.append(
        True,
        (places_sorted[1:] != places_sorted[:-1]) | (sequences_sorted[1:] != sequences_sorted[:-1]),
    )
    levels = np.empty(len(order), np.intp)
    levels[order] = np.cumsum(begins) - 1
    distinct = Ranks(
        sources, places_sorted[begins], sequences_sorted[begins], np.ones(np.count_nonzero(begins), np.int64)
    )
    return levels, distinct


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
