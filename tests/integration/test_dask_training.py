"""Training on a Dask cluster of two worker processes, compared with training in one process."""

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from distributed import LocalCluster
from distributed.security import Security

from aurum.commands.exporting import export
from aurum.ingestion.sqlite.store import SqliteOptions, SqliteStore
from aurum.ingestion.store import MachineRecord
from aurum.readings.batch import Batch, Series, Timestamps, Values
from aurum.readings.history import Run
from aurum.runtime.time_units import DAY_US
from aurum_sim.machine_types import PUMP
from aurum_sim.plant_model import run_to_failure
from tests.support.authority import Authority
from tests.support.cassandra.cluster import Cluster
from tests.support.commands import command
from tests.support.waiting import wait_for

GRADES = ("fine", "raw", "coarse")
FAST = ("--rounds", "20", "--budget", "0")


@contextmanager
def workers(**options: Any) -> Iterator[LocalCluster]:
    running = LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        **options,
    )
    try:
        yield running
    finally:
        running.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with workers() as running:
        yield running


class Exporting:
    """Simulated histories as a store that is exported."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = {run.machine: run for run in runs}

    def list_machines(self) -> list[MachineRecord]:
        return [MachineRecord(machine, "pump", "a", 0, "") for machine in self.runs]

    def sensors(self, machine_id: str) -> list[str]:
        return sorted(self.runs[machine_id].columns)

    def days(self, key: tuple[str, str]) -> list[int]:
        return np.unique(self.runs[key[0]].timestamps // DAY_US).tolist()

    def day(self, key: tuple[str, str], day: int) -> tuple[Timestamps, Values]:
        run = self.runs[key[0]]
        chosen = run.timestamps // DAY_US == day
        return run.timestamps[chosen], run.columns[key[1]][chosen]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    export(Exporting(run_to_failure(PUMP, 8, 7)), folder)
    return folder


def tables(folder: Path, machines: int = 12) -> Path:
    """Writes a table for each machine, with a category whose words differ between the tables."""
    folder.mkdir()
    for machine in range(1, machines + 1):
        rng = np.random.default_rng(machine)
        life = 25 + machine % 7
        rows = ["machine_id,cycle,heat,flow,grade"]
        for cycle in range(life):
            wear = cycle / life
            heat, flow = 50 + 8 * wear + rng.normal(0, 0.5), 20 - 4 * wear + rng.normal(0, 0.3)
            rows.append(f"fan-{machine},{cycle},{heat:.3f},{flow:.3f},{GRADES[machine % 3]}")
        (folder / f"fan-{machine}.csv").write_text("\n".join(rows) + "\n")
    return folder


TABLES = ("--machine-type", "fan", "--run-to-failure")


def trained(out: Path, *arguments: str) -> dict[str, Any]:
    """Trains and returns the card, without what differs between two trainings on the same data."""
    done = command("train", "--out", str(out), *FAST, *arguments)
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*/*/card.json")
    card: dict[str, Any] = json.loads(path.read_text())
    for name in ("version", "created"):
        del card[name]
    del card["data"]["source"]
    if card.get("search"):
        card["search"] = card["search"]["chosen"]
    return card


def test_export_trains_alike_on_a_cluster(cluster: LocalCluster, exported: Path, tmp_path: Path) -> None:
    here = trained(tmp_path / "here", str(exported))
    there = trained(tmp_path / "there", str(exported), "--scheduler", cluster.scheduler_address)
    assert here["data"]["machines"] == 8
    assert there == here  # with the checksums of the trees and of the histories


def test_words_of_all_tables_are_categories(cluster: LocalCluster, tmp_path: Path) -> None:
    folder = tables(tmp_path / "tables")
    here = trained(tmp_path / "here", str(folder), *TABLES)
    there = trained(tmp_path / "there", str(folder), *TABLES, "--scheduler", cluster.scheduler_address)
    assert there["categories"]["grade"]["words"] == ["coarse", "fine", "raw"]
    assert there == here


async def fill(path: Path, runs: Sequence[Run]) -> None:
    """Writes histories to a store, with a machine of another type."""
    store = SqliteStore(SqliteOptions(path))
    await store.start()
    for number, run in enumerate(runs):
        await store.register(MachineRecord(run.machine, "pump" if number else "fan", "a", 1, f"r-{number}"))
        series = [Series(run.machine, name, run.timestamps, values) for name, values in run.columns.items()]
        await (await store.append_batch(Batch.from_series("source", number + 1, series), wait=True))
    await store.close()


def test_store_trains_alike_on_a_cluster(cluster: LocalCluster, tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path / "store.db", run_to_failure(PUMP, 9, 3)))
    options = (str(tmp_path / "store.db"), "--machine-type", "pump")
    here = trained(tmp_path / "here", *options)
    assert here["data"]["machines"] == 8
    assert trained(tmp_path / "there", *options, "--scheduler", cluster.scheduler_address) == here


@pytest.mark.proof("cassandra")
def test_cluster_reads_a_cassandra_store(cassandra: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is trained on a Cassandra store by a cluster is that of the same readings in a SQLite store."""
    asyncio.run(fill(tmp_path / "store.db", run_to_failure(PUMP, 9, 3)))
    only = ("--machine-type", "pump")
    here = trained(tmp_path / "here", str(tmp_path / "store.db"), *only)
    target = f"{cassandra.url('trained')}?replication=3"
    assert command("migrate", str(tmp_path / "store.db"), target).returncode == 0
    monkeypatch.setenv("AURUM_STORE_URL", target)  # also for the workers
    with workers() as running:
        options = ("--format", "store", *only)
        assert trained(tmp_path / "there", *options, "--scheduler", running.scheduler_address) == here
    assert trained(tmp_path / "alone", *options) == here


