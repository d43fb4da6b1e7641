"""Histories from tables do not depend on capitals of names, orders of rows and columns, or how events are joined."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aurum.commands.left_files import with_remaining_lives
from aurum.commands.table_names import find_name, key_of, machine_key, natural_order
from aurum.commands.table_roles import DeclaredColumns
from aurum.commands.training_data import DataSelection, Histories, load_histories
from aurum.readings.history import FAULT, Run, life_axis, split_runs

PROPERTY = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
HEADER = ("Machine_ID", "Time_In_Cycles", "Heat", "Grade", "Failure")
MACHINES = st.lists(st.integers(1, 12), min_size=1, max_size=4, unique=True)


def rows_of(machines: Sequence[int]) -> list[tuple[str, ...]]:
    grades = ("low", "medium", "high")
    return [
        (str(machine), str(cycle), f"{machine * 7 + cycle * 1.5}", grades[(machine + cycle) % 3], str(int(cycle == 5)))
        for machine in machines
        for cycle in range(1, 6)
    ]


def read(folder: Path, header: Sequence[str], rows: Sequence[Sequence[str]], **declared: object) -> Histories:
    path = folder / "fans.csv"
    path.write_text("\n".join([",".join(header), *(",".join(row) for row in rows)]) + "\n")
    return load_histories(DataSelection(None, [path], ["fan"], False, DeclaredColumns(**declared)))  # type: ignore[arg-type]


def contents(found: Histories) -> Mapping[str, object]:
    """What was read, with names in lower case."""
    runs = {
        run.machine_id: (
            run.failed,
            run.left,
            run.timestamps.tolist(),
            {name.lower(): values.tolist() for name, values in run.columns.items()},
        )
        for run in found.by_type["fan"]
    }
    categories = {name.lower(): words for name, words in found.categories.items()}
    return {"runs": runs, "order": list(runs), "life": (found.life or "").lower(), "categories": categories}


@PROPERTY
@given(machines=MACHINES, data=st.data())
def test_capitals_of_a_header_do_not_change_histories(tmp_path: Path, machines: list[int], data: st.DataObject) -> None:
    header = ["".join(data.draw(st.sampled_from((c.lower(), c.upper()))) for c in name) for name in HEADER]
    expected = contents(read(tmp_path, HEADER, rows_of(machines)))
    assert contents(read(tmp_path, header, rows_of(machines))) == expected
    assert expected["life"] == "time_in_cycles"
    declared = {"unit": "MACHINE_id", "life": "TIME_in_CYCLES", "failure": "FAILURE"}
    assert contents(read(tmp_path, header, rows_of(machines), **declared)) == expected


@PROPERTY
@given(machines=MACHINES, data=st.data())
def test_order_of_rows_and_columns_does_not_matter(tmp_path: Path, machines: list[int], data: st.DataObject) -> None:
    rows = data.draw(st.permutations(rows_of(machines)))
    places = data.draw(st.permutations(range(len(HEADER))))
    shuffled = read(tmp_path, [HEADER[n] for n in places], [[row[n] for n in places] for row in rows])
    expected = contents(read(tmp_path, HEADER, rows_of(machines)))
    assert contents(shuffled) == expected
    assert expected["order"] == [str(machine) for machine in sorted(machines)]


@PROPERTY
@given(machines=MACHINES, data=st.data())
def test_events_in_another_table_join_as_in_a_column(tmp_path: Path, machines: list[int], data: st.DataObject) -> None:
    failures = [(str(each), data.draw(st.sampled_from((2, 3, 5)))) for each in machines]
    rows = [(unit, cycle, heat) for unit, cycle, heat, _, _ in rows_of(machines)]
    flagged = [(*row, str(int((row[0], int(row[1])) in failures))) for row in rows]
    expected = contents(read(tmp_path, ("unit", "cycle", "heat", "failure"), flagged))
    events = [f"{cycle - data.draw(st.sampled_from((0.0, 0.5)))},{unit}.0" for unit, cycle in failures]
    written = tmp_path / "events.csv"
    written.write_text("\n".join(["CYCLE,Machine", *data.draw(st.permutations(events))]) + "\n")
    joined = read(tmp_path, ("unit", "cycle", "heat"), data.draw(st.permutations(rows)), failures=written)
    assert contents(joined) == expected


@PROPERTY
@given(numbers=st.lists(st.integers(0, 300), min_size=1, max_size=8, unique=True), data=st.data())
def test_lines_of_lives_follow_the_numeric_order(tmp_path: Path, numbers: list[int], data: st.DataObject) -> None:
    at = np.arange(3, dtype=np.int64)
    runs = [Run(f"engine-{number}", False, at, {"x": at * 1.0}) for number in data.draw(st.permutations(numbers))]
    file = tmp_path / "left.txt"
    file.write_text("".join(f"{number * 2}\n" for number in sorted(numbers)))
    by_type, _ = with_remaining_lives({"engine": runs}, file)
    assert [(run.machine_id, run.left, run.failed) for run in by_type["engine"]] == [
        (run.machine_id, 2.0 * int(run.machine_id.removeprefix("engine-")), True) for run in runs
    ]
    pairs = [f"ENGINE-{number};{number * 3}" for number in numbers]
    file.write_text("machine;left\n" + "\n".join(data.draw(st.permutations(pairs))))
    by_type, _ = with_remaining_lives({"engine": runs}, file)
    assert [run.left for run in by_type["engine"]] == [3.0 * int(r.machine_id.removeprefix("engine-")) for r in runs]


@given(st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1), st.sampled_from(" _-."))
def test_keys_of_names_ignore_capitals_and_signs(name: str, sign: str) -> None:
    assert key_of(name.upper()) == key_of(name.lower()) == key_of(sign.join(name))
    assert find_name(name.swapcase(), [name, f"{name}x"]) == name


@given(st.lists(st.integers(0, 10**6), unique=True))
def test_natural_order_is_that_of_numbers(numbers: list[int]) -> None:
    assert sorted((f"m{n}" for n in numbers), key=natural_order) == [f"m{n}" for n in sorted(numbers)]
    assert {machine_key(f"00{n}.0") for n in numbers} == {machine_key(str(n)) for n in numbers}


@pytest.mark.parametrize("name", ["operating_hours", "Operating_Hours", "CYCLES"])
def test_life_axis_is_found_whatever_its_capitals(name: str) -> None:
    assert life_axis(["heat", name]) == name
    assert life_axis(["heat"]) is None


def test_maintenance_begins_a_run_without_a_failure() -> None:
    at = np.arange(6, dtype=np.int64)
    runs = split_runs("m", at, {"x": at * 1.0}, ends_in_failure=True, renewed=at == 3)
    assert [(run.machine_id, run.failed, len(run.timestamps)) for run in runs] == [("m/1", False, 3), ("m/2", True, 3)]


def test_maintenance_at_a_failure_does_not_split_it_off() -> None:
    at = np.arange(6, dtype=np.int64)
    columns = {"x": at * 1.0, FAULT: (at == 3) * 1.0}
    runs = split_runs("m", at, columns, ends_in_failure=False, renewed=at == 3)
    assert [(run.failed, run.columns["x"].tolist()) for run in runs] == [
        (True, [0.0, 1.0, 2.0, 3.0]),
        (False, [4.0, 5.0]),
    ]
