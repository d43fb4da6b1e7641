"""Nothing acknowledged is lost, doubled or turned round: random faults, a full disk, a dead node of the store."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from aurum.readings.batch import Series, encode, now_us
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc
from tests.support.cassandra.cluster import Cluster
from tests.support.chaos import Report, chaos
from tests.support.ledger import stored_readings
from tests.support.platform import Platform
from tests.support.waiting import wait_for


def check(report: Report) -> None:
    assert report.batches > 50
    assert (report.lost, report.twice, report.partial, report.inversions) == (0, 0, 0, 0), report


@pytest.mark.proof("chaos")
def test_random_faults_lose_no_batch(tmp_path: Path) -> None:
    """Under random faults no acknowledged batch is lost, stored twice, split or reordered."""
    with chaos(tmp_path / "run", 3, seed=11) as running:
        running.run(8)
        check(running.finish())


@pytest.mark.proof("cassandra")
def test_random_faults_with_cassandra_lose_no_batch(tmp_path: Path, cassandra: Cluster) -> None:
    """Random faults and a dead Cassandra node lose, double, split and reorder no acknowledged batch."""
    with chaos(tmp_path / "run", 2, seed=12, cluster=cassandra) as running:
        running.kill_node()
        running.run(4)
        check(running.finish())


@pytest.mark.proof("cassandra")
def test_dead_cassandra_node_fails_no_acknowledgement(platform: Platform, cassandra: Cluster) -> None:
    """Ingestion goes on acknowledging while a Cassandra node is dead, and stores all it acknowledged."""
    cassandra.create_tables("dead_node")
    platform.extra["AURUM_STORE_URL"] = f"{cassandra.url('dead_node')}?replication=3"
    platform.start("ingestion")
    start = now_us() - 10**9
    done = threading.Event()

    def requests() -> Iterator[ingestion_pb2.IngestRequest]:
        sequence = 0
        while not done.is_set():
            sequence += 1
            at = start + sequence * 1000 + np.arange(5)
            series = [Series("dead-node", "s", at, np.full(5, float(sequence)))]
            yield ingestion_pb2.IngestRequest(batch=encode("dead-node", sequence, series))
            time.sleep(0.01)

    acknowledged: list[int] = []
    problems: list[str] = []
    with grpc.insecure_channel(f"127.0.0.1:{platform.port('ingestion')}") as channel:
        stub = ingestion_pb2_grpc.IngestionServiceStub(channel)

        def send() -> None:
            try:
                acknowledged.extend(response.acknowledged for response in stub.Ingest(requests(), timeout=120))
            except grpc.RpcError as error:
                problems.append(f"{error.code()}: {error.details()}")

        sender = threading.Thread(target=send)
        sender.start()
        wait_for(lambda: acknowledged or problems, 30, "a batch is acknowledged")
        cassandra.nodes[1].kill()
        before = acknowledged[-1]
        wait_for(lambda: acknowledged[-1] > before + 300 or problems, 60, "acknowledgements go on without the node")
        done.set()
        sender.join(60)
        cassandra.nodes[1].start()
        assert not problems
        answer = stub.Query(ingestion_pb2.QueryRequest(machine_ids=["dead-node"], end_us=now_us()))
        values = [value for response in answer for series in response.series for value in series.values]
    assert values == [float(sequence) for sequence in range(1, acknowledged[-1] + 1) for _ in range(5)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a tmpfs, to have a disk that is full")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("least_free", [4_000_000, 0], ids=["room kept", "to the last byte"])
def test_full_disk_rejects_writes_and_recovers(tmp_path: Path, small_disk: Path, least_free: int) -> None:
    """On a full disk ingestion rejects writes and is not ready, and recovers when there is room."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(os.urandom(10_000_000))
    platform = Platform(tmp_path / "logs")
    platform.extra = {
        "AURUM_STORE_URL": f"sqlite:///{small_disk}/store.db",
        "AURUM_INGESTION_MIN_FREE_BYTES": str(least_free),
        "AURUM_INGESTION_RECENT_BYTES": "1000000",
    }
    rng = np.random.default_rng(1)
    at = now_us() - 10**9 + np.arange(5000)

    def write(stub: Any, sequence: int) -> None:
        series = [Series("full", "s", at + sequence * 10_000, rng.random(5000))]
        stub.Write(ingestion_pb2.WriteRequest(batch=encode("full", sequence, series)), timeout=20)

    try:
        platform.start("ingestion")
        with grpc.insecure_channel(f"127.0.0.1:{platform.port('ingestion')}") as channel:
            stub = ingestion_pb2_grpc.IngestionServiceStub(channel)
            written = 0

            def fill() -> None:
                nonlocal written
                for sequence in range(1, 2000):
                    write(stub, sequence)
                    written = sequence

            with pytest.raises(grpc.RpcError) as caught:
                fill()
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "full" in caught.value.details()
            assert written > 20
            wait_for(lambda: platform.admin("ingestion", "/readyz").status == 503, 20, "not ready any more")
            assert b"full" in platform.admin("ingestion", "/readyz").body
            assert b"ingestion_disk_free_bytes" in platform.admin("ingestion", "/metrics").body
            ballast.unlink()
            wait_for(lambda: platform.admin("ingestion", "/readyz").status == 200, 40, "ready again by itself")
            for sequence in range(written + 1, written + 6):
                write(stub, sequence)
        assert platform.processes["ingestion"].kill(15) == 0
        stored = stored_readings(small_disk / "store.db", "s")
        assert len({at for at, _ in stored}) == len(stored) == (written + 5) * 5000
    finally:
        platform.stop()
