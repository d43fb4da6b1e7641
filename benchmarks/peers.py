"""Peers of the benchmarks of ingestion: the same readings as rows in SQLite and PostgreSQL, and in VictoriaMetrics.

SQLite and PostgreSQL get one synced transaction a batch (synchronous = FULL, and PostgreSQL's defaults).
VictoriaMetrics, which is measured if its binary is on the PATH, does not sync.
"""

import shutil
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import psycopg
from tests.support.ports import free_port
from tests.support.waiting import wait_for

from aurum.readings.batch import Batch, Numbers


@dataclass(frozen=True, slots=True)
class PeerBatch:
    """A batch, and the number of the series of each of its readings."""

    batch: Batch
    numbers: Numbers


def readings_of(made: Sequence[PeerBatch]) -> int:
    """The readings of all batches."""
    return sum(each.batch.readings for each in made)


def sqlite_rows(path: Path, made: Sequence[PeerBatch]) -> tuple[float, float]:
    """Readings per second as rows in SQLite, and µs of CPU a reading."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE readings (series INTEGER, at INTEGER, value REAL, PRIMARY KEY (series, at))")
    started, cpu = time.perf_counter(), time.process_time()
    for each in made:
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT OR REPLACE INTO readings VALUES (?, ?, ?)",
            zip(each.numbers.tolist(), each.batch.timestamps.tolist(), each.batch.values.tolist(), strict=True),
        )
        connection.execute("COMMIT")
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    connection.close()
    return readings_of(made) / seconds, cpu / readings_of(made) * 1e6


def postgres_rows(connection: psycopg.Connection[Any], made: Sequence[PeerBatch]) -> float:
    """Readings per second as rows in PostgreSQL, by COPY in its binary format, which is its fastest way in."""
    kind = np.dtype(
        [("n", ">i2"), ("l1", ">i4"), ("s", ">i4"), ("l2", ">i4"), ("t", ">i8"), ("l3", ">i4"), ("v", ">f8")]
    )
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS readings")
        cursor.execute(
            "CREATE TABLE readings (series int, at bigint, value double precision, PRIMARY KEY (series, at))"
        )
        cursor.execute("CREATE TEMPORARY TABLE IF NOT EXISTS incoming (series int, at bigint, value double precision)")
        connection.commit()
        started = time.perf_counter()
        for each in made:
            table = np.empty(each.batch.readings, kind)
            table["n"], table["l1"], table["l2"], table["l3"] = 3, 4, 8, 8
            table["s"], table["t"], table["v"] = each.numbers, each.batch.timestamps, each.batch.values
            with cursor.copy("COPY incoming FROM STDIN (FORMAT BINARY)") as copy:
                copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8) + table.tobytes() + b"\xff\xff")
            cursor.execute("INSERT INTO readings SELECT * FROM incoming ON CONFLICT DO NOTHING")
            cursor.execute("TRUNCATE incoming")
            connection.commit()
        seconds = time.perf_counter() - started
    return readings_of(made) / seconds


class Victoria:
    """A VictoriaMetrics, if its binary is on the PATH (`go install` of its app/victoria-metrics)."""

    def __init__(self, folder: Path) -> None:
        binary = shutil.which("victoria-metrics") or shutil.which("victoria-metrics-prod")
        self.process: subprocess.Popen[bytes] | None = None
        self._url = f"http://127.0.0.1:{free_port()}"
        if binary is not None:
            address = self._url.removeprefix("http://")
            command = [binary, f"-httpListenAddr={address}", f"-storageDataPath={folder}"]
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wait_for(lambda: answers(f"{self._url}/health"), 20, "VictoriaMetrics answers")

    def import_wide(self, made: Sequence[PeerBatch]) -> tuple[float, float] | None:
        """Samples per second by its import of Prometheus' text format, a line a sample, and µs of CPU a sample."""
        bodies = []
        for each in made:
            rows = zip(each.batch.keys.keys, each.batch.timestamps.tolist(), each.batch.values.tolist(), strict=True)
            lines = [
                f'{sensor.replace("-", "_")}{{machine="{machine}"}} {value!r} {us // 1000}'
                for (machine, sensor), us, value in rows
            ]
            bodies.append("\n".join(lines).encode())
        return self._import("/api/v1/import/prometheus", bodies, readings_of(made))

    def import_long(self, made: Sequence[PeerBatch]) -> tuple[float, float] | None:
        """Samples per second by its native import, a line a series, and µs of CPU a sample."""
        bodies = []
        for each in made:
            lines = []
            for series in each.batch.series:
                at = ",".join(str(us // 1000) for us in series.timestamps.tolist())
                values = ",".join(repr(value) for value in series.values.tolist())
                name = f'{{"__name__":"{series.sensor}","machine":"{series.machine_id}"}}'
                lines.append(f'{{"metric":{name},"values":[{values}],"timestamps":[{at}]}}')
            bodies.append("\n".join(lines).encode())
        return self._import("/api/v1/import", bodies, readings_of(made))

    def _import(self, path: str, bodies: Sequence[bytes], readings: int) -> tuple[float, float] | None:
        if self.process is None:
            return None
        process = psutil.Process(self.process.pid)
        started, cpu = time.perf_counter(), cpu_seconds(process)
        for body in bodies:
            urllib.request.urlopen(f"{self._url}{path}", data=body, timeout=30).read()  # noqa: S310
        seconds = time.perf_counter() - started
        return readings / seconds, (cpu_seconds(process) - cpu) / readings * 1e6

    def stop(self) -> None:
        """Ends the process."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)


def cpu_seconds(process: psutil.Process) -> float:
    """The CPU time of a process so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def answers(url: str) -> bool:
    """Whether a URL answers with 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310
            return bool(response.status == 200)
    except OSError:
        return False
