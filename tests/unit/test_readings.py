"""Batches, segments, tables: what goes in comes out, and what is wrong is named."""

import io
import math
import struct
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.readings.batch import MAX_AHEAD_US, MAX_SEQUENCE, Batch, Series, encode, now_us
from aurum.readings.batch_decoding import decode, parse_request
from aurum.readings.csv_table import read_csv
from aurum.readings.history import FAULT, OPERATING_HOURS, Run, Stop, split_runs
from aurum.readings.tables import Rows, TableError, read_cmapss, to_series
from aurum.readings.times import parse_timestamp
from aurum.readings.transport.write_call import SerializedSeries, write_request
from aurum.runtime.errors import InvalidArgumentError
from aurum.storage.segment import CorruptSegmentError, pack, unpack
from aurum.v1 import columns_pb2, ingestion_pb2

NOW = now_us()


def series(machine_id: str = "m", sensor: str = "s", at: Any = (NOW,), values: Any = (1.0,)) -> ingestion_pb2.Series:
    return ingestion_pb2.Series(machine_id=machine_id, sensor=sensor, timestamps_us=at, values=values)


def batch(*parts: ingestion_pb2.Series, source_id: str = "src", sequence: int = 1) -> ingestion_pb2.Batch:
    return ingestion_pb2.Batch(source_id=source_id, sequence=sequence, series=parts)


timestamps = st.integers(min_value=0, max_value=NOW)
values = st.floats(allow_nan=True, allow_infinity=False)


@given(st.lists(st.tuples(timestamps, values), min_size=1, max_size=200))
def test_segments_round_trip_exactly(readings: list[tuple[int, float]]) -> None:
    readings.sort(key=lambda reading: reading[0])
    at = np.array([reading[0] for reading in readings], dtype=np.int64)
    column = np.array([reading[1] for reading in readings])
    got_at, got = unpack(pack(at, column))
    assert np.array_equal(got_at, at)
    assert got.tobytes() == column.tobytes()


@given(st.binary(max_size=200))
def test_invalid_segment_bytes_are_rejected(data: bytes) -> None:
    with pytest.raises(CorruptSegmentError):
        unpack(data)


def test_flipped_bit_fails_segment_checksum() -> None:
    segment = bytearray(pack(np.arange(100, dtype=np.int64), np.random.default_rng(1).random(100)))
    segment[-3] ^= 1
    with pytest.raises(CorruptSegmentError, match="checksum"):
        unpack(bytes(segment))


@given(st.lists(st.text(max_size=20), max_size=4))
def test_batch_takes_its_last_owner(owners: list[str]) -> None:
    sent = decode(batch(series()).SerializeToString())
    for owner in owners:
        sent = sent.with_owner(owner)
    got = decode(sent.data)
    assert (got.owner, got.source_id, got.readings) == ((owners or [""])[-1], "src", 1)


def test_new_owner_leaves_columns_in_several_pieces_whole() -> None:
    first = series(at=(NOW,), values=(1.0,)).SerializeToString()
    second = ingestion_pb2.Series(timestamps_us=[NOW + 1], values=[2.0]).SerializeToString()
    message = ingestion_pb2.Batch(source_id="src", sequence=1, owner="first").SerializeToString()
    message += bytes([0x1A, len(first + second)]) + first + second
    sent = decode(message).with_owner("other")
    assert sent.series[0].values.tolist() == [1.0, 2.0]
    stored = decode(sent.data)
    assert (stored.owner, stored.series[0].values.tolist()) == ("other", [1.0, 2.0])


def test_owner_survives_the_slow_reading_of_a_batch() -> None:
    message = batch(series(at=(NOW, NOW + 1), values=(1.0, 2.0))).SerializeToString()
    unpacked = message + bytes([0x1A, 22, 0x0A, 1]) + b"n" + bytes([0x12, 1]) + b"s"
    unpacked += bytes([0x19]) + NOW.to_bytes(8, "little") + bytes([0x21]) + struct.pack("<d", 3.0)
    unpacked = unpacked.replace(bytes([0x1A, 22]), bytes([0x1A, 24]))  # one number is not packed
    unpacked += ingestion_pb2.Batch(owner="site/a").SerializeToString()
    got = decode(unpacked)
    assert (got.owner, got.readings) == ("site/a", 3)


