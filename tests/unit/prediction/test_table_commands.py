"""`aurum train`, `evaluate`, `predict` and `explain` on tables: names, categories, and what they write."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aurum.commands.training_data import DataSelection, load_histories
from aurum.prediction.model.model import load_model
from aurum.prediction.training.train import TrainingOptions, train
from aurum.readings.history import Run
from tests.support.commands import command

HEADER = "UNIT,TIME_IN_CYCLES,HEAT,FLOW,GRADE"
GRADES = ("fine", "coarse", "mixed", "raw")
FAST = ("--rounds", "15", "--rows", "1500")


def rows_of(machines: range, *, until: float = 1.0, seed: int = 1) -> list[str]:
    """Lives of 60 to 90 cycles, of which a part is written."""
    rng = np.random.default_rng(seed)
    rows = []
    for machine in machines:
        length = int(rng.integers(60, 90))
        for cycle in range(1, int(length * until) + 1):
            wear = (cycle / length) ** 2
            heat, flow = 50 + 8 * wear + rng.normal(0, 0.5), 20 - 4 * wear + rng.normal(0, 0.3)
            rows.append(f"{machine},{cycle},{heat:.3f},{flow:.3f},{GRADES[machine % len(GRADES)]}")
    return rows


def table(path: Path, header: str, rows: list[str]) -> str:
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models of a table whose names are in capitals."""
    path = tmp_path_factory.mktemp("models")
    trained = table(path / "train.csv", HEADER, rows_of(range(1, 13)))
    done = command("train", trained, "--run-to-failure", "--machine-type", "fan", "--out", str(path / "m"), *FAST)
    assert done.returncode == 0, done.stderr
    return path


def given(folder: Path, rows: list[str], header: str = HEADER.lower()) -> tuple[str, ...]:
    return table(folder / "test.csv", header, rows), "--machine-type", "fan", "--models", str(folder / "m")


def test_life_counter_in_capitals_is_used(folder: Path) -> None:
    (active,) = (folder / "m" / "fan").glob("*/card.json")
    card = load_model(active.parent).card
    assert (card.axis, card.unit, card.kind) == ("TIME_IN_CYCLES", "cycles", "rul")
    assert card.categories["GRADE"].words == ["coarse", "fine", "mixed", "raw"]


def test_predictions_are_written_as_csv_or_json(folder: Path) -> None:
    arguments = given(folder, rows_of(range(1, 12), until=0.7, seed=2))
    for name in ("p.csv", "p.json"):
        done = command("predict", *arguments, "--out", str(folder / name))
        assert (done.returncode, done.stdout) == (0, f"11 predictions written to {folder / name}\n"), done.stderr
    with (folder / "p.csv").open() as file:
        rows = list(csv.DictReader(file))
    predictions = json.loads((folder / "p.json").read_text())["predictions"]
    assert [row["machine_id"] for row in rows] == [str(machine) for machine in range(1, 12)]
    for row, prediction in zip(rows, predictions, strict=True):
        assert list(row) == list(prediction)
        assert {name: str(value) for name, value in prediction.items()} == row
        assert 0 <= float(row["risk"]) <= 1
        assert float(row["rul_low"]) <= float(row["rul"]) <= float(row["rul_high"]) <= float(row["rul_cap"])
        assert (row["unit"], row["time"], row["problem"]) == ("cycles", "", "")
    assert "flow is FLOW" in command("predict", *arguments).stderr
    assert command("predict", *arguments).stdout == (folder / "p.csv").read_text()


def test_machine_without_readings_is_named_in_predictions(folder: Path) -> None:
    arguments = given(folder, [*rows_of(range(1, 2)), "2,1,,,"])
    out = folder / "p.json"
    assert command("predict", *arguments, "--out", str(out)).stdout.endswith("p.json, 1 machines without one\n")
    first, second = json.loads(out.read_text())["predictions"]
    assert first["problem"] == ""
    assert (second["machine_id"], second["risk"], second["anomaly"]) == ("2", None, None)
    assert second["problem"].startswith("no reading of the model's sensors FLOW, GRADE, HEAT")


def test_other_file_types_of_predictions_are_refused(folder: Path) -> None:
    refused = command("predict", *given(folder, rows_of(range(1, 2))), "--out", str(folder / "p.xlsx"))
    assert refused.returncode == 2
    assert "must end in .csv or .json" in " ".join(refused.stderr.replace("│", " ").split())


def test_word_that_a_model_does_not_know_is_told(folder: Path) -> None:
    rows = [row.replace("fine", "golden").upper() for row in rows_of(range(1, 9), until=0.5)]
    done = command("predict", *given(folder, rows))
    assert "GRADE: the model does not know GOLDEN, which count as no reading; it knows coarse, fine," in done.stderr
    assert done.returncode == 0
    words = [",".join((*row.split(",")[:2], "hot", *row.split(",")[3:])) for row in rows_of(range(1, 3))]
    refused = command("predict", *given(folder, words))
    assert refused.returncode == 1
    assert "sensor HEAT has words (hot), and model fan" in refused.stderr


