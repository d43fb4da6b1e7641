"""CSV tables as other programs write them: encodings, delimiters, decimal signs, words in place of numbers."""

import gzip
import io
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum.readings.csv_table import TableNotes, TableOptions, read_csv
from aurum.readings.number_text import DEFAULT_ABSENT_WORDS, fold_words
from aurum.readings.table_text import TableText, open_table
from aurum.readings.tables import TableError, to_series
from aurum.readings.times import TimeOptions, parse_timestamp

WIDE = "machine_id,timestamp,a,b\nm,2026-11-28T10:00:00Z,1.5,-2\nm,2026-11-28T10:01:00Z,3,4e1\n"


def content_of(
    data: bytes, options: TableOptions | None = None, notes: TableNotes | None = None
) -> dict[str, list[float]]:
    """The values of each sensor in a table."""
    found: dict[str, list[float]] = {}
    text = TableText(io.BufferedReader(io.BytesIO(data)))  # type: ignore[arg-type]
    for rows in read_csv(text, 10, options=options, notes=notes):
        for series in to_series(rows, 10**17):
            found.setdefault(series.sensor, []).extend(series.values.tolist())
            if notes is not None:
                notes.record_times([series])
                notes.record_numbers([(series.machine_id, series.sensor)])
    return found


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
@pytest.mark.parametrize("compressed", [False, True])
def test_encoding_and_gzip_of_a_table_are_recognised(encoding: str, compressed: bool) -> None:
    data = WIDE.encode(encoding)
    assert content_of(gzip.compress(data) if compressed else data) == {"a": [1.5, 3.0], "b": [-2.0, 40.0]}


