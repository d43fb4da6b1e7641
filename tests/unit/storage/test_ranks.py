"""Ranks of readings: encoding, merging, and giving fewer ranks that order readings in the same way."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.storage import sequence_ranges
from aurum.storage.ranks import Ranks, collapse, merge_ranked, sequence_spans
from aurum.storage.segment import CorruptSegmentError, pack, unpack, unpack_ranked, unpack_ranks

Readings = dict[int, tuple[tuple[str, int], float]]  # by time: rank and value
ranks = st.tuples(st.sampled_from("aab"), st.integers(1, 5))
batches = st.dictionaries(ranks, st.sets(st.integers(0, 2), min_size=1, max_size=2), max_size=8)


def ranked(readings: Readings) -> tuple[np.ndarray, np.ndarray, Ranks]:
    """Readings as a segment has them."""
    at = sorted(readings)
    found = [readings[each] for each in at]
    sources = sorted({rank[:1] for rank, _ in found})
    runs = Ranks.from_runs(
        sources,
        np.array([sources.index(rank[:1]) for rank, _ in found]),
        np.array([rank[1] for rank, _ in found]),
        np.ones(len(found), np.int64),
    )
    return np.array(at), np.array([value for _, value in found]), runs


def unranked(timestamps: np.ndarray, values: np.ndarray, runs: Ranks) -> Readings:
    """The reverse of `ranked`."""
    places, sequences = np.repeat(runs.places, runs.lengths), np.repeat(runs.sequences, runs.lengths)
    found = [((runs.sources[place][0], int(sequence)), 0.0) for place, sequence in zip(places, sequences, strict=True)]
    return {int(at): (rank, float(value)) for at, (rank, _), value in zip(timestamps, found, values, strict=True)}


def newest(parts: list[Readings]) -> Readings:
    merged: Readings = {}
    for part in parts:
        for at, reading in part.items():
            merged[at] = max(merged.get(at, reading), reading)
    return merged


def parts_of(sent: dict[tuple[str, int], set[int]], places: list[int]) -> list[Readings]:
    """Each batch whole in one of several parts, with a value of its own."""
    parts: list[Readings] = [{} for _ in range(4)]
    for (rank, times), place in zip(sent.items(), places, strict=False):
        part = {at: (rank, 10.0 * ord(rank[0]) + rank[1]) for at in times}
        parts[place] = newest([parts[place], part])
    return [part for part in parts if part]


@given(batches.filter(len), st.lists(st.integers(0, 3), min_size=8, max_size=8))
@settings(max_examples=100, deadline=None)
def test_merged_readings_are_those_of_highest_rank(sent: dict[tuple[str, int], set[int]], places: list[int]) -> None:
    parts = parts_of(sent, places)
    merged = merge_ranked([ranked(part) for part in parts])
    assert unranked(*merged) == newest(parts)
    assert merged[2].highest == max(rank for rank, _ in newest(parts).values())
    assert merged[2].lengths.sum() == len(merged[0])


@given(
    batches.filter(len),
    batches,
    st.lists(st.integers(0, 3), min_size=8, max_size=8),
    st.lists(st.integers(0, 2), min_size=1, max_size=3),
)
@settings(max_examples=300, deadline=None)
def test_collapsed_ranks_order_readings_as_before(
    sent: dict[tuple[str, int], set[int]],
    later: dict[tuple[str, int], set[int]],
    places: list[int],
    order: list[int],
) -> None:
    """Segments are merged one after another while others stay, and what has not come until then comes later."""
    later = {rank: times for rank, times in later.items() if rank not in sent}
    everything = newest([*parts_of(sent, places), *parts_of(later, places)])
    segments = [ranked(part) for part in parts_of(sent, places)]
    for first in order:
        if first + 1 < len(segments):
            pair, others = segments[first : first + 2], segments[:first] + segments[first + 2 :]
            timestamps, values, runs = merge_ranked(pair)
            received: dict[tuple[str, ...], list[sequence_ranges.Range]] = {}
            for source in sequence_spans(runs):
                received[source] = []
                for name, sequence in sent:
                    if (name,) == source:
                        sequence_ranges.record(received[source], sequence)
            fewer = collapse(runs, received, [other for *_, other in others])
            assert len(fewer.lengths) <= len(runs.lengths)
            segments = [(timestamps, values, fewer), *others]
    found = unranked(*merge_ranked([*segments, *(ranked(part) for part in parts_of(later, places))]))
    assert {at: value for at, (_, value) in found.items()} == {at: value for at, (_, value) in everything.items()}


def test_consecutive_batches_have_one_rank_and_no_runs() -> None:
    timestamps, values, runs = ranked({at: (("a", at // 10 + 1), 1.0) for at in range(100)})
    assert len(runs.lengths) == 10
    one = collapse(runs, {("a",): [(1, 10)]}, [])
    assert (one.highest, one.lengths.tolist()) == (("a", 10), [100])
    assert pack(timestamps, values, one) == pack(timestamps, values)
    assert collapse(runs, {("a",): [(1, 4), (6, 10)]}, []).sequences.tolist() == [4, 5, 10]
    assert collapse(runs, {("a",): [(1, 10)]}, [Ranks.uniform(("a", 4), 1)]).sequences.tolist() == [3, 10]


@pytest.mark.parametrize("count", [2, 300])
def test_segment_keeps_ranks_of_several_sources(count: int) -> None:
    readings = {at: (("ab"[at % 2], at + 2**40), float(at)) for at in range(count)}
    timestamps, values, runs = ranked(readings)
    segment = pack(timestamps, values, runs)
    found = unpack_ranked(segment)
    assert found.ranks is not None
    assert unranked(found.timestamps, found.values, found.ranks) == readings
    assert [column.tolist() for column in unpack(segment)] == [timestamps.tolist(), values.tolist()]
    only = unpack_ranks(segment)
    assert only is not None
    assert unranked(timestamps, values, only) == readings
    plain = pack(timestamps, values)
    assert unpack_ranks(plain) is None
    assert unpack_ranked(plain).ranks is None


def test_ranks_of_two_alternating_sources_take_few_bytes() -> None:
    readings = {at: (("ab"[at % 2], 7), float(at)) for at in range(10_000)}
    timestamps, values, runs = ranked(readings)
    assert len(pack(timestamps, values, runs)) - len(pack(timestamps, values)) < 300


def test_damaged_ranks_are_detected() -> None:
    """Any changed byte, and a header that does not fit what follows it."""
    segment = pack(*ranked({at: (("a", at), float(at)) for at in range(1, 40, 2)}))
    for place in range(12, len(segment)):
        changed = bytearray(segment)
        changed[place] ^= 4
        for read in (unpack_ranked, unpack_ranks):
            with pytest.raises(CorruptSegmentError, match="checksum"):
                read(bytes(changed))
    for place, byte in ((3, 2), (3, 3), (4, 19), (4, 21)):
        changed = bytearray(segment)
        changed[place] = byte
        for read in (unpack_ranked, unpack_ranks):
            with pytest.raises(CorruptSegmentError):
                read(bytes(changed))


def test_reader_that_ignores_ranks_finds_all_readings() -> None:
    """As one of the version before, for which the byte of the flags meant nothing."""
    timestamps, values, runs = ranked({at: (("a", at), float(at)) for at in range(1, 40, 2)})
    without_flag = bytearray(pack(timestamps, values, runs))
    without_flag[3] = 0
    assert [column.tolist() for column in unpack(bytes(without_flag))] == [timestamps.tolist(), values.tolist()]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        struct.pack("<I", 99),
        struct.pack("<I", 2) + b"[]",
        struct.pack("<I", 5) + b'[["a' + bytes(17),
        struct.pack("<I", 7) + b'[["a"]]' + bytes(15),
        struct.pack("<I", 7) + b'[["a"]]' + bytes(16),
        struct.pack("<I", 2) + b"[]" + struct.pack("<IqI", 0, 1, 3),
    ],
)
def test_wrong_runs_are_rejected(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"ranks|JSON|line"):
        Ranks.decode(data, 3)
