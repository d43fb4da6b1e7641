"""Latency of POST /api/predict at a fixed rate, and time to the first prediction, with 50 simulated machines.

Requests are sent when they are due whether or not earlier ones were answered, and timed from then. The peer of the
ratio is GET /livez in the same run: what an answer without any work costs here.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from tests.conftest import Platform, http, wait_for

from benchmarks.harness import Goal, report

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def load(port: int, machines: list[str], rate: float, seconds: float, idle: bool) -> tuple[list[float], int]:
    """Latencies in ms, and how many answers were no 200. idle: ask /livez instead."""
    pool: list[Connection] = []
    latencies: list[float] = []
    failures = 0

    async def one(machine: str, due: float) -> None:
        nonlocal failures
        reader, writer = pool.pop() if pool else await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps({"machine_id": machine}).encode()
        head = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
        if not idle:
            head = b"POST /api/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            head += b"Content-Length: %d\r\n\r\n" % len(body) + body
        writer.write(head)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(answer.split(b"content-length: ")[1].split(b"\r\n")[0]))
        latencies.append((time.perf_counter() - due) * 1000)
        failures += b" 200 " not in answer[:20]
        pool.append((reader, writer))

    started = time.perf_counter()
    tasks = []
    for number in range(int(rate * seconds)):
        due = started + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(machines[number % len(machines)], due)))
    await asyncio.gather(*tasks)
    for _, writer in pool:
        writer.close()
    return latencies, failures


def percentiles(latencies: list[float]) -> dict[str, float]:
    p50, p95, p99 = np.percentile(latencies, [50, 95, 99]).round(2).tolist()
    return {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "requests": len(latencies)}


def resident_megabytes(platform: Platform) -> dict[str, float]:
    found = {}
    for name, process in platform.processes.items():
        status = Path(f"/proc/{process.popen.pid}/status")
        if status.exists():
            line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
            found[name] = round(int(line.split()[1]) / 1024, 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rate", type=float, default=100.0, help="requests per second")
    arguments = parser.parse_args()
    seconds, rounds = (5.0, 1) if arguments.quick else (15.0, 3)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "aurum.cli", "train", "--out", f"{folder}/models"], check=True)
        training = time.perf_counter() - started
        platform = Platform(Path(folder))
        try:
            started = time.perf_counter()
            for service in ("ingestion", "prediction", "api", "edge"):
                platform.start(service, ready=False)
            platform.start("iot-sim", "--machines", "40", ready=False)
            platform.start("edge-sim", "--machines", "10", ready=False)

            def predicted() -> bool:
                try:
                    return http("POST", f"{platform.api}/api/predict", {"machine_id": "pump-001"}).status == 200
                except OSError:
                    return False

            wait_for(predicted, 120, "the first prediction")
            first = time.perf_counter() - started
            time.sleep(10)  # the backfill is taken in
            machines = [
                item["machine_id"] for item in http("GET", f"{platform.api}/api/machines?limit=1000").json["items"]
            ]
            latencies: list[float] = []
            idle: list[float] = []
            failures = 0
            for _ in range(rounds):
                found, failed = asyncio.run(load(platform.port("api"), machines, arguments.rate, seconds, False))
                latencies += found
                failures += failed
                idle += asyncio.run(load(platform.port("api"), machines, arguments.rate, seconds / 3, True))[0]
            memory = resident_megabytes(platform)
        finally:
            platform.stop()
    loaded, unloaded = percentiles(latencies), percentiles(idle)
    report(
        "prediction",
        {
            "predict_p99_ms": Goal(loaded["p99_ms"], 25, at_most=True),
            "first_prediction_seconds": Goal(first, 20, at_most=True),
            "training_seconds": Goal(training, 60, at_most=True),
            "platform_rss_mb": Goal(sum(memory.values()), 900, at_most=True),
            "failed_requests": Goal(failures, 0, at_most=True),
        },
        {
            "rate": arguments.rate,
            "predict": loaded,
            "livez": unloaded,
            "ratio_p50_to_livez": round(loaded["p50_ms"] / unloaded["p50_ms"], 2),
            "rss_mb": memory,
            "machines": len(machines),
        },
    )


if __name__ == "__main__":
    main()