@given(
    st.sampled_from([",", ";", "\t", "|"]),
    st.booleans(),
    st.lists(st.floats(-1e12, 1e12, allow_nan=False), min_size=1, max_size=20),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_delimiter_and_decimal_sign_do_not_change_values(sign: str, comma: bool, values: list[float], end: str) -> None:
    def written(value: float) -> str:
        text = f"{value:.6f}"
        text = text.replace(".", ",") if comma else text
        return f'"{text}"' if sign in text else text

    lines = [sign.join(("machine_id", "timestamp", "a"))]
    lines += [sign.join(("m", str(1_790_000_000 + row), written(value))) for row, value in enumerate(values)]
    options = TableOptions(decimal="comma") if comma and sign == "," else TableOptions()
    notes = TableNotes()
    found = content_of((end.join(lines) + end).encode(), options, notes)
    assert found == {"a": [float(f"{value:.6f}") for value in values]}
    assert (notes.delimiter, notes.decimal_comma) == (sign, comma)


def test_decimal_signs_that_disagree_are_refused() -> None:
    head = "machine_id;timestamp;a\nm;1790000000;71,5\n"
    with pytest.raises(TableError, match=r"row 3, a: '71\.5' is not a number with a decimal comma"):
        content_of(f"{head}m;1790000001;71.5\n".encode())
    with pytest.raises(TableError, match="row 3, a: '71,5' is not a number; declare the decimal comma"):
        content_of(b"machine_id;timestamp;a\nm;1790000000;71.5\nm;1790000001;71,5\n")


def test_unquoted_decimal_commas_between_commas_are_refused() -> None:
    with pytest.raises(TableError, match=r"row 2, column 4: has 4 cells.* if numbers have a decimal comma"):
        content_of(b"machine_id,timestamp,a\nm,1790000000,71,5\n")


def test_missing_column_error_names_the_delimiter() -> None:
    with pytest.raises(TableError, match=r"row 1, machine_id: is missing; .* separated by semicolon"):
        content_of(b"machine;time;a\nm;1;2\n")


def test_first_line_of_a_spreadsheet_states_the_delimiter() -> None:
    data = b"sep=;\r\nmachine_id;timestamp;a\r\nm;1790000000;1,5\r\nm;1790000001;x\r\n"
    assert content_of(data.replace(b"x", b"2")) == {"a": [1.5, 2.0]}
    with pytest.raises(TableError, match="row 4, a: 'x' is not a number"):
        content_of(data)


def test_words_of_historians_are_no_readings_and_are_told() -> None:
    words = ["Bad Input", "No Data", "I/O Timeout", "#N/A", "NaN", "Wartung"]
    rows = "".join(f"m,{1_790_000_000 + row},{word},{row}\n" for row, word in enumerate(words))
    notes = TableNotes()
    options = TableOptions(absent_words=DEFAULT_ABSENT_WORDS | fold_words(["wartung"]))
    assert content_of(f"machine_id,timestamp,a,b\n{rows}".encode(), options, notes) == {"b": [0, 1, 2, 3, 4, 5]}
    assert (notes.absent, notes.absent_example) == (6, "row 2, m a: 'Bad Input'")
    assert notes.silent() == [("m", "a")]
    assert notes.describe() == [
        "cells without a number, not stored: 6 (first: row 2, m a: 'Bad Input')",
        "without any number: m a",
    ]


def test_numbers_declared_as_absent_are_no_readings() -> None:
    options = TableOptions(absent_words=fold_words(["-9999"]))
    assert content_of(b"machine_id,timestamp,a\nm,1790000000,-9999\nm,1790000001,1\n", options) == {"a": [1.0]}


def test_unknown_word_in_a_table_is_refused() -> None:
    with pytest.raises(TableError, match=r"row 2, a: 'high' is not a number; .* declare the word .--absent,"):
        content_of(b"machine_id,timestamp,a\nm,1790000000,high\n")
    with pytest.raises(TableError, match=r"row 2, a: '1.2.3' is not a number$"):
        content_of(b"machine_id,timestamp,a\nm,1790000000,1.2.3\n")


def test_local_time_ahead_of_the_clock_is_refused_with_advice() -> None:
    rows = next(read_csv(["machine_id,timestamp,a\n", "m,2026-11-28 11:00,1\n"], 10))
    with pytest.raises(TableError, match=r"row 2, timestamp: 2026-11-28T11:00:00Z is 3600 s .*; if the time is local"):
        to_series(rows, parse_timestamp("2026-11-28T10:00:00Z"))


def test_repeated_hour_is_resolved_and_told() -> None:
    rows = "".join(f"m,2026-10-25 0{hour}:30,1\n" for hour in (1, 2, 2, 3))
    notes = TableNotes()
    options = TableOptions(times=TimeOptions(zone="Europe/Berlin"))
    assert content_of(f"machine_id,timestamp,a\n{rows}".encode(), options, notes) == {"a": [1, 1, 1, 1]}
    assert (notes.repeated, notes.repeated_example) == (2, "2026-10-25 02:30 is 2026-10-25T01:30:00Z")


@pytest.mark.parametrize("time", ["2026-10-25 02:30", "25.10.2026 02:30"])
def test_times_without_a_zone_and_of_two_rows_are_told(time: str) -> None:
    form = "auto" if time[4] == "-" else "%d.%m.%Y %H:%M"
    notes = TableNotes()
    table = f"machine_id,timestamp,a\nm,{time},1\nm,{time},2\nn,{time},3\n".encode()
    assert content_of(table, TableOptions(times=TimeOptions(form)), notes) == {"a": [1, 2, 3]}
    assert notes.describe() == [
        f"times state no zone and are taken as UTC (first: {time}); if they are local, declare their zone "
        f"(--timezone, or timezone of a files input or request)",
        "replaced by a later row with the same machine, sensor and time: 1 (last: m a at 2026-10-25T02:30:00Z)",
    ]


@pytest.mark.parametrize(
    ("time", "options"),
    [
        ("2026-10-25T02:30:00Z", TimeOptions()),
        ("1790000000", TimeOptions()),
        ("2026-10-25 12:30", TimeOptions(zone="Europe/Berlin")),
        ("1790000000", TimeOptions("s")),
        ("25.10.2026 02:30 +0100", TimeOptions("%d.%m.%Y %H:%M %z")),
    ],
)
def test_nothing_is_told_of_clear_times(time: str, options: TimeOptions) -> None:
    notes = TableNotes()
    content_of(f"machine_id,timestamp,a\nm,{time},1\n".encode(), TableOptions(times=options), notes)
    assert notes.describe() == []


def test_windows_text_is_recognised_after_much_ascii() -> None:
    rows = "".join(f"m-{row},1790000000,1\n" for row in range(20_000)) + "Förderband,1790000000,2\n"
    options = TableOptions(device_names=True)
    text = TableText(io.BufferedReader(io.BytesIO(f"machine_id,timestamp,a\n{rows}".encode("cp1252"))))  # type: ignore[arg-type]
    machines = [machine for block in read_csv(text, 1000, options=options) for machine in block.machine_ids]
    assert (len(machines), machines[-1], text.encoding) == (20_001, "Förderband", "Windows-1252")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"m\xc3\xa4,1790000000,1\nm\xfc,1790000000,1\n", "row 3: is not UTF-8 text, as the rows before .byte 0xfc"),
        (b"m,1790000000,1\nm\x81,1790000000,1\n", "row 3: is neither UTF-8, UTF-16 nor Windows-1252 text .byte 0x81"),
    ],
)
def test_bytes_of_no_encoding_are_refused_by_row(data: bytes, problem: str) -> None:
    with pytest.raises(TableError, match=problem):
        content_of(b"machine_id,timestamp,a\n" + data, TableOptions(device_names=True))


