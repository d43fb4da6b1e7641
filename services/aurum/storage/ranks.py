"""Ranks of readings. Of the readings of a series at the same time, the one with the highest rank counts.

A rank consists of what identifies the source, in the order in which sources were first seen, and the sequence of the
batch.

Encoding, little-endian: the length u32 of a JSON list of the sources, that list, and the columns of the runs: places
u32, sequences i64, lengths u32. The columns are stored in byte planes (all first bytes, then all second bytes, …).
"""

import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from aurum.readings.batch import Timestamps, Values

Rank = tuple[Any, ...]  # the source, then the sequence
Integers = npt.NDArray[np.int64]
Ranked = tuple[Timestamps, Values, "Ranks"]  # readings in time order, and their ranks
_LENGTH = struct.Struct("<I")
_RUN_BYTES = 16
_RUN_COLUMNS = ((0, 4, "<u4"), (4, 12, "<i8"), (12, 16, "<u4"))  # first byte within a run, end, type


@dataclass(frozen=True, slots=True)
class Ranks:
    """Runs of consecutive readings with the same rank, in the order of the readings.

    Attributes:
        sources: The sources in sorted order. Each has at least one run.
        places: The index in `sources` of each run's source.
        sequences: The sequence of each run's batch.
        lengths: The number of readings in each run, at least one.
    """

    sources: tuple[Rank, ...]
    places: Integers
    sequences: Integers
    lengths: Integers

    @classmethod
    def uniform(cls, rank: Rank, count: int) -> "Ranks":
        """Returns ranks in which all `count` readings have the same rank."""
        return cls((rank[:-1],), np.zeros(1, np.int64), np.array(rank[-1:], np.int64), np.array([count], np.int64))

    @classmethod
    def from_runs(cls, sources: Sequence[Rank], places: Integers, sequences: Integers, lengths: Integers) -> "Ranks":
        """Creates ranks from runs. Adjacent runs may have the same rank, and sources may have no run."""
        begins = np.ones(len(places), np.bool_)
        np.logical_or(places[1:] != places[:-1], sequences[1:] != sequences[:-1], out=begins[1:])
        starts = np.flatnonzero(begins)
        used, places = np.unique(places[starts], return_inverse=True)
        used_sources = tuple(sources[place] for place in used.tolist())
        return cls(used_sources, places.astype(np.int64), sequences[starts], np.add.reduceat(lengths, starts))

    @property
    def highest(self) -> Rank:
        """The highest of the ranks."""
        return (*self.sources[-1], int(self.sequences[self.places == len(self.sources) - 1].max()))

    def between(self, start: int, end: int) -> "Ranks":
        """Returns the ranks of the readings from `start` up to `end`."""
        return next(self.parts([start], [end]))

    def parts(self, starts: Sequence[int], ends: Sequence[int]) -> Iterator["Ranks"]:
        """Yields the ranks of several ranges of readings. Each range has at least one reading."""
        if len(self.lengths) == 1:
            for start, end in zip(starts, ends, strict=True):
                yield Ranks(self.sources, self.places, self.sequences, np.array([end - start], np.int64))
            return
        run_ends = np.cumsum(self.lengths)
        firsts = np.searchsorted(run_ends, starts, side="right").tolist()
        lasts = np.searchsorted(run_ends, ends).tolist()
        for start, end, first, last in zip(starts, ends, firsts, lasts, strict=True):
            lengths = self.lengths[first : last + 1].copy()
            lengths[-1] -= run_ends[last] - end
            lengths[0] -= start - (run_ends[first] - self.lengths[first])
            places, sequences = self.places[first : last + 1], self.sequences[first : last + 1]
            sources = self.sources
            if len(sources) > 1:
                used = np.unique(places)
                sources = tuple(sources[place] for place in used.tolist())
                places = np.searchsorted(used, places)
            yield Ranks(sources, places, sequences, lengths)

    def selected(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> "Ranks":
        """Returns the ranks of some readings, given by a mask or by their positions in the new order."""
        if len(self.lengths) == 1:
            count = int(np.count_nonzero(chosen)) if chosen.dtype == np.bool_ else len(chosen)
            return Ranks(self.sources, self.places, self.sequences, np.array([count], np.int64))
        runs = np.repeat(np.arange(len(self.lengths), dtype=np.int32), self.lengths)[chosen]
        return self.of_runs(runs)

    def of_runs(self, runs: npt.NDArray[np.integer[Any]]) -> "Ranks":
        """Returns the ranks of readings, given for each the number of a run of these ranks."""
        starts = np.flatnonzero(np.append(True, runs[1:] != runs[:-1]))
        lengths = np.diff(np.append(starts, len(runs)))
        return Ranks.from_runs(self.sources, self.places[runs[starts]], self.sequences[runs[starts]], lengths)

    def sequences_of(self, source: Rank) -> Integers:
        """Returns the sequences of the runs of one source."""
        sequences: Integers = self.sequences[self.places == self.sources.index(source)]
        return sequences

    def encode(self) -> bytes:
        """Encodes the ranks as bytes, in the format that the module describes."""
        sources = json.dumps([list(source) for source in self.sources], separators=(",", ":")).encode()
        runs = np.empty((len(self.lengths), _RUN_BYTES), np.uint8)
        for (first, end, kind), column in zip(_RUN_COLUMNS, (self.places, self.sequences, self.lengths), strict=True):
            runs[:, first:end] = column.astype(kind).view(np.uint8).reshape(-1, end - first)
        return _LENGTH.pack(len(sources)) + sources + runs.T.tobytes()

    @classmethod
    def decode(cls, data: bytes, count: int) -> "Ranks":
        """Decodes the result of `encode` for `count` readings. Raises ValueError."""
        if len(data) < _LENGTH.size:
            raise ValueError("the ranks are truncated")
        end = _LENGTH.size + _LENGTH.unpack_from(data)[0]
        if end > len(data) or (len(data) - end) % _RUN_BYTES or end == len(data):
            raise ValueError("the ranks have a wrong length")
        sources = [tuple(source) for source in json.loads(data[_LENGTH.size : end])]
        runs = np.ascontiguousarray(np.frombuffer(data, np.uint8, offset=end).reshape(_RUN_BYTES, -1).T)
        places, sequences, lengths = (
            np.ascontiguousarray(runs[:, first:end]).view(kind).reshape(-1).astype(np.int64)
            for first, end, kind in _RUN_COLUMNS
        )
        if int(places.max()) >= len(sources) or int(lengths.min()) < 1 or int(lengths.sum()) != count:
            raise ValueError("the ranks do not match their readings")
        return cls(tuple(sources), places, sequences, lengths)


def merge_ranked(parts: Sequence[Ranked]) -> Ranked:
    """Merges at least one part into one sorted series. The parts may overlap.

    Of readings at the same time, the one with the highest rank is kept; among equal ranks, the one of the later part.
    """
    sources = sorted({source for _, _, ranks in parts for source in ranks.sources})
    place_of = {source: place for place, source in enumerate(sources)}
    places = np.concatenate(
        [np.array([place_of[source] for source in ranks.sources])[ranks.places] for _, _, ranks in parts]
    )
    sequences = np.concatenate([ranks.sequences for _, _, ranks in parts])
    lengths = np.concatenate([ranks.lengths for _, _, ranks in parts])
    timestamps = np.concatenate([part[0] for part in parts])
    values = np.concatenate([part[1] for part in parts])
    if not (timestamps[1:] > timestamps[:-1]).all():
        levels = np.empty(len(lengths), np.int64)  # the position of each run in rank order
        levels[np.lexsort((sequences, places))] = np.arange(len(lengths))
        runs = np.repeat(np.arange(len(lengths)), lengths)
        order = np.lexsort((levels[runs], timestamps))
        order = order[np.append(np.diff(timestamps[order]) != 0, True)]
        timestamps, values, runs = timestamps[order], values[order], runs[order]
        places, sequences, lengths = places[runs], sequences[runs], np.ones(len(runs), np.int64)
    return timestamps, values, Ranks.from_runs(sources, places, sequences, lengths)


def sequence_spans(ranks: Ranks) -> dict[Rank, tuple[int, int]]:
    """Returns the lowest and the highest sequence of each source that has several."""
    order = np.lexsort((ranks.sequences, ranks.places))
    sequences = ranks.sequences[order]
    cuts = np.searchsorted(ranks.places[order], np.arange(len(ranks.sources) + 1))
    lows, highs = sequences[cuts[:-1]], sequences[cuts[1:] - 1]
    several = np.flatnonzero(lows < highs).tolist()
    return {ranks.sources[place]: (int(lows[place]), int(highs[place])) for place in several}


def collapse(ranks: Ranks, received: dict[Rank, list[tuple[int, int]]], others: Iterable[Ranks]) -> Ranks:
    """Returns ranks with fewer runs that order the readings in the same way.

    Consecutive batches of a source get the rank of the last of them, because no batch can come between them any more.

    Args:
        ranks: The ranks of one segment.
        received: For each source with more than one sequence, the ranges of sequences that are stored.
        others: The ranks of all other segments that overlap this one in time. Their batches separate those of the
            segment.
    """
    separating: dict[Rank, list[int]] = {source: [] for source in received}
    for other in others:
        for place, source in enumerate(other.sources):
            if source in separating:
                separating[source] += other.sequences[other.places == place].tolist()
    sequences = ranks.sequences.copy()
    place_of = {source: place for place, source in enumerate(ranks.sources)}
    for source, ranges in received.items():
        if not ranges:
            continue
        runs = np.flatnonzero(ranks.places == place_of[source])
        own = ranks.sequences[runs]
        firsts, lasts = np.array(ranges, np.int64).T
        range_index = np.searchsorted(firsts, own, side="right") - 1
        in_range = (range_index >= 0) & (own <= lasts[range_index])
        runs, own, range_index = runs[in_range], own[in_range], range_index[in_range]
        if not len(own):
            continue
        groups = np.stack(
            (range_index, np.searchsorted(np.sort(np.array(separating[source], np.int64)), own, side="right"))
        )
        _, group = np.unique(groups, axis=1, return_inverse=True)
        highest = np.zeros(int(group.max()) + 1, np.int64)
        np.maximum.at(highest, group.reshape(-1), own)
        sequences[runs] = highest[group.reshape(-1)]
    return Ranks.from_runs(ranks.sources, ranks.places, sequences, ranks.lengths)
