"""The command line: importing files, training on them, looking at the platform."""

import json
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tests.support.cassandra.cluster import Cluster
from tests.support.http import Answer, http
from tests.support.platform import Platform
from tests.support.processes import run as aurum
from tests.support.waiting import wait_for


def cmapss(path: Path, units: int, cycles: int) -> Path:
    """A file in NASA's format: sensors 2, 3, 4 rise with wear, others are noise or constant."""
    lines = []
    for unit in range(1, units + 1):
        life = cycles + 7 * unit
        for cycle in range(1, life + 1):
            wear = (cycle / life) ** 3
            sensors = [518.67, 641.8 + 2 * wear, 1589 + 15 * wear, 1400 + 25 * wear]
            sensors += [100 + ((unit * 31 + cycle * 17 + index * 7) % 13) * 0.01 for index in range(16)] + [23.4]
            values = [0.001 * (cycle % 5), 0.0003, 100.0, *sensors]
            lines.append(f"{unit} {cycle} " + " ".join(f"{value:.4f}" for value in values) + "  \n")
    path.write_text("".join(lines))
    return path


def test_cmapss_file_is_imported_trained_and_predicted(serving: Platform, tmp_path: Path, models: Path) -> None:
    path = cmapss(tmp_path / "train_FD009.txt", units=9, cycles=120)
    environment = serving.environment("import")
    first = aurum("import", "--format", "cmapss", str(path), environment=environment)
    assert first.returncode == 0, first.stderr
    readings = 25 * len(path.read_text().splitlines())
    assert f"{readings:,} readings of 9 machines imported" in first.stdout
    again = aurum("import", "--format", "cmapss", str(path), environment=environment)
    assert f"0 readings of 9 machines imported, {readings:,} already stored" in again.stdout

    page = http("GET", f"{serving.api}/api/machines?machine_type=turbofan-cmapss").json
    assert [item["machine_id"] for item in page["items"]] == [f"train_FD009-{unit:03d}" for unit in range(1, 10)]
    machine = f"{serving.api}/api/machines/train_FD009-001"
    (cycle,) = http("GET", f"{machine}/metrics?sensor=cycle&points=0").json["series"]
    assert cycle["values"] == [float(number) for number in range(1, 128)]
    by_rule = http("POST", f"{machine}/predict").json
    assert by_rule["degraded"]
    assert by_rule["risk_score"] > 0.3

    trained = aurum("train", "--rounds", "30", "--format", "cmapss", str(path), "--out", str(models))
    assert trained.returncode == 0, trained.stderr
    assert "9 failures" in trained.stdout
    prediction = wait_for(
        lambda: (found := http("POST", f"{machine}/predict").json)["model_version"] and found, 20, "the model serves"
    )
    assert not prediction["degraded"]
    assert prediction["rul"]["unit"] == "cycles"
    assert prediction["rul"]["estimate"] < 40
    features = http("GET", f"{machine}/features").json["features"]
    assert features["age"] == 128


def test_import_of_truncated_file_can_be_resumed(serving: Platform, tmp_path: Path) -> None:
    whole = cmapss(tmp_path / "whole.txt", units=8, cycles=150)
    lines = whole.read_text().splitlines(keepends=True)
    cut = tmp_path / "cut.txt"
    cut.write_text("".join(lines[:900]) + lines[900][:50])
    environment = serving.environment("import")
    failed = aurum("import", "--format", "cmapss", "--prefix", "cut", str(cut), environment=environment)
    assert failed.returncode == 1
    assert "row 901, column" in failed.stderr
    assert "truncated" in failed.stderr
    assert "nothing after row 800 was stored" in failed.stderr
    assert "Traceback" not in failed.stderr
    cut.write_text("".join(lines))
    done = aurum("import", "--format", "cmapss", "--prefix", "cut", str(cut), environment=environment)
    assert done.returncode == 0, done.stderr
    assert f"{20_000:,} already stored" in done.stdout
    assert f"{25 * (len(lines) - 800):,} readings" in done.stdout


