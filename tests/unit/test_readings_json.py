"""Bodies of readings and answers with series: the same as their models say, at a fraction of their memory."""

import json
import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from aurum.api.body_budget import BodyBudget
from aurum.api.readings_json import parse_readings
from aurum.api.schemas import MetricsOut, ReadingsIn, SeriesOut
from aurum.api.series_json import encode_metrics
from aurum.ingestion import series_reader
from aurum.ingestion.memtable import SeriesPart
from aurum.ingestion.sqlite.reads import _by_day
from aurum.readings.tables import TableError, parse_timestamp
from aurum.runtime.errors import AurumError, InvalidArgumentError, ResourceExhaustedError
from aurum.runtime.time_units import DAY_US
from aurum.storage.segment import Segment
from aurum.v1 import columns_pb2

MB = 1_000_000
READING = {"machine_id": "pump-1", "sensor": "vibration", "timestamp": 1_790_000_000, "value": 1.5}

junk = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just([]) | st.just({})
times = st.integers(0, 2_000_000_000) | st.floats(0, 2e9) | st.just("2026-05-04T12:00:00Z") | st.just("soon")
reading = st.fixed_dictionaries(
    {
        "machine_id": st.text(max_size=5) | junk,
        "sensor": st.text(max_size=5),
        "timestamp": times | junk,
        "value": st.floats(allow_nan=False) | st.none() | junk,
    },
    optional={"unit": st.text(max_size=3)},
)
bodies = st.fixed_dictionaries(
    {"readings": st.lists(reading | junk, max_size=4)},
    optional={"source_id": st.text(max_size=5), "sequence": st.integers(-1, 5) | junk, "more": junk},
)


@given(bodies)
def test_body_is_read_as_its_model_says(body: dict[str, Any]) -> None:
    """A body that the published model takes is read alike; one that it refuses is refused, mostly for the same row."""
    text = json.dumps(body).encode()
    try:
        expected = ReadingsIn.model_validate_json(text)
        expected_times = [parse_timestamp(str(each.timestamp)) for each in expected.readings]
    except (ValidationError, ValueError):
        with pytest.raises((AurumError, TableError)):
            parse_readings(text)
        return
    got = parse_readings(text)
    assert (got.source_id, got.sequence) == (expected.source_id, expected.sequence)
    assert got.rows.machine_ids == [each.machine_id for each in expected.readings]
    assert got.rows.sensors == [each.sensor for each in expected.readings]
    assert got.rows.timestamps == expected_times
    assert [None if math.isnan(value) else value for value in got.rows.values] == [
        None if each.value is None or math.isnan(each.value) else each.value for each in expected.readings
    ]


@pytest.mark.parametrize(
    ("change", "row", "field"),
    [
        ({"value": "high"}, 1, "value"),
        ({"value": {}}, 1, "machine_id"),
        ({"timestamp": "soon"}, 1, "timestamp"),
        ({"timestamp": 1e300}, 1, "timestamp"),
        ({"timestamp": True}, 1, "timestamp"),
        ({"sensor": 7}, 1, "sensor"),
        ({"unit": "mm"}, 1, "unit"),
    ],
)
def test_mistake_names_its_row_and_field(change: dict[str, Any], row: int, field: str) -> None:
    with pytest.raises(TableError) as refused:
        parse_readings(json.dumps({"readings": [READING, READING | change, READING]}).encode())
    assert (refused.value.row, refused.value.column) == (row, field)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"7", b"{}", b'{"readings": 7}', b'{"readings": []}', b"\xff", b"[" * 200_000, b'"x"']
)
def test_body_of_another_form_is_refused_by_field(body: bytes) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        parse_readings(body)
    assert refused.value.violations[0].field in ("body", "readings")


def test_field_that_stands_twice_is_refused() -> None:
    one = json.dumps(READING)
    with pytest.raises(InvalidArgumentError, match="body: has a duplicate field"):
        parse_readings(f'{{"readings": [{one}], "readings": [{one}]}}'.encode())
    twice = one.replace('"value"', '"value": 7, "value"')
    with pytest.raises(TableError, match="row 1: has a duplicate field"):
        parse_readings(f'{{"readings": [{one}, {twice}]}}'.encode())


@pytest.mark.parametrize("sequence", [2**62 + 1, 10**30, "9" * 5000])
def test_number_beyond_what_can_be_stored_is_refused(sequence: int | str) -> None:
    body = f'{{"source_id": "s", "sequence": {sequence}, "readings": [{json.dumps(READING)}]}}'
    with pytest.raises(InvalidArgumentError) as refused:
        parse_readings(body.encode())
    assert refused.value.violations[0].field in ("sequence", "body")


