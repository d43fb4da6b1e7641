"""How long the energy of a day of 10,000 machines takes, by site and by machine, and the totals of today with those of
the seven days before. Each machine has a reading every ten minutes. The peer in the same run: the same day as rows in
SQLite, integrated by SQL.
"""

import argparse
import asyncio
import json
import math
import sqlite3
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from aurum.readings.batch import Batch, Series, now_us
from benchmarks.harness import Goal, report, spread
from benchmarks.load import running, send

DAY_US, STEP_US = 86_400_000_000, 600_000_000
_PER_BATCH = 40  # machines
_INTEGRAL = """
SELECT sum((value + next_value) / 2 * (next_at - at)) / 3.6e9 FROM (
    SELECT at, value, lead(at) OVER each AS next_at, lead(value) OVER each AS next_value
    FROM readings WINDOW each AS (PARTITION BY machine ORDER BY at)
) WHERE next_at - at <= 1200000000 GROUP BY at / 3600000000
"""


def plant(machines: int, days: int, end: int) -> list[Batch]:
    """Returns the readings of machines up to a time."""
    at = np.arange(end - days * DAY_US, end, STEP_US, dtype=np.int64)
    rng = np.random.default_rng(1)
    made = []
    for sequence, first in enumerate(range(0, machines, _PER_BATCH), start=1):
        some = range(first, min(machines, first + _PER_BATCH))
        series = [Series(f"m-{number:05}", "power_kw", at + number, 10 + rng.random(len(at))) for number in some]
        made.append(Batch.from_series("energy", sequence, series))
    return made


def rows(path: Path, made: list[Batch], since: int) -> sqlite3.Connection:
    """Returns a database with the readings since a time as rows."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(
        "CREATE TABLE readings (machine TEXT, at INTEGER, value REAL, PRIMARY KEY (machine, at)) WITHOUT ROWID"
    )
    connection.execute("BEGIN")
    for each in made:
        for series in each.series:
            recent = series.timestamps >= since
            pairs = zip(series.timestamps[recent].tolist(), series.values[recent].tolist(), strict=True)
            connection.executemany(
                "INSERT INTO readings VALUES (?, ?, ?)", [(series.machine_id, *pair) for pair in pairs]
            )
    connection.execute("COMMIT")
    return connection


def ask(url: str) -> tuple[float, Any]:
    """Returns the seconds and the answer of a request."""
    started = time.perf_counter()
    with urllib.request.urlopen(url, timeout=600) as answer:  # noqa: S310 - of our own service
        found = json.load(answer)
    return time.perf_counter() - started, found


def ask_today(url: str) -> float:
    """Returns the seconds until the totals of today are there; they are computed in the background."""
    started = time.perf_counter()
    while not ask(url)[1]["energy_kwh"]:
        time.sleep(0.1)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    machines, rounds = (1000, 2) if quick else (10_000, 5)
    end = now_us() // STEP_US * STEP_US
    made = plant(machines, 8, end)
    by_site: list[float] = []
    by_machine: list[float] = []
    peer: list[float] = []
    with tempfile.TemporaryDirectory() as folder, running("ingestion", "api") as platform:
        asyncio.run(send(f"127.0.0.1:{platform.port('ingestion')}", made))
        connection = rows(Path(folder) / "rows.db", made, end - DAY_US)
        day = f"{platform.api}/api/energy?start={(end - DAY_US) // 1_000_000}&end={end // 1_000_000 + 60}"
        for _ in range(rounds):
            seconds, found = ask(f"{day}&group_by=site")
            by_site.append(seconds)
            seconds, each = ask(day)
            by_machine.append(seconds)
            total = math.fsum(group["energy_kwh"] for group in each["groups"])
            assert math.isclose(total, found["total"]["energy_kwh"], rel_tol=1e-9)
            started = time.perf_counter()
            hours = connection.execute(_INTEGRAL).fetchall()
            peer.append(time.perf_counter() - started)
            # The peer misses the steps that begin before the day
            assert math.isclose(math.fsum(row[0] for row in hours), total, rel_tol=0.01)
        connection.close()
        midnight = time.strftime("%Y-%m-%dT00:00:00Z", time.gmtime())
        today = ask_today(f"{platform.api}/api/today?midnight={midnight}")
        memory = {
            service: psutil.Process(platform.processes[service].popen.pid).memory_info().rss / 1e6
            for service in ("ingestion", "api")
        }
    report(
        "energy",
        {
            "seconds_of_a_day_by_site": Goal(spread(by_site)["median"], 5, at_most=True),
            "seconds_of_today": Goal(today, 30, at_most=True),
            "ratio_to_sqlite_rows": Goal(spread(peer)["median"] / spread(by_site)["median"], 1.0),
            "api_mb": Goal(memory["api"], 300, at_most=True),
        },
        {
            "machines": machines,
            "seconds_by_site": spread(by_site),
            "seconds_by_machine": spread(by_machine),
            "sqlite_rows_seconds": spread(peer),
            "memory_mb": memory,
        },
    )


if __name__ == "__main__":
    main()