def test_csv_import_through_api_stores_rows_once(serving: Platform, tmp_path: Path) -> None:
    path = tmp_path / "plant.csv"
    rows = [f"api-{index % 3},{1_700_000_000 + index},{index},{index / 2}" for index in range(300)]
    path.write_text("machine_id,timestamp,speed,load\n" + "\n".join(rows) + "\n")
    arguments = (
        "import",
        "--format",
        "csv",
        "--machine-type",
        "press",
        "--site",
        "hall",
        "--api",
        serving.api,
        str(path),
    )
    first, again = aurum(*arguments), aurum(*arguments)
    assert "600 readings of 3 machines imported" in first.stdout, first.stderr
    assert "600 already stored" in again.stdout
    machine = http("GET", f"{serving.api}/api/machines/api-2").json
    assert (machine["machine_type"], machine["site"], machine["status"]) == ("press", "hall", "offline")
    other = aurum("import", "--format", "csv", "--machine-type", "lathe", "--api", serving.api, str(path))
    assert other.returncode == 1
    assert "is registered as 'press', not 'lathe'" in other.stderr


def test_import_stores_any_name_and_tells_its_form(serving: Platform, tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    path.write_text("machine_id,timestamp,sensor,value\nÖfen 1,1790000000,Temp [°C],21.5\nx00D6_fen,1790000000,t,1\n")
    result = aurum("import", "--format", "csv", "--machine-type", "oven", "--api", serving.api, str(path))
    assert "2 readings of 2 machines imported" in result.stdout, result.stderr
    assert "'Öfen 1' as x00D6_fen_x0020_1 and 1 more" in result.stdout
    shown = f"{serving.api}/api/machines/x00D6_fen_x0020_1/metrics?sensor=Temp%20_x005B__x00B0_C_x005D_"
    assert http("GET", shown).json["series"][0]["values"] == [21.5]
    assert http("GET", f"{serving.api}/api/machines/x00D6_fen").status == 200, "exported names stay as they are"


def test_import_of_a_wide_table_stores_any_name(serving: Platform, tmp_path: Path) -> None:
    """The table of a spreadsheet with umlauts, and a delimiter at the end of each row."""
    path = tmp_path / "wide.csv"
    rows = [
        "machine_id;timestamp;Öltemperatur;Druck (bar);",
        "Presse Süd;1790000000;71,5;;",
        "Presse Süd;1790000060;-;4;",
    ]
    path.write_text("\n".join(rows), encoding="cp1252")
    result = aurum("import", "--format", "csv", "--api", serving.api, str(path))
    assert "2 readings of 1 machine imported" in result.stdout, result.stderr
    assert "not stored: 1 (first: row 3, Presse Süd Öltemperatur: '-')" in result.stdout
    assert "without any number" not in result.stdout
    shown = http("GET", f"{serving.api}/api/machines/Presse_x0020_S_x00FC_d/metrics").json["series"]
    assert {each["sensor"]: each["values"] for each in shown} == {
        "Druck _x0028_bar_x0029_": [4.0],
        "_x00D6_ltemperatur": [71.5],
    }


def test_csv_import_names_wrong_cell_and_stores_nothing(serving: Platform, tmp_path: Path) -> None:
    path = tmp_path / "wrong.csv"
    path.write_text("machine_id,timestamp,sensor,value\nwrong-1,1700000000,a,1\nwrong-1,1700000001,a,one\n")
    result = aurum("import", "--format", "csv", "--api", serving.api, str(path))
    assert result.returncode == 1
    assert "row 3, value: 'one' is not a number; if it stands for no reading, declare" in result.stderr
    assert "; nothing was stored. Correct the file" in result.stderr
    assert http("GET", f"{serving.api}/api/machines/wrong-1").status == 404


def test_import_tells_what_it_recognised_and_left_out(serving: Platform, tmp_path: Path) -> None:
    """A table of a historian in another encoding, with local times, words and a sensor without any number."""
    path = tmp_path / "export.csv"
    rows = ["26.10.2025 02:30;1,5;Bad Input", "26.10.2025 02:30;2,5;#N/A", "27.10.2025 02:30;No Data;NaN"]
    path.write_text("machine_id;timestamp;temp;oil\n" + "".join(f"told-1;{row}\n" for row in rows), encoding="utf-16")
    declared = ("--time-format", "%d.%m.%Y %H:%M", "--timezone", "Europe/Berlin")
    result = aurum("import", "--format", "csv", *declared, "--api", serving.api, str(path))
    assert result.returncode == 0, result.stderr
    assert "2 readings of 1 machine imported" in result.stdout
    for told in (
        "read as UTF-16",
        "separated by semicolon, with a decimal comma",
        "cells without a number, not stored: 4 (first: row 2, told-1 oil: 'Bad Input')",
        "without any number: told-1 oil",
        "times in a repeated hour, resolved by the order of rows: 2",
    ):
        assert told in result.stdout
    stored = http("GET", f"{serving.api}/api/machines/told-1/metrics?sensor=temp&points=0").json["series"][0]
    assert stored["values"] == [1.5, 2.5]
    assert [at[:16] for at in stored["timestamps"]] == ["2025-10-26T00:30", "2025-10-26T01:30"]


@pytest.mark.parametrize("at", ["46354.4166667", "20261128", "20261128100000", "28.11.2026 10:00"])
def test_import_refuses_times_that_may_be_dates(serving: Platform, tmp_path: Path, at: str) -> None:
    path = tmp_path / "dates.csv"
    path.write_text(f"machine_id,timestamp,temp\ndates-1,{at},71.5\n")
    result = aurum("import", "--format", "csv", "--api", serving.api, str(path))
    assert result.returncode == 1
    assert f"row 2, timestamp: '{at}'" in result.stderr
    assert "--time-format" in result.stderr
    assert http("GET", f"{serving.api}/api/machines/dates-1").status == 404


@pytest.mark.parametrize(
    ("option", "value"),
    [("--time-format", "days"), ("--timezone", "Mars"), ("--encoding", "utf-9"), ("--delimiter", "")],
)
def test_import_refuses_an_unknown_declaration(tmp_path: Path, option: str, value: str) -> None:
    path = tmp_path / "any.csv"
    path.write_text("machine_id,timestamp,temp\n")
    result = aurum("import", "--format", "csv", option, value, str(path))
    assert result.returncode == 2
    assert f"'{value}' is not a" in result.stderr.replace("│", "").replace("\n", " ")


def test_training_accepts_csv_store_and_parquet(tmp_path: Path) -> None:
    lines = ["machine_id,timestamp,operating_hours,vibration,fault"]
    for machine in range(8):
        for hour in range(100 + machine):
            fault = int(hour == 99 + machine)
            vibration = 1 + (hour / 100) ** 4 + 0.01 * ((hour * 7 + machine) % 11)
            lines.append(f"m{machine},{1_600_000_000 + 3600 * hour},{hour},{vibration:.4f},{fault}")
    path = tmp_path / "lives.csv"
    path.write_text("\n".join(lines) + "\n")
    out = tmp_path / "models"
    result = aurum("train", "--rounds", "30", "--format", "csv", "--machine-type", "fan", "--out", str(out), str(path))
    assert result.returncode == 0, result.stderr
    version = json.loads((out / "fan" / "active.json").read_text())["version"]
    card = json.loads((out / "fan" / version / "card.json").read_text())
    assert card["axis"] == "operating_hours"
    assert card["sensors"] == ["vibration"]

    platform = Platform(tmp_path / "store")
    try:
        platform.start("ingestion")
        arguments = ("--format", "csv", "--machine-type", "fan", str(path))
        imported = aurum("import", *arguments, environment=platform.environment("import"))
        assert imported.returncode == 0, imported.stderr
        options = ("--rounds", "30", "--format", "store", "--out", str(out))
        trained = aurum("train", *options, str(platform.folder / "store.db"))
    finally:
        platform.stop()
    assert trained.returncode == 0, trained.stderr
    exported = aurum("export", str(platform.folder / "store.db"), str(tmp_path / "parquet"))
    assert exported.returncode == 0, exported.stderr
    time.sleep(1)  # a version's name has its second
    again = aurum("train", "--rounds", "30", "--out", str(out), str(tmp_path / "parquet"))
    assert again.returncode == 0, again.stderr
    newer = json.loads((out / "fan" / "active.json").read_text())["version"]
    assert json.loads((out / "fan" / newer / "card.json").read_text())["data"]["sha256"] == card["data"]["sha256"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("train", "--format", "csv"), 2, "at least one file"),
        (("train", "--machine-type", "toaster"), 1, "toaster"),
        (("import", "--format", "csv", "/nowhere.csv"), 2, "nowhere.csv"),
        (("iot-sim", "--machines", "0"), 2, "machines"),
        (("nonsense",), 2, "nonsense"),
        (("up", "--procfile", "/nowhere"), 1, "/nowhere"),
    ],
)
def test_wrong_usage_prints_message_without_traceback(arguments: tuple[str, ...], code: int, words: str) -> None:
    result = aurum(*arguments)
    assert result.returncode == code
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_training_without_failures_suggests_run_to_failure(tmp_path: Path) -> None:
    path = tmp_path / "calm.csv"
    path.write_text("machine_id,timestamp,x\n" + "".join(f"m,{1_600_000_000 + n},{n % 5}\n" for n in range(80)))
    result = aurum("train", "--format", "csv", "--machine-type", "fan", "--out", str(tmp_path), str(path))
    assert result.returncode == 0
    assert "--run-to-failure" in result.stderr
    assert "anomaly scores only" in result.stdout