@given(st.lists(st.tuples(timestamps, st.floats(-1e6, 1e6)), min_size=1, max_size=50))
def test_batches_round_trip(readings: list[tuple[int, float]]) -> None:
    at = np.array([reading[0] for reading in readings], dtype=np.int64)
    column = np.array([reading[1] for reading in readings])
    message = encode("src", 3, [Series("m", "s", at, column)])
    got = decode(message.SerializeToString(), NOW)
    assert (got.source_id, got.sequence, got.readings) == ("src", 3, len(readings))
    assert np.array_equal(got.series[0].timestamps, at)
    assert np.array_equal(got.series[0].values, column)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (batch(series(), source_id=""), "batch.source_id"),
        (batch(series(), sequence=0), "batch.sequence"),
        (batch(), "batch.series"),
        (batch(series(), series("bad id")), "batch.series[1].machine_id"),
        (batch(series(sensor="")), "batch.series[0].sensor"),
        (batch(series(), series()), "batch.series[1]"),
        (batch(series(at=(1, 2))), "batch.series[0].values"),
        (
            batch(series(), series("n", at=(NOW, NOW + MAX_AHEAD_US + 10**6), values=(1, 2))),
            "batch.series[1].timestamps_us[1]",
        ),
        (batch(series(at=(-1,))), "batch.series[0].timestamps_us[0]"),
        (batch(series(at=(1, 2), values=(1.0, math.inf))), "batch.series[0].values[1]"),
        (batch(series(), series("n", values=(math.nan,))), "batch.series[1].values"),
    ],
)
def test_invalid_batch_names_the_field(message: ingestion_pb2.Batch, field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        decode(message.SerializeToString(), NOW)
    assert caught.value.violations[0].field == field


@given(st.binary(max_size=300), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8))
@settings(max_examples=300)
def test_arbitrary_message_yields_batch_or_violations(data: bytes, flips: list[tuple[int, int]]) -> None:
    damaged = bytearray(batch(series(), series("n", at=(1, 2), values=(1.0, 2.0))).SerializeToString())
    for place, value in flips:
        damaged[place % len(damaged)] = value
    for message in (data, bytes(damaged)):
        try:
            decode(message, NOW)
            decode(parse_request(message).batch, NOW)
        except InvalidArgumentError as error:
            assert error.violations  # noqa: PT017 - what is damaged may still be a batch


def test_columns_in_every_protobuf_encoding_are_read() -> None:
    """Packed, unpacked and split columns are read alike, as other encoders may send them."""

    def piece(number: int, kind: int, content: bytes) -> bytes:
        length = bytes([len(content)]) if kind == 2 else b""
        return bytes([number << 3 | kind]) + length + content

    times = [at.to_bytes(8, "little") for at in (1000, 2000, 3000)]
    values = [struct.pack("<d", value) for value in (1.5, 2.5, 3.5)]
    names = piece(1, 2, b"m") + piece(2, 2, b"s")
    forms = [
        piece(3, 2, b"".join(times)) + piece(4, 2, b"".join(values)),
        b"".join(piece(3, 1, each) for each in times) + b"".join(piece(4, 1, each) for each in values),
        b"".join(piece(3, 2, each) for each in times) + b"".join(piece(4, 2, each) for each in values),
        piece(3, 2, times[0]) + b"".join(piece(3, 1, each) for each in times[1:]) + piece(4, 2, b"".join(values)),
    ]
    for form in forms:
        message = piece(1, 2, b"src") + b"\x10\x01" + piece(3, 2, names + form)
        got = decode(message, NOW)
        assert got.series[0].timestamps.tolist() == [1000, 2000, 3000]
        assert got.series[0].values.tolist() == [1.5, 2.5, 3.5]
        for request in (piece(1, 2, message), piece(1, 2, message[:7]) + piece(1, 2, message[7:])):
            assert decode(parse_request(request).batch, NOW).series[0].values.tolist() == [1.5, 2.5, 3.5]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-05-04T12:00:00Z", 1777896000),
        ("2026-05-04T14:00:00+02:00", 1777896000),
        ("2026-05-04 12:00:00", 1777896000),
        ("1777896000", 1777896000),
        ("1777896000000", 1777896000),
        ("1777896000000000", 1777896000),
    ],
)
def test_timestamp_formats_are_parsed(text: str, seconds: int) -> None:
    assert parse_timestamp(text) == seconds * 1_000_000


@given(st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)))
def test_iso_timestamps_are_parsed_exactly(moment: datetime) -> None:
    aware = moment.replace(tzinfo=UTC)
    assert parse_timestamp(aware.isoformat()) == round(aware.timestamp() * 1e6)


def rows_of(text: str) -> Rows:
    (rows,) = read_csv(text.splitlines(keepends=True), 10**6)
    return rows


