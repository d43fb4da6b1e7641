"""Batches with numbered series: the same readings as by name, understood by themselves once they were decoded."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.readings.batch import Batch
from aurum.readings.batch_decoding import decode
from aurum.readings.series_numbers import NumbersBudget, SeriesNumbers
from aurum.runtime.errors import InvalidArgumentError, ResourceExhaustedError
from aurum.v1 import ingestion_pb2

_NOW = 1_800_000_000_000_000
_Rows = list[tuple[int, int, float]]  # number, time, value


def _message(
    sequence: int, defined: dict[int, tuple[str, str]], rows: _Rows, source: str = "gw", at_us: int | None = None
) -> bytes:
    columns = ingestion_pb2.ReadingColumns(
        numbers=[row[0] for row in rows],
        timestamps_us=[row[1] for row in rows] if at_us is None else [at_us],
        values=[row[2] for row in rows],
    )
    for number, (machine_id, sensor) in defined.items():
        columns.defined.series.add(number=number, machine_id=machine_id, sensor=sensor)
    return ingestion_pb2.Batch(source_id=source, sequence=sequence, columns=columns).SerializeToString()


def _by_series(batch: Batch) -> dict[tuple[str, str], list[tuple[int, float]]]:
    return {
        (each.machine_id, each.sensor): list(zip(each.timestamps.tolist(), each.values.tolist(), strict=True))
        for each in batch.series
    }


@settings(deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, 12), st.integers(0, 10**6), st.floats(-1e9, 1e9)),
            min_size=1,
            max_size=40,
        ),
        min_size=1,
        max_size=8,
    )
)
def test_numbered_rows_decode_to_their_series(batches: list[_Rows]) -> None:
    numbers = SeriesNumbers()
    defined: set[int] = set()
    for sequence, rows in enumerate(batches, start=1):
        new = {number: (f"m-{number // 3}", f"s-{number}") for number, *_ in rows if number not in defined}
        defined |= new.keys()
        batch = decode(_message(sequence, new, rows), _NOW, numbers=numbers)
        expected: dict[tuple[str, str], list[tuple[int, float]]] = {}
        for number, at, value in rows:
            expected.setdefault((f"m-{number // 3}", f"s-{number}"), []).append((at, value))
        assert _by_series(batch) == expected
        assert _by_series(decode(batch.data, _NOW)) == expected  # as after a restart, without the stream


def test_one_time_stands_for_all_rows() -> None:
    batch = decode(_message(1, {1: ("m", "a"), 2: ("m", "b")}, [(1, 0, 1.0), (2, 0, 2.0)], at_us=77), _NOW)
    assert _by_series(batch) == {("m", "a"): [(77, 1.0)], ("m", "b"): [(77, 2.0)]}


def test_sources_of_a_stream_have_their_own_numbers() -> None:
    numbers = SeriesNumbers()
    decode(_message(1, {1: ("m", "a")}, [(1, 5, 1.0)], source="one"), _NOW, numbers=numbers)
    decode(_message(1, {1: ("m", "b")}, [(1, 5, 1.0)], source="two"), _NOW, numbers=numbers)
    first = decode(_message(2, {}, [(1, 6, 1.0)], source="one"), _NOW, numbers=numbers)
    assert first.keys.keys == (("m", "a"),)


def test_number_that_is_defined_again_changes_series() -> None:
    numbers = SeriesNumbers()
    decode(_message(1, {1: ("m", "a")}, [(1, 5, 1.0)]), _NOW, numbers=numbers)
    decode(_message(2, {1: ("m", "b")}, [(1, 5, 1.0)]), _NOW, numbers=numbers)
    assert decode(_message(3, {}, [(1, 5, 1.0)]), _NOW, numbers=numbers).keys.keys == (("m", "b"),)


@pytest.mark.parametrize(
    ("data", "field", "text"),
    [
        (_message(1, {}, [(4, 1, 1.0)]), "batch.columns.numbers[0]", "has not defined"),
        (_message(1, {1: ("m", "a"), 2: ("m", "a")}, [(1, 1, 1.0), (2, 1, 1.0)]), "batch.columns.defined", "two num"),
        (_message(1, {1: ("m é", "a")}, [(1, 1, 1.0)]), "batch.columns.defined.series[0].machine_id", "not a machine"),
        (_message(1, {1: ("m", "a")}, [(1, 1, float("inf"))]), "batch.columns.values[0]", "infinite"),
        (_message(1, {1: ("m", "a")}, []), "batch.columns.values", "0 values"),
    ],
)
def test_wrong_columns_are_refused_by_field(data: bytes, field: str, text: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        decode(data, _NOW)
    assert caught.value.violations[0].field == field
    assert text in caught.value.message


def test_wrong_row_is_named_by_its_place_in_request() -> None:
    rows = [(2, 1, 1.0), (1, 1, 1.0), (2, 2, float("inf")), (1, 2, 1.0)]
    with pytest.raises(InvalidArgumentError) as caught:
        decode(_message(1, {1: ("m", "a"), 2: ("m", "b")}, rows), _NOW)
    assert caught.value.violations[0].field == "batch.columns.values[2]"


def test_columns_and_series_together_are_refused() -> None:
    message = ingestion_pb2.Batch.FromString(_message(1, {1: ("m", "a")}, [(1, 1, 1.0)]))
    message.series.add(machine_id="m", sensor="b", timestamps_us=[1], values=[1.0])
    with pytest.raises(InvalidArgumentError, match="together with series"):
        decode(message.SerializeToString(), _NOW)


def test_numbers_of_all_streams_share_a_budget() -> None:
    budget = NumbersBudget(left=30_000)
    one, two = SeriesNumbers(budget), SeriesNumbers(budget)
    names = {number: ("m", f"s-{number}") for number in range(60)}
    rows = [(number, 1, 1.0) for number in names]
    decode(_message(1, names, rows), _NOW, numbers=one)
    with pytest.raises(ResourceExhaustedError, match="with their names"):
        decode(_message(1, names, rows), _NOW, numbers=two)
    two.close()
    one.close()
    assert budget.left == 30_000
    decode(_message(1, names, rows), _NOW, numbers=SeriesNumbers(budget))


def test_varying_rows_take_bounded_memory() -> None:
    budget = NumbersBudget(left=100_000)
    numbers = SeriesNumbers(budget)
    names = {number: ("m", f"s-{number}") for number in range(100)}
    decode(_message(1, names, [(number, 1, 1.0) for number in names]), _NOW, numbers=numbers)
    rng = np.random.default_rng(1)
    for sequence in range(2, 200):
        chosen = rng.permutation(100)[:50].tolist()
        batch = decode(_message(sequence, {}, [(number, 1, 1.0) for number in chosen]), _NOW, numbers=numbers)
        assert [sensor for _, sensor in batch.keys.keys] == [f"s-{number}" for number in chosen]
        assert 0 <= budget.left < 100_000