def test_models_are_evaluated_explained_and_activated(tmp_path: Path) -> None:
    lines = ["unit,cycle,heat"]
    for unit in range(8):
        length = 70 + 5 * unit
        lines += [f"{unit},{n},{20 + 30 * (n / length) ** 2 + (n * 7 % 5) / 5:.3f}" for n in range(1, length + 1)]
    path = tmp_path / "fans.csv"
    path.write_text("\n".join(lines) + "\n")
    models = ("--models", str(tmp_path / "models"))
    train = ("train", "--rounds", "30", str(path), "--run-to-failure", "--report", "--out", str(tmp_path / "models"))
    first = aurum(*train)
    assert first.returncode == 0, first.stderr
    assert "life by 'cycle'" in first.stderr
    version = json.loads((tmp_path / "models" / "fans" / "active.json").read_text())["version"]
    assert "<svg" in (tmp_path / "models" / "fans" / version / "report.html").read_text()
    judged = aurum("evaluate", str(path), "--run-to-failure", *models)
    assert judged.returncode == 0, judged.stderr
    assert "at the last reading of 8 runs: RMSE" in judged.stdout
    explained = aurum("explain", str(path), "--machine", "3", *models)
    assert "raises the log-odds" in explained.stdout
    assert aurum("explain", str(path), "--machine", "nobody", *models).returncode == 1
    time.sleep(1)  # a version's name has its second
    assert aurum(*train, "--no-activate", "--seed", "8").returncode == 0
    listed = aurum("models", "list", *models).stdout.splitlines()
    assert [line[0] for line in listed] == ["c", " "]
    newer = listed[1].split()[1]
    assert aurum("models", "activate", "fans", newer, *models).returncode == 0
    assert aurum("models", "shadow", "fans", version, *models).returncode == 0
    assert aurum("models", "rollback", "fans", *models).stdout == f"fans: {version} is the champion\n"
    refused = aurum("models", "activate", "fans", "nowhere", *models)
    assert refused.returncode == 1
    assert "there is no model version nowhere" in refused.stderr