def test_long_and_wide_csv_are_equivalent() -> None:
    long = rows_of("machine_id,timestamp,sensor,value\nm,1790000010,a,1\nm,1790000010,b,2\nm,1790000020,a,3\n")
    wide = rows_of("timestamp,machine_id,a,b\n1790000010,m,1,2\n1790000020,m,3,\n")
    assert [(s.sensor, s.values.tolist()) for s in to_series(long)] == [
        (s.sensor, s.values.tolist()) for s in to_series(wide)
    ]


@pytest.mark.parametrize(
    ("text", "row", "column"),
    [
        ("machine,timestamp,sensor,value\nm,1790000001,a,1\n", 1, "machine_id"),
        ("machine_id,timestamp\nm,1\n", 1, ""),
        ("machine_id,timestamp,sensor,value\nm,1790000001,a,1\nm,1790000002,a\n", 3, "value"),
        ("machine_id,timestamp,sensor,value\nm,1790000001,a,1\nm,1790000002,a,x\n", 3, "value"),
        ("machine_id,timestamp,sensor,value\nm,yesterday,a,1\n", 2, "timestamp"),
        ("machine_id,timestamp,a,b\nm,1790000001,2,3\nm,1790000002,2,oops\n", 3, "b"),
        ("machine_id,timestamp,a,b\nm,1790000001,2,3,4\n", 2, "column 5"),
        ("machine_id,timestamp,a,a\nm,1790000001,2,3\n", 1, "a"),
        ("machine_id,timestamp,a,machine_id\nm,1790000001,2,n\n", 1, "machine_id"),
        ("timestamp,timestamp,machine_id,a\n1790000001,1790000002,m,2\n", 1, "timestamp"),
        ("machine_id,timestamp,sensor,value\nm,1790000001,a,2026_05\n", 2, "value"),
        ("machine_id,timestamp,a\nm,17_90,1\n", 2, "timestamp"),
    ],
)
def test_invalid_csv_cell_is_reported_by_row_and_column(text: str, row: int, column: str) -> None:
    with pytest.raises(TableError) as caught:
        rows_of(text)
    assert (caught.value.row, caught.value.column) == (row, column)


def test_batch_of_very_many_series_is_refused_before_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Millions of empty series are told from the message's bytes; parsed, they would take a hundred times as many."""
    monkeypatch.setattr(columns_pb2, "BatchColumns", None)  # nothing is parsed
    with pytest.raises(InvalidArgumentError, match="series: has more than the 20000 series"):
        decode(b"\x0a\x01s\x10\x01" + b"\x1a\x00" * 1_000_000)


def test_batch_of_very_many_single_numbers_is_refused() -> None:
    """Numbers that stand one by one, which the format allows, are counted before they become objects."""
    series = b"\x0a\x01m\x12\x01s" + (b"\x19" + bytes(8)) * 200_001 + (b"\x21" + bytes(8)) * 200_001
    message = ingestion_pb2.Series.FromString(series)
    assert len(message.values) == 200_001
    batch = b"\x0a\x01s\x10\x01\x1a" + _varint(len(series)) + series
    with pytest.raises(InvalidArgumentError, match="has 200001 readings; at most 200000 are allowed"):
        decode(batch)


def test_single_numbers_that_fill_a_request_are_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    series = b"\x0a\x01m\x12\x01s" + (b"\x19" + bytes(8)) * 400_000 + (b"\x21" + bytes(8)) * 400_000
    batch = b"\x0a\x01s\x10\x01\x1a" + _varint(len(series)) + series
    monkeypatch.setattr(ingestion_pb2, "Batch", None)
    with pytest.raises(InvalidArgumentError, match="bytes of single numbers and unknown fields"):
        decode(batch)


def test_request_larger_than_any_batch_is_refused() -> None:
    """A request that is larger than the largest batch can be is refused by its size alone."""
    with pytest.raises(InvalidArgumentError, match="batch: has 8000001 bytes"):
        parse_request(bytes(8_000_001))
    twice = ingestion_pb2.WriteRequest(batch=ingestion_pb2.Batch(source_id="s" * 600_000)).SerializeToString() * 2
    with pytest.raises(InvalidArgumentError, match="is given twice"):
        parse_request(twice)


