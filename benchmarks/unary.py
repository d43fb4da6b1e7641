"""What one prediction costs over HTTP: CPU of API, prediction and ingestion, against a bare chain of the same three.

The bare chain (benchmarks.bare_chain) has the same messages, features and model, and nothing else. The platform has
everything on: policies, admission, metrics, logs, and traces at 100 % sent by OTLP to a receiver in this process. As by
default, it takes the readings from the windows of the fleet scorer, which saves the call of ingestion. Others have the
same without metrics and traces, or query the readings for each request, as the bare chain does. All run side by side
and are asked in turns, one request at a time; what they do besides in that time counts.

CPU is that of the processes, so other programs on the machine matter little; the ratio of medians is the result. The
bare chain on uvloop is measured too: what remains of the difference if both have the faster event loop.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
from tests.support import processes
from tests.support.http import http
from tests.support.platform import Platform
from tests.support.ports import free_port
from tests.support.processes import Handle
from tests.support.waiting import wait_for

from aurum.prediction.model.features import WINDOW
from aurum.prediction.model.model import load_model
from aurum.prediction.model.model_files import read_serving
from aurum.readings.transport.query_columns import decode_columns, query_method
from aurum.v1 import ingestion_pb2
from benchmarks.harness import Goal, cpu_of, report, spread
from benchmarks.telemetry import receiving

SERVICES = ("ingestion", "prediction", "api")
LAST = 256  # readings of each sensor that the platform asks for until it knows how many suffice
# The platforms: whether they have metrics and traces, and by how many seconds windows may lag (0: they query)
PLATFORMS = {
    "everything on": (True, 1.0),
    "no telemetry": (False, 1.0),
    "everything on, by query": (True, 0.0),
    "no telemetry, by query": (False, 0.0),
}
BARE = {"bare": "asyncio", "bare on uvloop": "uvloop"}  # the bare chains and their event loops
POLICIES = Path(__file__).parent.parent / "policies.yaml"


@dataclass
class Chain:
    """Three processes and the port that answers predictions."""

    port: int
    handles: Sequence[Handle]

    def cpu_seconds(self) -> list[float]:
        """CPU of each of SERVICES so far."""
        return [cpu_of(handle.pid) for handle in self.handles]


def start_platform(folder: Path, models: Path, receiver: str | None, lag: float) -> Platform:
    """A platform; without a receiver it has neither metrics nor traces. lag: See PLATFORMS."""
    platform = Platform(folder)
    platform.extra = {
        "AURUM_MODEL_DIR": str(models),
        "AURUM_API_REFRESH_INTERVAL": "60",
        "AURUM_POLICY_FILE": str(POLICIES),
        "AURUM_PREDICTION_WINDOW_LAG": str(lag),
    }
    if receiver:
        platform.extra |= {"AURUM_TRACING_SAMPLE_RATIO": "1.0", "AURUM_TRACING_OTLP_ENDPOINT": receiver}
    for service in SERVICES:
        platform.start(service, module="aurum.cli" if receiver else "benchmarks.without_telemetry")
    platform.start("iot-sim", "--machines", "10", "--to", "ingestion", ready=False)

    def predicted() -> bool:
        return http("POST", f"{platform.api}/api/predict", {"machine_id": "pump-001"}).status == 200

    wait_for(predicted, 60, "the first prediction")
    return platform


def chain_of(platform: Platform) -> Chain:
    return Chain(platform.port("api"), [platform.processes[service].popen for service in SERVICES])


def start_bare(folder: Path, last: int, loop: str) -> Chain:
    ports = {service: free_port() for service in SERVICES}
    environment = dict(os.environ)
    environment |= {f"BARE_{service.upper()}": str(port) for service, port in ports.items()}
    environment["BARE_LAST"] = str(last)
    handles = [
        processes.start(
            [service, str(folder), loop], environment, folder / f"{service}.log", module="benchmarks.bare_chain"
        )
        for service in SERVICES
    ]

    def predicted() -> bool:
        try:
            body = {"machine_id": "pump-001"}
            return http("POST", f"http://127.0.0.1:{ports['api']}/api/predict", body).status == 200
        except OSError:
            return False

    wait_for(predicted, 60, f"the bare chain predicts, see {folder}")
    return Chain(ports["api"], handles)


def answers_from_window(platform: Platform) -> bool:
    """Makes a prediction, and returns whether its readings were taken from a window."""
    before = platform.metric("prediction", 'prediction_requests_total{source="window"}')
    http("POST", f"{platform.api}/api/predict", {"machine_id": "pump-001"})
    return platform.metric("prediction", 'prediction_requests_total{source="window"}') > before


class DegradedError(Exception):
    """Not all services have taken part in an answer, since the machine was too busy."""


async def ask(port: int, machines: Sequence[str], rate: float, seconds: float) -> list[float]:
    """Latencies in ms of predictions, one at a time, when they are due or the one before is answered.

    Raises DegradedError.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    latencies = []
    started = time.perf_counter()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
        body = json.dumps({"machine_id": machines[number % len(machines)]}).encode()
        head = b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        asked = time.perf_counter()
        writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        content = await reader.readexactly(int(answer.split(b"content-length: ")[1].split(b"\r\n")[0]))
        latencies.append((time.perf_counter() - asked) * 1000)
        assert b" 200 " in answer[:20], answer
        if json.loads(content)["degraded"]:
            writer.close()
            raise DegradedError(content.decode())
    writer.close()
    return latencies