def test_evaluation_states_the_cap_of_truths(folder: Path) -> None:
    rows = rows_of(range(1, 12), until=0.7, seed=3)
    left = folder / "left.txt"
    left.write_text("".join(f"{machine % 6}\n" for machine in range(1, 12)))
    arguments = (*given(folder, rows), "--left-file", str(left))
    told = command("evaluate", *arguments)
    assert "true RUL above the model's cap of 4" in told.stdout, told.stderr
    assert "remaining life at the last readings by left.txt, in the numeric order" in told.stderr
    (evaluation,) = json.loads(command("evaluate", *arguments, "--json").stdout)["evaluations"]
    assert evaluation["truths"] in told.stdout
    assert evaluation["last_readings"]["runs"] == 11
    assert f"RMSE {evaluation['last_readings']['rul_rmse']:.4g} cycles" in told.stdout
    assert evaluation["rul_cap"] == pytest.approx(float(evaluation["truths"].rpartition(" ")[2]))


def test_order_of_rows_does_not_change_evaluations(folder: Path) -> None:
    left = folder / "left.txt"
    left.write_text("".join(f"{machine % 6}\n" for machine in range(1, 12)))
    rows = rows_of(range(1, 12), until=0.7, seed=3)
    first, second = (
        command("evaluate", *given(folder, each), "--left-file", str(left), "--json").stdout
        for each in (rows, rows[::-1])
    )
    assert first == second
    assert json.loads(first)["evaluations"][0]["last_readings"]["runs"] == 11


def test_explanation_takes_names_in_other_capitals(folder: Path) -> None:
    told = command("explain", *given(folder, rows_of(range(1, 3))), "--machine", "2", "--top", "1")
    assert told.stdout.startswith("2: risk "), told.stderr
    assert (
        "the data has no machine '9'"
        in command("explain", *given(folder, rows_of(range(1, 3))), "--machine", "9").stderr
    )


def test_patterns_and_folders_name_files(folder: Path) -> None:
    rows = rows_of(range(1, 3), until=0.5)
    for number in (1, 2):
        own = [row.partition(",")[2] for row in rows if row.startswith(f"{number},")]
        table(
            folder / f"fan_{number}.tsv",
            HEADER.partition(",")[2].replace(",", "\t"),
            [r.replace(",", "\t") for r in own],
        )
    model = ("--machine-type", "fan", "--models", str(folder / "m"))
    told = command("predict", str(folder / "fan_?.tsv"), *model)
    assert [line.partition(",")[0] for line in told.stdout.splitlines()] == ["machine_id", "fan_1", "fan_2"], (
        told.stderr
    )
    refused = command("predict", str(folder / "fun_*.tsv"), *model)
    assert refused.returncode == 2
    assert "no file matches the pattern" in refused.stderr


def noisy_categories(one_hot: bool) -> tuple[list[Run], dict[str, tuple[str, ...]]]:
    """Single readings whose failure depends on a category: on its order, or on single words of it."""
    rng = np.random.default_rng(4)
    words = tuple(f"w{n:02}" for n in range(12))
    runs = []
    for number in range(1500):
        code = float(rng.integers(0, len(words)))
        likely = code in (1, 4, 6, 9) if one_hot else code >= 6
        failed = bool(rng.random() < (0.75 if likely else 0.25))
        columns = {"grade": np.array([code]), "x": rng.normal(0, 1, 1)}
        runs.append(Run(f"m{number}", failed, np.array([number], np.int64), columns))
    return runs, {"grade": words}


@pytest.mark.parametrize("one_hot", [True, False], ids=["single words", "the order"])
def test_encoding_of_a_category_is_chosen_by_validation(one_hot: bool) -> None:
    runs, categories = noisy_categories(one_hot)
    options = TrainingOptions(rows=2000, rounds=20, categories=categories)
    model, files = train("mill", runs, "test", options)
    part = model.card.categories["grade"]
    assert (part.encoding, part.words) == ("one-hot" if one_hot else "ordered", list(categories["grade"]))
    assert ("cat_threshold=" in files["risk.txt"]) == one_hot


def test_category_that_tells_the_failure_is_dropped(tmp_path: Path) -> None:
    modes = ["wear" if number % 5 == 0 else "heat" if number % 7 == 0 else "fine" for number in range(300)]
    rows = [f"P{n},{n % 17},{mode},{int(mode != 'fine')}" for n, mode in enumerate(modes)]
    path = Path(table(tmp_path / "mill.csv", "product_id,x,what,failure", rows))
    found = load_histories(DataSelection(None, [path], ["mill"]))
    options = replace(TrainingOptions(rounds=10), categories=found.categories)
    model, _ = train("mill", found.by_type["mill"], "test", options)
    assert "leaks the outcome" in model.card.data.dropped_columns["what"]
    assert model.card.categories == {}