def test_machines_are_sampled_to_fit(cluster: LocalCluster, tmp_path: Path) -> None:
    folder = tables(tmp_path / "tables", 26)
    options = (str(folder), *TABLES, "--rows", "650", "--scheduler", cluster.scheduler_address)
    first = trained(tmp_path / "first", *options)
    assert 20 <= first["data"]["machines"] < 26
    assert first["data"]["rows"] <= 650
    assert trained(tmp_path / "second", *options) == first


def test_tasks_of_a_killed_worker_are_repeated(cluster: LocalCluster, tmp_path: Path) -> None:
    folder = tables(tmp_path / "tables")
    here = trained(tmp_path / "here", str(folder), *TABLES)
    held = folder / "fan-5.csv"
    content = held.read_text()
    held.unlink()
    os.mkfifo(held)  # a worker waits here until it is killed
    found: list[dict[str, Any]] = []
    options = (str(folder), *TABLES, "--scheduler", cluster.scheduler_address)
    training = threading.Thread(target=lambda: found.append(trained(tmp_path / "there", *options)))
    training.start()

    def waiting() -> list[str]:
        """The workers with a task, once only one task is left."""
        busy = {address: len(each.processing) for address, each in cluster.scheduler.workers.items() if each.processing}
        return list(busy) if sum(busy.values()) == 1 else []

    wait_for(lambda: bool(waiting()), 30, "one worker holds the last task")
    (address,) = waiting()
    nanny = next(each for each in cluster.workers.values() if each.worker_address == address)
    (tmp_path / "content").write_text(content)
    os.replace(tmp_path / "content", held)
    os.kill(nanny.pid, signal.SIGKILL)
    training.join(120)
    assert found == [here]


def test_cluster_is_used_over_tls(tmp_path: Path) -> None:
    files = Authority().fill(tmp_path / "tls", "dask")
    settings: dict[str, Any] = {"comm.require-encryption": True, "comm.tls.ca-file": str(files / "ca.crt")}
    for role in ("client", "scheduler", "worker"):
        settings |= {f"comm.tls.{role}.cert": str(files / "tls.crt"), f"comm.tls.{role}.key": str(files / "tls.key")}
    settings = {f"distributed.{name}": value for name, value in settings.items()}
    folder = tables(tmp_path / "tables")
    with dask.config.set(settings), workers(protocol="tls", security=Security()) as running:
        assert running.scheduler_address.startswith("tls://")
        there = trained(tmp_path / "there", str(folder), *TABLES, "--scheduler", running.scheduler_address)
    assert there == trained(tmp_path / "here", str(folder), *TABLES)


def test_data_that_no_cluster_divides_is_refused(cluster: LocalCluster, exported: Path, tmp_path: Path) -> None:
    scheduler = ("--out", str(tmp_path / "out"), "--scheduler", cluster.scheduler_address)
    simulated = command("train", *scheduler)
    assert simulated.returncode == 1
    assert "the data has the format plant" in simulated.stderr
    folder = tables(tmp_path / "tables")
    (tmp_path / "store.db").write_bytes(b"SQLite format 3")
    store = command("train", str(tmp_path / "store.db"), *scheduler, "--failures", str(folder / "fan-1.csv"))
    assert "--failures: for tables only" in store.stderr
    (folder / "fan-1b.csv").write_text((folder / "fan-1.csv").read_text())
    twice = command("train", str(folder), *TABLES, *scheduler)
    assert "machine fan-1 is in" in twice.stderr
    assert twice.returncode == 1
    (folder / "fan-1b.csv").write_text("machine_id,cycle,heat,flow,grade\nfan-x,1,hot and cold,,\n")
    wrong = command("train", str(folder), *TABLES, *scheduler)
    assert wrong.returncode == 1
    assert "column heat has numbers in" in wrong.stderr
    (folder / "fan-1b.csv").write_text("machine_id,heat,flow\n")
    empty = command("train", str(folder), *TABLES, *scheduler)
    assert f"{folder / 'fan-1b.csv'} cannot be read by a worker" in empty.stderr
    assert empty.returncode == 1


