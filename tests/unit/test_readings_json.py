"""Bodies of readings and answers with series: the same as their models say, at a fraction of their memory."""

import contextlib
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
from aurum.readings.tables import TableError
from aurum.readings.times import parse_table_time
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
        expected_times = [parse_table_time(str(each.timestamp)) for each in expected.readings]
    except (ValidationError, ValueError):
        with pytest.raises((AurumError, TableError)):
            parse_readings(text)
        return
    got = parse_readings(text)
    assert (got.source_id, got.sequence) == (expected.source_id, expected.sequence)
    assert got.rows.machine_ids == [each.machine_id for each in expected.readings]
    assert got.rows.sensors == [each.sensor for each in expected.readings]
    assert list(got.rows.timestamps) == expected_times
    assert [None if math.isnan(value) else value for value in got.rows.values] == [
        None if each.value is None or math.isnan(each.value) else each.value for each in expected.readings
    ]


@pytest.mark.parametrize(
    ("change", "row", "field"),
    [
        ({"value": "high"}, 1, "value"),
        ({"value": {}}, 1, "value"),
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
    """Readings take less memory than their text; a body with too many readings is refused."""
    one = json.dumps(READING, separators=(",", ":")).encode()
    body = b'{"readings":[' + b",".join([one] * 40_000) + b"]}"
    assert _peak(body) < len(body)
    assert len(parse_readings(body).rows) == 40_000
    many = b'{"readings":[' + b",".join([one] * 200_001) + b"]}"
    with pytest.raises(InvalidArgumentError, match="must be at most 200000"):
        parse_readings(many)


@pytest.mark.parametrize(
    ("head", "part", "tail", "problem"),
    [
        (b'{"readings":[', b"[],", b"[]]}", "row 0: must be an object"),
        (b'{"readings":[{"a":[', b"[],", b"[]]}]}", "value of more than 10000 characters at character 14"),
        (b'{"sequence":[', b"[],", b"[]]}", "value of more than 10000 characters at character 13"),
        (b'{"more":[', b"[],", b"[]]}", "more: is not a field"),
        (b'{"source_id":"', "\N{GRINNING FACE}".encode(), b'"}', "value of more than 10000 characters"),
        (b'{"readings":', b"[", b"", "row 0: must be an object"),
        (b'{"readings":[{"a":', b"[", b"", "value of more than 10000 characters|nested too deeply"),
        (b'{"readings":[{"machine_id":', b"9", b"", "value of more than 10000 characters|too many digits"),
        (b"", b" ", b"", 'must be {"readings"'),
        (b'{"readings":[', b" ", b"1]}", "row 0: must be an object"),
    ],
)
def test_hostile_body_takes_no_memory(head: bytes, part: bytes, tail: bytes, problem: str) -> None:
    """Whatever a body is made of, it is refused without being in memory as objects."""
    body = head + part * (3 * MB // len(part)) + tail
    with pytest.raises((InvalidArgumentError, TableError), match=problem):
        parse_readings(body)
    assert _peak(body) < MB


@pytest.mark.parametrize("space", [" ", "\n" * 20_000, "\t" * 16_370])
def test_body_is_read_across_blocks(space: str) -> None:
    """A body means the same wherever the blocks end in which it is decoded, also within a character."""
    readings = [READING | {"sensor": f"s{number}", "timestamp": f"2026-05-04T12:00:0{number}Z"} for number in range(3)]
    listed = f",{space}".join(json.dumps(each) for each in readings)
    for shift in range(10):
        before = f"{space}{' ' * shift}"
        name = "\N{SNOWMAN}a\N{GRINNING FACE}"
        text = f'{before}{{{before}"source_id":{before}"{name}",{space}"readings":[{listed}]}}{space}'
        body = parse_readings(text.encode())
        assert body.source_id == name
        assert body.rows.sensors == ["s0", "s1", "s2"]
        assert body.rows.timestamps[2] - body.rows.timestamps[0] == 2_000_000


def _peak(body: bytes) -> int:
    """Bytes that the parser takes at most, besides the body."""
    tracemalloc.start()
    try:
        with contextlib.suppress(InvalidArgumentError, TableError):
            parse_readings(body)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


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
    parts = list(encode_metrics("m", found))
    assert all(len(part) >= 65_536 for part in parts[:-1])
    text = b"".join(parts)
    assert MetricsOut.model_validate_json(text) == MetricsOut(machine_id="m", series=expected)


def test_answer_of_many_series_has_few_parts() -> None:
    """Each part takes a step of the event loop, so that very many short series make no more parts than one long one."""
    one = np.array([1], "<i8").tobytes()
    many = [columns_pb2.QueriedColumns(sensor=f"s{number}", timestamps_us=one, values=one) for number in range(5000)]
    assert len(list(encode_metrics("m", many))) <= 10
    assert len(json.loads(b"".join(encode_metrics("m", many)))["series"]) == 5000


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