async def copy_readings(target: str, machines: Sequence[str], folder: Path) -> int:
    """Copies the latest readings to a file. Returns how many of each sensor the platform asks for."""
    serving = read_serving(folder / "models", "pump")
    assert serving is not None
    spec = load_model(folder / "models" / "pump" / serving.version).spec
    columns: dict[str, np.ndarray] = {}
    needed = 0
    async with grpc.aio.insecure_channel(target) as channel:
        for machine_id in machines:
            request = ingestion_pb2.QueryRequest(machine_ids=[machine_id], sensors=spec.queried, last=LAST)
            answers = [answer async for answer in query_method(channel)(request, timeout=10)]
            for series, times, values in decode_columns(each for answer in answers for each in answer.series):
                columns[f"{machine_id}|{series.sensor}"] = np.stack([times, values])
            life = columns[f"{machine_id}|{spec.axis}"][1]
            within = int((life > life[-1] - spec.step * (WINDOW + 1)).sum())
            needed = max(needed, min(LAST, int(within * 1.1) + 8))
    np.savez(folder / "readings.npz", **columns)  # type: ignore[arg-type]
    return needed


@contextlib.contextmanager
def running(folder: Path, receiver: str) -> Iterator[tuple[dict[str, Chain], list[str], int]]:
    """The chains by name, the machines, and how many readings of each sensor are asked for."""
    chains: dict[str, Chain] = {}
    platforms: list[Platform] = []
    try:
        for number, (mode, (telemetry, lag)) in enumerate(PLATFORMS.items()):
            address = receiver if telemetry else None
            platforms.append(start_platform(folder / f"platform-{number}", folder / "models", address, lag))
            chains[mode] = chain_of(platforms[-1])
        items = http("GET", f"{platforms[0].api}/api/machines?limit=100").json["items"]
        machines = [item["machine_id"] for item in items if item["machine_type"] == "pump"]
        for platform in platforms:  # what they send would be counted too
            platform.processes["iot-sim"].kill(15)
        for platform, (telemetry, lag) in zip(platforms, PLATFORMS.values(), strict=True):
            if telemetry:
                wait_for(lambda platform=platform, lag=lag: answers_from_window(platform) == (lag > 0), 60, "windows")
        last = asyncio.run(copy_readings(f"127.0.0.1:{platforms[0].port('ingestion')}", machines, folder))
        for mode, loop in BARE.items():
            chains[mode] = start_bare(folder, last, loop)
        yield chains, machines, last
    finally:
        for platform in platforms:
            platform.stop()
        for mode in BARE.keys() & chains.keys():
            for handle in chains[mode].handles:
                handle.kill()


def measure(
    chains: dict[str, Chain], machines: Sequence[str], rounds: int, rate: float, seconds: float
) -> tuple[dict[str, list[list[float]]], dict[str, list[float]]]:
    """CPU in µs a request of each of SERVICES, and median latencies in ms, of each chain and round.

    Rounds with degraded answers are left out.
    """
    cost: dict[str, list[list[float]]] = {mode: [] for mode in chains}
    p50: dict[str, list[float]] = {mode: [] for mode in chains}
    modes = list(chains)
    for turn in range(rounds + 1):
        found: dict[str, tuple[list[float], float]] = {}
        try:
            for mode in modes[turn % len(modes) :] + modes[: turn % len(modes)]:
                before = chains[mode].cpu_seconds()
                latencies = asyncio.run(ask(chains[mode].port, machines, rate, seconds))
                spent = zip(chains[mode].cpu_seconds(), before, strict=True)
                spent_us = [(now - then) / len(latencies) * 1e6 for now, then in spent]
                found[mode] = spent_us, statistics.median(latencies)
        except DegradedError as error:
            print(f"unary: round {turn} is left out: {error}")
            continue
        for mode, (spent_us, median) in found.items() if turn else ():  # the first one warms up
            cost[mode].append(spent_us)
            p50[mode].append(median)
    return cost, p50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rate", type=float, default=60.0, help="requests per second")
    parser.add_argument("--models", type=Path, help="folder of trained models; trained for the run by default")
    arguments = parser.parse_args()
    rounds, seconds = (4, 3.0) if arguments.quick else (12, 6.0)
    with tempfile.TemporaryDirectory() as name, receiving() as receiver:
        folder = Path(name)
        if arguments.models:
            shutil.copytree(arguments.models, folder / "models")
        else:
            train = ["-m", "aurum.cli", "train", "--machine-type", "pump", "--out", str(folder / "models")]
            subprocess.run([sys.executable, *train], check=True)
        with running(folder, receiver) as (chains, machines, last):
            cost, p50 = measure(chains, machines, rounds, arguments.rate, seconds)
    totals = {mode: [sum(each) for each in values] for mode, values in cost.items()}

    def ratio(mode: str, peer: str) -> float:
        return statistics.median(one / other for one, other in zip(totals[mode], totals[peer], strict=True))

    def more(mode: str, peer: str) -> float:
        return statistics.median(one - other for one, other in zip(totals[mode], totals[peer], strict=True))

    report(
        "unary",
        {
            "cpu_over_bare_chain": Goal(ratio("everything on", "bare"), 1.2, at_most=True),
            "telemetry_us_a_request": Goal(more("everything on", "no telemetry"), 300, at_most=True),
        },
        {
            "rate": arguments.rate,
            "machines": len(machines),
            "readings_of_a_sensor": last,
            "telemetry_us_a_request_by_query": more("everything on, by query", "no telemetry, by query"),
            "cpu_over": {mode: {peer: ratio(mode, peer) for peer in BARE} for mode in totals},
            "cpu_us_a_request": {mode: spread(values) for mode, values in totals.items()},
            "by_service_us": {
                mode: {
                    service: statistics.median(each[index] for each in values) for index, service in enumerate(SERVICES)
                }
                for mode, values in cost.items()
            },
            "p50_ms": {mode: spread(values) for mode, values in p50.items()},
        },
    )


if __name__ == "__main__":
    main()
