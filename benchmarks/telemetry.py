"""What metrics and traces cost a prediction, over all three services: latency, and CPU time per request.

Four platforms run side by side, asked in turns: without metrics and traces (the baseline), with metrics alone, and with
traces at 10 % and 100 % as well, sent by OTLP to a receiver in this process that takes them and does nothing.
"""

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from tests.support.http import http
from tests.support.platform import Platform
from tests.support.waiting import wait_for

from benchmarks.harness import Goal, cpu_of, report, spread
from benchmarks.prediction import load

SERVICES = ("ingestion", "prediction", "api")
MODES: dict[str, dict[str, str]] = {
    "none": {},
    "metrics": {"AURUM_TRACING_ENABLED": "false"},
    "traces at 10 %": {"AURUM_TRACING_SAMPLE_RATIO": "0.1"},
    "traces at 100 %": {"AURUM_TRACING_SAMPLE_RATIO": "1.0"},
}


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(self, request: object, context: object) -> object:  # noqa: N802
        return trace_service_pb2.ExportTraceServiceResponse()


@contextlib.contextmanager
def receiving() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Receiver(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop(0)


def cpu_seconds(platform: Platform) -> float:
    return sum(cpu_of(platform.processes[service].popen.pid) for service in SERVICES)


def start(folder: Path, models: Path, mode: str, receiver: str) -> tuple[Platform, list[str]]:
    """A platform with a few machines that have readings."""
    platform = Platform(folder)
    platform.extra = {"AURUM_MODEL_DIR": str(models), "AURUM_PREDICTION_SCORE_INTERVAL": "60", **MODES[mode]}
    if "traces" in mode:
        platform.extra["AURUM_TRACING_OTLP_ENDPOINT"] = receiver
    module = "benchmarks.without_telemetry" if mode == "none" else "aurum.cli"
    for service in SERVICES:
        platform.start(service, module=module)
    platform.start("iot-sim", "--machines", "10", "--to", "ingestion", ready=False)

    def predicted() -> bool:
        return http("POST", f"{platform.api}/api/predict", {"machine_id": "pump-001"}).status == 200

    wait_for(predicted, 60, "the first prediction")
    machines = [item["machine_id"] for item in http("GET", f"{platform.api}/api/machines?limit=100").json["items"]]
    platform.processes["iot-sim"].kill(15)  # what it sends would be counted too
    return platform, machines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rate", type=float, default=30.0, help="requests per second")
    arguments = parser.parse_args()
    rounds, seconds = (2, 4.0) if arguments.quick else (12, 8.0)
    p95: dict[str, list[float]] = {mode: [] for mode in MODES}
    p50: dict[str, list[float]] = {mode: [] for mode in MODES}
    cost: dict[str, list[float]] = {mode: [] for mode in MODES}
    platforms: dict[str, tuple[Platform, list[str]]] = {}
    with tempfile.TemporaryDirectory() as name, receiving() as receiver:
        folder = Path(name)
        command = [
            sys.executable,
            "-m",
            "aurum.cli",
            "train",
            "--machine-type",
            "pump",
            "--out",
            str(folder / "models"),
        ]
        subprocess.run(command, check=True)
        try:
            for number, mode in enumerate(MODES):
                platforms[mode] = start(folder / str(number), folder / "models", mode, receiver)
            for turn in range(rounds + 1):
                modes = list(MODES)
                for mode in modes[turn % len(modes) :] + modes[: turn % len(modes)]:
                    platform, machines = platforms[mode]
                    before = cpu_seconds(platform)
                    latencies, failed = asyncio.run(
                        load(platform.port("api"), machines, arguments.rate, seconds, False)
                    )
                    assert not failed
                    if turn:  # the first one warms up
                        cost[mode].append((cpu_seconds(platform) - before) / len(latencies) * 1e6)
                        p50[mode].append(float(np.percentile(latencies, 50)))
                        p95[mode].append(float(np.percentile(latencies, 95)))
        finally:
            for platform, _ in platforms.values():
                platform.stop()

    def extra(mode: str, base: str) -> float:
        return statistics.median(each - none for each, none in zip(cost[mode], cost[base], strict=True))

    slower = [full / none - 1 for full, none in zip(p95["traces at 100 %"], p95["none"], strict=True)]
    report(
        "telemetry",
        {
            "p95_more_at_100_percent": Goal(statistics.median(slower), 0.10, at_most=True),
            "cpu_us_a_request_at_100_percent": Goal(extra("traces at 100 %", "none"), 200, at_most=True),
            "cpu_us_a_request_at_10_percent": Goal(extra("traces at 10 %", "none"), 120, at_most=True),
        },
        {
            "rate": arguments.rate,
            "cpu_us_a_request": {mode: spread(values) for mode, values in cost.items()},
            "cpu_us_more_than_none": {mode: extra(mode, "none") for mode in MODES},
            "p50_ms": {mode: spread(values) for mode, values in p50.items()},
            "p95_ms": {mode: spread(values) for mode, values in p95.items()},
        },
    )


if __name__ == "__main__":
    main()