def test_largest_batch_fits_into_a_request() -> None:
    """As many readings and series as a batch may have, with the longest names, are no larger than a request may be."""
    one = np.array([1]), np.array([1.0])
    long = np.arange(200_000 - 19_999), np.ones(200_000 - 19_999)
    series = [Series("m" * 128, f"{'s' * 59}{number:05}", *one) for number in range(19_999)]
    batch = Batch.from_series("s" * 200, MAX_SEQUENCE, [*series, Series("m" * 128, "long", *long)]).with_owner(
        "o" * 500
    )
    request = columns_pb2.BatchRequest(batch=batch.data, traceparent="t" * 100).SerializeToString()
    assert decode(parse_request(request).batch).readings == 200_000


def _varint(number: int) -> bytes:
    return bytes([number & 0x7F | 0x80]) + _varint(number >> 7) if number > 0x7F else bytes([number])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("machine_id,timestamp" + ",s" * 100 + "\n", 1),
        ("machine_id,timestamp,s\nm,1790000001,2\n" + "," * 101, 3),
        ('machine_id,timestamp,s\nm,1790000001,2\n"m\n' + '","\n' * 100, 28),
    ],
)
def test_csv_row_that_is_too_long_is_refused_early(text: str, line: int) -> None:
    """A row of very many cells, also over several lines, is refused before it is taken apart."""
    with pytest.raises(TableError, match="has more than 100 characters") as refused:
        list(read_csv(io.StringIO(text, newline=""), 10, max_row_characters=100))
    assert refused.value.row == line
    rows = next(
        read_csv(io.StringIO("machine_id,timestamp,s\n" + "m,1790000001,2.5\n" * 10), 100, max_row_characters=100)
    )
    assert len(rows) == 10


@pytest.mark.parametrize(
    ("line", "row", "column"),
    [
        ("bad id,1790000001,a,1", 2, "machine_id"),
        ("m,1790000001,a,inf", 2, "value"),
        pytest.param(f"m,{NOW + 86_400 * 10**6},a,1", 2, "timestamp", id="too late"),
    ],
)
def test_csv_row_that_breaks_a_rule_is_reported(line: str, row: int, column: str) -> None:
    with pytest.raises(TableError) as caught:
        to_series(rows_of(f"machine_id,timestamp,sensor,value\n{line}\n"))
    assert (caught.value.row, caught.value.column) == (row, column)


def cmapss_line(unit: int, cycle: int) -> str:
    return f"{unit} {cycle} " + " ".join(f"{0.1 * (index + cycle):.4f}" for index in range(24)) + "  \n"


def test_cmapss_becomes_machines_and_cycles() -> None:
    (rows,) = read_cmapss([cmapss_line(1, 1), cmapss_line(1, 2), cmapss_line(2, 1)], "fd", 10**6)
    found = {(s.machine_id, s.sensor): s.values.tolist() for s in to_series(rows)}
    assert found["fd-001", "cycle"] == [1.0, 2.0]
    assert len(found) == 2 * 25


def test_truncated_cmapss_file_names_line_and_column() -> None:
    cut = cmapss_line(1, 3)[:40]
    with pytest.raises(TableError, match="truncated") as caught:
        list(read_cmapss([cmapss_line(1, 1), cmapss_line(1, 2), cut], "fd", 10**6))
    assert caught.value.row == 3
    assert caught.value.column == f"column {len(cut.split()) + 1}"


def test_cmapss_bytes_that_are_no_text_are_refused_by_row() -> None:
    text = io.TextIOWrapper(io.BytesIO(cmapss_line(1, 1).encode() + b"\xb7"), encoding="utf-8", newline="")
    with pytest.raises(TableError, match="is not UTF-8 text"):
        list(read_cmapss(text, "fd", 10**6))


def test_sensor_that_numbers_lives_begins_them() -> None:
    """A life begins where the number changes, up or down; rows without a number belong to the life before."""
    at = np.arange(6, dtype=np.int64)
    number = np.array([4.0, 4.0, np.nan, 5.0, 1.0, 1.0])
    runs = split_runs("m", at, {"x": np.arange(6.0), "Life_Number": number}, ends_in_failure=True)
    assert [run.timestamps.tolist() for run in runs] == [[0, 1, 2], [3], [4, 5]]
    assert [run.failed for run in runs] == [False, False, True]


def test_runs_are_split_at_overhauls_and_end_at_faults() -> None:
    at = np.arange(8, dtype=np.int64)
    columns = {
        OPERATING_HOURS: np.array([1.0, 2, 3, 3, 1, 2, 3, 4]),
        FAULT: np.array([0.0, 0, 1, 1, 0, 0, 0, 0]),
        "x": np.arange(8.0),
    }
    first, second = split_runs("m", at, columns, ends_in_failure=True)
    assert first.failed
    assert first.columns["x"].tolist() == [0, 1, 2]
    assert not second.failed  # there is a fault signal, and it did not come on
    assert second.columns["x"].tolist() == [4, 5, 6, 7]