def test_damaged_gzip_table_is_refused() -> None:
    with pytest.raises(TableError, match="the gzip compression is damaged"):
        content_of(gzip.compress(WIDE.encode() * 100)[:-20])


def test_compressed_table_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.csv.gz"
    path.write_bytes(gzip.compress(b"machine_id,timestamp,a\n" + b"m,1790000000,1\n" * 200_000))
    with (
        open_table(path, max_bytes=1_000_000) as text,
        pytest.raises(TableError, match="has more than 1000000 bytes decompressed"),
    ):
        list(read_csv(text, 10_000))


def test_memory_of_reading_does_not_grow_with_the_table(tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    path.write_text("machine_id;timestamp;a\n" + "m;1790000000;1,5\n" * 200_000)
    tracemalloc.start()
    try:
        with open_table(path) as text:
            assert sum(len(block) for block in read_csv(text, 1000)) == 200_000
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_all_missing_declarations_are_told_at_once() -> None:
    table = (
        "machine_id;timestamp;sensor;value\np-1;28.11.2026 10:00;t;73,2\np-1;28.11.2026 10:01;t;Wartung\n"
        "p-1;28.11.2026 10:02;t;12.5\np-1;28.11.2026 10:03;t;Wartung\n"
    )
    with pytest.raises(TableError) as raised:
        list(read_csv(table.splitlines(keepends=True), 2))
    error = raised.value
    assert [(each.row, each.column) for each in (error, *error.others)] == [
        (2, "timestamp"),
        (3, "value"),
        (4, "value"),
    ]
    assert str(error).count("declare") == 2, "the format of times, and the word"
    assert "row 4, value: '12.5' is not a number with a decimal comma" in str(error)


@pytest.mark.parametrize("end", ['p-1,1790000000,t,"', "p-1,1790000000,t\n", "p-1,1790000000,t,\n" * 2000])
def test_search_for_mistakes_ends_with_the_table(end: str) -> None:
    table = "machine_id,timestamp,sensor,value\np-1,x,t,1\n" + end
    with pytest.raises(TableError, match="row 2, timestamp") as raised:
        list(read_csv(table.splitlines(keepends=True), 10))
    assert len(raised.value.others) <= 1


def test_all_mistakes_of_a_header_are_told_at_once() -> None:
    with pytest.raises(TableError) as raised:
        list(read_csv(["Maschine;Zeit;a;a\n"], 10, options=TableOptions(device_names=True)))
    assert [each.column for each in (raised.value, *raised.value.others)] == ["machine_id", "timestamp", "a"]