def followed_lives(folder: Path) -> tuple[Path, Path, Path]:
    """Writes tables of machines with two lives each, and the tables of their failures and overhauls."""
    folder.mkdir()
    failures, maintenance = ["Engine;Cycle", "unknown;3"], ["engine,cycle", "7,1e6"]
    for machine in range(1, 9):
        rng = np.random.default_rng(machine)
        lives = 24 + machine % 5, 20 + machine % 3
        rows = ["engine,cycle,heat,flow"]
        for life, begun in zip(lives, (0, lives[0]), strict=True):
            for cycle in range(life):
                wear = cycle / life
                heat, flow = 50 + 8 * wear + rng.normal(0, 0.5), 20 - 4 * wear + rng.normal(0, 0.3)
                rows.append(f"{machine},{begun + cycle},{heat:.3f},{flow:.3f}")
        (folder / f"part-{machine}.csv").write_text("\n".join(rows) + "\n")
        failures.append(f"{machine:02};{sum(lives) - 1 if machine % 4 else sum(lives) + 9}")
        maintenance.append(f"{machine}.0,{lives[0]}")
    (folder.parent / "failures.csv").write_text("\n".join(failures) + "\n")
    (folder.parent / "maintenance.csv").write_text("\n".join(maintenance) + "\n")
    return folder, folder.parent / "failures.csv", folder.parent / "maintenance.csv"


def test_event_tables_join_alike_on_a_cluster(cluster: LocalCluster, tmp_path: Path) -> None:
    folder, failures, maintenance = followed_lives(tmp_path / "tables")
    events = ("--machine-type", "fan", "--failures", str(failures), "--maintenance", str(maintenance))
    here = trained(tmp_path / "here", str(folder), *events)
    assert here["data"]["failures"] == 6
    assert here["data"]["runs"] == 16
    told = "--scheduler", cluster.scheduler_address
    assert trained(tmp_path / "there", str(folder), *events, *told) == here
    noted = [
        command("train", str(folder), *events, "--out", str(tmp_path / "noted"), *FAST, *more).stderr
        for more in ((), told)
    ]
    for note in (
        "failures by failures.csv",
        "1 failures of machines without readings are not used",
        "2 failures after the last reading of their machine are not used",
        "1 maintenance records after the last reading of their machine are not used",
        "8 lives begin at maintenance in maintenance.csv",
    ):
        assert [note in lines.splitlines() for lines in noted] == [True, True], note


def test_event_tables_that_fit_no_part_are_refused(cluster: LocalCluster, tmp_path: Path) -> None:
    folder, failures, _ = followed_lives(tmp_path / "tables")
    options = ("--machine-type", "fan", "--out", str(tmp_path / "out"), *FAST, "--scheduler", cluster.scheduler_address)
    failures.write_text("machine,cycle\nother,3\n")
    others = command("train", str(folder), *options, "--failures", str(failures))
    assert "no failures are joined, since none of its machines has readings: it names other" in others.stderr
    failures.write_text("cycle,note\n3,worn\n")
    unnamed = command("train", str(folder), *options, "--failures", str(failures))
    assert "failures.csv must have a column with the machine" in unnamed.stderr
    failures.write_text("machine,cycle\n2,3\n")
    for name in ("e1", "E1"):
        (folder / f"other-{name}.csv").write_text((folder / "part-1.csv").read_text().replace("\n1,", f"\n{name},"))
    twins = command("train", str(folder), *options, "--failures", str(failures))
    assert "the machines E1 and e1 are in different files" in twins.stderr
    assert {others.returncode, unnamed.returncode, twins.returncode} == {1}


def test_left_file_joins_alike_on_a_cluster(cluster: LocalCluster, tmp_path: Path) -> None:
    folder = tables(tmp_path / "tables")
    left = tmp_path / "left.txt"
    left.write_text("".join(f"{machine % 4}\n" for machine in range(1, 13)))
    options = (str(folder), "--machine-type", "fan", "--left-file", str(left))
    here = trained(tmp_path / "here", *options)
    assert here["kind"] == "rul"
    scheduler = ("--scheduler", cluster.scheduler_address)
    assert trained(tmp_path / "there", *options, *scheduler) == here
    left.write_text("1\n2\n")
    few = command("train", *options, "--out", str(tmp_path / "few"), *scheduler)
    assert few.returncode == 1
    assert "has 2 numbers for 12 machines" in few.stderr


def test_cluster_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, exported: Path, tmp_path: Path) -> None:
    monkeypatch.setattr("aurum.commands.dask_cluster._CONNECT_SECONDS", 1)
    options = ("train", str(exported), "--out", str(tmp_path), "--scheduler")
    nowhere = command(*options, "127.0.0.1:1")
    assert nowhere.returncode == 1
    assert "no Dask scheduler can be used at tcp://127.0.0.1:1" in nowhere.stderr
    bare = command(*options, "tls://127.0.0.1:1")
    assert "tls://127.0.0.1:1 needs certificates" in bare.stderr
    assert bare.returncode == 1
    monkeypatch.setitem(sys.modules, "distributed", None)
    lacking = command(*options, "127.0.0.1:1")
    assert lacking.returncode == 1
    assert "pip install 'aurumai[dask]'" in lacking.stderr
