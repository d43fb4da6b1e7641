"""The gateway's spool: batches put and drained per second, and a day's backlog that drains beside what has just come.

The peer in the same run, with the same readings: the SQLite storage of ThingsBoard's gateway, fetched from PyPI
without what it depends on, since its storage needs none of it. It takes messages of JSON, one for each machine and
time, as from its connectors.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
from tests.support.platform import Platform

from aurum.edge.spool import Spool, SpoolOptions
from aurum.readings.batch import Batch, Series, now_us
from aurum.v1 import columns_pb2, ingestion_pb2, ingestion_pb2_grpc
from benchmarks.harness import Goal, report, spread
from benchmarks.load import batches, running

THINGSBOARD = "thingsboard-gateway==3.8.5"
RATE = 900  # readings per second of the plant


async def put_and_drain(folder: Path, made: list[Batch]) -> float:
    """Readings per second, from the first put until the last is acknowledged to the spool."""
    spool = Spool(SpoolOptions(folder, live_first=False))
    await spool.start()
    started = time.perf_counter()

    async def put() -> None:
        for begin in range(0, len(made), 16):
            writing = [await spool.put(each, "", wait=True) for each in made[begin : begin + 16]]
            await asyncio.gather(*writing)

    async def drain() -> None:
        last = 0
        done = 0
        while done < len(made):
            found = await spool.live.batches_after(last, 64)
            if not found:
                await spool.live.wait_for_more(0.05)
                continue
            last = found[-1].id
            done += len(found)
            await spool.live.acknowledge([waiting.id for waiting in found])

    await asyncio.gather(put(), drain())
    seconds = time.perf_counter() - started
    await spool.close()
    return sum(each.readings for each in made) / seconds


def fetch_thingsboard(folder: Path) -> bool:
    """Puts the peer on the path; False if it cannot be had."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), THINGSBOARD]
    if subprocess.run(command, check=False, capture_output=True).returncode != 0:
        return False
    sys.path.insert(0, str(folder))
    return True


def thingsboard(folder: Path, made: list[Batch]) -> float:
    """Readings per second through its storage: put, read in packs, marked as done."""
    from thingsboard_gateway.storage.sqlite.sqlite_event_storage import SQLiteEventStorage

    logger = logging.getLogger("thingsboard")
    logger.setLevel(logging.ERROR)
    settings = {"data_file_path": str(folder / "tb.db"), "max_read_records_count": 1000, "messages_ttl_in_days": 7}
    stop = threading.Event()
    storage: Any = SQLiteEventStorage(settings, logger, stop)
    logger.trace = lambda *_: None  # type: ignore[attr-defined]  # its own loggers have it
    messages = [message for each in made for message in _messages(each)]
    started = time.perf_counter()
    taken = 0

    def take() -> None:
        nonlocal taken
        while taken < len(messages) and not stop.is_set():
            pack = storage.get_event_pack()
            if not pack:
                time.sleep(0.01)
                continue
            taken += len(pack)
            storage.event_pack_processing_done()

    taker = threading.Thread(target=take)
    taker.start()
    for message in messages:
        while not storage.put(message):
            time.sleep(0.001)
    taker.join(300)
    seconds = time.perf_counter() - started
    stop.set()
    with contextlib.suppress(Exception):
        storage.stop()
    assert taken >= len(messages)
    return sum(each.readings for each in made) / seconds


