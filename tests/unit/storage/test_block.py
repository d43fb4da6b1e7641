"""Blocks: what goes in comes out, of one series and of all, and no damage goes unnoticed."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.runtime.time_units import DAY_US
from aurum.storage import block
from aurum.storage.block import BLOCK_SERIES, PackedBlock, pack_blocks
from aurum.storage.block_joining import merge_joined
from aurum.storage.block_unpacking import BlockHead, CorruptBlockError, unpack_blocks
from aurum.storage.packed_readings import PackedReadings
from aurum.storage.ranks import Rank, Ranks

Series = dict[int, tuple[Rank, float]]  # by time: rank and value
Content = dict[int, Series]  # by number


def contents(one_rank: bool, spread: int) -> st.SearchStrategy[Content]:
    rank = st.just((1, 7)) if one_rank else st.tuples(st.integers(1, 3), st.integers(1, 5))
    reading = st.tuples(rank, st.floats(allow_nan=False))
    series = st.dictionaries(st.integers(0, spread), reading, min_size=1, max_size=9)
    return st.dictionaries(st.integers(0, 700), series, min_size=1, max_size=30)


any_content = st.tuples(st.booleans(), st.sampled_from([50, 10_000_000, DAY_US - 1])).flatmap(
    lambda each: contents(*each)
)


def packed(content: Content) -> PackedReadings:
    readings = [(number, at, *content[number][at]) for number in sorted(content) for at in sorted(content[number])]
    sources = sorted({rank[:-1] for _, _, rank, _ in readings})
    return PackedReadings(
        np.array(sorted(content), np.int32),
        np.array([len(content[number]) for number in sorted(content)]),
        np.array([at for _, at, _, _ in readings], np.int64),
        np.array([value for *_, value in readings]),
        Ranks.from_runs(
            sources,
            np.array([sources.index(rank[:-1]) for _, _, rank, _ in readings]),
            np.array([rank[-1] for _, _, rank, _ in readings], np.int64),
            np.ones(len(readings), np.int64),
        ),
    )


def content_of(readings: PackedReadings) -> Content:
    runs = np.repeat(np.arange(len(readings.ranks.lengths)), readings.ranks.lengths).tolist()
    all_ranks = [
        (*readings.ranks.sources[place], sequence)
        for place, sequence in zip(readings.ranks.places.tolist(), readings.ranks.sequences.tolist(), strict=True)
    ]
    numbers = np.repeat(readings.numbers, readings.lengths).tolist()
    content: Content = {}
    rows = zip(numbers, readings.timestamps.tolist(), readings.values.tolist(), runs, strict=True)
    for number, at, value, run in rows:
        content.setdefault(number, {})[at] = all_ranks[run], value
    return content


def unpacked(blocks: Sequence[PackedBlock]) -> Content:
    content: Content = {}
    for each in blocks:
        joined, problems = unpack_blocks([(BlockHead(each.head), each.data)])
        assert problems == {}
        assert joined is not None
        content |= content_of(joined.packed(each.bucket))
    return content


@given(any_content, st.sampled_from([1, 4096]))
@settings(deadline=None)
def test_blocks_hold_what_was_packed(content: Content, compressed_from: int) -> None:
    """In small and in compressed blocks, with close and with distant times, with one and with several ranks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block, "_COMPRESS_MIN_READINGS", compressed_from)
        blocks = pack_blocks(packed(content))
    assert [each.bucket for each in blocks] == sorted({number // BLOCK_SERIES for number in content})
    assert unpacked(blocks) == content
    for each in blocks:
        times = [at for number in content if number // BLOCK_SERIES == each.bucket for at in content[number]]
        assert (each.start_us, each.end_us, each.count) == (min(times), max(times), len(times))


@given(any_content, st.sampled_from([1, 4096]))
@settings(deadline=None)
def test_one_series_of_a_block_is_read_from_its_frame(content: Content, compressed_from: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block, "_COMPRESS_MIN_READINGS", compressed_from)
        blocks = {each.bucket: each for each in pack_blocks(packed(content))}
    for number in range(701):
        found = blocks.get(number // BLOCK_SERIES)
        head = BlockHead(found.head) if found else None
        index = head.index_of(number % BLOCK_SERIES) if head else -1
        assert (index >= 0) == (number in content)
        if found is None or head is None or index < 0:
            continue
        offset, length = head.bytes_of(head.frame_of(index))
        times, values = head.readings_of(
            index, head.columns_of(head.frame_of(index), found.data[offset : offset + length])
        )
        of_series = PackedReadings(np.array([number]), np.array([len(times)]), times, values, head.ranks_of(index))
        assert content_of(of_series) == {number: content[number]}


@given(st.lists(contents(one_rank=False, spread=20), min_size=1, max_size=5))
@settings(deadline=None)
def test_joined_blocks_keep_the_highest_rank_at_each_time(parts: list[Content]) -> None:
    parts = [{number % BLOCK_SERIES: series for number, series in part.items()} for part in parts]
    expected: Content = {}
    for part in parts:
        for number, series in part.items():
            merged = expected.setdefault(number, {})
            for at, reading in series.items():
                if at not in merged or reading[0] >= merged[at][0]:
                    merged[at] = reading
    blocks = [each for part in parts for each in pack_blocks(packed(part))]
    joined, _ = unpack_blocks([(BlockHead(each.head), each.data) for each in blocks])
    assert joined is not None
    assert content_of(merge_joined(0, joined, lambda ranks: ranks)) == expected


def test_damaged_frame_costs_its_own_series_only() -> None:
    content = {number: {at: ((1, 1), float(number + at)) for at in range(40)} for number in range(150)}
    (each,) = pack_blocks(packed(content))
    head = BlockHead(each.head)
    assert head.frames == 10
    offset, _ = head.bytes_of(3)
    data = bytearray(each.data)
    data[offset + 20] ^= 1
    joined, problems = unpack_blocks([(head, bytes(data))])
    assert list(problems) == [0]
    assert "frame 3" in problems[0]
    assert joined is not None
    assert content_of(joined.packed(0)) == {number: content[number] for number in content if number // 16 != 3}


@given(any_content, st.sampled_from([1, 4096]), st.data())
@settings(deadline=None)
def test_no_damage_to_a_block_goes_unnoticed(content: Content, compressed_from: int, data: st.DataObject) -> None:
    """Whatever byte is changed, the head is refused, or the frames that are damaged are left out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block, "_COMPRESS_MIN_READINGS", compressed_from)
        each = data.draw(st.sampled_from(pack_blocks(packed(content))))
    changed = bytearray(each.head + each.data)
    place = data.draw(st.integers(0, len(changed) - 1))
    changed[place] ^= data.draw(st.integers(1, 255))
    try:
        head = BlockHead(bytes(changed[: len(each.head)]))
    except CorruptBlockError:
        assert place < len(each.head)
        return
    joined, problems = unpack_blocks([(head, bytes(changed[len(each.head) :]))])
    assert len(problems) == 1
    found = content_of(joined.packed(each.bucket)) if joined else {}
    assert found.items() <= content.items()


@pytest.mark.parametrize("length", [0, 10, 27, 40])
def test_truncated_head_of_a_block_is_refused(length: int) -> None:
    (each,) = pack_blocks(packed({5: {1: ((1, 1), 2.0)}}))
    with pytest.raises(CorruptBlockError):
        BlockHead(each.head[:length])
