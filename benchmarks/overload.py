"""Five times more predictions than the service can make: what gets through, and whether alarms do.

The prediction and ingestion services run as processes, with a trained model and stored readings. First its peak is
found: as many callers at once as give the most answers a second. Then requests of all classes arrive at five times that
rate, whether or not earlier ones were answered, in the classes alarm 2 %, telemetry 8 %, query 60 %, batch 30 %; an
answer counts if it comes in time. Callers go through the platform's own client under policies.yaml, as the API does.
The peer is the same load from callers without any policy and with a timeout of a second, against which only the
server's admission stands. Peak and overloads are interleaved.
"""

import argparse
import asyncio
import contextlib
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
from tests.support.http import http
from tests.support.platform import Platform
from tests.support.waiting import wait_for

from aurum.resilience import Criticality, criticality_scope
from aurum.runtime.errors import AurumError
from aurum.runtime.grpc.client import CRITICALITY_KEY, Dependency
from aurum.runtime.policy.policies import Policies
from aurum.runtime.settings import Settings, load_settings
from aurum.v1 import prediction_pb2, prediction_pb2_grpc
from benchmarks.harness import Goal, report, spread

_POLICIES = Path(__file__).parent.parent / "policies.yaml"
_CLASSES = {Criticality.ALARM: 0.02, Criticality.TELEMETRY: 0.08, Criticality.QUERY: 0.6, Criticality.BATCH: 0.3}
_CALLERS = 16  # at once, at the peak
_FACTOR = 5.0
_MACHINES = 20


class Caller:
    """Asks for predictions, through the platform's client or, as its peer, straight through the stub."""

    def __init__(self, dependency: Dependency, governed: bool) -> None:
        self._dependency = dependency
        self._governed = governed
        self._stub = prediction_pb2_grpc.PredictionServiceStub(dependency.channel)

    async def ask(self, number: int, criticality: Criticality) -> str:
        """One call: the status code of its end."""
        request = prediction_pb2.PredictRequest(machine_id=f"pump-{1 + number % _MACHINES:03d}")
        try:
            if self._governed:
                with criticality_scope(criticality):
                    await self._dependency.unary(self._stub.Predict, request)
            else:
                metadata = ((CRITICALITY_KEY, criticality.name.lower()),)
                await self._stub.Predict(request, timeout=1.0, metadata=metadata)
        except AurumError as error:
            return error.code.name
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"


async def peak(caller: Caller, seconds: float) -> float:
    """Answers a second with so many callers at once."""
    answered = 0
    until = time.perf_counter() + seconds

    async def one(first: int) -> None:
        nonlocal answered
        number = first
        while time.perf_counter() < until:
            end = await caller.ask(number, Criticality.QUERY)
            answered += end == "OK"
            number += _CALLERS

    await asyncio.gather(*(one(number) for number in range(_CALLERS)))
    return answered / seconds


async def overload(caller: Caller, rate: float, seconds: float) -> dict[str, Any]:
    """Goodput, and how each class fared, at that rate."""
    chance = random.Random(7)
    classes, weights = list(_CLASSES), list(_CLASSES.values())
    ends: Counter[tuple[Criticality, str]] = Counter()
    tasks: set[asyncio.Task[None]] = set()

    async def one(number: int, criticality: Criticality) -> None:
        end = await caller.ask(number, criticality)
        ends[criticality, end] += 1

    started = time.perf_counter()
    count = int(rate * seconds)
    for number in range(count):
        behind = started + number / rate - time.perf_counter()
        if behind > 0 or number % 50 == 0:
            await asyncio.sleep(max(0.0, behind))
        task = asyncio.create_task(one(number, chance.choices(classes, weights)[0]))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    offered = count / (time.perf_counter() - started)
    await asyncio.gather(*tasks)
    took = time.perf_counter() - started
    shares = {
        each.name.lower(): ends[each, "OK"] / max(1, sum(n for (kind, _), n in ends.items() if kind is each))
        for each in classes
    }
    codes: Counter[str] = Counter()
    for (_, code), n in ends.items():
        codes[code] += n
    return {"goodput": codes["OK"] / took, "offered": offered, "success": shares, "ends": dict(codes)}


@contextlib.asynccontextmanager
async def callers(platform: Platform) -> AsyncIterator[tuple[Caller, Caller]]:
    policies = Policies("api", load_settings(Settings, policy_file=_POLICIES))
    target = f"127.0.0.1:{platform.port('prediction')}"
    made = [Dependency("api", "prediction", target, policies, 1_000_000) for _ in range(2)]
    try:
        yield Caller(made[0], governed=True), Caller(made[1], governed=False)
    finally:
        for dependency in made:
            await dependency.close()


async def measure(platform: Platform, rounds: int, seconds: float) -> dict[str, Any]:
    peaks: list[float] = []
    runs: dict[str, list[dict[str, Any]]] = {"governed": [], "ungoverned": []}
    async with callers(platform) as (governed, ungoverned):
        await peak(governed, 3.0)  # everything is warm
        for _ in range(rounds):
            peaks.append(await peak(governed, seconds))
            runs["governed"].append(await overload(governed, _FACTOR * peaks[-1], seconds))
            await asyncio.sleep(1.0)
            runs["ungoverned"].append(await overload(ungoverned, _FACTOR * peaks[-1], seconds))
            await asyncio.sleep(1.0)
    result: dict[str, Any] = {"peak_per_second": spread(peaks)}
    for name, found in runs.items():
        shares = [run["goodput"] / before for run, before in zip(found, peaks, strict=True)]
        result[name] = {
            "goodput_share_of_peak": spread(shares),
            "success": {kind: statistics.median(run["success"][kind] for run in found) for kind in found[0]["success"]},
            "runs": found,
        }
    return result


def run(rounds: int, seconds: float) -> dict[str, Any]:
    """Starts the services, measures, ends them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train = [sys.executable, "-m", "aurum.cli", "train", "--machine-type", "pump", "--out", f"{name}/models"]
        subprocess.run(train, check=True, capture_output=True)
        platform = Platform(folder, extra={"AURUM_POLICY_FILE": str(_POLICIES)})
        try:
            for service in ("ingestion", "prediction", "api"):
                platform.start(service)
            command = ["iot-sim", "--machines", str(_MACHINES), "--machine-type", "pump", "--to", "ingestion"]
            platform.start(*command, "--backfill", "300")
            wait_for(lambda: _stored(platform), 60, "the readings are stored")
            platform.processes["iot-sim"].kill(15)
            platform.processes["api"].kill(15)
            return asyncio.run(measure(platform, rounds, seconds))
        finally:
            platform.stop()


def _stored(platform: Platform) -> bool:
    items = http("GET", f"{platform.api}/api/machines").json["items"]
    return len(items) >= _MACHINES and all(item["risk_score"] is not None for item in items)


def goals(result: dict[str, Any]) -> dict[str, Goal]:
    return {
        "overload_goodput_share_of_peak": Goal(result["governed"]["goodput_share_of_peak"]["median"], 0.9),
        "overload_alarm_success": Goal(result["governed"]["success"]["alarm"], 0.99),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    result = run(*((1, 4.0) if arguments.quick else (3, 8.0)))
    report("overload", goals(result), result)


if __name__ == "__main__":
    main()
