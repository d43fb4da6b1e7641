"""How long a chart of a day takes, of one machine with five sensors reduced to 1,000 points, while readings come in at
half of what the service can take. The peer in the same run: the same day as rows in SQLite, reduced by SQL.
"""

import argparse
import asyncio
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path

import grpc
import numpy as np

from aurum.readings.batch import Batch, Series, now_us
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc
from benchmarks.harness import Goal, report, spread
from benchmarks.load import batches, running, send

SECONDS, SENSORS, POINTS = 86_400, 5, 1000
_CHUNK = 600  # seconds of readings in a batch of the day


def day() -> tuple[int, list[Batch]]:
    start = now_us() - SECONDS * 1_000_000
    rng = np.random.default_rng(1)
    walks = [np.cumsum(rng.standard_normal(SECONDS)) for _ in range(SENSORS)]
    made = []
    for sequence, begin in enumerate(range(0, SECONDS, _CHUNK), start=1):
        at = start + (begin + np.arange(_CHUNK)) * 1_000_000
        series = [Series("day", f"s-{n}", at, walk[begin : begin + _CHUNK]) for n, walk in enumerate(walks)]
        made.append(Batch.from_series("day", sequence, series))
    return start, made


def rows(path: Path, made: list[Batch]) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(
        "CREATE TABLE readings (series TEXT, at INTEGER, value REAL, PRIMARY KEY (series, at)) WITHOUT ROWID"
    )
    connection.execute("BEGIN")
    for each in made:
        for series in each.series:
            pairs = zip(series.timestamps.tolist(), series.values.tolist(), strict=True)
            connection.executemany("INSERT INTO readings VALUES (?, ?, ?)", [(series.sensor, *pair) for pair in pairs])
    connection.execute("COMMIT")
    return connection


def ask_rows(connection: sqlite3.Connection, start: int) -> float:
    width = SECONDS * 1_000_000 // POINTS
    started = time.perf_counter()
    for sensor in range(SENSORS):
        found = connection.execute(
            "SELECT (at - ?1) / ?2 AS slot, avg(value), min(value), max(value), count(*) FROM readings "
            "WHERE series = ?3 AND at >= ?1 AND at < ?1 + ?2 * ?4 GROUP BY slot",
            (start, width, f"s-{sensor}", POINTS),
        ).fetchall()
        assert len(found) == POINTS
    return (time.perf_counter() - started) * 1e3


async def measure(address: str, start: int, load: list[Batch], pause: float, questions: int) -> list[float]:
    """Milliseconds of each question, asked while the load is sent."""
    sending = asyncio.create_task(send(address, load, pause=pause))
    request = ingestion_pb2.QueryRequest(
        machine_ids=["day"], start_us=start, end_us=start + SECONDS * 1_000_000, points=POINTS
    )
    found: list[float] = []
    async with grpc.aio.insecure_channel(address) as channel:
        stub = ingestion_pb2_grpc.IngestionServiceStub(channel)
        await asyncio.sleep(0.5)
        while len(found) < questions and not sending.done():
            started = time.perf_counter()
            points = 0
            async for response in stub.Query(request):
                points += sum(len(series.values) for series in response.series)
            found.append((time.perf_counter() - started) * 1e3)
            assert points == SENSORS * POINTS
            await asyncio.sleep(0.05)
    await sending
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    rounds, count = (2, 200) if quick else (5, 600)
    p50: list[float] = []
    p95: list[float] = []
    idle: list[float] = []
    peer: list[float] = []
    with tempfile.TemporaryDirectory() as folder, running("ingestion") as platform:
        address = f"127.0.0.1:{platform.port('ingestion')}"
        start, made = day()
        asyncio.run(send(address, made))
        connection = rows(Path(folder) / "rows.db", made)
        full = spread([asyncio.run(send(address, batches(f"full-{n}", 200))).per_second for n in range(3)])["median"]
        pause = 5000 / (full / 2)
        for number in range(rounds):
            load = batches(f"load-{number}", count)
            found = asyncio.run(measure(address, start, load, pause, 1000))
            p50.append(statistics.median(found))
            p95.append(statistics.quantiles(found, n=20)[18])
            quiet = batches(f"quiet-{number}", 30, readings=1)
            idle.append(statistics.median(asyncio.run(measure(address, start, quiet, 0.1, 20))))
            peer += [ask_rows(connection, start) for _ in range(3)]
        connection.close()
    report(
        "query",
        {
            "p95_ms_of_a_day_while_ingesting": Goal(spread(p95)["median"], 50, at_most=True),
            "ratio_to_sqlite_rows": Goal(spread(peer)["median"] / spread(idle)["median"], 1.3),
        },
        {
            "p50_ms": spread(p50),
            "p95_ms": spread(p95),
            "p50_ms_without_load": spread(idle),
            "sqlite_rows_ms_without_load": spread(peer),
            "ingested_per_second": full / 2,
        },
    )


if __name__ == "__main__":
    main()
