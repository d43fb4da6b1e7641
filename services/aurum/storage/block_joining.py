"""Joining of blocks of one bucket: their readings, sorted, with one reading for each time of a series."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from aurum.storage.block import BLOCK_SERIES
from aurum.storage.block_unpacking import JoinedBlocks
from aurum.storage.packed_readings import PackedReadings, Positions, count_by_series, sort_in_time
from aurum.storage.ranks import Ranks


def merge_joined(bucket: int, blocks: JoinedBlocks, reduced: Callable[[Ranks], Ranks]) -> PackedReadings:
    """Merges the blocks of a bucket. Of readings at the same time, the one with the highest rank is kept.

    Args:
        bucket: The bucket.
        blocks: The readings.
        reduced: Returns ranks with fewer runs for those that it gets: all different ranks of the parts in rising order.
    """
    run_levels, distinct = _levels(blocks.ranks)
    run_lengths = np.concatenate([ranks.lengths for ranks in blocks.ranks])

    def levels_at(positions: Positions) -> npt.NDArray[np.intp]:
        return np.repeat(run_levels, run_lengths)[positions]

    # The series of all blocks are sorted instead of their readings
    series = np.argsort(blocks.places, kind="stable")
    lengths = blocks.lengths[series]
    ends = np.cumsum(lengths)
    order = np.arange(ends[-1])
    order += np.repeat((np.cumsum(blocks.lengths) - blocks.lengths)[series] - (ends - lengths), lengths)
    places = np.repeat(blocks.places[series], lengths)
    before = len(order)
    order, timestamps = sort_in_time(order, places, blocks.timestamps[order], levels_at)
    if len(order) < before:  # some readings were replaced
        places = np.repeat(blocks.places, blocks.lengths)[order]
    found, lengths = count_by_series(places)
    ranks = reduced(distinct)
    if len(ranks.lengths) == 1:
        ranks = Ranks.uniform(ranks.highest, len(order))
    else:
        run_of_level = np.repeat(np.arange(len(ranks.lengths)), ranks.lengths)
        ranks = ranks.of_runs(run_of_level[levels_at(order)])
    numbers = found.astype(np.int32) + np.int32(bucket * BLOCK_SERIES)
    return PackedReadings(numbers, lengths, timestamps, blocks.values[order], ranks)


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