def lives_of(runs: list[Run]) -> list[tuple[list[int], bool, str]]:
    return [(run.timestamps.tolist(), run.failed, run.mode) for run in runs]


def test_recorded_failures_end_lives_and_overhauls_begin_them() -> None:
    at = np.arange(0, 200, 10, dtype=np.int64)
    stops = [
        Stop(35, 62, failed=True, mode="wear"),
        Stop(100, 120, renewed=True),
        Stop(150, failed=True, mode="seizure"),
        Stop(165, 170),
    ]
    runs = split_runs("m", at, {"x": np.arange(20.0)}, ends_in_failure=False, stops=stops)
    assert lives_of(runs) == [
        ([0, 10, 20, 30], True, "wear"),
        ([70, 80, 90], False, ""),
        ([120, 130, 140, 150], True, "seizure"),
        ([170, 180, 190], False, ""),
    ]
    assert {run.machine for run in runs} == {"m"}


def test_next_life_begins_at_once_if_no_record_says_when() -> None:
    at = np.arange(6, dtype=np.int64)
    runs = split_runs("m", at, {"x": np.arange(6.0)}, ends_in_failure=True, stops=[Stop(2, failed=True)])
    assert lives_of(runs) == [([0, 1, 2], True, ""), ([3, 4, 5], False, "")]


def test_counter_that_decreases_ends_the_time_after_a_failure() -> None:
    at = np.arange(7, dtype=np.int64)
    columns = {OPERATING_HOURS: np.array([5.0, 6, 7, 7, 7, 0, 1])}
    first, second = split_runs("m", at, columns, ends_in_failure=False, stops=[Stop(2, failed=True)])
    assert (first.failed, first.timestamps.tolist(), second.timestamps.tolist()) == (True, [0, 1, 2], [5, 6])


def test_counter_that_goes_on_is_noted_for_the_new_life() -> None:
    columns = {OPERATING_HOURS: np.arange(100.0, 106.0)}
    stops = [Stop(3, renewed=True)]
    _, second = split_runs("m", np.arange(6, dtype=np.int64), columns, ends_in_failure=False, stops=stops)
    assert second.begun == 103


@given(
    st.lists(st.builds(Stop, st.integers(-5, 60), st.none(), st.booleans(), st.booleans()), max_size=8),
    st.lists(st.booleans(), min_size=1, max_size=50),
    st.booleans(),
)
def test_runs_are_disjoint_and_in_order(stops: list[Stop], faults: list[bool], with_fault: bool) -> None:
    """Whatever is recorded, runs do not overlap, and each recorded failure ends at most one of them."""
    at = np.arange(len(faults), dtype=np.int64)
    columns = {"x": np.arange(float(len(faults)))} | ({FAULT: np.array(faults, float)} if with_fault else {})
    runs = split_runs("m", at, columns, ends_in_failure=False, stops=stops)
    times = [time for run in runs for time in run.timestamps.tolist()]
    assert times == sorted(set(times))
    if not with_fault:
        assert sum(run.failed for run in runs) <= len({stop.from_us for stop in stops if stop.failed})
        if not stops:
            assert times == at.tolist()


@given(
    st.dictionaries(
        st.tuples(st.sampled_from(["pump-1", "pump-2"]), st.sampled_from("abc")),
        st.lists(st.tuples(timestamps, st.floats(allow_nan=False, allow_infinity=False)), min_size=1, max_size=20),
        min_size=1,
    ),
    st.sampled_from(["", "service/api"]),
)
def test_write_request_of_serialized_series_is_canonical(
    columns: dict[tuple[str, str], list[tuple[int, float]]], owner: str
) -> None:
    """Series that are serialized before their source is known give the bytes of a whole message."""
    parts = [
        Series(machine_id, sensor, np.array([at for at, _ in column]), np.array([value for _, value in column]))
        for (machine_id, sensor), column in columns.items()
    ]
    serialized = SerializedSeries.from_series(parts)
    message = encode("src", 7, parts)
    message.owner = owner
    request = write_request("src", 7, owner, serialized)
    assert request == ingestion_pb2.WriteRequest(batch=message).SerializeToString()
    stored = decode(parse_request(request).batch)
    assert stored.data == message.SerializeToString()
    assert (stored.source_id, stored.sequence, stored.owner) == ("src", 7, owner)
    assert list(serialized.machine_ids) == list(dict.fromkeys(machine_id for machine_id, _ in columns))
