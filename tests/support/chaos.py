"""Everything that can happen to readings on their way, at random: and then a ledger is compared with the store.

    python -m tests.support.chaos [--kills 200] [--seed 1] [--cassandra]

Devices send through a gateway and a network that fails to ingestion. Devices, gateway, ingestion and nodes of the store
are killed with SIGKILL and started again; the network drops, delays and resets; clocks are set an hour forth and back.
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.cassandra.cluster import Cluster
from tests.support.device import READINGS, last_acknowledged
from tests.support.platform import Platform
from tests.support.proxy import Proxy
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]
_SET_CLOCK = """
import os, time
_now, _now_ns = time.time, time.time_ns
def _offset():
    try:
        with open(os.environ["CLOCK_OFFSET"]) as file:
            return int(file.read() or 0)
    except (OSError, ValueError):
        return 0
time.time = lambda: _now() + _offset()
time.time_ns = lambda: _now_ns() + _offset() * 1_000_000_000
"""


@dataclass
class Report:
    """What was done, and what the comparison found."""

    events: dict[str, int] = field(default_factory=dict)
    batches: int = 0
    lost: int = 0
    twice: int = 0
    partial: int = 0
    inversions: int = 0


class Chaos:
    """A platform whose parts can be made to fail. cluster: of Cassandra, instead of SQLite."""

    def __init__(self, folder: Path, devices: int, seed: int, cluster: Cluster | None = None) -> None:
        self.chance = random.Random(seed)
        self.folder = folder
        self.cluster = cluster
        self.platform = Platform(folder)
        self.report = Report()
        self._clocks = {name: folder / f"{name}.clock" for name in ("edge", "ingestion")}
        (folder / "clock").mkdir(parents=True)
        (folder / "clock" / "sitecustomize.py").write_text(_SET_CLOCK)
        self.proxy = Proxy(self.platform.port("ingestion"))
        self._devices: dict[str, subprocess.Popen[bytes] | None] = {f"device-{seed}-{n}": None for n in range(devices)}
        self._keyspace = f"chaos_{seed}_{int(time.time())}"

    def start(self) -> None:
        if self.cluster:
            self.cluster.create_tables(self._keyspace)
        for name in ("ingestion", "edge"):
            self._start_service(name)
        for name in self._devices:
            self._start_device(name)

    def _start_service(self, name: str) -> None:
        self.platform.extra = {
            "PYTHONPATH": os.pathsep.join([str(self.folder / "clock"), os.environ.get("PYTHONPATH", "")]),
            "CLOCK_OFFSET": str(self._clocks[name]),
            "AURUM_EDGE_UPLINK_TARGET": f"127.0.0.1:{self.proxy.port}",
            "AURUM_CIRCUIT_BREAKER_TIMEOUT": "1",
            "AURUM_INGESTION_RECENT_BYTES": "100000",  # so that there is much flushing and merging
            "AURUM_INGESTION_FLUSH_SECONDS": "2",
        }
        if self.cluster:
            self.platform.extra["AURUM_STORE_URL"] = f"{self.cluster.url(self._keyspace)}?replication=3"
        self.platform.start(name)

    def _start_device(self, name: str) -> None:
        command = [sys.executable, "-m", "tests.support.device", f"127.0.0.1:{self.platform.port('edge')}", name]
        pause = 0.1 if self.cluster else 0.03  # three nodes on one machine are slow
        with (self.folder / f"{name}.log").open("ab") as log:
            self._devices[name] = subprocess.Popen(
                [*command, str(self.folder / f"{name}.ledger"), str(pause)], cwd=ROOT, stdout=log, stderr=log
            )

    # What can happen

    def kill_device(self) -> None:
        name = self.chance.choice(sorted(self._devices))
        process = self._devices[name]
        assert process is not None
        process.kill()
        process.wait(10)
        self._start_device(name)

    def kill_service(self, name: str) -> None:
        self.platform.processes[name].kill(signal.SIGKILL)
        time.sleep(self.chance.choice([0.0, 0.3]))
        self._start_service(name)

    def kill_node(self) -> None:
        """One at a time, since two copies of three must be there."""
        assert self.cluster is not None
        node = self.chance.choice(self.cluster.nodes)
        node.kill()
        time.sleep(self.chance.uniform(0.5, 3.0))
        node.start()

    def fail_network(self) -> None:
        self.proxy.set(self.chance.choice(["drop", "delay", "reset"]))
        time.sleep(self.chance.uniform(0.5, 2.5))
        self.proxy.set("pass")

    def set_clock(self) -> None:
        clock = self._clocks[self.chance.choice(sorted(self._clocks))]
        clock.write_text(str(self.chance.choice([3600, -3600])))
        time.sleep(self.chance.uniform(0.5, 1.5))
        clock.write_text("0")

    def run(self, kills: int) -> None:
        """As many kills, and other faults between them."""
        happenings: list[tuple[str, Callable[[], Any]]] = [
            ("kill device", self.kill_device),
            ("kill edge", lambda: self.kill_service("edge")),
            ("kill ingestion", lambda: self.kill_service("ingestion")),
            ("network", self.fail_network),
            ("clock", self.set_clock),
        ]
        if self.cluster:
            happenings.append(("kill node", self.kill_node))
        done = 0
        while done < kills:
            time.sleep(self.chance.uniform(0.2, 1.0))
            name, happen = self.chance.choice(happenings)
            happen()
            self.report.events[name] = self.report.events.get(name, 0) + 1
            done += name.startswith("kill")

    def finish(self) -> Report:
        """Lets everything arrive, and compares what the devices know to be acknowledged with what is stored."""
        for process in self._devices.values():
            assert process is not None
            process.kill()
            process.wait(10)
        while waiting := self._spooled():  # as long as it takes, but never without progress
            wait_for(lambda: self._spooled() < waiting, 60, f"fewer than {waiting} batches are in the spool")
        self.platform.stop()
        self.proxy.close()
        for name in self._devices:
            _, last = last_acknowledged(self.folder / f"{name}.ledger")
            self._compare(name, last)
        return self.report

    def _spooled(self) -> float:
        lines = self.platform.admin("edge", "/metrics").body.decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("edge_spool_batches "))

    def close(self) -> None:
        self.platform.stop()
        for process in self._devices.values():
            if process and process.poll() is None:
                process.kill()
                process.wait(10)

    def _compare(self, source: str, last: int) -> None:
        stored = self._stored(source)
        self.report.batches += last
        times = [at for at, _ in stored]
        sequences = [int(value) for _, value in sorted(stored)]
        self.report.twice += len(times) - len(set(times))
        self.report.inversions += sum(after < before for before, after in itertools.pairwise(sequences))
        counts: dict[int, int] = {}
        for sequence in sequences:
            counts[sequence] = counts.get(sequence, 0) + 1
        self.report.partial += sum(count != READINGS for count in counts.values())
        self.report.lost += sum(sequence not in counts for sequence in range(1, last + 1))

    def _stored(self, source: str) -> list[tuple[int, float]]:
        """Every reading of a source that the segments have, as often as they have it."""
        if self.cluster is None:
            from tests.support.ledger import stored_readings

            return stored_readings(self.folder / "store.db", source)
        from aurum.ingestion.cassandra.session import parse_url
        from aurum.ingestion.cassandra.store import CassandraStore

        async def read() -> list[tuple[int, float]]:
            assert self.cluster is not None
            store = CassandraStore(parse_url(f"{self.cluster.url(self._keyspace)}?replication=3"), 10**7, 0.0)
            points = await store.read("ledger", source, 0, 2**61)
            await store.close()
            return list(zip(points.timestamps.tolist(), points.values.tolist(), strict=True))

        return asyncio.run(read())


@contextlib.contextmanager
def chaos(folder: Path, devices: int, seed: int, cluster: Cluster | None = None) -> Iterator[Chaos]:
    running = Chaos(folder, devices, seed, cluster)
    try:
        running.start()
        yield running
    finally:
        running.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--cassandra", action="store_true", help="three real nodes instead of SQLite")
    arguments = parser.parse_args()
    os.environ["PYTHONUNBUFFERED"] = "1"
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        cluster = None
        if arguments.cassandra:
            cluster = Cluster(Path(folder) / "cassandra")
            stack.callback(cluster.stop)
            cluster.start(3)
        with chaos(Path(folder) / "run", 4, arguments.seed, cluster) as running:
            running.run(arguments.kills)
            report = running.finish()
    print(f"seed {arguments.seed}: {report}")  # noqa: T201
    sys.exit(1 if report.lost or report.twice or report.partial or report.inversions else 0)


if __name__ == "__main__":
    main()
