"""Tables whose words, files, duplicates and formats are declared, and what is refused instead of guessed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aurum.commands.categories import coded, recode
from aurum.commands.histories import HistoryError
from aurum.commands.state_words import StateWords, UnknownStateError
from aurum.commands.table_roles import DeclaredColumns, TableRoleError
from aurum.commands.training_data import DataSelection, Histories, load_histories
from aurum.readings.csv_table import TableOptions
from aurum.readings.history import FAULT, Run
from aurum.readings.tables import TableError
from aurum.readings.times import TimeOptions


def table(folder: Path, text: str, name: str = "fans.csv") -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def read(*paths: Path, **declared: Any) -> Histories:
    return load_histories(DataSelection(None, paths, ["fan"], False, DeclaredColumns(**declared)))


def runs(*paths: Path, **declared: Any) -> list[Run]:
    return read(*paths, **declared).by_type["fan"]


STATES = ["NORMAL", "NORMAL", "BROKEN", "RECOVERING", "RECOVERING", "NORMAL", "NORMAL", "BROKEN", "BROKEN", "NORMAL"]


def states(folder: Path, words: list[str]) -> Path:
    rows = [f"2026-01-01T{hour:02}:00:00Z,{hour * hour},{word}" for hour, word in enumerate(words)]
    return table(folder, "\n".join(["timestamp,x,Machine_Status", *rows]) + "\n")


def test_unknown_states_are_asked_about(tmp_path: Path) -> None:
    path = states(tmp_path, STATES)
    with pytest.raises(
        UnknownStateError, match=r"fans.csv, column 'Machine_Status': .* 'RECOVERING' \(2 rows\)\? Name"
    ):
        read(path)
    with pytest.raises(UnknownStateError, match="has no 'BROKE', which --failure-value names; its words are 'NORMAL'"):
        read(path, states=StateWords(failure=["BROKE"], ignored=["recovering"]), failure="machine_status")


def test_declared_states_end_runs_at_the_onset(tmp_path: Path) -> None:
    words = StateWords(healthy=["NORMAL"], failure=["BROKEN"], ignored=["RECOVERING"])
    found = read(states(tmp_path, STATES), states=words)
    assert [(run.failed, run.columns["x"].tolist()) for run in found.by_type["fan"]] == [
        (True, [0.0, 1.0, 4.0]),
        (True, [25.0, 36.0, 49.0]),
        (False, [81.0]),
    ]
    told = "failures by 'Machine_Status' (failure: BROKEN (3); healthy: NORMAL (5); left out: RECOVERING (2))"
    assert told in found.notes


def test_failure_that_began_before_the_data_has_no_onset(tmp_path: Path) -> None:
    found = read(states(tmp_path, ["BROKEN", "BROKEN", "NORMAL", "NORMAL", "BROKEN"]))
    assert [(run.failed, run.columns["x"].tolist()) for run in found.by_type["fan"]] == [(True, [4.0, 9.0, 16.0])]
    assert any(note.startswith("1 machines begin in a failure") for note in found.notes)


def test_status_without_a_failure_is_a_category(tmp_path: Path) -> None:
    found = read(states(tmp_path, ["idle", "running"] * 4))
    assert found.categories == {"Machine_Status": ("idle", "running")}
    assert not found.by_type["fan"][0].failed
    with pytest.raises(TableRoleError, match=r"--healthy, --failure-value and --ignore .* fans.csv has none"):
        read(states(tmp_path, ["idle", "running"] * 4), states=StateWords(ignored=["idle"]))
    with pytest.raises(UnknownStateError, match=r"are these failures: 'idle' \(4 rows\)"):
        read(states(tmp_path, ["idle", "running"] * 4), failure="machine_status")


def test_numbers_other_than_flags_are_asked_about(tmp_path: Path) -> None:
    path = table(tmp_path, "unit,cycle,x,fault\na,1,3,0\na,2,4,17\na,3,4,1\n")
    with pytest.raises(UnknownStateError, match=r"'17' \(1 rows\)"):
        read(path)
    assert [run.failed for run in runs(path, states=StateWords(failure=["17"]))] == [True]
    decimals = table(tmp_path, "unit,cycle,x,fault\na,1,3,0.0\na,2,4,1.0\n")
    assert [run.failed for run in runs(decimals)] == [True]


def test_flags_in_other_languages_tell_failures(tmp_path: Path) -> None:
    path = table(tmp_path, "unit;cycle;x;Fail\na;1; 44,25 ;FALSO\na;2;1.047,5;VERDADEIRO\n")
    (run,) = runs(path)
    assert (run.failed, run.columns["x"].tolist()) == (True, [44.25, 1047.5])


def test_excluded_column_has_no_meaning(tmp_path: Path) -> None:
    path = table(tmp_path, "unit,cycle,heat,target\na,1,5,80\na,2,6,90\n")
    with pytest.raises(UnknownStateError, match="leave it out with --exclude 'target'"):
        read(path)
    (run,) = runs(path, excluded=["TARGET"])
    assert set(run.columns) == {"cycle", "heat"}
    with pytest.raises(TableRoleError, match=r"--exclude names 'goal', but the columns of .*fans.csv are unit, cycle"):
        read(path, excluded=["goal"])


def test_row_numbers_and_labels_are_no_sensors(tmp_path: Path) -> None:
    rows = [f"{n},{n + 100},m{n % 4},{n // 4},{n * n},{n},{n % 2},7,0,0,0,0,0" for n in range(1, 21)]
    header = "index,count,unit,cycle,heat,RUL,label_bnc,max_cycle,TWF,HDF,PWF,OSF,RNF"
    found = read(table(tmp_path, "\n".join([header, *rows]) + "\n"))
    assert all(set(run.columns) == {"cycle", "heat"} for run in found.by_type["fan"])
    assert "count, index: no sensor, not used (is the number of the row)" in {
        note.replace("index, count", "count, index") for note in found.notes
    }


def test_id_that_numbers_rows_is_no_machine(tmp_path: Path) -> None:
    rows = [f"{n},2026-01-{n:02}T00:00:00Z,{n * n}" for n in range(1, 15)]
    (run,) = runs(table(tmp_path, "\n".join(["id,timestamp,heat", *rows]) + "\n"))
    assert (len(run.timestamps), set(run.columns)) == (14, {"heat"})
    each = [f"{n},{n * n}" for n in range(1, 15)]
    assert len(runs(table(tmp_path, "\n".join(["id,heat", *each]) + "\n"))) == 14


def test_counter_named_time_counts_life(tmp_path: Path) -> None:
    found = read(table(tmp_path, "case,time,VB,smcAC,smcDC\n1,2,0.1,3,4\n1,4,0.2,5,6\n2,2,0.3,7,8\n"))
    assert found.life == "life_count"
    assert [run.columns["life_count"].tolist() for run in found.by_type["fan"]] == [[2.0, 4.0], [2.0]]
    assert all("VB" not in run.columns for run in found.by_type["fan"])


def test_each_file_is_a_machine_without_a_column(tmp_path: Path) -> None:
    first = table(tmp_path, "Cycle,heat\n1,5\n2,6\n", "bearing_2.csv")
    second = table(tmp_path, "HEAT,cycle\n7,1\n8,2\n", "bearing_10.csv")
    found = load_histories(DataSelection(None, [second, first], []))
    (machines,) = found.by_type.values()
    assert list(found.by_type) == ["bearing"]
    assert [run.machine_id for run in machines] == ["bearing_2", "bearing_10"]
    assert "each file is one machine, named as the file (--unit names a column with the machine)" in found.notes
    same = [table(tmp_path, "cycle,heat\n1,5\n2,6\n", f"{name}/data.csv") for name in ("a", "b")]
    assert [run.machine_id for run in runs(*same)] == ["a-data", "b-data"]


def test_files_are_machines_if_so_declared(tmp_path: Path) -> None:
    path = table(tmp_path, "unit,cycle,heat\n1,1,5\n1,2,6\n", "press.csv")
    assert [run.machine_id for run in runs(path, machine_by_file=True)] == ["press"]
    with pytest.raises(TableRoleError, match="give either --machine-by-file or --unit"):
        read(path, machine_by_file=True, unit="unit")


@pytest.mark.parametrize(
    ("policy", "heat", "fault"),
    [("first", 5.0, 0.0), ("last", 8.0, 1.0), ("mean", 6.5, 1.0)],
    ids=str,
)
def test_duplicate_rows_follow_the_stated_policy(tmp_path: Path, policy: Any, heat: float, fault: float) -> None:
    path = table(tmp_path, "unit,cycle,heat,fault\na,1,4,0\na,1,4,0\na,2,5,0\na,2,8,1\n")
    with pytest.raises(TableError, match=r"row 5, cycle: machine a already has a row .* --duplicates first, last or m"):
        read(path)
    found = read(path, duplicates=policy)
    (run,) = found.by_type["fan"]
    assert (run.columns["heat"].tolist(), run.columns[FAULT].tolist()) == ([4.0, heat], [0.0, fault])
    assert any(
        "1 rows repeat another row and are not used; 1 rows have the machine and 'cycle'" in n for n in found.notes
    )


def test_duplicates_in_a_long_table_follow_the_policy(tmp_path: Path) -> None:
    rows = "a,2026-01-01,x,1\na,2026-01-01,x,3\na,2026-01-02,x,5\n"
    path = table(tmp_path, f"machine_id,timestamp,sensor,value\n{rows}")
    (run,) = runs(path, duplicates="mean")
    assert run.columns["x"].tolist() == [2.0, 5.0]


def test_maintenance_in_a_second_table_begins_lives(tmp_path: Path) -> None:
    rows = [f"{machine},2026-01-0{day},{day}" for machine in ("P1", "P2") for day in range(1, 7)]
    path = table(tmp_path, "\n".join(["machine_id,timestamp,heat", *rows]) + "\n")
    repairs = table(tmp_path, "Date,Machine ID\n2026-01-03,p1\n2026-01-01,p2\n2025-01-01,P2\n", "repairs.csv")
    failures = table(tmp_path, "Timestamp,machine\n2026-01-05,P2\n", "failures.csv")
    found = read(path, maintenance=repairs, failures=failures)
    assert [(run.machine_id, run.failed, run.columns["heat"].tolist()) for run in found.by_type["fan"]] == [
        ("P1/1", False, [1.0, 2.0]),
        ("P1/2", False, [3.0, 4.0, 5.0, 6.0]),
        ("P2/1", True, [1.0, 2.0, 3.0, 4.0, 5.0]),
        ("P2/2", False, [6.0]),
    ]
    assert "1 maintenance records before the first reading of their machine are not used" in found.notes


def test_events_that_no_machine_has_are_refused(tmp_path: Path) -> None:
    path = table(tmp_path, "machine_id,timestamp,heat\nP1,2026-01-01,1\nP1,2026-01-02,2\nP2,2026-01-02,2\n")
    other = table(tmp_path, "machine_id,timestamp\npump 1,2026-01-01\n", "failures.csv")
    with pytest.raises(TableRoleError, match=r"failures.csv: no failures are joined.* it names pump 1, and .* P1, P2"):
        read(path, failures=other)
    nobody = table(tmp_path, "timestamp,mode\n2026-01-01,wear\n", "failures.csv")
    with pytest.raises(TableRoleError, match=r"failures\.csv must have a column with the machine, named 'machine_id'"):
        read(path, failures=nobody)
    timeless = table(tmp_path, "machine_id,heat\nP1,1\nP1,2\n")
    with pytest.raises(TableRoleError, match="--failures and --maintenance need a table of readings with a column of"):
        read(timeless, failures=other)


def test_events_may_have_another_format_of_times(tmp_path: Path) -> None:
    path = table(tmp_path, "machine_id,timestamp,heat\nP1,01.02.2026,1\nP1,02.02.2026,2\nP1,03.02.2026,2\n")
    failures = table(tmp_path, "machine_id,timestamp\nP1,2026-02-02\n", "failures.csv")
    written = TableOptions(times=TimeOptions("%d.%m.%Y"))
    assert [len(run.timestamps) for run in runs(path, failures=failures, written=written)] == [2, 1]


def test_declared_delimiter_decimal_and_encoding_are_used(tmp_path: Path) -> None:
    path = tmp_path / "fans.csv"
    path.write_bytes('sep=:\nGerät:cycle:x\nÖ1:1:"1,5"\nÖ1:2:-\nÖ1:3:kaputt\n'.encode("cp1252"))
    words = TableOptions(":", "comma", frozenset({"kaputt", "-"}))
    (run,) = runs(path, unit="gerät", written=words, encoding="cp1252")
    assert run.columns["x"][0] == 1.5
    assert np.isnan(run.columns["x"][1:]).all()


def test_remaining_lives_need_numbered_machines(tmp_path: Path) -> None:
    left = table(tmp_path, "12\n7\n", "left.txt")
    for first, second in (("left", "right"), ("a1", "b2"), ("m01", "m1")):
        path = table(tmp_path, f"unit,cycle,x\n{first},1,5\n{second},1,6\n")
        with pytest.raises(HistoryError, match=f"no numeric order .* such as {first},12"):
            load_histories(DataSelection(None, [path], ["fan"], left_file=left))
    single = table(tmp_path, "unit,cycle,x\nleft,1,5\n")
    left.write_text("RUL\n12\n")
    found = load_histories(DataSelection(None, [single], ["fan"], left_file=left))
    assert found.by_type["fan"][0].left == 12.0
    assert not any("no failures are given" in note for note in found.notes)


@pytest.mark.parametrize(
    ("words", "order"),
    [
        (["High", "low", "medium", "low", "High", "medium"], ("low", "medium", "High")),
        (["S10", "S2", "S2", "S10"], ("S2", "S10")),
        (["L", "M", "H", "M", "L", "N/A", "H", ""], ("L", "M", "H")),
    ],
    ids=["a scale", "numbers", "letters"],
)
def test_words_of_a_category_are_in_order(words: list[str], order: tuple[str, ...]) -> None:
    found = coded(words, all_words=False)
    assert found is not None
    assert found[0] == order
    told = [None if np.isnan(code) else order[int(code)] for code in found[1]]
    assert told == [word if word in order else None for word in words]


def test_ids_and_single_words_are_no_categories() -> None:
    assert coded([f"serial {n}" for n in range(40)], all_words=False) is None
    assert coded(["ST4000"] * 9, all_words=False) is None
    single = coded(["ST4000"] * 3, all_words=True)
    assert single is not None
    assert single[0] == ("ST4000",)


def test_words_are_recoded_to_those_of_a_model() -> None:
    codes, unknown = recode(np.array([0.0, 1.0, np.nan, 2.0]), ("a", "B", "new"), ["b", "c", "a"])
    assert unknown == ["new"]
    assert np.array_equal(codes, [2.0, 0.0, np.nan, np.nan], equal_nan=True)


@pytest.mark.parametrize("word", ["Bad", "Shutdown", "unknown", "Out of Service", "error"])
def test_words_of_historians_are_no_healthy_states(tmp_path: Path, word: str) -> None:
    path = table(tmp_path, f"unit,cycle,x,failure\na,1,3,no\na,2,4,{word}\na,3,4,yes\n")
    with pytest.raises(UnknownStateError, match=rf"'{word}' \(1 rows\)"):
        read(path)


def test_long_table_is_joined_with_events(tmp_path: Path) -> None:
    rows = [f"a,2026-01-0{day},{sensor},{day}" for day in range(1, 6) for sensor in ("x", "y")]
    path = table(tmp_path, "\n".join(["machine_id,timestamp,sensor,value", *rows]) + "\n")
    failures = table(tmp_path, "machine_id,timestamp\nA,2026-01-02T12:00:00Z\n", "failures.csv")
    repairs = table(tmp_path, "machine_id,timestamp\na,2026-01-05\n", "repairs.csv")
    found = runs(path, failures=failures, maintenance=repairs)
    assert [(run.failed, run.columns["y"].tolist()) for run in found] == [
        (True, [1.0, 2.0, 3.0]), (False, [4.0]), (False, [5.0])
    ]  # fmt: skip
    with pytest.raises(TableRoleError, match="failures are those of the sensor 'fault', or of --failures"):
        read(path, failure="value")


def test_options_of_tables_are_refused_for_other_data(tmp_path: Path) -> None:
    line = " ".join(["1", "1", *["0"] * 24])
    path = table(tmp_path, f"{line}\n", "train.txt")
    with pytest.raises(TableRoleError, match=r"--unit, --machine-by-file: for tables only, and .* format cmapss"):
        read(path, unit="x", machine_by_file=True)
    (run,) = runs(path, excluded=["SENSOR_3"])
    assert "sensor_3" not in run.columns
    assert "sensor_4" in run.columns
    with pytest.raises(TableRoleError, match="--exclude names 'heat'; there are cycle"):
        read(path, excluded=["heat"])


def test_machine_type_that_can_be_registered_is_kept(tmp_path: Path) -> None:
    rows = "a,turbofan-cmapss,1,5\na,turbofan-cmapss,2,6\n"
    path = table(tmp_path, f"unit,machine_type,cycle,heat\n{rows}")
    assert list(load_histories(DataSelection(None, [path], [])).by_type) == ["turbofan-cmapss"]


def test_remaining_life_in_another_unit_is_refused(tmp_path: Path) -> None:
    rows = [f"a,2026-01-{day:02},{day * day},{30 - day}" for day in range(1, 10)]
    path = table(tmp_path, "\n".join(["unit,date,heat,RUL", *rows]) + "\n")
    with pytest.raises(TableRoleError, match=r"in 'RUL' falls by 0.04167 while the life \(hours of time\) grows by 1"):
        read(path)
    counted = [f"{row},{day}" for day, row in enumerate(rows)]
    path = table(tmp_path, "\n".join(["unit,date,heat,RUL,day", *counted]) + "\n")
    assert [run.left for run in runs(path, life="DAY")] == [21.0]


def test_number_of_a_run_begins_lives(tmp_path: Path) -> None:
    """A new life begins where the number changes, within a machine and by time; empty cells do not count."""
    rows = ["a,3,9,2", "a,1,1,1", "a,2,4,", "b,1,7,1", "b,2,8,1", "a,4,16,2"]
    found = read(table(tmp_path, "\n".join(["unit,hour,x,Run No", *rows]) + "\n"), time="hour")
    lives = [(run.machine_id, run.columns["x"].tolist()) for run in found.by_type["fan"]]
    assert lives == [("a/1", [1.0, 4.0]), ("a/2", [9.0, 16.0]), ("b", [7.0, 8.0])]
    assert "a new life begins where 'Run No' changes" in found.notes


def test_serial_number_of_a_part_begins_lives(tmp_path: Path) -> None:
    """A column is declared with --run, joins with records of maintenance, and is no sensor."""
    path = table(tmp_path, "unit,cycle,x,Part\na,1,1,K7\na,2,4,K7\na,3,9,L2\na,4,16,L2\n")
    maintenance = table(tmp_path, "unit,cycle\na,4\n", "done.csv")
    found = read(path, run="part", maintenance=maintenance)
    assert [run.columns["x"].tolist() for run in found.by_type["fan"]] == [[1.0, 4.0], [9.0], [16.0]]
    assert all(set(run.columns) == {"cycle", "x"} for run in found.by_type["fan"])
    with pytest.raises(TableRoleError, match="--run names 'serial', but the columns are unit, cycle, x, Part"):
        read(path, run="serial")
    with pytest.raises(TableRoleError, match="more than one of --unit, --time, --life, --failure, --left and --run"):
        read(path, run="part", unit="part")
