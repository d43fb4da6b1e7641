"""Segments: byte layout, compression, and detection of damage."""

import itertools
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.storage.segment import CorruptSegmentError, pack, unpack

START = -5_000_000_000  # before the epoch, and more than 4 bytes wide


def by_the_layout(times: list[int], values: list[float], width: int, kind: str, codec: int = 0) -> bytes:
    """A segment as its documentation describes it; width 0 is for steps that are all the same."""
    steps = [after - before for before, after in itertools.pairwise(times)]
    kept = steps[:1] if width == 0 else steps
    columns = b"".join(struct.pack(kind, step) for step in kept)
    packed = [struct.pack("<d", value) for value in values]
    columns += b"".join(bytes(value[place] for value in packed) for place in range(8))
    if codec:
        columns = zstandard.ZstdCompressor(level=3, write_content_size=True).compress(columns)
    rest = struct.pack("<q", times[0]) + columns
    return struct.pack("<BBBBII", 1, codec, width, 0, len(times), zlib.crc32(rest)) + rest


def packed(times: list[int], values: list[float]) -> bytes:
    return pack(np.array(times, np.int64), np.array(values, np.float64))


@pytest.mark.parametrize(
    ("steps", "width", "kind"),
    [
        ([], 4, "<I"),
        ([7], 0, "<q"),
        ([0, 0], 0, "<q"),
        ([2**40, 2**40], 0, "<q"),
        ([1, 2, 0], 4, "<I"),
        ([1, 2**32 - 1], 4, "<I"),
        ([1, 2**32], 8, "<q"),
        ([2**40, 3], 8, "<q"),
    ],
)
def test_segment_layout_depends_on_time_steps(steps: list[int], width: int, kind: str) -> None:
    times = [START]
    for step in steps:
        times.append(times[-1] + step)
    values = [1.5 * place for place in range(len(times))]
    segment = packed(times, values)
    assert segment == by_the_layout(times, values, width, kind)
    assert [column.tolist() for column in unpack(segment)] == [times, values]


@pytest.mark.parametrize(("count", "codec"), [(255, 0), (256, 1), (257, 1)])
def test_segment_of_256_readings_is_compressed(count: int, codec: int) -> None:
    generator = np.random.default_rng(1)
    times = np.cumsum(generator.integers(1, 9, count)).tolist()
    values = generator.normal(20, 3, count).round(2).tolist()
    segment = packed(times, values)
    assert segment == by_the_layout(times, values, 4, "<I", codec)
    assert [column.tolist() for column in unpack(segment)] == [times, values]


@given(
    st.integers(-(2**60), 2**60),
    st.sampled_from([1, 2, 3, 255, 256, 300]),
    st.sampled_from([0, 1, 1000, 2**32, 2**40]),
    st.floats(allow_nan=True),
    st.integers(0, 100),
)
@settings(max_examples=50, deadline=None)
def test_unpacked_segment_equals_packed_data(first: int, count: int, step: int, value: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    times = first + np.cumsum(generator.integers(0, step, count, endpoint=True))
    values = generator.random(count)
    values[[0, -1]] = value, -0.0
    found_times, found_values = unpack(pack(times, values))
    assert [column.dtype.str for column in (found_times, found_values)] == ["<i8", "<f8"]
    assert found_times.tobytes() == times.tobytes()
    assert found_values.tobytes() == values.tobytes()


def test_strided_columns_are_packed_identically() -> None:
    times = np.arange(20)
    table = np.arange(40.0).reshape(20, 2)
    assert pack(times, table[:, 1]) == pack(times, table[:, 1].copy())


def test_segments_can_be_packed_concurrently() -> None:
    times, values = np.arange(1000), np.random.default_rng(2).random(1000)
    segment = pack(times, values)

    def there_and_back(_: int) -> bool:
        return pack(*unpack(segment)) == segment

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(there_and_back, range(40)))


@pytest.mark.parametrize("length", [0, 11, 12, 19])
def test_truncated_segment_is_rejected(length: int) -> None:
    with pytest.raises(CorruptSegmentError, match=rf"^a segment is truncated: it has {length} bytes$"):
        unpack(packed([1, 2, 3], [1.0, 2.0, 3.0])[:length])


def test_segment_without_columns_fails_its_checksum() -> None:
    with pytest.raises(CorruptSegmentError, match=r"^a segment's checksum does not match its content$"):
        unpack(packed([1, 2, 3], [1.0, 2.0, 3.0])[:20])


def test_segment_of_unknown_version_is_rejected() -> None:
    segment = packed([1, 2], [1.0, 2.0])
    with pytest.raises(CorruptSegmentError, match=r"^segment version 2 is not supported$"):
        unpack(b"\x02" + segment[1:])


@pytest.mark.parametrize("count", [3, 300])
def test_changed_byte_after_header_is_detected(count: int) -> None:
    segment = packed(list(range(count)), [0.5] * count)
    for place in range(12, len(segment), 5):
        changed = bytearray(segment)
        changed[place] ^= 1
        with pytest.raises(CorruptSegmentError, match="checksum"):
            unpack(bytes(changed))