def test_noise_is_not_activated_without_force(tmp_path: Path) -> None:
    lines = ["unit,torque,heat,failure"]
    lines += [f"{n},{n * 7919 % 101},{n * 104_729 % 97},{int(n * 15_485_863 % 103 < 30)}" for n in range(400)]
    path = tmp_path / "noise.csv"
    path.write_text("\n".join(lines) + "\n")
    train = ("train", "--rounds", "20", str(path), "--out", str(tmp_path / "models"))
    refused = aurum(*train)
    assert refused.returncode == 0, refused.stderr
    assert refused.stdout.startswith("noise: NOT ACTIVATED: model noise ")
    assert "no proven skill for the risk: against the baseline (base rate)" in refused.stdout
    active = tmp_path / "models" / "noise" / "active.json"
    assert not active.exists()
    models = ("--models", str(tmp_path / "models"))
    version = next(path.name for path in (tmp_path / "models" / "noise").iterdir())
    by_hand = aurum("models", "activate", "noise", version, *models)
    assert by_hand.returncode == 1
    assert "it is not activated" in by_hand.stderr
    forced = aurum("models", "activate", "noise", version, "--force", *models)
    assert forced.stdout == f"noise: {version} is the champion, by force and without skill\n"
    assert "no skill, activated by force" in aurum("models", "list", *models).stdout
    active.unlink()
    assert aurum(*train, "--force").stdout.startswith("noise: ACTIVATED WITHOUT SKILL: ")
    assert json.loads(active.read_text())["forced"] is True


