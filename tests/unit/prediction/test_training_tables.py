"""Histories from tables: which columns mean what, and tables that say nothing usable."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aurum.commands.histories import HistoryError
from aurum.commands.state_words import StateWords
from aurum.commands.table_roles import DeclaredColumns, TableRoleError
from aurum.commands.training_data import DataSelection, Histories, load_histories
from aurum.readings.csv_table import TableOptions
from aurum.readings.history import FAULT
from aurum.readings.tables import TableError
from aurum.readings.times import TimeOptions

HOUR_US = 3_600_000_000


def table(folder: Path, text: str, name: str = "fans.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def read(path: Path, *types: str, run_to_failure: bool = False, **declared: str) -> Histories:
    return load_histories(DataSelection(None, [path], types, run_to_failure, DeclaredColumns(**declared)))


@pytest.mark.parametrize(
    ("rows", "declared", "problem"),
    [
        ("a,1,5\na,,6\na,3,7", {}, "row 3, cycle: is empty"),
        ("a,1,5\na,1e17,6", {}, r"row 3, cycle: 1e\+17 is too large for a count of life"),
        ("a,one,5\na,two,6", {}, "row 1, cycle: contains text instead of a count of life"),
        ("a,1,long\na,2,short", {"left": "x"}, "row 1, x: contains text instead of the remaining life"),
        ("a,1,1790000000\na,2,", {"time": "x"}, "row 3, x: '' is not a time"),
        ("a,1,inf\na,2,3", {"time": "x"}, "row 2, x: inf is not a time"),
    ],
    ids=["no life", "a huge life", "a life in words", "life left in words", "no time", "an endless time"],
)
def test_table_without_usable_counts_is_refused(
    tmp_path: Path, rows: str, declared: dict[str, str], problem: str
) -> None:
    with pytest.raises(TableError, match=problem):
        read(table(tmp_path, f"unit,cycle,x\n{rows}\n"), **declared)


def test_row_of_an_empty_count_is_that_of_its_own_file(tmp_path: Path) -> None:
    first = table(tmp_path, "unit,cycle,x\na,1,5\na,2,6\n", "1.csv")
    second = table(tmp_path, "unit,cycle,x\na,3,5\na,,6\n", "2.csv")
    with pytest.raises(TableError, match=r"row 3, cycle: is empty \(in 2.csv\)"):
        load_histories(DataSelection(None, [first, second], ["fans"]))


def test_column_declared_twice_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path, "unit,cycle,x\na,1,5\na,2,6\n")
    with pytest.raises(TableRoleError, match="'cycle' is given for more than one of --unit"):
        read(path, life="cycle", failure="cycle")
    with pytest.raises(TableRoleError, match="--life names 'cycles', but the columns are unit, cycle, x"):
        read(path, life="cycles")


def test_declared_column_has_no_inferred_meaning(tmp_path: Path) -> None:
    path = table(tmp_path, "unit,cycle,x\na,0,5\na,0,6\na,1,7\n")
    found = read(path, failure="cycle")
    assert (found.life, [run.failed for run in found.by_type["fans"]]) == (None, [True])
    assert "failures by 'cycle' (failure: 1 (1); healthy: 0 (2))" in found.notes
    assert any("no column contains the time (--time) or life (--life)" in note for note in found.notes)


def test_machine_type_is_taken_from_column_option_or_file_name(tmp_path: Path) -> None:
    path = table(tmp_path, "unit,machine_type,cycle,x\na,Big Fan,1,5\nb,pump,1,6\n")
    assert sorted(read(path).by_type) == ["big_fan", "pump"]
    assert list(read(path, "press").by_type) == ["press"]
    plain = table(tmp_path, "unit,cycle,x\na,1,5\n", "Old Fans.csv")
    found = read(plain)
    assert list(found.by_type) == ["old_fans"]
    assert "the machines' type is taken from the file's name: 'old_fans' (--machine-type)" in found.notes


def test_text_columns_are_left_out_and_named(tmp_path: Path) -> None:
    header = ",".join(f"note{number}" for number in range(7))
    row = ",".join("word" for _ in range(7))
    found = read(table(tmp_path, f"unit,cycle,x,{header}\na,1,5,{row}\na,2,6,{row}\n"))
    assert set(found.by_type["fans"][0].columns) == {"cycle", "x"}
    assert any(each.startswith("note0, note1, note2, note3, note4 and 2 more: text column") for each in found.notes)


def test_columns_that_differ_only_in_capitals_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"names differ only in case and signs"):
        read(table(tmp_path, "unit,cycle,Heat °C,heat (c)\na,1,5,6\n"))
    with pytest.raises(TableError, match="x: is repeated in the header"):
        read(table(tmp_path, "unit,cycle,x,x\na,1,5,6\n"))
    with pytest.raises(TableError, match="has only one column"):
        read(table(tmp_path, "unit\na\n"))


def test_words_tell_failures_in_a_column(tmp_path: Path) -> None:
    path = table(tmp_path, "unit,cycle,failure\na,1,no\na,2,OK\na,3,bearing\nb,1,none\nb,2,\n")
    told = DeclaredColumns(states=StateWords(failure=["Bearing"]))
    found = load_histories(DataSelection(None, [path], [], False, told))
    assert {run.machine_id: run.failed for run in found.by_type["fans"]} == {"a": True, "b": False}
    assert "failures by 'failure' (failure: bearing (1); healthy: no (1), OK (1), none (1), empty (1))" in found.notes


def test_table_with_a_row_per_reading_is_aligned(tmp_path: Path) -> None:
    at = "2026-01-01T0{}:00:00Z"
    rows = [f"{at.format(hour)},a,heat,{hour}" for hour in range(4)]
    rows += [f"{at.format(3)},a,{FAULT},1", f"{at.format(1)},b,heat,7"]
    path = table(tmp_path, "\n".join(["time;unit;sensor;value", *(row.replace(",", ";") for row in rows)]) + "\n")
    first, second = read(path, "fans").by_type["fans"]
    assert (first.machine_id, first.failed, first.columns["heat"].tolist()) == ("a", True, [0.0, 1.0, 2.0, 3.0])
    assert np.diff(first.timestamps).tolist() == [HOUR_US] * 3
    assert (second.machine_id, second.failed, second.columns["heat"].tolist()) == ("b", False, [7.0])
    text = table(tmp_path, "time;unit;sensor;value\n2026-01-01;a;x;up\n2026-01-02;a;x;down\n")
    with pytest.raises(TableError, match="row 1, value: contains text"):
        read(text, "fans")


@pytest.mark.parametrize(
    "times",
    [
        pa.array([1_700_000_000_000_000_001, 1_700_003_600_000_000_999], pa.timestamp("ns")),
        pa.array([1_700_000_000, 1_700_003_600], pa.timestamp("s", tz="Europe/Berlin")),
        pa.array(["2023-11-14T22:13:20Z", "2023-11-14T23:13:20Z"]),
    ],
    ids=["nanoseconds", "a zone", "text"],
)
def test_parquet_times_are_read_in_microseconds(tmp_path: Path, times: Any) -> None:
    path = tmp_path / "fans.parquet"
    pq.write_table(pa.table({"unit": ["a", "a"], "time": times, "x": [1.5, 2.5], "on": [True, False]}), path)
    (run,) = read(path).by_type["fans"]
    assert run.timestamps.tolist() == [1_700_000_000_000_000, 1_700_003_600_000_000]
    assert {name: values.tolist() for name, values in run.columns.items()} == {"x": [1.5, 2.5], "on": [1.0, 0.0]}


def test_parquet_without_a_time_names_its_row(tmp_path: Path) -> None:
    path = tmp_path / "fans.parquet"
    times = pa.array([1, None], pa.timestamp("us"))
    pq.write_table(pa.table({"unit": ["a", "a"], "time": times, "x": [1.5, 2.5]}), path)
    with pytest.raises(TableError, match="row 3, time: is empty"):
        read(path)
    path.write_bytes(b"PAR1 and nothing")
    with pytest.raises(TableError, match="cannot be read"):
        read(path)


@pytest.mark.parametrize(
    ("lives", "problem"),
    [
        ("12\n", "has 1 numbers for 2 machines"),
        ("12\nmany\n", "row 2: 'many' must have one number per line"),
        ("12\n-3\n", "row 2: '-3' must have one number per line, 0 or greater"),
        ("a1,12\n7\n", "lines with a machine and lines without"),
        ("a1,12\na3,7\n", "lacks the machines a2"),
        ("a1,12\na2,7\na3,7\n", "names a3, which the data lacks"),
        ("a1,12\nA1,7\n", "names the machine A1 twice"),
    ],
    ids=["too few", "a word", "below zero", "mixed", "another", "more", "twice"],
)
def test_lives_left_are_one_number_for_each_run(tmp_path: Path, lives: str, problem: str) -> None:
    path = table(tmp_path, "unit,cycle,x\na1,1,5\na2,1,6\n")
    left = table(tmp_path, lives, "left.txt")
    with pytest.raises(HistoryError, match=problem):
        load_histories(DataSelection(None, [path], ["fans"], left_file=left))
    left.write_text("12\n7.5\n")
    runs = load_histories(DataSelection(None, [path], ["fans"], left_file=left)).by_type["fans"]
    assert [(run.machine_id, run.failed, run.left) for run in runs] == [("a1", True, 12.0), ("a2", True, 7.5)]


def test_readings_of_several_types_need_one_named_type(tmp_path: Path) -> None:
    long = table(
        tmp_path, "machine_id,timestamp,sensor,value\na,2026-01-01T00:00:00Z,x,1\na,2026-01-01T01:00:00Z,x,2\n"
    )
    with pytest.raises(HistoryError, match="give the type of these machines with --machine-type"):
        read(long)
    (run,) = read(long, "fans", run_to_failure=True).by_type["fans"]
    assert (run.failed, run.columns["x"].tolist()) == (True, [1.0, 2.0])
    with pytest.raises(HistoryError, match="only one --machine-type"):
        read(long, "fans", "pumps")
    with pytest.raises(HistoryError, match="machine type 'fan' is not simulated; there are "):
        load_histories(DataSelection("plant", [], ["fan"]))


TELEMETRY = '"datetime","machineID","volt"\n' + "".join(
    f'"1/{day}/2015 {hour}:00:00 {half}",{machine},{160 + day}\n'
    for machine in (1, 2)
    for day in range(1, 29)
    for half in ("AM", "PM")
    for hour in (1, 7)
)
PATTERN = "%m/%d/%Y %I:%M:%S %p"


def test_failures_in_a_table_of_their_own_end_runs(tmp_path: Path) -> None:
    path = table(tmp_path, TELEMETRY, "telemetry.csv")
    rows = '"1/13/2015 5:00:00 PM",1,"comp2"\n"1/20/2015 1:00:00 AM",1,"comp1"\n"2/13/2015 5:00:00 PM",2,"x"\n'
    failures = table(
        tmp_path, f'"datetime","machineID","failure"\n{rows}"1/13/2015 5:00:00 PM",9,"x"\n', "failures.csv"
    )
    declared = DeclaredColumns(failures=failures, written=TableOptions(times=TimeOptions(PATTERN)))
    found = load_histories(DataSelection(None, [path], ["press"], False, declared))
    assert [(run.machine_id, run.failed) for run in found.by_type["press"]] == [
        ("1/1", True), ("1/2", True), ("1/3", False), ("2", False)
    ]  # fmt: skip
    assert {*found.notes} >= {
        "failures by failures.csv",
        "1 failures of machines without readings are not used",
        "1 failures after the last reading of their machine are not used",
    }
    at = datetime.fromtimestamp(found.by_type["press"][0].timestamps[-1] / 1e6, UTC)
    assert at == datetime(2015, 1, 13, 19, tzinfo=UTC)


def test_table_of_failures_without_the_columns_is_refused(tmp_path: Path) -> None:
    path, wrong = table(tmp_path, TELEMETRY, "t.csv"), table(tmp_path, "at,machine\n1,2\n", "f.csv")
    with pytest.raises(TableRoleError, match=r"f\.csv must have the column 'datetime'.* at, machine"):
        load_histories(
            DataSelection(
                None,
                [path],
                ["press"],
                False,
                DeclaredColumns(failures=wrong, written=TableOptions(times=TimeOptions(PATTERN))),
            )
        )


def test_undeclared_times_of_a_training_table_name_the_option(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"row 2, datetime: '1/1/2015 1:00:00 AM' .*--time-format.*%m/%d/%Y"):
        read(table(tmp_path, TELEMETRY), "press")


def test_columns_that_tell_the_outcome_are_no_sensors(tmp_path: Path) -> None:
    rows = "".join(f"{row};2018-04-01 00:00:{row:02};0,{row};{row % 2};0\n" for row in range(20))
    path = table(tmp_path, f";datetime;Volume Flow RateRMS;anomaly;changepoint\n{rows}")
    found = read(path, "valve")
    (run,) = found.by_type["valve"]
    assert set(run.columns) == {"Volume Flow RateRMS", "anomaly"}  # models are evaluated on it, not trained with it
    assert run.columns["Volume Flow RateRMS"][5] == 0.5
    assert "changepoint: no sensor, not used (tells the outcome)" in found.notes
    assert "anomalies are labelled by 'anomaly', which is no sensor" in found.notes
    assert "column without a name: no sensor, not used (has no name)" in found.notes


def test_words_in_a_column_of_numbers_are_empty_cells(tmp_path: Path) -> None:
    rows = "".join(f"a,{row},{'Bad Input' if row % 3 else row},{'none' if row else 'E1'}\n" for row in range(9))
    found = read(table(tmp_path, f"unit,cycle,x,code\n{rows}"), "fan")
    (run,) = found.by_type["fan"]
    assert np.isnan(run.columns["x"]).sum() == 6
    assert "code" not in run.columns
    assert "x: 6 cells without a number, such as 'Bad Input' in row 3" in found.notes


@pytest.mark.parametrize(("encoding", "name"), [("utf-16", "a.csv"), ("cp1252", "A.CSV")])
def test_training_table_in_another_encoding_is_read(tmp_path: Path, encoding: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes("Gerät;cycle;x\nÖ1;1;1,5\nÖ1;2;2,5\n".encode(encoding))
    (run,) = read(path, "fan", unit="Gerät").by_type["fan"]
    assert run.columns["x"].tolist() == [1.5, 2.5]


def test_local_times_of_a_training_table_are_resolved_in_order(tmp_path: Path) -> None:
    rows = "".join(f"a,2025-10-26 0{hour}:30:00,1\n" for hour in (1, 2, 2, 3))
    path = table(tmp_path, f"machine,timestamp,x\n{rows}")
    declared = DeclaredColumns(written=TableOptions(times=TimeOptions(zone="Europe/Berlin")))
    (run,) = load_histories(DataSelection(None, [path], ["fan"], False, declared)).by_type["fan"]
    assert np.diff(run.timestamps).tolist() == [HOUR_US] * 3


def test_wrong_cells_of_all_columns_are_told_at_once(tmp_path: Path) -> None:
    first = table(tmp_path, "unit,time,x,y\na,2026-01-01,1,2\na,2026-01-02,1,2\n", "1.csv")
    second = table(tmp_path, "unit,time,x,y\na,03.01.2026,1,oops\na,04.01.2026,Wartung,2\n", "2.csv")
    with pytest.raises(TableError) as raised:
        load_histories(DataSelection(None, [first, second], ["fans"]))
    problems = str(raised.value).split("; row")
    assert [each.partition(":")[0].removeprefix("row").strip() for each in problems] == ["2, y", "2, time", "3, x"]
    assert str(raised.value).count("(in 2.csv)") == 3
