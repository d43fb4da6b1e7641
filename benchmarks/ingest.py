"""Durable readings per second through gRPC Ingest, against plain SQLite rows written in the same run.

The peer writes the same readings as rows (series, time, value) in one transaction a batch, synced like ours.
"""

import argparse
import asyncio
import sqlite3
import tempfile
import time
from pathlib import Path

import grpc
import numpy as np
from tests.conftest import Platform

from aurum.readings.batch import Series, encode, now_us
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc
from benchmarks.harness import Goal, report, spread

MACHINES, SENSORS, READINGS = 5, 10, 100  # a batch of 5,000 readings


def batches(source_id: str, count: int) -> list[ingestion_pb2.IngestRequest]:
    rng = np.random.default_rng(1)
    start = now_us() - 3_600_000_000
    made = []
    for sequence in range(1, count + 1):
        at = start + (sequence * READINGS + np.arange(READINGS)) * 1000
        series = [
            Series(f"m-{machine}", f"s-{sensor}", at, np.cumsum(rng.standard_normal(READINGS)))
            for machine in range(MACHINES)
            for sensor in range(SENSORS)
        ]
        made.append(ingestion_pb2.IngestRequest(batch=encode(source_id, sequence, series)))
    return made


async def send(address: str, requests: list[ingestion_pb2.IngestRequest]) -> float:
    """Seconds until the last batch is acknowledged."""
    async with grpc.aio.insecure_channel(address) as channel:
        await channel.channel_ready()
        stub = ingestion_pb2_grpc.IngestionServiceStub(channel)
        started = time.perf_counter()
        acknowledged = 0
        async for response in stub.Ingest(iter(requests)):
            acknowledged = response.acknowledged
        assert acknowledged == len(requests)
        return time.perf_counter() - started


def rows(path: Path, requests: list[ingestion_pb2.IngestRequest]) -> float:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE readings (series INTEGER, at INTEGER, value REAL, PRIMARY KEY (series, at))")
    started = time.perf_counter()
    for request in requests:
        connection.execute("BEGIN")
        for index, series in enumerate(request.batch.series):
            pairs = zip(series.timestamps_us, series.values, strict=True)
            connection.executemany(
                "INSERT OR REPLACE INTO readings VALUES (?, ?, ?)", [(index, *pair) for pair in pairs]
            )
        connection.execute("COMMIT")
    seconds = time.perf_counter() - started
    connection.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    count, rounds = (60, 2) if quick else (300, 5)
    ours, peer = [], []
    with tempfile.TemporaryDirectory() as folder:
        platform = Platform(Path(folder))
        try:
            platform.start("ingestion")
            address = f"127.0.0.1:{platform.port('ingestion')}"
            for number in range(rounds):
                requests = batches(f"bench-{number}", count)
                readings = count * MACHINES * SENSORS * READINGS
                ours.append(readings / asyncio.run(send(address, requests)))
                part = requests[: max(10, count // 10)]
                peer.append(len(part) / count * readings / rows(Path(folder) / f"rows-{number}.db", part))
        finally:
            platform.stop()
    ratio = spread(ours)["median"] / spread(peer)["median"]
    report(
        "ingest",
        {
            "readings_per_second": Goal(spread(ours)["median"], 300_000),
            "ratio_to_sqlite_rows": Goal(ratio, 1.3),
        },
        {"readings_per_second": spread(ours), "sqlite_rows_per_second": spread(peer), "batch": 5000},
    )


if __name__ == "__main__":
    main()
