"""The wide shape over Cassandra: 10,000 machines with 10 sensors, and one reading of each series in a batch of 2,000.

First on one node beside one replica of ingestion, as fast as it goes, until all batches are acknowledged and merged;
then at 100,000 readings/s. Then on three nodes at 20,000 readings/s, one of which is killed: with the time to each
acknowledgement, and what of it is stored afterwards. Needs Java and Maven, as `make proof ARGS=cassandra` does.
"""

import argparse
import asyncio
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import psutil
from tests.support.cassandra.cluster import Cluster, what_is_missing
from tests.support.platform import Platform
from tests.support.waiting import wait_for

from aurum.readings.batch import now_us
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc
from benchmarks.harness import Goal, report
from benchmarks.load import Sent, running, send_requests
from benchmarks.wide import Sweep, requests_of, sweeps

_READINGS = 2000  # of a batch
_RATE = 100_000  # readings/s
_PAUSE = 0.1  # seconds between two batches while a node is killed
_CHECKED = 30  # machines whose readings are compared
_START_AGO_US = 3_600_000_000


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _send(platform: Platform, made: list[Sweep], *, pause: float = 0.0) -> Sent:
    requests = requests_of(made)
    address = f"127.0.0.1:{platform.port('ingestion')}"
    return asyncio.run(send_requests(address, requests, _READINGS * len(requests), pause=pause, window=32))


def _wait_until_merged(platform: Platform, batches: int) -> None:
    wait_for(
        lambda: platform.metric("ingestion", "ingestion_batches_merged_total") >= batches, 300, "all batches are merged"
    )


def _one_node(folder: Path, machines: int, seconds: int, *, pause: float = 0.0) -> dict[str, float]:
    cluster = Cluster(folder)
    try:
        cluster.start(1)
        cluster.create_tables("wide")
        with running("ingestion", AURUM_STORE_URL=f"{cluster.url('wide')}?replication=1") as platform:
            process = psutil.Process(platform.processes["ingestion"].popen.pid)
            node = psutil.Process(cluster.nodes[0].popen.pid)  # type: ignore[union-attr]
            start = now_us() - _START_AGO_US
            warm = sweeps("warm", machines, 2, start)  # names the series
            _send(platform, warm)
            made = sweeps("wide", machines, seconds, start + 10_000_000)
            before, node_before, peak = _cpu(process), _cpu(node), [0]
            done = threading.Event()

            def watch() -> None:
                while not done.wait(0.2):
                    peak[0] = max(peak[0], process.memory_info().rss)

            watcher = threading.Thread(target=watch)
            watcher.start()
            sent = _send(platform, made, pause=pause)
            _wait_until_merged(platform, sum(len(sweep.batches) for sweep in (*warm, *made)))
            done.set()
            watcher.join()
            return {
                "readings_s": sent.per_second,
                "cpu_us": (_cpu(process) - before) / sent.readings * 1e6,
                "node_cpu_us": (_cpu(node) - node_before) / sent.readings * 1e6,
                "p99_ms": sent.p99_ms,
                "rss_mb": peak[0] / 1e6,
            }
    finally:
        cluster.stop()


def _dead_node(folder: Path, machines: int, seconds: int) -> dict[str, float]:
    cluster = Cluster(folder)
    try:
        cluster.start(3)
        cluster.create_tables("wide")
        with running("ingestion", AURUM_STORE_URL=f"{cluster.url('wide')}?replication=3") as platform:
            start = now_us() - _START_AGO_US
            _send(platform, sweeps("warm", machines, 1, start))
            made = sweeps("wide", machines, seconds, start + 10_000_000)
            batches = sum(len(sweep.batches) for sweep in made)
            killer = threading.Timer(batches * _PAUSE / 3, cluster.nodes[1].kill)
            killer.start()
            sent = _send(platform, made, pause=_PAUSE)
            killer.join()
            time.sleep(10)  # so that a part of the readings is merged
            lost, twice = _compare(platform, made, start + 10_000_000)
            return {"readings_s": sent.per_second, "p99_ms": sent.p99_ms, "lost": lost, "twice": twice}
    finally:
        cluster.stop()


def _compare(platform: Platform, made: list[Sweep], start: int) -> tuple[int, int]:
    """How many readings of some machines are missing or wrong, and how many there are too many."""
    expected: dict[tuple[str, str], dict[int, float]] = {}
    machines = [f"machine-{number:05}" for number in range(_CHECKED)]
    for batch in (batch for sweep in made for batch in sweep.batches):
        for series in batch.series:
            if series.machine_id in machines:
                at = int(series.timestamps[0])
                expected.setdefault((series.machine_id, series.sensor), {})[at] = float(series.values[0])
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    with grpc.insecure_channel(f"127.0.0.1:{platform.port('ingestion')}") as channel:
        query = ingestion_pb2.QueryRequest(machine_ids=machines, start_us=start, end_us=now_us())
        for response in ingestion_pb2_grpc.IngestionServiceStub(channel).Query(query, timeout=300):
            times: Sequence[int] = ()
            for each in response.series:
                points = found.setdefault((each.machine_id, each.sensor), [])
                times = each.timestamps_us or times  # omitted if they are those of the series before
                points += zip(times, each.values, strict=True)
    lost = sum(len(points.items() - found.get(key, [])) for key, points in expected.items())
    twice = sum(len(points) for points in found.values()) + lost - sum(map(len, expected.values()))
    return lost, twice


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    if missing := what_is_missing():
        raise SystemExit(f"wide_cassandra: {missing}")
    machines, seconds = (2_000, 20) if quick else (10_000, 40)
    with tempfile.TemporaryDirectory() as folder:
        one = _one_node(Path(folder) / "one", machines, seconds)
        print(f"wide_cassandra: one node {one}", flush=True)
        paced = _one_node(Path(folder) / "paced", machines, seconds, pause=_READINGS / _RATE)
        print(f"wide_cassandra: one node at {_RATE} readings/s {paced}", flush=True)
        dead = _dead_node(Path(folder) / "three", machines // 10, seconds)
    goals = {
        "one_node_readings_s": Goal(one["readings_s"], 100_000),
        "one_node_cpu_us_a_reading": Goal(one["cpu_us"], 5, at_most=True),
        "rss_mb_at_100000_readings_s": Goal(paced["rss_mb"], 250, at_most=True),
        "dead_node_p99_ms": Goal(dead["p99_ms"], 500, at_most=True),
        "dead_node_lost": Goal(dead["lost"], 0, at_most=True),
        "dead_node_twice": Goal(dead["twice"], 0, at_most=True),
    }
    details: dict[str, Any] = {"one_node": one, "paced": paced, "dead_node": dead}
    details["shape"] = {"machines": machines, "sensors": 10, "readings_per_series_and_batch": 1, "batch": _READINGS}
    report("wide_cassandra", goals, details)


if __name__ == "__main__":
    main()
