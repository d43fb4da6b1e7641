"""Reads the last readings of several series together, by array operations over the blocks that they share.

It serves the usual case: the series have few readings each, and no two of these at the same time. Otherwise the series
are read one by one.
"""

import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from aurum.ingestion.downsample import reduce_points
from aurum.ingestion.memtable import SeriesPart
from aurum.ingestion.sqlite.blocks import BlockReader
from aurum.ingestion.store import READ_AT_ONCE, Points
from aurum.readings.batch import Timestamps, Values
from aurum.runtime.time_units import DAY_US
from aurum.storage.block import BLOCK_SERIES
from aurum.storage.block_unpacking import BlockHead, times_of_steps

_MOST = 4 * READ_AT_ONCE  # readings of blocks that are unpacked together

Counts = npt.NDArray[np.int64]


@dataclass(slots=True)
class _Gathered:
    """Readings of blocks: for each run of a series, its owner, length and start, and the columns of all runs."""

    owners: list[int] = field(default_factory=list)
    lengths: list[npt.NDArray[np.uint32]] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    steps: list[npt.NDArray[Any]] = field(default_factory=list)
    values: list[Values] = field(default_factory=list)


def read_last_together(  # noqa: PLR0917
    connection: sqlite3.Connection,
    blocks: BlockReader,
    numbers: Sequence[int | None],
    recent: Sequence[Sequence[SeriesPart]],
    start_us: int,
    end_us: int,
    points: int,
    last: int,
) -> list[Points] | None:
    """Returns the last `last` readings in [start_us, end_us) of each series, as `series_reader.read` does.

    Args:
        connection: The connection, within a transaction.
        blocks: Reads the blocks.
        numbers: The numbers of the series; None for one that has none.
        recent: For each series the readings that may not be in the tables yet.
        start_us: The first time.
        end_us: The time after the last.
        points: The number of intervals to reduce each answer to; 0 for none.
        last: How many readings, counted from the end.

    Returns:
        The readings, or None if the series have to be read one by one.
    """
    series = [number for number in numbers if number is not None]
    if len(series) < 2 or len(set(series)) < len(numbers) or len(series) * last > READ_AT_ONCE:
        return None
    if _have_segments(connection, series, start_us, end_us):
        return None
    times, values, owners = _recent(recent)
    gathered = _gather(blocks, series, times[times < end_us], owners[times < end_us], start_us, end_us, last)
    if gathered is None:
        return None
    if gathered.owners:
        lengths = np.concatenate(gathered.lengths).astype(np.int64)
        starts = np.array(gathered.starts, np.int64)
        steps = np.concatenate(gathered.steps)
        times = np.concatenate([times, times_of_steps(steps, np.cumsum(lengths), lengths, starts)])
        values = np.concatenate([values, *gathered.values])
        owners = np.concatenate([owners, np.repeat(np.array(gathered.owners, np.intp), lengths)])
    inside = (times >= start_us) & (times < end_us)
    times, values, owners = times[inside], values[inside], owners[inside]
    order = np.lexsort((times, owners))
    times, values, owners = times[order], values[order], owners[order]
    if ((times[1:] == times[:-1]) & (owners[1:] == owners[:-1])).any():
        return None  # their ranks decide
    bounds = np.searchsorted(owners, np.arange(len(series) + 1)).tolist()
    return [
        reduce_points(
            times[max(begin, end - last) : end], values[max(begin, end - last) : end], start_us, end_us, points
        )
        for begin, end in itertools.pairwise(bounds)
    ]


