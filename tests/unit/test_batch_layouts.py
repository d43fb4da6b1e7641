"""Batches that repeat their layout are decoded to the same as by parsing each series."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.readings.batch import Batch, Series
from aurum.readings.batch_decoding import decode
from aurum.readings.batch_layouts import BatchLayouts, read_head
from aurum.runtime.errors import InvalidArgumentError
from aurum.v1 import ingestion_pb2

_NOW = 1_800_000_000_000_000
_NAMES = st.lists(
    st.tuples(
        st.text("abcXYZ019._:-", min_size=1, max_size=128).map(lambda text: f"m{text}"[:128]),
        st.text("abcXYZ019 ._:/%-", min_size=1, max_size=64).map(lambda text: f"s{text}"[:64]),
    ),
    min_size=16,
    max_size=40,
    unique=True,
)


def _series(names: list[tuple[str, str]], first_us: int, value: float) -> list[Series]:
    return [
        Series(machine_id, sensor, np.array([first_us + index]), np.array([value + index]))
        for index, (machine_id, sensor) in enumerate(names)
    ]


def _same(one: Batch, other: ingestion_pb2.Batch) -> bool:
    return (one.source_id, one.sequence, one.owner) == (other.source_id, other.sequence, other.owner) and [
        (each.machine_id, each.sensor, each.timestamps.tolist(), each.values.tolist()) for each in one.series
    ] == [(each.machine_id, each.sensor, list(each.timestamps_us), list(each.values)) for each in other.series]


@settings(deadline=None)
@given(
    _NAMES,
    st.text("abc/-9", min_size=1, max_size=200).map(lambda text: f"g{text}"[:200]),
    st.lists(
        st.tuples(
            st.integers(1, 2**62),
            st.integers(0, _NOW - 100),
            st.floats(allow_nan=False, allow_infinity=False, width=32),
            st.text(max_size=100),
        ),
        min_size=3,
        max_size=6,
    ),
)
def test_repeated_layout_decodes_like_protobuf(
    names: list[tuple[str, str]], source: str, batches: list[tuple[int, int, float, str]]
) -> None:
    for sequence, first_us, value, owner in batches:
        batch = Batch.from_series(source, sequence, _series(names, first_us, value)).with_owner(owner)
        decoded = decode(batch.data, _NOW)
        assert _same(decoded, ingestion_pb2.Batch.FromString(batch.data))


def test_batches_of_a_layout_share_their_keys() -> None:
    names = [("shared-keys", f"s-{number}") for number in range(20)]
    decoded = [
        decode(Batch.from_series("gw", sequence, _series(names, sequence, 1.0)).data, _NOW) for sequence in range(1, 6)
    ]
    assert decoded[4].keys is decoded[3].keys
    assert decoded[4].sequence == 5


@settings(deadline=None)
@given(_NAMES, st.data())
def test_changed_byte_decodes_as_without_layout(names: list[tuple[str, str]], data: st.DataObject) -> None:
    layouts = BatchLayouts()
    series = _series(names, 1000, 1.0)
    message = Batch.from_series("gw", 1, series).data
    head = read_head(message)
    assert head is not None
    keys = Batch.from_series("gw", 1, series).keys
    for _ in range(2):
        layouts.learn(message, head.start, keys)
    assert layouts.match(message, head.start) is not None
    changed = bytearray(message)
    changed[data.draw(st.integers(head.start, len(message) - 1))] ^= data.draw(st.integers(1, 255))
    matched = layouts.match(bytes(changed), head.start)
    if matched is not None:  # then only a time or a value has changed
        other = ingestion_pb2.Batch.FromString(bytes(changed))
        assert [(each.machine_id, each.sensor) for each in other.series] == list(matched.keys.keys)
        assert [each.timestamps_us[0] for each in other.series] == matched.timestamps.tolist()
        assert np.array([each.values[0] for each in other.series]).tobytes() == matched.values.tobytes()


def test_layouts_stay_within_their_bytes() -> None:
    layouts = BatchLayouts(max_bytes=60_000)
    for plant in range(50):
        batch = Batch.from_series("gw", 1, _series([(f"m-{plant}", f"s-{n}") for n in range(100)], 1, 1.0))
        head = read_head(batch.data)
        assert head is not None
        for _ in range(2):
            layouts.learn(batch.data, head.start, batch.keys)
        assert layouts.match(batch.data, head.start) is not None
        assert layouts.nbytes <= 60_000


def test_wrong_reading_of_known_layout_is_named() -> None:
    names = [("named-reading", f"s-{number}") for number in range(20)]
    for sequence in range(1, 4):
        decode(Batch.from_series("gw", sequence, _series(names, sequence, 1.0)).data, _NOW)
    series = _series(names, 9, 1.0)
    series[7] = series[7]._replace(values=np.array([np.inf]))
    with pytest.raises(InvalidArgumentError) as caught:
        decode(Batch.from_series("gw", 9, series).data, _NOW)
    assert caught.value.violations[0].field == "batch.series[7].values[0]"
    assert caught.value.metadata["sequence"] == "9"
