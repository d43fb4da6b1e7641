"""The `aurum` command: its own options, files that it checks, and services that do not answer as they should."""

import asyncio
import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import yaml

from aurum import __version__
from aurum.edge.dead_letters import DeadLetters, dead_letter_folder, names
from aurum.ingestion.sqlite.store import SqliteOptions, SqliteStore
from aurum.platform_settings import settings_table
from aurum.readings.batch import Batch, Series
from aurum.readings.transport.refusals import Refused
from tests.support.commands import command
from tests.support.ports import free_port

DAY_US = 86_400_000_000


@contextlib.contextmanager
def stranger(status: int, body: bytes) -> Iterator[str]:
    """host:port of another program than ours that answers every request alike."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def store_of(path: Path, *, damaged: bool = False) -> Path:
    """A store with a reading of each of two days."""

    async def fill() -> None:
        store = SqliteStore(SqliteOptions(path))
        await store.start()
        for day in (1, 2):
            series = Series("m", f"s{day}", np.array([day * DAY_US], np.int64), np.array([float(day)]))
            await (await store.append_batch(Batch.from_series("device", day, [series]), wait=True))
        await store.close()

    asyncio.run(fill())
    if damaged:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE blocks SET data = x'00' WHERE id = (SELECT min(id) FROM blocks)")
            connection.commit()
    return path


def test_version_option_prints_the_version() -> None:
    assert command("--version").stdout == f"aurum {__version__}\n"


def test_debug_option_shows_the_traceback(tmp_path: Path) -> None:
    arguments = ("key", "revoke", "nobody", "--file", str(tmp_path / "keys.yaml"))
    shown = command("--debug", *arguments)
    assert shown.returncode == 1
    assert shown.stderr.startswith("Traceback")
    assert "Traceback" not in command(*arguments).stderr


def test_edge_check_lists_inputs_or_names_the_mistake(tmp_path: Path) -> None:
    broker = {"host": "127.0.0.1", "port": 1}
    entry = {"name": "line", "protocol": "mqtt", "broker": broker, "topics": [{"pattern": "plant/{machine}/state"}]}
    file = tmp_path / "inputs.yaml"
    file.write_text(yaml.safe_dump({"inputs": [entry]}))
    assert command("edge", "check", str(file)).stdout == "line: mqtt at 127.0.0.1:1, 1 topics, 0 rules\n"
    schema = json.loads(command("edge", "schema").stdout)
    jsonschema.validate({"inputs": [entry]}, schema)
    wrong = {**entry, "topics": "plant"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"inputs": [wrong]}, schema)
    file.write_text(yaml.safe_dump({"inputs": [wrong]}))
    refused = command("edge", "check", str(file))
    assert refused.returncode == 1
    assert "topics" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("iot-sim", "--to", "somewhere"), "'somewhere' is neither edge, ingestion nor host:port"),
        (("iot-sim", "--protocol", "carrier-pigeon"), "is none of grpc, mqtt, sparkplug, opcua, modbus"),
        (("import", __file__, "--format", "csv", "--api", "http://a", "--ingestion", "b:1"), "not both"),
        (("export", "store.db", "out", "--since", "2026-02-01", "--until", "2026-02-01"), "--until must be after"),
        (("export", "cassandra://host/aurum", "out"), "train on it with `aurum train --format store`"),
        (("migrate", "store.db", "postgres://a/b"), "'postgres://a/b' is not cassandra://HOST,HOST/KEYSPACE"),
        (("evaluate",), "name at least one file"),
    ],
    ids=["target", "protocol", "two targets", "no days", "no file of a store", "another database", "no file"],
)
def test_wrong_arguments_are_named(arguments: tuple[str, ...], words: str) -> None:
    refused = command(*arguments)
    assert refused.returncode == 2
    assert words in " ".join(refused.stderr.replace("│", " ").split())


@pytest.mark.parametrize("arguments", [("settings",), ("policy", "reference")], ids=["settings", "policies"])
def test_generated_page_is_written_checked_and_printed(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    page = tmp_path / "page.md"
    assert "run `make docs`" in command(*arguments, "--check", str(page)).stderr
    assert command(*arguments, "--write", str(page)).returncode == 0
    assert command(*arguments, "--check", str(page)).returncode == 0
    assert command(*arguments).stdout == page.read_text() + "\n"
    page.write_text(page.read_text().replace("Default", "default", 1) + "\n")
    assert command(*arguments, "--check", str(page)).returncode == 1


def test_export_writes_the_days_between(tmp_path: Path) -> None:
    store = str(store_of(tmp_path / "store.db"))
    every = command("export", store, str(tmp_path / "all"))
    assert every.stdout.startswith("2 readings in 2 files below ")
    second = command("export", store, str(tmp_path / "some"), "--since", "1970-01-03", "--until", "1970-01-04")
    assert second.stdout.startswith("1 readings in 1 files below ")


def test_damaged_block_is_named_and_moved_out(tmp_path: Path) -> None:
    path = store_of(tmp_path / "store.db", damaged=True)
    exported = command("export", str(path), str(tmp_path / "all"))
    assert exported.returncode == 1
    assert "1 readings in 1 files" in exported.stdout
    assert "block 1 is damaged and was left out" in exported.stderr
    found = command("store", "check", str(path))
    assert found.returncode == 1
    assert "0 segments and 2 blocks with 1 readings, and 2 batches in the log: 1 damaged" in found.stdout
    repaired = command("store", "check", str(path), "--repair")
    assert repaired.returncode == 0
    assert f"1 damaged segments and blocks moved to {path}-damaged" in repaired.stdout
    assert "0 segments and 1 blocks with 1 readings, and 2 batches in the log: none damaged" in repaired.stdout
    assert "nothing is damaged" in command("store", "check", str(path), "--repair").stdout


def test_migration_to_absent_cassandra_says_what_is_missing(tmp_path: Path) -> None:
    store = store_of(tmp_path / "store.db")
    failed = command("migrate", str(store), f"cassandra://127.0.0.1:{free_port()}/plant")
    assert failed.returncode == 1
    assert failed.stderr.startswith("aurum: Cassandra at 127.0.0.1 cannot be used: ")
    wrong = command("migrate", str(store), "cassandra://127.0.0.1/plant?replication=none")
    assert "replication=none" in wrong.stderr


def test_dead_letter_commands_name_what_is_damaged_or_absent(tmp_path: Path) -> None:
    folder = dead_letter_folder(tmp_path)
    assert command("edge", "dead-letters", "list", "--spool", str(tmp_path)).stdout.startswith("there are no dead")
    folder.mkdir()
    letters = DeadLetters(folder, 10**6)
    for number in (1, 2):
        letters.put(Refused(number, "WHY", "it is wrong"), b"no request")
    damaged, whole = names(folder)
    file = folder / f"{damaged}.letter"
    file.write_bytes(file.read_bytes() + b"more")
    listed = command("edge", "dead-letters", "list", "--spool", str(tmp_path))
    assert listed.returncode == 1
    first, second = listed.stdout.splitlines()
    assert first.startswith(f"{damaged}  ")
    assert first.endswith("is damaged: the checksum does not match")
    assert second == f"{whole}  WHY  source unknown, sequence 0, 0 readings: it is wrong"
    absent = command("edge", "dead-letters", "delete", "nothing", "--spool", str(tmp_path))
    assert absent.returncode == 1
    assert "there is no dead letter 'nothing'" in absent.stderr


def test_replay_keeps_dead_letters_while_ingestion_is_away(tmp_path: Path) -> None:
    folder = dead_letter_folder(tmp_path)
    folder.mkdir()
    letters = DeadLetters(folder, 10**6)
    for number in (1, 2):
        letters.put(Refused(number, "WHY", "it is wrong"), b"no request")
    environment = {"AURUM_INGESTION_TARGET": f"127.0.0.1:{free_port()}"}
    replayed = command("edge", "dead-letters", "replay", "--spool", str(tmp_path), environment=environment)
    assert replayed.returncode == 1
    assert "; the replay stops here" in replayed.stdout
    assert f"2 dead letters remain in {folder}" in replayed.stdout
    assert len(names(folder)) == 2


def test_fault_commands_name_services_that_take_none() -> None:
    unknown = command("fault", "add", "nobody", "delay")
    assert "there is no service 'nobody'; there are api, ingestion" in unknown.stderr
    silent = {"AURUM_ADMIN_TARGETS": f"api=127.0.0.1:{free_port()}"}
    assert "does not answer" in command("fault", "list", "api", environment=silent).stderr
    assert command("fault", "list", environment=silent).stdout.startswith("api: api at ")
    assert (command("fault", "clear", environment=silent).returncode) == 0
    assert command("fault", "clear", "api", environment=silent).returncode == 1
    with stranger(404, b"{}") as address:
        refused = command("fault", "add", "api", "delay", environment={"AURUM_ADMIN_TARGETS": f"api={address}"})
    assert "api does not allow faults; start it with AURUM_FAULTS_ENABLED=true" in refused.stderr


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}"])
def test_answers_of_other_programs_are_recognized(body: bytes) -> None:
    with stranger(500, body) as address:
        refused = command("fault", "add", "api", "delay", environment={"AURUM_ADMIN_TARGETS": f"api={address}"})
    assert refused.stderr == "aurum: api: it answered 500, which is not of its admin server\n"
    with stranger(200, body) as address:
        shown = command("policy", "show", "api", environment={"AURUM_ADMIN_TARGETS": f"api={address}"})
    assert shown.returncode == 1
    assert address in shown.stdout
    with stranger(500, body) as address:
        environment = {"AURUM_ADMIN_TARGETS": f"api={address}", "COLUMNS": "300"}
        examined = command("doctor", environment=environment)
    assert examined.returncode == 1
    (line,) = [line for line in examined.stdout.splitlines() if line.startswith("api ")]
    assert f"{address} is not its admin server" in line


def test_settings_table_names_every_variable_once() -> None:
    variables = [line.split("`")[1] for line in settings_table().splitlines() if line.startswith("| `AURUM_")]
    assert len(variables) == len(set(variables)) > 100