def _messages(each: Batch) -> Iterator[str]:
    """For each machine and time one message with all its sensors, as ThingsBoard's connectors make them."""
    machines: dict[str, list[Series]] = {}
    for series in each.series:
        machines.setdefault(series.machine_id, []).append(series)
    for machine_id, found in machines.items():
        for index, at in enumerate(found[0].timestamps.tolist()):
            values = {series.sensor: float(series.values[index]) for series in found}
            yield json.dumps({"deviceName": machine_id, "telemetry": [{"ts": at // 1000, "values": values}]})


def plant(sequence: int, at_us: int) -> bytes:
    """One second of the plant, as a request."""
    at = at_us + np.arange(RATE // 30) * (1_000_000 // (RATE // 30))
    rng = np.random.default_rng(sequence)
    series = [Series(f"m-{n // 3}", f"s-{n % 3}", at, rng.standard_normal(len(at))) for n in range(30)]
    return columns_pb2.BatchRequest(batch=Batch.from_series("plant", sequence, series).data).SerializeToString()


async def stream(address: str, requests: AsyncIterator[bytes]) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.stream_stream(
            "/aurum.v1.IngestionService/Ingest",
            request_serializer=None,
            response_deserializer=ingestion_pb2.IngestResponse.FromString,
        )
        async for _ in call(requests):
            pass


async def outage(platform: Platform, seconds: int) -> dict[str, Any]:
    """Fills the spool with so many seconds of the plant while ingestion is away; then it drains beside live data."""
    edge = f"127.0.0.1:{platform.port('edge')}"
    start = now_us() - seconds * 1_000_000

    async def backlog() -> AsyncIterator[bytes]:
        for second in range(seconds):
            yield plant(second + 1, start + second * 1_000_000)

    begun = time.perf_counter()
    await stream(edge, backlog())
    filled = time.perf_counter() - begun
    on_disk = sum(path.stat().st_size for path in (platform.folder / "edge-spool").glob("*.log"))

    stopping = asyncio.Event()

    async def live() -> AsyncIterator[bytes]:
        sequence = seconds
        while not stopping.is_set():
            sequence += 1
            yield plant(sequence, now_us() - 1_000_000)
            await asyncio.sleep(1.0)

    sender = asyncio.create_task(stream(edge, live()))
    await asyncio.to_thread(platform.start, "ingestion")
    begun = time.perf_counter()
    lags: list[float] = []
    peak = 0
    process = psutil.Process(platform.processes["edge"].popen.pid)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{platform.port('ingestion')}") as channel:
        stub = ingestion_pb2_grpc.IngestionServiceStub(channel)
        while True:
            await asyncio.sleep(0.2)
            peak = max(peak, process.memory_info().rss)
            metrics = (await asyncio.to_thread(platform.admin, "edge", "/metrics")).body.decode().splitlines()
            waiting = next(float(line.split()[1]) for line in metrics if line.startswith("edge_spool_batches "))
            drained = time.perf_counter() - begun
            if waiting <= 2 and drained > 5:
                break
            assert drained < 900, f"{waiting} batches still wait"
            try:
                machine = (await stub.GetMachine(ingestion_pb2.GetMachineRequest(machine_id="m-0"), timeout=5)).machine
            except grpc.aio.AioRpcError:
                continue  # nothing of it has arrived yet
            # A batch is sent when its second is over, so its first reading is a second old then
            if drained > 5:
                lags.append(max(0.0, (now_us() - machine.last_seen_us) / 1e6 - 1.0))
    stopping.set()
    sender.cancel()
    await asyncio.gather(sender, return_exceptions=True)
    return {
        "readings": seconds * RATE,
        "fill_seconds": filled,
        "drain_seconds": drained,
        "live_lag_p99_seconds": statistics.quantiles(lags, n=100)[98],
        "live_lag_p50_seconds": statistics.median(lags),
        "edge_rss_mb": peak / 1e6,
        "bytes_on_disk": on_disk,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    rounds, count, seconds = (2, 100, 3600) if quick else (5, 400, 86_400)
    ours: list[float] = []
    peer: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        there = fetch_thingsboard(folder / "peer")
        for number in range(rounds):
            made = batches(f"spool-{number}", count)
            ours.append(asyncio.run(put_and_drain(folder / f"ours-{number}", made)))
            if there:
                (folder / f"tb-{number}").mkdir()
                peer.append(thingsboard(folder / f"tb-{number}", made[: max(4, count // 50)]))
    with running("edge", AURUM_EDGE_SPOOL_MAX_BYTES="4000000000") as platform:
        away = asyncio.run(outage(platform, seconds))
    share = seconds / 86_400
    goals = {
        "put_and_drain_per_second": Goal(spread(ours)["median"], 1_000_000),
        "drain_seconds_of_a_day": Goal(away["drain_seconds"] / share, 300, at_most=True),
        "live_lag_p99_seconds": Goal(away["live_lag_p99_seconds"], 2, at_most=True),
        "edge_rss_mb": Goal(away["edge_rss_mb"], 150, at_most=True),
    }
    if peer:
        goals["ratio_to_thingsboard_sqlite"] = Goal(spread(ours)["median"] / spread(peer)["median"], 5)
    report(
        "spool",
        goals,
        {
            "put_and_drain_per_second": spread(ours),
            "thingsboard_per_second": spread(peer) if peer else "could not be fetched",
            "peer": THINGSBOARD,
            "outage": away,
        },
    )


if __name__ == "__main__":
    main()