def _have_segments(connection: sqlite3.Connection, series: Sequence[int], start_us: int, end_us: int) -> bool:
    found = connection.execute(
        f"SELECT 1 FROM segments WHERE series IN ({', '.join('?' * len(series))}) "  # noqa: S608 - only placeholders
        "AND start_us >= ? AND start_us < ? LIMIT 1",
        (*series, start_us // DAY_US * DAY_US, end_us),
    )
    return found.fetchone() is not None


def _recent(recent: Sequence[Sequence[SeriesPart]]) -> tuple[Timestamps, Values, npt.NDArray[np.intp]]:
    """Returns time, value and owner of each recent reading."""
    parts = [part for of_series in recent for part in of_series]
    if not parts:
        return np.empty(0, np.int64), np.empty(0), np.empty(0, np.intp)
    counts = [sum(len(part.timestamps) for part in of_series) for of_series in recent]
    return (
        np.concatenate([part.timestamps for part in parts]),
        np.concatenate([part.values for part in parts]),
        np.repeat(np.arange(len(recent)), counts),
    )


def _gather(  # noqa: PLR0917
    blocks: BlockReader,
    series: Sequence[int],
    times: Timestamps,
    owners: npt.NDArray[np.intp],
    start_us: int,
    end_us: int,
    last: int,
) -> _Gathered | None:
    """Reads blocks day by day, from the newest on, until each series has enough readings.

    Args:
        blocks: Reads the blocks.
        series: The numbers of the series.
        times: The times of recent readings before `end_us`.
        owners: The index of the series of each.
        start_us: The first time.
        end_us: The time after the last.
        last: How many readings of each series are needed.

    Returns:
        What was read; None if a block is damaged, or if there is too much to read.
    """
    gathered = _Gathered()
    counts: Counts = np.zeros(len(series), np.int64)  # in blocks
    total = 0
    for day, of_day in _days(blocks, series, start_us, end_us):
        later = times >= (day + 1) * DAY_US
        if ((counts + np.bincount(owners[later], minlength=len(series))) >= last).all():
            break
        for id_, places, block_end_us in of_day:
            head = blocks.head_of(id_)
            if head is None:
                return None
            found = [(head.index_of(place), owner) for place, owner in places]
            if not _add_block(blocks, id_, head, sorted(pair for pair in found if pair[0] >= 0), gathered):
                return None
            for index, owner in found:
                if index >= 0:
                    length = int(head.lengths[index])
                    total += length
                    counts[owner] += length if block_end_us < end_us else 0
        if total > _MOST:
            return None
    return gathered


def _days(
    blocks: BlockReader, series: Sequence[int], start_us: int, end_us: int
) -> Iterator[tuple[int, list[tuple[int, list[tuple[int, int]], int]]]]:
    """Yields each day with blocks, the newest first: the id of each block, the places of the series, and its end."""
    of_buckets: dict[int, list[tuple[int, int]]] = {}
    for owner, number in enumerate(series):
        of_buckets.setdefault(number // BLOCK_SERIES, []).append((number % BLOCK_SERIES, owner))
    days: dict[int, list[tuple[int, list[tuple[int, int]], int]]] = {}
    for bucket, places in of_buckets.items():
        for id_, first, end in blocks.rows(bucket, start_us, end_us):
            days.setdefault(first // DAY_US, []).append((id_, places, end))
    for day in sorted(days, reverse=True):
        yield day, days[day]


def _add_block(
    blocks: BlockReader, id_: int, head: BlockHead, found: Sequence[tuple[int, int]], gathered: _Gathered
) -> bool:
    """Adds the readings of some series of a block: index in it, and owner. Returns False if they are damaged."""
    at = 0
    while at < len(found):
        first = found[at][0]
        number = head.frame_of(first)
        after = at + 1
        # Neighbours in a frame are one slice of its columns
        while after < len(found) and found[after][0] == first + after - at and head.frame_of(found[after][0]) == number:
            after += 1
        columns = blocks.columns_of(id_, head, number)
        if columns is None:
            return False
        begin, end = head.range_of(first, first + after - at, number)
        gathered.owners += [owner for _, owner in found[at:after]]
        gathered.lengths.append(head.lengths[first : first + after - at])
        gathered.starts += [head.start_us] * (after - at)
        gathered.steps.append(columns[0][begin:end])
        gathered.values.append(columns[1][begin:end])
        at = after
    return True