def test_import_without_platform_names_the_address(platform: Platform, tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    path.write_text("machine_id,timestamp,x\nm,1600000000,1\n")
    result = aurum("import", "--format", "csv", str(path), environment=platform.environment("import"))
    assert result.returncode == 1
    assert f"127.0.0.1:{platform.port('ingestion')} cannot be reached" in result.stderr


def test_two_key_commands_at_once_lose_no_key(tmp_path: Path) -> None:
    """Keys that are made at the same moment are all in the file."""
    file = tmp_path / "keys.yaml"

    def make(number: int) -> int:
        return aurum("key", "create", f"key {number}", "--role", "viewer", "--file", str(file)).returncode

    with ThreadPoolExecutor(6) as commands:
        assert list(commands.map(make, range(6))) == [0] * 6
    assert {each["name"] for each in yaml.safe_load(file.read_text())["keys"]} == {f"key {n}" for n in range(6)}


def test_doctor_reports_services_that_are_ready_or_down(platform: Platform) -> None:
    environment = platform.environment("doctor") | {"COLUMNS": "400"}
    nothing = aurum("doctor", environment=environment)
    assert nothing.returncode == 1
    assert "No service runs on this machine" in nothing.stdout
    platform.start("ingestion")
    some = aurum("doctor", environment=environment)
    assert some.returncode == 1
    lines = {line.split()[0]: line for line in some.stdout.splitlines() if line}
    assert "ready" in lines["ingestion"]
    assert "down" in lines["prediction"]
    assert "aurum train" in lines["models"]


def test_settings_table_is_current() -> None:
    assert aurum("settings", "--check", "docs/settings.md").returncode == 0


def test_simulated_machine_gets_a_prediction(platform: Platform, models: Path) -> None:
    platform.extra = {"AURUM_MODEL_DIR": str(models)}
    for service in ("ingestion", "prediction", "api", "edge"):
        platform.start(service, ready=False)
    platform.start("iot-sim", "--machines", "4", "--machine-type", "pump", ready=False)

    def predicted() -> bool:
        try:
            return http("POST", f"{platform.api}/api/predict", {"machine_id": "pump-001"}).status == 200
        except OSError:
            return False

    wait_for(predicted, 60, "a prediction of a simulated machine")


def fill(platform: Platform) -> int:
    """Readings of two machines over two days; how many."""
    now = int(time.time())
    rows = [
        {"machine_id": f"m-{machine}", "sensor": sensor, "timestamp": now - 60 * index, "value": float(index)}
        for machine in (1, 2)
        for sensor in ("a", "b")
        for index in range(0, 2000, 2)
    ]
    assert http("POST", f"{platform.api}/api/readings", {"readings": rows}).status == 200
    return len(rows)


def test_store_in_use_is_exported_checked_and_backed_up(platform: Platform, tmp_path: Path) -> None:
    platform.start("ingestion")
    platform.start("api")
    count = fill(platform)
    store = platform.folder / "store.db"
    exported = aurum("export", str(store), str(tmp_path / "parquet"))
    assert exported.returncode == 0, exported.stderr
    assert f"{count:,} readings" in exported.stdout
    table = pq.read_table(tmp_path / "parquet" / "machine_id=m-1")
    assert table.num_rows == count / 2
    assert sorted(set(table["sensor"].to_pylist())) == ["a", "b"]
    assert str(table.schema.field("timestamp").type) == "timestamp[us, tz=UTC]"
    today = aurum("export", str(store), str(tmp_path / "today"), "--since", time.strftime("%Y-%m-%d", time.gmtime()))
    assert today.returncode == 0
    assert len(list((tmp_path / "today").rglob("*.parquet"))) == 2

    checked = aurum("store", "check", str(store))
    assert checked.returncode == 0, checked.stdout
    assert "none damaged" in checked.stdout
    copied = aurum("store", "backup", str(store), str(tmp_path / "copy" / "store.db"))
    assert copied.returncode == 0, copied.stderr
    again = aurum("store", "backup", str(store), str(tmp_path / "copy" / "store.db"))
    assert again.returncode == 1
    assert "exists already" in again.stderr
    assert (
        f"{count:,} readings" in aurum("export", str(tmp_path / "copy" / "store.db"), str(tmp_path / "copied")).stdout
    )

    assert platform.processes["ingestion"].kill(15) == 0  # flushed
    connection = sqlite3.connect(store)
    connection.execute(
        "UPDATE segments SET data = CAST(substr(data, 1, length(data) - 1) || x'00' AS BLOB) WHERE id = 1"
    )
    connection.commit()
    connection.close()
    damaged = aurum("store", "check", str(store))
    assert damaged.returncode == 1
    assert "segment 1 of machine m-" in damaged.stdout
    assert "checksum" in damaged.stdout
    for command in (["export", str(tmp_path / "none.db"), "x"], ["store", "check", str(tmp_path / "none.db")]):
        answer = aurum(*command)
        assert answer.returncode == 1
        assert "does not exist" in answer.stderr


@pytest.mark.proof("cassandra")
def test_store_in_use_is_migrated_to_cassandra(platform: Platform, cassandra: Cluster) -> None:
    """A SQLite store is migrated to Cassandra while it is written to."""
    platform.start("ingestion")
    platform.start("api")
    http("POST", f"{platform.api}/api/machines", {"machine_id": "m-1", "machine_type": "pump", "site": "a"})
    count = fill(platform)
    target = f"{cassandra.url('migrated')}?replication=3"
    first = aurum("migrate", str(platform.folder / "store.db"), target)
    assert first.returncode == 0, first.stderr
    assert f"{count:,} readings copied, 0 already stored" in first.stdout
    again = aurum("migrate", str(platform.folder / "store.db"), target)
    assert f"0 readings copied, {count:,} already stored" in again.stdout

    def charted() -> Answer:
        return http("GET", f"{platform.api}/api/machines/m-1/metrics?sensor=a&points=0")

    def chart() -> list[float]:
        (series,) = charted().json["series"]
        return series["values"]

    before = chart()
    assert len(before) == 1000
    platform.processes["ingestion"].kill(15)
    platform.extra["AURUM_STORE_URL"] = target
    platform.restart("ingestion")
    # The API knows the machine without asking, its breaker may still be open; it is the readings that must come back
    wait_for(lambda: charted().status == 200, 20, "the other store is asked")
    assert chart() == before
    assert http("GET", f"{platform.api}/api/machines/m-1").json["machine_type"] == "pump"
    wrong = aurum("migrate", str(platform.folder / "store.db"), "postgres://x/y")
    assert wrong.returncode == 2