def test_body_takes_little_memory() -> None:
    """A fifth of the largest body takes less than a fifth of 100 MB; one with too many readings is refused early."""
    one = json.dumps(READING).encode()
    count = 3_200_000 // len(one)
    body = b'{"readings":[' + b",".join([one] * count) + b"]}"
    tracemalloc.start()
    assert len(parse_readings(body).rows) == count
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * MB
    many = b'{"readings":[' + b",".join([b"{}"] * 400_000) + b"]}"
    with pytest.raises(InvalidArgumentError, match="must be at most 200000"):
        parse_readings(many)


columns = st.lists(st.floats(allow_infinity=False), min_size=1, max_size=30)


@given(st.lists(st.tuples(st.text(max_size=6), columns, st.booleans()), max_size=4), st.integers(0, 2**50))
def test_series_are_written_as_their_model_says(series: list[tuple[str, list[float], bool]], start: int) -> None:
    found, expected = [], []
    for sensor, numbers, reduced in series:
        at = start + np.arange(len(numbers), dtype="<i8") * 333_333
        values = np.array(numbers, "<f8")
        message = columns_pb2.QueriedColumns(sensor=sensor, timestamps_us=at.tobytes(), values=values.tobytes())
        out = {"sensor": sensor, "timestamps": [us / 1e6 for us in at.tolist()]}
        out["values"] = [None if math.isnan(value) else value for value in numbers]
        if reduced:
            extremes = np.arange(len(numbers), dtype="<f8")
            message.minima = message.maxima = extremes.tobytes()
            message.counts.extend(range(len(numbers)))
            out |= {"minima": extremes.tolist(), "maxima": extremes.tolist(), "counts": list(range(len(numbers)))}
        found.append(message)
        expected.append(SeriesOut.model_validate(out))
    text = b"".join(encode_metrics("m", found))
    assert MetricsOut.model_validate_json(text) == MetricsOut(machine_id="m", series=expected)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60), st.booleans()), max_size=40))
def test_body_budget_is_never_exceeded(steps: list[tuple[str, int, bool]]) -> None:
    budget, held = BodyBudget(100), []
    for caller, nbytes, done in steps:
        if done and held:
            budget.release(*held.pop(0))
            continue
        mine = sum(size for other, size in held if other == caller)
        try:
            budget.reserve(caller, nbytes)
        except ResourceExhaustedError:
            assert sum(size for _, size in held) + nbytes > 100 or mine + nbytes > max(50, nbytes)
        else:
            held.append((caller, nbytes))
            assert sum(size for _, size in held) <= 100
            assert mine + nbytes <= max(50, nbytes)


class Counted:
    """A series in memory that counts how often it is read."""

    def __init__(self, timestamps: list[int]) -> None:
        self._part = SeriesPart((1, 1), np.array(timestamps, np.int64), np.arange(len(timestamps), dtype=np.float64))
        self.loads = 0

    def pieces(self, start_us: int, end_us: int) -> list[series_reader.Piece]:
        return [each for each in _by_day(self._part) if each.start_us < end_us and each.end_us >= start_us]

    def newest_before(self, before_us: int) -> int | None:
        raise AssertionError(before_us)

    def load(self, pieces: Any) -> list[Any]:
        self.loads += 1
        return [Segment(piece.place.timestamps, piece.place.values, None) for piece in pieces]


def test_reading_of_1970_costs_no_more_than_it_is() -> None:
    """One reading from a clock that was lost makes a question for points no dearer than its readings."""
    now = 20_000 * DAY_US
    series = Counted([5, *(now + at * 1000 for at in range(50_000))])
    points = series_reader.read_range(series, 0, now + 10**9, 500)
    assert points.counts is not None
    assert points.counts.sum() == 50_001
    assert series.loads == 1


@given(st.lists(st.integers(0, 40 * DAY_US), min_size=1, max_size=200), st.integers(1, 50))
def test_points_are_those_of_all_readings_together(at: list[int], wanted: int) -> None:
    """However readings lie over days, the points are the same as from one piece."""
    at = sorted(set(at))
    series = Counted(at)
    got = series_reader.read_range(series, 0, 41 * DAY_US, wanted)
    expected = series_reader.reduce_points(
        np.array(at, np.int64), np.arange(len(at), dtype=np.float64), 0, 41 * DAY_US, wanted
    )
    assert got.timestamps.tolist() == expected.timestamps.tolist()
    assert np.allclose(got.values, expected.values)
