"""What predictions cost: the model alone, the service over gRPC, the platform over HTTP with 50 simulated machines.

Requests are sent when they are due whether or not earlier ones were answered, and timed from then. The peer of the
ratio is GET /livez in the same run: what an answer without any work costs here. Rows per core are those of a second of
the service's CPU time. How good the models are is what their cards say of machines that they had not seen.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

import grpc
import numpy as np
from tests.support.http import http
from tests.support.platform import Platform
from tests.support.waiting import wait_for

from aurum.commands.histories import from_plant
from aurum.prediction.model.features import features_of, steps_of
from aurum.prediction.model.model import Model, load_model
from aurum.prediction.model.model_files import read_serving
from aurum.v1 import prediction_pb2, prediction_pb2_grpc
from benchmarks.harness import Goal, report, spread

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def at_rate(
    one: Callable[[str, float], Coroutine[None, None, None]], machines: list[str], rate: float, seconds: float
) -> None:
    """Calls `one` with a machine and when it is due, so many times a second, and waits for all of them."""
    started = time.perf_counter()
    tasks = []
    for number in range(int(rate * seconds)):
        due = started + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(machines[number % len(machines)], due)))
    await asyncio.gather(*tasks)


async def load(port: int, machines: list[str], rate: float, seconds: float, idle: bool) -> tuple[list[float], int]:
    """Latencies in ms, and how many answers were no 200. idle: ask /livez instead."""
    pool: list[Connection] = []
    latencies: list[float] = []
    failures = 0

    async def one(machine: str, due: float) -> None:
        nonlocal failures
        reader, writer = pool.pop() if pool else await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps({"machine_id": machine}).encode()
        head = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
        if not idle:
            head = b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            head += b"Content-Length: %d\r\n\r\n" % len(body) + body
        writer.write(head)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(answer.split(b"content-length: ")[1].split(b"\r\n")[0]))
        latencies.append((time.perf_counter() - due) * 1000)
        failures += b" 200 " not in answer[:20]
        pool.append((reader, writer))

    await at_rate(one, machines, rate, seconds)
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


def microseconds(call: Callable[[], object], count: int) -> dict[str, float]:
    """Of one call: the median over ten rounds, with their spread."""
    rounds = []
    for _ in range(10):
        started = time.perf_counter()
        for _ in range(count):
            call()
        rounds.append((time.perf_counter() - started) / count * 1e6)
    return spread(rounds)


def model_alone(root: Path) -> tuple[Model, np.ndarray, dict[str, dict[str, float]]]:
    """A pump's model, rows of features of machines of all ages, and what its calls take."""
    serving = read_serving(root, "pump")
    assert serving is not None
    model = load_model(root / "pump" / serving.version)
    runs = from_plant(["pump"], 12, 99)["pump"]
    rows = np.vstack(
        [
            features_of(
                steps_of({name: (run.timestamps, run.columns[name]) for name in model.spec.queried}, model.spec)
            )
            for run in runs
        ]
    )
    one, many = np.ascontiguousarray(rows[200:201]), np.ascontiguousarray(rows[:1000])
    taken = {
        "one_row_us": microseconds(lambda: model.predict(one), 500),
        "row_of_1000_us": {
            key: value / 1000 if key != "runs" else value
            for key, value in microseconds(lambda: model.predict(many), 5).items()
        },
        "explain_row_us": microseconds(lambda: model.contributions(one[0]), 50),
    }
    return model, rows, taken


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def batches(port: int, pid: int, model: Model, rows: np.ndarray, seconds: float) -> dict[str, float]:
    """PredictBatch of ready features, 2,000 rows a message: rows per second of the service's CPU, and by the clock."""
    message = prediction_pb2.PredictBatchRequest(
        rows=prediction_pb2.FeatureRows(
            machine_type="pump",
            features=model.spec.names,
            values=np.resize(rows, (2000, rows.shape[1])).astype("<f8").tobytes(),
        )
    )
    done = 0
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        list(stub.PredictBatch(iter([message]), timeout=10))
        before, started = cpu_seconds(pid), time.perf_counter()
        while time.perf_counter() - started < seconds:
            for answer in stub.PredictBatch(iter([message] * 20), timeout=30):
                done += len(answer.rows.risk_score)
        elapsed, cpu = time.perf_counter() - started, cpu_seconds(pid) - before
    return {"rows": done, "rows_per_second": done / elapsed, "rows_per_core_second": done / cpu}


async def unary(port: int, machines: list[str], rate: float, seconds: float, explain: bool = False) -> list[float]:
    """Latencies in ms of Predict, or Explain, over gRPC."""
    latencies: list[float] = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)

        async def one(machine: str, due: float) -> None:
            request = prediction_pb2.PredictRequest(machine_id=machine)
            if explain:
                await stub.Explain(prediction_pb2.ExplainRequest(request=request), timeout=10)
            else:
                await stub.Predict(request, timeout=10)
            latencies.append((time.perf_counter() - due) * 1000)

        await at_rate(one, machines, rate, seconds)
    return latencies


def quality(root: Path) -> dict[str, dict[str, float | None]]:
    """What the cards of the simulated fleet's models say."""
    found = {}
    for path in sorted(root.glob("*/active.json")):
        serving = read_serving(root, path.parent.name)
        assert serving is not None
        evaluation = load_model(path.parent / serving.version).card.evaluation
        assert evaluation is not None
        found[path.parent.name] = evaluation.metrics.model_dump()
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
            port = platform.port("prediction")
            over_grpc = [asyncio.run(unary(port, machines, 200, seconds)) for _ in range(rounds)]
            explained = asyncio.run(unary(port, machines, 100, seconds, explain=True))
            for name in ("iot-sim", "edge-sim"):
                platform.processes[name].kill(signal.SIGTERM)
            quiet = [asyncio.run(unary(port, machines, 200, seconds)) for _ in range(rounds)]
            model, rows, alone = model_alone(Path(folder) / "models")
            pid = platform.processes["prediction"].popen.pid
            batched = [batches(port, pid, model, rows, seconds / 3) for _ in range(3)]
            fleet = quality(Path(folder) / "models")
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
            "one_model_call_us": Goal(alone["one_row_us"]["median"], 50, at_most=True),
            "unary_predict_p99_ms": Goal(
                statistics.median(percentiles(each)["p99_ms"] for each in over_grpc), 10, at_most=True
            ),
            "batch_rows_per_core_second": Goal(
                statistics.median(each["rows_per_core_second"] for each in batched), 50_000
            ),
            "one_explanation_ms": Goal(alone["explain_row_us"]["median"] / 1000, 5, at_most=True),
            "fleet_worst_ece": Goal(max(each["risk_ece"] or 0.0 for each in fleet.values()), 0.03, at_most=True),
        },
        {
            "model_alone": alone,
            "unary": [percentiles(each) for each in over_grpc],
            "unary_without_simulators": [percentiles(each) for each in quiet],
            "explain_over_grpc": percentiles(explained),
            "batch": batched,
            "fleet": fleet,
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
